"""Closes every probe: answered, refused, dropped at a node with a reason, or silent after its last Trace Point.

What does not close is `unexplained`; what lacks records because a feed lost them is `unknown_feed`, never unexplained.
Rows come in any order and more than once. A late record corrects a verdict that was given without it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import NamedTuple

from analyzer.feeds import FOREVER, Feeds
from analyzer.region import SECOND, Region, Situation
from analyzer.rows import DROP, TCP_ACK, TCP_RST, TRACE, Point, Probe
from contract.vocabulary import HOPS, DropReason, Hop, Outcome

GRACE_NS = SECOND
# How long a verdict waits for feeds that lag before it is given as unknown_feed.
PATIENCE_NS = 10 * SECOND
KEEP_NS = 600 * SECOND
COUNTED_AHEAD = 512
# A node that is killed between sending a batch and publishing its records leaves a hole of its last turn.
LAST_TURN_NS = 1500 * 1_000_000

EIP_IN, CLB_IN, VSW_IN, VSW_OUT, CLB_OUT, EIP_OUT = (int(h) for h in Hop)
KINDS = ("answered", "refused", "dropped", "silent", "unexplained", "unknown_feed", "unsent")


class Hole(NamedTuple):
    """A hop that must exist and has no record: it accuses the feed of `node` ("" when it cannot be named)."""

    hop: int
    node: str


class Verdict(NamedTuple):
    """How a probe ended. `node`, `hop`, `reason`: where it was last seen, or dropped. `toward`: the next end point."""

    kind: str
    node: str = ""
    hop: int = 0
    reason: int = 0
    toward: str = ""
    text: str = ""
    holes: tuple[Hole, ...] = ()


class Entry:
    """Everything known about one probe."""

    __slots__ = (
        "added_ns",
        "counted",
        "drops",
        "first_ns",
        "hops",
        "points",
        "probe",
        "probe_id",
        "probe_ns",
        "prober",
        "verdict",
        "vip_id",
    )

    def __init__(self, probe_id: int, now_ns: int, first_ns: int) -> None:
        self.probe_id = probe_id
        self.added_ns = now_ns
        self.first_ns = first_ns
        self.points: list[Point] = []
        # The first Trace Point of each hop of the SYN and its answer; the prober's RST is not part of the journey.
        self.hops: dict[int, Point] = {}
        self.drops: list[Point] = []
        self.probe: Probe | None = None
        self.probe_ns = 0  # when the prober's record was seen
        self.verdict: Verdict | None = None
        self.counted = False
        self.vip_id = 0
        self.prober = ""

    def seen_at(self, hop: int) -> Point | None:
        """The Trace Point of a hop, or the Drop Point of a packet that died there."""
        point = self.hops.get(hop)
        if point is not None:
            return point
        for drop in self.drops:
            if drop.hop == hop:
                return drop
        return None


def is_reset(point: Point) -> bool:
    """Whether the point is about the prober's own RST, not about the SYN or its answer."""
    return bool(point.tcp_flags & TCP_RST) and not point.tcp_flags & TCP_ACK and point.hop <= VSW_IN


def holes(entry: Entry, region: Region) -> tuple[Hole, ...]:
    """The hops before the last seen one (of an answered probe: all hops) that have no record."""
    answered = entry.probe is not None and entry.probe.outcome == Outcome.ANSWERED
    seen = set(entry.hops) | {d.hop for d in entry.drops}
    last = EIP_OUT if answered else max(seen, default=0)
    return tuple(Hole(h, accused(entry, region, h)) for h in range(EIP_IN, last + 1) if h not in seen)


def accused(entry: Entry, region: Region, hop: int) -> str:
    """The node that must have had the packet at a hop without a record, by what its neighbours wrote; "" unknown."""

    def at(other: int, field: str) -> str:
        point = entry.hops.get(other)
        return (region.node_at(getattr(point, field)) or "") if point is not None else ""

    def same(other: int) -> str:
        point = entry.hops.get(other)
        return point.node if point is not None else ""

    if hop == EIP_IN:
        return at(CLB_IN, "outer_src")
    if hop == CLB_IN:
        # A reply goes back through the LD that had the request.
        return at(VSW_IN, "outer_src") or at(VSW_OUT, "outer_dst") or same(CLB_OUT) or at(EIP_OUT, "outer_src")
    if hop == VSW_IN:
        return at(CLB_IN, "outer_dst") or same(VSW_OUT)
    if hop == VSW_OUT:
        return at(CLB_OUT, "outer_src") or same(VSW_IN)
    if hop == CLB_OUT:
        return at(VSW_OUT, "outer_dst") or at(EIP_OUT, "outer_src")
    return ""


def judge(entry: Entry, region: Region, feeds: Feeds, complete: bool) -> Verdict:
    """The verdict on a probe whose prober has closed it. `complete`: every feed it needs has landed."""
    probe = entry.probe
    if probe is None:
        raise ValueError("the prober has not closed this probe")
    gaps = holes(entry, region)
    excuse = _excuse(entry, probe, gaps, region, feeds, complete)
    if probe.outcome == Outcome.UNSENT:
        return Verdict("unsent", text="the prober could not send it")
    if probe.outcome == Outcome.ANSWERED:
        if not gaps:
            return Verdict("answered", text="answered; every hop left its record")
        names = ", ".join(f"{Hop(g.hop).name.lower()} ({g.node or 'node unknown'})" for g in gaps)
        if excuse:
            return Verdict("unknown_feed", holes=gaps, text=f"answered, but without records of {names}: {excuse}")
        return Verdict("unexplained", holes=gaps, text=f"answered, but without records of {names}: a feed is at fault")
    if probe.outcome == Outcome.REFUSED:
        return Verdict("refused", holes=gaps, text="a RST came back")
    if entry.drops:
        drop = max(entry.drops, key=lambda d: (d.hop, d.ts_ns))
        reason, hop = DropReason(drop.reason).name, Hop(drop.hop).name.lower()
        toward = f" towards {drop.outer_dst}" if drop.outer_dst else ""
        text = f"dropped at {drop.node} ({hop}): {reason}{toward}"
        return Verdict("dropped", drop.node, drop.hop, drop.reason, drop.outer_dst, text, gaps)
    if excuse:
        return Verdict("unknown_feed", holes=gaps, text=f"silent, and records are missing: {excuse}")
    if entry.hops:
        last = entry.hops[max(entry.hops)]
        toward = last.outer_dst
        where = f"silent after {last.node} ({Hop(last.hop).name.lower()})" + (f" towards {toward}" if toward else "")
        return Verdict("silent", last.node, last.hop, 0, toward, where, gaps)
    return Verdict("unexplained", text="silent, and no node has a record of it")


def _excuse(entry: Entry, probe: Probe, gaps: tuple[Hole, ...], region: Region, feeds: Feeds, complete: bool) -> str:
    """Why absence of records proves nothing about this probe; "" when it does."""
    start, end = probe.ts_ns, probe.closed_ns
    if probe.outcome in (Outcome.ANSWERED, Outcome.REFUSED):
        for gap in gaps:
            suspects = [gap.node] if gap.node else _tier(gap.hop, entry, region)
            for node in suspects:
                if feeds.lost_between(node, start, end):
                    return f"the feed of {node} lost records then"
                if feeds.silent_since(node) is not None:
                    return f"there is no feed of {node}"
                if feeds.ended_near(node, start, LAST_TURN_NS):
                    return f"{node} ended in that moment"
        return "" if complete else "feeds lag"
    if not complete:
        return "feeds lag"
    last = max(entry.hops, default=0)
    if last < EIP_OUT:
        point = entry.hops.get(last)
        unicast = region.node_at(point.outer_dst) if point is not None and point.outer_dst else None
        for node in [unicast] if unicast else _tier(last + 1, entry, region):
            if feeds.lost_between(node, start, end):
                return f"the feed of {node} lost records then"
    return ""


def _tier(hop: int, entry: Entry, region: Region) -> list[str]:
    """The nodes that may have had the packet at a hop."""
    if hop in (EIP_IN, EIP_OUT):
        return region.eips
    if hop in (VSW_IN, VSW_OUT):
        return region.hosts
    vip = region.vips.get(entry.vip_id)
    return list(region.members[vip.cluster]) if vip else []


class Ledger:
    """Open and recently closed probes, and the totals. `region` may be exchanged when the fleet document changes."""

    def __init__(self, region: Region, feeds: Feeds) -> None:
        self.region = region
        self.feeds = feeds
        self.totals: Counter[str] = Counter()
        self.since_ns = 0  # probes sent before are looked at, but not counted
        self.orphans = 0
        self.out_of_memory_ns = 0  # entries older than this are forgotten
        self._entries: dict[int, Entry] = {}
        self._order: deque[Entry] = deque()
        self._waiting: dict[int, Entry] = {}
        # What a previous run of the analyzer has counted already: per prober tap, every record below this.
        self.counted: dict[tuple[str, str], int] = {}
        self._ahead: dict[tuple[str, str], set[int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, probe_id: int) -> Entry | None:
        """What is known of a probe, while it is remembered."""
        return self._entries.get(probe_id)

    def recent(self, since_ns: int) -> Iterator[Entry]:
        """Entries that became known since then, newest first."""
        for entry in reversed(self._order):
            if entry.added_ns < since_ns:
                return
            yield entry

    def _entry(self, probe_id: int, now_ns: int, ts_ns: int) -> Entry:
        entry = self._entries.get(probe_id)
        if entry is None:
            entry = self._entries[probe_id] = Entry(probe_id, now_ns, ts_ns)
            self._order.append(entry)
        return entry

    def add_point(self, point: Point, now_ns: int) -> bool:
        """Take a coloured packet's record; False when it was known or is about none."""
        if not point.probe_id:
            return False
        entry = self._entry(point.probe_id, now_ns, point.ts_ns)
        for known in entry.points:
            if known.seq == point.seq and known[:3] == point[:3]:  # the same record of the same tap
                return False
        entry.points.append(point)
        if is_reset(point):
            return True
        if point.kind == TRACE:
            first = entry.hops.get(point.hop)
            if first is None or point.ts_ns < first.ts_ns:
                entry.hops[point.hop] = point
        elif point.kind == DROP and not (
            # A reset that answers a request is a reply; a dropped request with RST is the prober's.
            HOPS[Hop(point.hop)].direction == 1 and point.tcp_flags & TCP_RST
        ):
            entry.drops.append(point)
        if point.ts_ns < entry.first_ns:
            entry.first_ns = point.ts_ns
        if not entry.vip_id and point.vip_id:
            entry.vip_id = point.vip_id
        if not entry.prober and point.hop <= VSW_IN:
            entry.prober = self.region.prober_of(point.src_addr) or ""
        if entry.verdict is not None:
            self._waiting[point.probe_id] = entry  # a late record may correct the verdict
        return True

    def add_probe(self, probe: Probe, now_ns: int) -> bool:
        """Take a prober's record; False when it was known."""
        entry = self._entry(probe.probe_id, now_ns, probe.ts_ns)
        if entry.probe is not None:
            return False
        entry.probe = probe
        entry.probe_ns = now_ns
        entry.vip_id = probe.vip_id
        entry.prober = probe.prober
        entry.first_ns = min(entry.first_ns, probe.ts_ns)
        self._waiting[probe.probe_id] = entry
        return True

    def close(self, now_ns: int, situation: Situation) -> list[Entry]:
        """Give every verdict that can be given now; the entries that got one, or another one than before."""
        done: list[Entry] = []
        landed: dict[str, int] = {}
        for entry in list(self._waiting.values()):
            probe = entry.probe
            if probe is None:
                del self._waiting[entry.probe_id]
                continue
            whole = probe.outcome == Outcome.ANSWERED and len(entry.hops) == EIP_OUT
            if whole or probe.outcome == Outcome.UNSENT:
                complete = True
            elif now_ns < probe.closed_ns + GRACE_NS:
                continue
            else:
                complete = self._landed(entry, situation, landed) >= probe.closed_ns
                if not complete and now_ns < entry.probe_ns + PATIENCE_NS:
                    continue
            del self._waiting[entry.probe_id]
            verdict = judge(entry, self.region, self.feeds, complete)
            if entry.verdict is None:
                entry.counted = self._count(probe)
                if entry.counted:
                    self.totals[verdict.kind] += 1
            elif entry.verdict.kind == verdict.kind:
                entry.verdict = verdict
                continue
            elif entry.counted:
                self.totals[entry.verdict.kind] -= 1
                self.totals[verdict.kind] += 1
            entry.verdict = verdict
            done.append(entry)
        self._forget(now_ns)
        return done

    def _landed(self, entry: Entry, situation: Situation, cache: dict[str, int]) -> int:
        """Up to when every record that matters for this probe has landed."""
        cluster = situation.cluster_of_vip(entry.vip_id)
        least = cache.get(cluster)
        if least is None:
            least = FOREVER
            for node in (*self.region.eips, *self.region.members.get(cluster, ()), *self.region.hosts):
                least = min(least, self.feeds.landed(node))
            cache[cluster] = least
        return least

    def _count(self, probe: Probe) -> bool:
        if probe.ts_ns < self.since_ns:
            return False
        tap = (probe.prober, probe.boot_id)
        floor, ahead = self.counted.get(tap, 0), self._ahead.setdefault(tap, set())
        if probe.seq < floor or probe.seq in ahead:
            return False
        ahead.add(probe.seq)
        if len(ahead) > COUNTED_AHEAD:  # what is missing before them was lost, or was there before this analyzer
            floor = min(ahead)
        while floor in ahead:
            ahead.discard(floor)
            floor += 1
        self.counted[tap] = floor
        return True

    def pending(self) -> int:
        """Probes that the prober has closed and that wait for their records."""
        return len(self._waiting)

    def _forget(self, now_ns: int) -> None:
        while self._order and self._order[0].added_ns < now_ns - KEEP_NS:
            entry = self._order.popleft()
            self._entries.pop(entry.probe_id, None)
            self._waiting.pop(entry.probe_id, None)
            self.out_of_memory_ns = max(self.out_of_memory_ns, entry.first_ns)
            if entry.probe is None:
                self.orphans += 1

    def dump_counted(self) -> list[tuple[str, str, int, list[int]]]:
        """What has been counted, for keeping over a restart."""
        taps = self.counted.keys() | self._ahead.keys()
        return [(p, b, self.counted.get((p, b), 0), sorted(self._ahead.get((p, b), ()))) for p, b in sorted(taps)]

    def load_counted(self, kept: list[tuple[str, str, int, list[int]]], totals: dict[str, int]) -> None:
        """Go on where a previous run ended."""
        for prober, boot, floor, ahead in kept:
            self.counted[(prober, boot)] = floor
            self._ahead[(prober, boot)] = set(ahead)
        self.totals = Counter(totals)
