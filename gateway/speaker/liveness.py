"""Whether the node's forwarding is alive, and so what may be announced. Pure: what is seen and a clock in, a set out.

The rule: routes only ever follow tables, and never outlive the data plane. "No data" is not healthy: without a process,
without taps or without a heartbeat that moves nothing is announced.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["fabric", "edge"]


class RoutesError(ValueError):
    """routes.json is not what a node writes; the message says where."""


@dataclass(frozen=True, slots=True)
class Routes:
    """routes.json. `refused`: what stands there as a route and is none; the others are announced all the same."""

    epoch: int
    boot_id: str
    pid: int
    routes: tuple[str, ...]
    edge_routes: tuple[str, ...]
    taps: tuple[str, ...]
    refused: tuple[str, ...] = ()

    @staticmethod
    def parse(text: str) -> Routes:
        """RoutesError names the field and what was expected there."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RoutesError(f"expected JSON: {error}") from None
        if not isinstance(data, dict):
            raise RoutesError(f"expected an object, got {type(data).__name__}")
        epoch, pid, boot_id = data.get("epoch"), data.get("pid"), data.get("boot_id")
        if not isinstance(epoch, int) or epoch < 0:
            raise RoutesError(f"epoch: expected a number from 0 up, got {epoch!r}")
        if not isinstance(pid, int) or pid < 1:
            raise RoutesError(f"pid: expected a process id, got {pid!r}")
        if not isinstance(boot_id, str) or not boot_id:
            raise RoutesError(f"boot_id: expected a text, got {boot_id!r}")
        refused: list[str] = []
        routes = _prefixes(data, "routes", refused)
        edge_routes = _prefixes(data, "edge_routes", refused)
        taps = data.get("taps")
        if not isinstance(taps, list) or not all(isinstance(t, str) for t in taps):
            raise RoutesError("taps: expected a list of paths")
        return Routes(epoch, boot_id, pid, routes, edge_routes, tuple(taps), tuple(refused))


def _prefixes(data: dict[str, Any], key: str, refused: list[str]) -> tuple[str, ...]:
    given = data.get(key)
    if not isinstance(given, list):
        raise RoutesError(f"{key}: expected a list of prefixes, got {type(given).__name__}")
    good = set()
    for item in given:
        try:
            # The module takes a number for an address too.
            good.add(ipaddress.ip_network(item if isinstance(item, str) else ""))
        except ValueError:
            refused.append(f"{key}: {item!r}"[:120])
    return tuple(str(n) for n in sorted(good, key=lambda n: (n.version, n.network_address.packed, n.prefixlen)))


@dataclass(frozen=True, slots=True)
class Sight:
    """What the speaker sees in one look. `heartbeats`: one per tap of the node; None: no tap there, or closed."""

    routes: Routes | None
    process_alive: bool = False
    heartbeats: Sequence[int | None] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to announce now, and why. Without forwarding both sets are empty."""

    alive: bool
    reason: str
    epoch: int = 0
    routes: tuple[str, ...] = ()
    edge_routes: tuple[str, ...] = ()

    def of(self, side: Side) -> tuple[str, ...]:
        """The set of one side."""
        return self.routes if side == "fabric" else self.edge_routes

    def same_routes(self, other: Decision) -> bool:
        """Whether the routers would see no difference."""
        return (self.routes, self.edge_routes) == (other.routes, other.edge_routes)


SILENT = Decision(False, "not looked yet")


class Liveness:
    """Follows one node through its lives.

    A heartbeat counts by its movement on our own monotonic clock, not by the time written in it: a step of the wall
    clock withdraws nothing, and a value left by an earlier life proves nothing.
    """

    def __init__(self, stale_ns: int) -> None:
        self._stale_ns = stale_ns
        self._boot: str | None = None
        self._gone: str | None = None
        # By tap: the value last seen, and when it was first seen to have moved to it.
        self._values: list[int | None] = []
        self._moved: list[int | None] = []

    def decide(self, sight: Sight, now_ns: int) -> Decision:
        """What may be announced, given this look at `now_ns` (monotonic)."""
        routes = sight.routes
        if routes is None:
            return Decision(False, "the node has written no routes")
        if routes.boot_id != self._boot or len(self._values) != len(sight.heartbeats):
            self._boot = routes.boot_id
            self._values = [None] * len(sight.heartbeats)
            self._moved = [None] * len(sight.heartbeats)
        if not sight.process_alive:
            self._gone = routes.boot_id
        if routes.boot_id == self._gone:
            # The next life must write its own routes: these belong to tables that nobody holds any more.
            return Decision(False, f"process {routes.pid} of the node is gone")
        self._follow(sight.heartbeats, now_ns)
        if not sight.heartbeats:
            return Decision(False, "the node names no taps")
        for tap, (value, moved) in enumerate(zip(self._values, self._moved, strict=True)):
            if value is None:
                return Decision(False, f"tap {tap} is not there or closed")
            if moved is None:
                return Decision(False, f"tap {tap} has not been seen to beat")
            if now_ns - moved > self._stale_ns:
                return Decision(False, f"tap {tap} has not beaten for {(now_ns - moved) // 1_000_000} ms")
        return Decision(True, "alive", routes.epoch, routes.routes, routes.edge_routes)

    def _follow(self, heartbeats: Sequence[int | None], now_ns: int) -> None:
        for tap, value in enumerate(heartbeats):
            before = self._values[tap]
            if value is None:
                self._moved[tap] = None
            elif before is not None and value != before:
                self._moved[tap] = now_ns
            self._values[tap] = value
