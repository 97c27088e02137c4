"""The simulated speaker of a node: the real one's rule (gateway.speaker.liveness), without a BGP daemon.

Routes only ever follow tables, and only while the node's forwarding is alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway.speaker.liveness import SILENT, Liveness, Side, Sight
from lab.fabric.engine import Fabric
from lab.fabric.router import Router

STALE_NS, LOOK_NS = 500_000_000, 100_000_000
# From a decision to the router's table: BIRD takes some milliseconds for a new set.
APPLY_NS = 5_000_000


@dataclass(frozen=True, slots=True)
class Session:
    """With one router: the side it stands on, the router's port towards the node, and the family it carries."""

    name: str
    side: Side
    family: Literal[4, 6]
    router: Router
    port: int


class Speaker:
    """Announces what the node's routes say, or nothing."""

    def __init__(self, fabric: Fabric, node: str, sessions: Sequence[Session]) -> None:
        self.node = node
        self._fabric = fabric
        self._sessions = list(sessions)
        self._liveness = Liveness(STALE_NS)
        self._decided = SILENT
        self._told = SILENT
        self._since_ns = fabric.now

    def look(self, sight: Sight) -> None:
        """Look at the node: ten times a second, and at once when its process has ended."""
        decision = self._liveness.decide(sight, self._fabric.now)
        if decision.alive != self._decided.alive:
            self._since_ns = self._fabric.now
        changed = not decision.same_routes(self._decided) or decision.epoch != self._decided.epoch
        self._decided = decision
        if changed:
            self._fabric.after(APPLY_NS, self._announce)

    def status(self) -> dict[str, Any]:
        """As speaker.json, and that it is simulated."""
        return {
            "node": self.node,
            "epoch": self._told.epoch,
            "announced": list(self._told.routes),
            "edge_announced": list(self._told.edge_routes),
            "forwarding_alive": self._decided.alive,
            "reason": self._decided.reason,
            "sessions": {s.name: "Established" for s in self._sessions},
            "refused": [],
            "since_ns": self._since_ns,
            "written_ns": self._fabric.now,
            "simulated": True,
        }

    def _announce(self) -> None:
        self._told = self._decided
        for session in self._sessions:
            mine = [p for p in self._told.of(session.side) if (6 if ":" in p else 4) == session.family]
            session.router.announce(f"{self.node}/{session.name}", session.port, mine)
