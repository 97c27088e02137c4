"""`python -m gateway.control CONFIG.toml`"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import structlog

from contract.documents import DocumentError, Problem, parse
from contract.fleet import Fleet
from gateway.api.app import create
from gateway.control.cluster_operator import Pace
from gateway.control.node_client import HttpNodeClient
from gateway.control.orchestrator import Conflict, Orchestrator, Timing
from gateway.control.settings import ControlSettings, read_probe_key
from gateway.control.store import Store, StoreError, WriteFailed
from service import logs
from service import settings as files
from service.listen import server

log = structlog.get_logger()


async def serve(settings: ControlSettings, probe_key: str, fleet: Fleet | DocumentError | None) -> None:
    """Run the control plane and its API until the server is told to stop.

    `fleet`: the document of the settings, or what is wrong with it (DocumentError, raised when the store has none).
    """
    store = Store(settings.store_path)
    if isinstance(fleet, DocumentError):
        if store.fleet() is None:
            store.close()
            raise fleet
        # Control must come up again after an upgrade whose rules its own file breaks.
        log.error("the fleet file is refused; the stored document stays in force", problem=str(fleet))
        fleet = None
    client = HttpNodeClient(settings.socket, settings.poll_timeout_s, settings.push_timeout_s)
    timing = Timing(
        Pace(settings.poll_s, settings.urgent_poll_s),
        settings.misses,
        settings.speaker_stale_s,
        settings.configure_timeout_s,
        settings.announce_timeout_s,
        concurrency=settings.concurrency,
    )
    orchestrator = Orchestrator(store, client, probe_key, timing, keep=settings.keep)
    if fleet is not None and store.open_faults:
        # Only a person can know what holds: the file's word would take tables away in the middle of a migration.
        log.error("the fleet file is not applied: control holds still", why=orchestrator.fault)
    elif fleet is not None:
        try:
            orchestrator.apply_fleet(fleet, "control.toml")
        except (Conflict, WriteFailed) as error:
            log.warning("the fleet file is not applied now", reason=str(error))
    work = asyncio.create_task(orchestrator.run(), name="orchestrator")
    http = server(create(orchestrator), settings.api)
    # The server raises a signal anew once it has stopped: the rest of an orderly end must survive that.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(http, "should_exit", True))
    # An orchestrator that ends takes the API with it: half a control plane would look healthy.
    work.add_done_callback(lambda _: setattr(http, "should_exit", True))
    try:
        await http.serve()
    finally:
        ended = work.done()
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await client.close()
        store.close()
    if ended:
        raise RuntimeError("the orchestrator has ended")


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or SIGINT. Status 2: the configuration, the key or the fleet file is refused."""
    if len(arguments) != 1:
        print("usage: python -m gateway.control CONFIG.toml", file=sys.stderr)
        return 2
    try:
        settings = files.load(arguments[0], ControlSettings, "TGW_CONTROL_")
        key = read_probe_key(settings.probe_key_file)
        fleet: Fleet | DocumentError | None = None
        if settings.fleet is not None:
            try:
                fleet = parse(files.read_text(settings.fleet), Fleet, str(settings.fleet))
            except DocumentError as error:
                fleet = error
    except DocumentError as error:
        files.refuse(error)
    logs.configure("control", settings.log_level)
    try:
        asyncio.run(serve(settings, key, fleet))
    except DocumentError as error:
        files.refuse(error)
    except StoreError as error:
        files.refuse(DocumentError("store", [Problem("", "expected a store of control", str(error))]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
