"""The outbox: every notification is tried until its receiver takes it. Clock-driven; sending is the caller's."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.region import SECOND
from analyzer.store import Store

FIRST_WAIT_S = 1
LONGEST_WAIT_S = 60
GIVE_UP_NS = 24 * 3600 * SECOND


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt that is due. `id` stays the same from attempt to attempt."""

    id: str
    receiver: str
    body: bytes
    attempts: int


class Outbox:
    """What is due, and what became of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[str] = set()

    def due(self, now_ns: int) -> list[Delivery]:
        """What to send now: of each receiver and group the oldest only, so that nobody hears "resolved" first."""
        out = []
        blocked: set[tuple[str, str]] = set()
        for row in self._store.pending():
            place = (row["receiver"], row["group_key"])
            if place in blocked:
                continue
            blocked.add(place)
            if row["next_ns"] <= now_ns and row["id"] not in self._under_way:
                self._under_way.add(row["id"])
                out.append(Delivery(row["id"], row["receiver"], row["body"].encode(), row["attempts"]))
        return out

    def done(self, delivery: Delivery, status: int, error: str, now_ns: int) -> str:
        """Note what came of an attempt: "delivered", "pending" or "given_up". `status`: HTTP status, 0 for none."""
        self._under_way.discard(delivery.id)
        attempts = delivery.attempts + 1
        if 200 <= status < 300:
            self._store.mark_delivery(delivery.id, "delivered", attempts, 0, now_ns, None)
            return "delivered"
        error = f"HTTP {status}" if status else error
        created = next((r["created_ns"] for r in self._store.pending() if r["id"] == delivery.id), now_ns)
        if now_ns - created > GIVE_UP_NS:
            self._store.mark_delivery(delivery.id, "given_up", attempts, 0, now_ns, error)
            return "given_up"
        wait = min(FIRST_WAIT_S * 2 ** min(attempts - 1, 10), LONGEST_WAIT_S)
        self._store.mark_delivery(delivery.id, "pending", attempts, now_ns + wait * SECOND, None, error)
        return "pending"
