"""What is known of each tap's feed: how far it has landed, whether its writer lives, what it lost.

"No feed" is not "zero": every question about absence of records asks here first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from analyzer.region import SECOND
from analyzer.rows import Batch, Feed, Loss

FOREVER = 1 << 62
STALE_HEARTBEAT_NS = 2 * SECOND
GONE_NS = 4 * SECOND
KEEP_LOSSES = 256
KEEP_TAPS = 16  # of former boots of a node

# What Feeds.status says of a node.
BEATING, STALE, ENDED, GONE, UNKNOWN = "beating", "stale", "ended", "gone", "unknown"
STOPPED = (STALE, ENDED, GONE)


@dataclass(slots=True)
class Tap:
    """One tap file: a worker of one boot of a node."""

    first_ns: int
    last: Feed
    # Every record written before this time has landed.
    landed_ns: int = 0
    landed_seq: int = 0
    marks: deque[tuple[int, int]] = field(default_factory=deque)
    # Not even the losses that the tap itself counted say when exactly: from the last good report to the bad one.
    losses: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=KEEP_LOSSES))

    @property
    def complete(self) -> bool:
        """The writer is gone and all it wrote has landed."""
        return not self.last.alive and self.landed_seq >= self.last.write_cursor

    def settle(self) -> None:
        """Move `landed_ns` up to where `landed_seq` reaches."""
        while self.marks and self.marks[0][1] <= self.landed_seq:
            self.landed_ns = self.marks.popleft()[0]


class Feeds:
    """The state of all taps. Feed it rows in any order; older ones than known are ignored."""

    def __init__(self) -> None:
        self._taps: dict[str, dict[tuple[str, int], Tap]] = {}
        self.latest_ns = 0

    def add(self, row: Feed) -> None:
        """Take one report of the collector."""
        self.latest_ns = max(self.latest_ns, row.ts_ns)
        taps = self._taps.setdefault(row.node, {})
        tap = taps.get((row.boot_id, row.worker))
        if tap is None:
            tap = taps[(row.boot_id, row.worker)] = Tap(row.ts_ns, row)
            if row.lost:
                # Lost before anybody looked: it is not known when.
                tap.losses.append((0, row.ts_ns, row.lost))
        elif row.ts_ns <= tap.last.ts_ns:
            return
        else:
            if row.lost > tap.last.lost:
                tap.losses.append((tap.last.ts_ns, row.ts_ns, row.lost - tap.last.lost))
            tap.last = row
        tap.marks.append((row.ts_ns, row.write_cursor))
        tap.landed_seq = max(tap.landed_seq, row.shipped)
        tap.settle()
        self._forget(row.node)

    def add_batch(self, row: Batch) -> None:
        """Take the word that a batch is in. Batches of a tap go in in order, so all before it is in too."""
        tap = self._taps.get(row.node, {}).get((row.boot_id, row.worker))
        if tap is not None and row.next_seq > tap.landed_seq:
            tap.landed_seq = row.next_seq
            tap.settle()

    def add_loss(self, row: Loss) -> None:
        """Take one loss that the collector found (a gap in a tap)."""
        tap = self._taps.get(row.node, {}).get((row.boot_id, row.worker))
        if tap is not None and not any(t == row.ts_ns and c == row.records for _, t, c in tap.losses):
            tap.losses.append((row.ts_ns - 5 * SECOND, row.ts_ns, row.records))

    def _forget(self, node: str) -> None:
        # Old boots stay a while for questions about the past; of the present one every worker counts.
        taps = self._taps[node]
        if len(taps) <= KEEP_TAPS:
            return
        present = max(taps.items(), key=lambda item: item[1].first_ns)[0][0]
        old = [key for key in taps if key[0] != present]
        if len(old) > KEEP_TAPS:
            del taps[min(old, key=lambda k: taps[k].last.ts_ns)]

    def boot(self, node: str) -> str:
        """The newest boot of a node; "" when none was seen."""
        taps = self._taps.get(node)
        return max(taps.items(), key=lambda item: item[1].first_ns)[0][0] if taps else ""

    def _present(self, node: str) -> list[Tap]:
        """The taps of the newest boot of a node."""
        newest = self.boot(node)
        return [t for (boot, _), t in self._taps.get(node, {}).items() if boot == newest]

    def known(self, node: str) -> bool:
        """Whether any tap of the node was ever reported."""
        return node in self._taps

    def names(self) -> list[str]:
        """Every node and prober that ever had a feed."""
        return list(self._taps)

    def landed(self, node: str) -> int:
        """Every record that the node wrote before this time has landed; FOREVER when no more can come."""
        taps = self._taps.get(node)
        if not taps:
            return FOREVER
        least = FOREVER
        for tap in taps.values():
            if not tap.complete and self.latest_ns - tap.last.ts_ns < GONE_NS:
                least = min(least, tap.landed_ns)
        return least

    def silent_since(self, node: str) -> int | None:
        """When the reports about a node that was alive stopped, although others go on; None when they did not."""
        taps = self._present(node)
        if not taps:
            return None
        last = max(t.last.ts_ns for t in taps)
        gone = self.latest_ns - last >= GONE_NS and any(t.last.alive for t in taps)
        return last if gone else None

    def status(self, node: str) -> str:
        """beating | stale (its process lives, a worker does not turn) | ended | gone (no reports of it) | unknown."""
        taps = self._present(node)
        if not taps:
            return UNKNOWN
        if all(not t.last.alive for t in taps):
            return ENDED
        if self.silent_since(node) is not None:
            return GONE
        living = [t for t in taps if t.last.alive]
        if any(t.last.ts_ns - t.last.heartbeat_ns > STALE_HEARTBEAT_NS for t in living):
            return STALE
        return BEATING

    def heartbeat_ns(self, node: str) -> int | None:
        """The oldest of the last heartbeats of the node's workers."""
        taps = self._present(node)
        return min((t.last.heartbeat_ns for t in taps), default=None)

    def lost_between(self, node: str, start_ns: int, end_ns: int) -> int:
        """Records of the node that were lost in reports that touch this time."""
        return sum(
            count
            for tap in self._taps.get(node, {}).values()
            for begin, end, count in tap.losses
            if begin <= end_ns and start_ns <= end
        )

    def ended_near(self, node: str, ts_ns: int, margin_ns: int) -> bool:
        """Whether a writer of the node ended, or stopped turning, about that time: its last batch may be unwritten."""
        for tap in self._taps.get(node, {}).values():
            stopped = not tap.last.alive or tap.last.ts_ns - tap.last.heartbeat_ns > STALE_HEARTBEAT_NS
            if stopped and abs(tap.last.heartbeat_ns - ts_ns) <= margin_ns:
                return True
        return False

    def lost_total(self) -> int:
        """Records lost by all taps that are known."""
        return sum(tap.last.lost for taps in self._taps.values() for tap in taps.values())
