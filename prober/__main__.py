"""`python -m prober CONFIG.toml`: one prober, in the network namespace it is started in."""

from __future__ import annotations

import os
import random
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network

import structlog

from contract.documents import DocumentError, Problem
from contract.fleet import Fleet
from prober.engine import Engine
from prober.fleetfile import FleetFile
from prober.port import Neighbours, Port
from prober.receive import filter_program
from prober.record import Tap
from prober.send import Link
from prober.settings import ENVIRONMENT_PREFIX, Settings, read_key
from service import logs, settings

_BEAT_S = 0.15
_WATCH_S = 1.0
_NEIGHBOURS_S = 10.0
_NEIGHBOURS_UNRESOLVED_S = 0.5
_RESOLVE_S = 1.0
_REPORT_S = 60.0
_LINGER_S = 1.2
_FRAMES = 256

log = structlog.get_logger()


def _clock() -> tuple[int, int]:
    return time.monotonic_ns(), time.time_ns()


class Process:
    """The event loop: one thread, one poll, sleeping until a frame, a due probe or a due chore."""

    def __init__(self, config: Settings) -> None:
        """DocumentError, OSError."""
        self._config = config
        self._file = FleetFile(config.fleet)
        key = read_key(config.key_file)
        fleet = self._file.read()
        self._port = Port(config.interface, self._networks(fleet))
        self._neighbours = Neighbours(self._port, config.next_hop, config.next_hop6)
        self._tap = Tap(config.tap_dir, config.name, os.urandom(16), config.tap_capacity, time.time_ns())
        self._engine = Engine(
            config.name,
            key,
            config.limits,
            clock=_clock,
            transmit=self._port.transmit,
            record=self._tap.write,
            rng=random.Random(),  # noqa: S311 (nonces need to differ, not to be secret)
        )
        self._engine.link = self._first_link()
        self._engine.set_fleet(fleet, str(config.fleet))
        self._say_plan()
        self._chores: dict[str, float] = {}

    def _networks(self, fleet: Fleet) -> Sequence[IPv4Network | IPv6Network]:
        for at, prober in enumerate(fleet.probing.probers):
            if prober.name == self._config.name:
                try:
                    filter_program(prober.sources)
                except ValueError as error:
                    problem = Problem(f"probing.probers[{at}].sources", str(error), f"a list of {len(prober.sources)}")
                    raise DocumentError(str(self._config.fleet), [problem]) from None
                return prober.sources
        names = ", ".join(p.name for p in fleet.probing.probers)
        raise DocumentError(
            str(self._config.fleet),
            [Problem("probing.probers", f"expected a prober named {self._config.name!r}", names)],
        )

    def _first_link(self) -> Link:
        """The link with its next hops resolved, or as it is after a second: then probes are recorded as unsent."""
        end = time.monotonic() + _RESOLVE_S
        while self._unresolved(link := self._neighbours.link()) and time.monotonic() < end:
            time.sleep(0.02)
        return link

    def _unresolved(self, link: Link | None) -> bool:
        return link is None or (
            (self._config.next_hop is not None and link.next_hop is None)
            or (self._config.next_hop6 is not None and link.next_hop6 is None)
        )

    def run(self, wake: socket.socket) -> None:
        """Until a byte comes on `wake`."""
        poll = select.epoll()
        poll.register(self._port.socket, select.EPOLLIN)
        poll.register(wake, select.EPOLLIN)
        stop_at: float | None = None
        while stop_at is None or (time.monotonic() < stop_at and self._engine.judge.undecided):
            due = self._engine.turn(self._port.receive(_FRAMES, time.time_ns()))
            sleep = self._do_chores(time.monotonic())
            if due is not None:
                sleep = min(sleep, max(0.0, due / 1e9 - time.monotonic()))
            ready = poll.poll(sleep)
            if stop_at is None and any(fd == wake.fileno() for fd, _ in ready):
                stop_at = time.monotonic() + _LINGER_S
                poll.unregister(wake)
                self._engine.stop_sending()
        self._end()

    def _do_chores(self, now: float) -> float:
        """Do what is due of the chores; seconds until the next."""
        if self._due("beat", now, _BEAT_S):
            self._tap.beat(time.time_ns())
        if self._due("watch", now, _WATCH_S) and self._file.changed():
            self._reload()
        every = _NEIGHBOURS_UNRESOLVED_S if self._unresolved(self._engine.link) else _NEIGHBOURS_S
        if self._due("neighbours", now, every):
            self._engine.link = self._neighbours.link()
        if self._due("report", now, _REPORT_S):
            self._report()
        return max(0.0, min(self._chores.values()) - now)

    def _due(self, chore: str, now: float, every: float) -> bool:
        at = self._chores.setdefault(chore, now + every if chore == "report" else now)
        if now < min(at, now + every):
            return False
        self._chores[chore] = now + every
        return True

    def _reload(self) -> None:
        try:
            fleet = self._file.read()
            networks = self._networks(fleet)
            self._engine.set_fleet(fleet, str(self._config.fleet))
            self._port.set_networks(networks)
        except DocumentError as error:
            log.error("fleet refused, the old one stays", problem=str(error))
        else:
            self._say_plan()

    def _say_plan(self) -> None:
        plan = self._engine.plan
        if plan is None:
            return
        log.info("probing", targets=len(plan.targets), period_s=plan.period_ns / 1e9, tap=str(self._tap.path))
        if plan.stretched:
            log.warning("period stretched to keep limits.probes_per_s", period_s=plan.period_ns / 1e9)
        if plan.unreachable:
            log.warning("targets without a source of their IP version", count=len(plan.unreachable))

    def _report(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        log.info(
            "prober",
            **self._engine.counts,
            **self._engine.judge.counts,
            open=len(self._engine.judge),
            frames_lost=self._port.lost(),
            cpu_s=round(usage.ru_utime + usage.ru_stime, 2),
        )

    def _end(self) -> None:
        left = self._engine.close()
        if left:
            log.warning("stopped with probes undecided, they leave no record", count=left)
        self._report()
        self._tap.close()
        self._neighbours.close()
        self._port.close()


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Status 2: the configuration, the fleet or the key was refused; 1: no such port."""
    if len(arguments) != 1:
        print("usage: python -m prober CONFIG.toml", file=sys.stderr)
        return 2
    try:
        config = settings.load(arguments[0], Settings, ENVIRONMENT_PREFIX)
        logs.configure(f"prober {config.name}", config.log_level)
        process = Process(config)
    except DocumentError as error:
        settings.refuse(error)
    except OSError as error:
        print(f"{arguments[0]}: cannot probe from this interface: {error}", file=sys.stderr)
        return 1
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    process.run(reader)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
