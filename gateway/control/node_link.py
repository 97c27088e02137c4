"""What control knows of one node. Pure: what the node answered and a clock in, what to do next out.

A node is unreachable after a few missed polls; a node that comes back with another boot or a lower epoch is told
everything again; one that refuses what it is told is asked again slowly, and at once when the text changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.control.desired import Desired

Reach = Literal["unknown", "up", "unreachable"]

FIRST_RETRY_NS, LAST_RETRY_NS = 250_000_000, 5_000_000_000
# No node has had so many desired states; the store could not count on from the last number it can hold.
LAST_EPOCH = 2**62


@dataclass(frozen=True, slots=True)
class Wanted:
    """A desired state with its epoch."""

    epoch: int
    desired: Desired

    @property
    def tables(self) -> dict[str, Any]:
        """The document as it is PUT to the node."""
        return {"epoch": self.epoch, **self.desired.document}


@dataclass(frozen=True, slots=True)
class Speaker:
    """What the node passed on of its speaker. `epoch`: of the tables whose routes it announces.

    `written_ns`: wall time of its last word. Both None when it does not say.
    """

    forwarding_alive: bool | None = None
    announced: tuple[str, ...] = ()
    edge_announced: tuple[str, ...] = ()
    written_ns: int | None = None
    epoch: int | None = None

    @staticmethod
    def read(data: Any) -> Speaker:
        """From the `speaker` part of a status; whatever is not as it should be is unknown."""
        if not isinstance(data, dict):
            return Speaker()
        alive, written, epoch = data.get("forwarding_alive"), data.get("written_ns"), data.get("epoch")
        return Speaker(
            alive if isinstance(alive, bool) else None,
            _texts(data.get("announced")),
            _texts(data.get("edge_announced")),
            written if isinstance(written, int) else None,
            epoch if isinstance(epoch, int) else None,
        )


def _texts(data: Any) -> tuple[str, ...]:
    # Addresses are ASCII; half a surrogate pair could not even be passed on.
    return tuple(x for x in data if isinstance(x, str) and x.isascii()) if isinstance(data, list) else ()


@dataclass(slots=True)
class NodeLink:
    """One node as control sees it. Times in ns since 1970."""

    name: str
    misses_allowed: int = 3
    speaker_stale_ns: int = 5_000_000_000
    wanted: Wanted | None = None
    reach: Reach = "unknown"
    boot_id: str | None = None
    epoch_acked: int | None = None
    last_seen_ns: int | None = None
    error: str | None = None
    # What its tables hold by its own word, and the routes of VIPs they allow.
    held: Desired | None = None
    # An epoch that the node has and control never gave (the store was lost): the next one must be higher.
    ahead_of: int | None = None
    pushes: int = 0
    push_failures: int = 0
    polls_missed: int = 0
    _misses: int = 0
    _speaker: Speaker = field(default_factory=Speaker)
    _failures: int = 0
    _push_at_ns: int = 0

    def want(self, wanted: Wanted) -> None:
        """A new desired state; it is pushed at once, whatever happened to the one before."""
        if self.wanted is None or wanted.epoch != self.wanted.epoch:
            self.wanted = wanted
            self._failures, self._push_at_ns = 0, 0

    def on_status(self, status: Any, now_ns: int) -> None:
        """The node answered a status poll."""
        if not isinstance(status, dict) or status.get("node") != self.name:
            who = status.get("node") if isinstance(status, dict) else type(status).__name__
            self.on_miss(f"expected the status of {self.name}, got that of {who!r}"[:200])
            return
        boot, epoch = status.get("boot_id"), status.get("epoch")
        if boot != self.boot_id:
            self.boot_id = boot if isinstance(boot, str) and boot.isascii() else None
            self.held, self._failures, self._push_at_ns = None, 0, 0
        self.epoch_acked = epoch if isinstance(epoch, int) and 0 < epoch < LAST_EPOCH else None
        self._speaker = Speaker.read(status.get("speaker"))
        self.last_seen_ns, self._misses, self.reach = now_ns, 0, "up"
        if self.error is not None and self._failures == 0:
            self.error = None
        self._compare()

    def on_miss(self, why: str) -> None:
        """A status poll was not answered in time."""
        self._misses += 1
        self.polls_missed += 1
        self.error = why
        if self._misses >= self.misses_allowed:
            self.reach = "unreachable"

    def must_push(self, now_ns: int) -> bool:
        """Whether the node is to be told its desired state now."""
        if self.wanted is None or self._misses > 0 or self.reach != "up" or self.ahead_of is not None:
            return False
        return self.epoch_acked != self.wanted.epoch and now_ns >= self._push_at_ns

    def on_pushed(self, wanted: Wanted) -> None:
        """The node acknowledged this desired state."""
        self.pushes += 1
        self.epoch_acked, self.held = wanted.epoch, wanted.desired
        self._failures, self._push_at_ns, self.error = 0, 0, None
        self._compare()

    def on_push_failed(self, why: str, now_ns: int, refused: bool = False) -> None:
        """The push had no answer, or the node refused it (then asking again soon is no use)."""
        self.push_failures += 1
        self._failures += 1
        wait = LAST_RETRY_NS if refused else min(LAST_RETRY_NS, FIRST_RETRY_NS << min(self._failures - 1, 10))
        self._push_at_ns = now_ns + wait
        self.error = why

    @property
    def acked(self) -> bool:
        """Whether the node holds what is wanted of it now."""
        return self.wanted is not None and self.epoch_acked == self.wanted.epoch

    @property
    def vips_held(self) -> frozenset[int]:
        """The VIP ids in the tables that it acknowledged last; empty when that is not known."""
        return self.held.vips if self.held is not None else frozenset()

    def speaker(self, now_ns: int) -> Speaker:
        """Its speaker's last word; unknown when the word is old or the node does not answer."""
        if self.reach != "up":
            return Speaker()
        written = self._speaker.written_ns
        if written is not None and now_ns - written > self.speaker_stale_ns:
            return Speaker()
        return self._speaker

    def vips_announced(self, now_ns: int) -> frozenset[int]:
        """The VIP ids whose service address its speaker announces, by a word that is later than what is wanted.

        An earlier word may tell of routes that are on their way out.
        """
        if self.wanted is None or not self.acked:
            return frozenset()
        speaker = self.speaker(now_ns)
        if speaker.epoch is not None and speaker.epoch != self.wanted.epoch:
            return frozenset()
        announced = set(speaker.announced)
        return frozenset(vip for vip, route in self.wanted.desired.routes.items() if route in announced)

    def _compare(self) -> None:
        if self.wanted is None or self.epoch_acked is None:
            self.ahead_of = None
            return
        self.ahead_of = self.epoch_acked if self.epoch_acked > self.wanted.epoch else None
        if self.epoch_acked == self.wanted.epoch:
            self.held = self.wanted.desired
