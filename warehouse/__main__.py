"""The process that owns the embedded engine: `python -m warehouse CONFIG.toml`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import structlog

from contract.documents import DocumentError, Problem
from service import listen, logs
from service.settings import load, read_text, refuse
from warehouse import migrate
from warehouse.engine import THREADS, Engine, EngineError
from warehouse.lanes import lanes_of, reader_places
from warehouse.revisions import Variant
from warehouse.rollups import Roller
from warehouse.scrub import Scrub
from warehouse.server import Account, Server, judge_of
from warehouse.settings import MIN_PASSWORD, Settings, User

log = structlog.get_logger()


def account(user: User, *, reader: bool, local: bool = True) -> Account:
    """The account of a configured user. `local`: only this machine can reach the server.

    DocumentError when the password file is empty or unreadable, or the password too short for an open address.
    """
    password = read_text(user.password_file).strip()
    if not password:
        raise DocumentError(str(user.password_file), [Problem("", "expected a password", "an empty file")])
    if not local and len(password) < MIN_PASSWORD:
        expected = f"expected at least {MIN_PASSWORD} characters, since the warehouse does not listen on loopback"
        raise DocumentError(str(user.password_file), [Problem("", expected, "(not shown)")])
    return Account(user.name, password, reader)


def main(arguments: list[str]) -> int:
    """Run until SIGTERM. 2 for a bad configuration or a path that another process holds."""
    if len(arguments) != 1:
        print("usage: python -m warehouse CONFIG.toml", file=sys.stderr)
        return 2
    try:
        settings = load(Path(arguments[0]), Settings, "TGW_WAREHOUSE_")
        local = settings.listen.is_local
        accounts = [
            account(settings.writer, reader=False, local=local),
            account(settings.reader, reader=True, local=local),
        ]
    except DocumentError as error:
        refuse(error)
    logs.configure("warehouse", settings.log_level)
    # An answer that fails in its midst is left without its end on purpose, see replies.py.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "without completing response" not in record.msg)
    # A thread that judges a long statement gives way sooner to the event loop.
    sys.setswitchinterval(0.001)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        engine = Engine(
            settings.state_dir / "chdb",
            settings.database,
            reader_seconds=settings.reader_seconds,
        )
    except EngineError as error:
        print(f"{settings.state_dir / 'chdb'}: the engine cannot be opened: {error}", file=sys.stderr)
        return 2
    roller = Roller(engine, settings.database)
    try:
        done = migrate.migrate(engine, Variant(database=settings.database, retention=settings.retention))
        log.info("warehouse.ready", revisions=done, port=settings.listen.port)
        caps = {
            "max_execution_time": settings.reader_seconds,
            "max_memory_usage": reader_places(settings.reader_bytes)[-1].memory,
            "max_threads": THREADS,
        }
        judge = judge_of(engine, settings.database, settings.max_body_bytes, settings.max_statement_chars, caps)
        lanes, scrub = lanes_of(settings.reader_bytes), Scrub([settings.state_dir])
        app = Server(engine, accounts, settings.max_body_bytes, judge, scrub, lanes, settings.reader_seconds).app
        serving = listen.server(app, settings.listen)
        end = serving.handle_exit

        def stop(number: int, frame: FrameType | None) -> None:
            # What is being inserted is waited for; a dashboard's long query is not.
            threading.Thread(target=engine.end_reads).start()
            end(number, frame)

        serving.handle_exit = stop  # type: ignore[method-assign, assignment]
        # At its end uvicorn sends itself the signal again: that must not end us before the engine is shut.
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, lambda *_: None)
        roller.start()
        asyncio.run(serving.serve())
    except migrate.SchemaError as error:
        print(f"{settings.state_dir / 'chdb'}: {error}", file=sys.stderr)
        return 2
    finally:
        roller.end()
        engine.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
