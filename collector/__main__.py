"""`python -m collector CONFIG.toml`: one thread reads and spools, one ships."""

from __future__ import annotations

import logging
import queue
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Sequence

import structlog

from collector.core import Collector
from collector.settings import ENVIRONMENT_PREFIX, Settings
from collector.ship import Schedule, deliver
from collector.spool import DirectoryStore
from collector.taps import TapDirectory, process_alive
from contract.documents import DocumentError
from service import logs, settings
from warehouse.client import Connection, Refused, Unavailable

_REPORT_NS = 60_000_000_000
_END_S = 1.2

log = structlog.get_logger()
# A batch's name and what went wrong with it, None when it was taken.
Result = tuple[str, Exception | None]


class Shipper(threading.Thread):
    """Delivers one batch at a time; says on `results` how it went."""

    def __init__(self, warehouse: Connection, results: queue.SimpleQueue[Result | None]) -> None:
        super().__init__(name="ship", daemon=True)
        self.jobs: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self.busy = False
        self._warehouse = warehouse
        self._results = results

    def run(self) -> None:
        while True:
            name, data = self.jobs.get()
            try:
                deliver(data, self._warehouse.insert_arrow)
            except (Unavailable, Refused) as error:
                self._results.put((name, error))
            except Exception as error:  # a fault of ours must not end shipping; the batch stays in the spool
                log.exception("batch could not be delivered", batch=name)
                self._results.put((name, Refused(str(error))))
            else:
                self._results.put((name, None))


class Process:
    """Ties the core to the clock, the shipper and the logs."""

    def __init__(self, config: Settings) -> None:
        """OSError when the spool directory cannot be used."""
        self.events: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
        store = DirectoryStore(config.spool_dir)
        if store.unfinished:
            log.info("unfinished spool files removed, their records are still in the taps", count=store.unfinished)
        self._core = Collector(
            TapDirectory(config.taps_dir),
            store,
            spool_max_bytes=config.spool_max_bytes,
            intervals=config.intervals,
            alive=process_alive,
            say=log.warning,
            now_ns=time.time_ns(),
        )
        self._schedule = Schedule(random.Random())  # noqa: S311 (jitter)
        self._shipper = Shipper(Connection(config.warehouse), self.events)
        self._reachable = True
        self._next_report = time.time_ns() + _REPORT_NS

    def run(self) -> None:
        """Until None comes on `events`; then everything is spooled, and shipped as far as a second allows."""
        self._shipper.start()
        end: float | None = None
        while end is None or (self._core.pending() and self._reachable and time.monotonic() < end):
            now = time.time_ns()
            wake = self._core.turn(now) if end is None else now + 50_000_000
            sleep = min((wake - time.time_ns()) / 1e9, self._ship())
            if now >= self._next_report:
                self._next_report = now + _REPORT_NS
                self._report()
            try:
                event = self.events.get(timeout=max(0.001, sleep))
            except queue.Empty:
                continue
            if event is None:
                end = time.monotonic() + _END_S
                self._core.turn(time.time_ns(), at_once=True)
            else:
                self._take(*event)
        self._report()
        self._core.close()

    def _ship(self) -> float:
        """Give the shipper its next batch; seconds until there may be one to give."""
        now = time.monotonic_ns()
        while not self._shipper.busy and (name := self._schedule.next(self._core.pending(), now)) is not None:
            data = self._core.load(name)
            if data is not None:
                self._shipper.busy = True
                self._shipper.jobs.put((name, data))
        wake = None if self._shipper.busy else self._schedule.wake(self._core.pending(), now)
        return 3600.0 if wake is None else (wake - now) / 1e9

    def _take(self, name: str, error: Exception | None) -> None:
        self._shipper.busy = False
        if error is None:
            if not self._reachable:
                log.info("warehouse takes batches again", waiting=len(self._core.pending()))
            self._reachable = True
            self._core.shipped(name)
            self._schedule.shipped(name)
            return
        if self._reachable or isinstance(error, Refused):
            kind = "refuses a batch" if isinstance(error, Refused) else "cannot be reached"
            log.warning(f"warehouse {kind}", batch=name, problem=str(error)[:500])
        self._reachable = False
        if isinstance(error, Refused):
            self._schedule.refused(name, time.monotonic_ns())
        else:
            self._schedule.unavailable(time.monotonic_ns())

    def _report(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        log.info(
            "collector",
            **self._core.counts,
            pending=len(self._core.pending()),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 2),
        )


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Status 2: the configuration was refused; 1: the spool cannot be used."""
    if len(arguments) != 1:
        print("usage: python -m collector CONFIG.toml", file=sys.stderr)
        return 2
    try:
        config = settings.load(arguments[0], Settings, ENVIRONMENT_PREFIX)
        logs.configure(config.name, config.log_level)
        # The driver's own line for each failed attempt; ours says it once, and when it is over.
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)
        settings.read_text(config.warehouse.password_file)
        process = Process(config)
    except DocumentError as error:
        settings.refuse(error)
    except OSError as error:
        print(f"{arguments[0]}: cannot use the spool: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        # SimpleQueue.put may be called from a signal handler.
        signal.signal(number, lambda *_: process.events.put(None))
    process.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
