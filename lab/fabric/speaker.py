"""The simulated speaker of a node: the rule of gateway/speaker.py without a BGP daemon.

Routes only ever follow tables, and only while the node's forwarding is alive: a heartbeat older than the limit, or the
process gone, withdraws everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.fabric.engine import Fabric
from lab.fabric.router import Router

STALE_NS = 500_000_000
# What the real speaker takes: it looks every 100 ms, and BIRD applies a new set in some milliseconds.
NOTICE_NS, APPLY_NS = 50_000_000, 5_000_000


@dataclass(frozen=True, slots=True)
class Session:
    """With one router: the side it stands on, and its port towards the node."""

    name: str
    side: str
    router: Router
    port: int


@dataclass(frozen=True, slots=True)
class _Wanted:
    epoch: int
    boot_id: str
    routes: tuple[str, ...]
    edge_routes: tuple[str, ...]


class Speaker:
    """Announces what the tables say, or nothing."""

    def __init__(self, fabric: Fabric, node: str, sessions: Sequence[Session]) -> None:
        self.node = node
        self.since_ns = fabric.now
        self.epoch = 0
        self._fabric = fabric
        self._sessions = list(sessions)
        self._wanted: _Wanted | None = None
        self._beaten: int | None = None
        self._alive = False
        self._planned = 0

    @property
    def forwarding_alive(self) -> bool:
        """Whether the node beats and has written its tables in this life."""
        return self._alive

    def want(self, epoch: int, boot_id: str, routes: Sequence[str], edge_routes: Sequence[str]) -> None:
        """The node has applied tables."""
        self._wanted = _Wanted(epoch, boot_id, tuple(routes), tuple(edge_routes))
        self._plan(NOTICE_NS + APPLY_NS)

    def beat(self, now: int) -> None:
        """The node's workers have turned."""
        self._beaten = now

    def gone(self) -> None:
        """The node's process has ended: its file descriptor says so at once."""
        self._beaten = None
        # The next life starts without tables, and so without routes.
        self._wanted = None
        self._plan(APPLY_NS)

    def look(self, now: int) -> None:
        """Compare the heartbeat with the clock; ten times a second."""
        alive = self._beats(now)
        if alive != self._alive:
            self._plan(APPLY_NS)

    def status(self) -> dict[str, Any]:
        """As speaker.json."""
        return {
            "node": self.node,
            "epoch": self.epoch,
            "announced": self._announced("fabric"),
            "edge_announced": self._announced("edge"),
            "forwarding_alive": self._alive,
            "sessions": {s.name: "simulated" for s in self._sessions},
            "since_ns": self.since_ns,
        }

    def _beats(self, now: int) -> bool:
        return self._wanted is not None and self._beaten is not None and now - self._beaten <= STALE_NS

    def _announced(self, side: str) -> list[str]:
        return sorted({p for s in self._sessions if s.side == side for p in s.router.announced(self.node)})

    def _plan(self, delay_ns: int) -> None:
        self._planned += 1
        self._fabric.after(delay_ns, self._announce, self._planned)

    def _announce(self, planned: int) -> None:
        if planned != self._planned:
            return
        self._alive = self._beats(self._fabric.now)
        wanted = self._wanted if self._alive else None
        changed = False
        for session in self._sessions:
            prefixes: Sequence[str] = ()
            if wanted is not None:
                prefixes = wanted.routes if session.side == "fabric" else wanted.edge_routes
            changed |= session.router.announce(self.node, session.port, prefixes)
        self.epoch = wanted.epoch if wanted is not None else 0
        if changed:
            self.since_ns = self._fabric.now
