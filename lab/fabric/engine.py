"""The simulated world: a clock that the caller moves, an event heap, links between stations, and an exact account."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

ETHERNET = 14


class Station(Protocol):
    """Whatever a link ends at: a router, a node, a host."""

    name: str

    def receive(self, port: int, frame: bytes) -> None:
        """Take a frame that arrived on `port` at Fabric.now."""


@dataclass(slots=True)
class Account:
    """Where every frame is: originated = delivered + sum(dropped) + in_flight + inside, whenever no event is being run.

    `originated`: frames made by hosts, probers and routers (ICMP). `delivered`: frames that a host or prober took.
    `in_flight`: frames on links. `inside`: frames that went into a node's pipelines and have not come out, because
    they were dropped or are held there; the pipelines' own counters say which.
    """

    originated: int = 0
    delivered: int = 0
    in_flight: int = 0
    inside: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def balance(self) -> int:
        """0 when every frame is accounted for."""
        return self.originated - self.delivered - self.in_flight - self.inside - self.dropped.total()


@dataclass(slots=True)
class _Link:
    ends: tuple[tuple[Station, int], tuple[Station, int]]
    mtu: int
    delay_ns: int
    jitter_ns: int
    loss: float
    # A link is a queue: a frame never overtakes the one before it. One time of arrival per direction.
    last: list[int]


class Fabric:
    """Everything that happens, in order of time. `now`: ns since 1970, the time of the event being run.

    Randomness (delays, losses) comes from `seed` alone: the same seed and inputs give the same run.
    """

    def __init__(self, now_ns: int, seed: int = 0) -> None:
        self.now = now_ns
        self.random = random.Random(seed)  # noqa: S311 - a simulation, no secret
        self.account = Account()
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._links: dict[tuple[str, int], _Link] = {}

    def at(self, when_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action` at a time; at once (after what is due) when that has passed."""
        self._count += 1
        heapq.heappush(self._events, (max(when_ns, self.now), self._count, action, arguments))

    def after(self, delay_ns: int, action: Callable[..., None], *arguments: Any) -> None:
        """Run `action` after some time."""
        self.at(self.now + delay_ns, action, *arguments)

    @property
    def next_event(self) -> int | None:
        """When something happens next [ns since 1970]; None for never."""
        return self._events[0][0] if self._events else None

    def advance(self, now_ns: int, limit: int | None = None) -> int:
        """Run what is due up to and including `now_ns`; the number of events.

        With `limit`, at most so many, and the clock stands at the last of them when some were left.
        """
        done = 0
        while self._events and self._events[0][0] <= now_ns:
            if done == limit:
                return done
            when, _, action, arguments = heapq.heappop(self._events)
            self.now = when
            action(*arguments)
            done += 1
        self.now = max(self.now, now_ns)
        return done

    def connect(
        self,
        one: tuple[Station, int],
        other: tuple[Station, int],
        mtu: int,
        delay_ns: int = 40_000,
        jitter_ns: int = 20_000,
        loss: float = 0.0,
    ) -> None:
        """Join two (station, port). Each frame takes `delay_ns` and up to `jitter_ns` more. ValueError: port taken."""
        link = _Link((one, other), mtu, delay_ns, jitter_ns, loss, [0, 0])
        for station, port in (one, other):
            if (station.name, port) in self._links:
                raise ValueError(f"{station.name} port {port}: expected a port without a link")
            self._links[station.name, port] = link

    def set_loss(self, station: Station, port: int, loss: float) -> None:
        """Let the link at a port lose this share of its frames, both ways. KeyError: no link there."""
        self._links[station.name, port].loss = loss

    def originate(self, station: Station, port: int, frame: bytes) -> None:
        """A host puts a frame of its own on its link."""
        self.account.originated += 1
        self.transmit(station, port, frame)

    def transmit(self, station: Station, port: int, frame: bytes, wait_ns: int = 0) -> None:
        """Put a frame that is on its way already on the link at a port, `wait_ns` from now."""
        link = self._links.get((station.name, port))
        if link is None:
            return self.drop("no_link")
        if len(frame) - ETHERNET > link.mtu:
            return self.drop("link_mtu")
        if link.loss and self.random.random() < link.loss:
            return self.drop("link_loss")
        side = 0 if link.ends[0][0] is station and link.ends[0][1] == port else 1
        arrival = self.now + wait_ns + link.delay_ns + int(self.random.random() * link.jitter_ns)
        arrival = link.last[side] = max(arrival, link.last[side])
        self.account.in_flight += 1
        self.at(arrival, self._arrive, *link.ends[1 - side], frame)
        return None

    def deliver(self) -> None:
        """A host has taken a frame."""
        self.account.delivered += 1

    def drop(self, reason: str, count: int = 1) -> None:
        """Frames have ended here."""
        self.account.dropped[reason] += count

    def _arrive(self, station: Station, port: int, frame: bytes) -> None:
        self.account.in_flight -= 1
        station.receive(port, frame)
