"""Signature two: Drop Points of a node surge. And the same for one VIP on one node, and for one VIP on every node."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping

from analyzer.collapse import NodeReport
from analyzer.feeds import Feeds
from analyzer.findings import Finding
from analyzer.ledger import Ledger, is_reset
from analyzer.region import SECOND, Situation
from analyzer.rows import DROP, Point
from analyzer.stats import at_least, lower_bound
from contract.vocabulary import DROPS, DropReason, Hop

WINDOWS_S = (3, 6, 12)
SPAN_S = 20
MIN_DROPS = 5
MIN_SHARE = 0.03
CHANCE = 1e-8
FLOOR = 0.005  # a healthy node may drop this share before anybody calls it a surge
FORGETTING = 0.9  # of the healthy counts, per SPAN_S
MIN_VIP_DROPS = 3
MIN_ATTACK_DROPS = 5


def blames_node(point: Point) -> bool:
    """Whether a Drop Point speaks against the node that wrote it.

    An EIP node that was told that the next end point is unreachable is a witness, not the culprit.
    """
    reason = DropReason(point.reason)
    if reason is DropReason.NO_ROUTE and point.outer_dst:
        return False
    return DROPS[reason].blame == "node"


class Surges:
    """Counts what each node did with coloured packets, by second, and tests the last seconds."""

    def __init__(self) -> None:
        self._passed: dict[str, Counter[int]] = defaultdict(Counter)
        self._blamed: dict[str, deque[Point]] = defaultdict(deque)
        self._others: deque[Point] = deque()
        self._healthy: dict[str, tuple[float, float]] = {}  # dropped, handled
        self._learned_s: dict[str, int] = {}

    def add(self, point: Point) -> None:
        """Take one new record of a coloured packet."""
        if point.kind != DROP:
            self._passed[point.node][point.ts_ns // SECOND] += 1
        elif blames_node(point):
            self._blamed[point.node].append(point)
        elif not is_reset(point):
            self._others.append(point)

    def test(
        self,
        horizon_ns: int,
        situation: Situation,
        ledger: Ledger,
        feeds: Feeds,
        reports: Mapping[str, NodeReport],
    ) -> list[Finding]:
        """The findings of this moment."""
        findings = []
        for node in sorted(self._passed.keys() | self._blamed.keys()):
            newest = min(horizon_ns, feeds.landed(node)) // SECOND
            self._forget(node, newest)
            if situation.maintained(node) or node not in situation.region.nodes:
                continue
            finding = self._node(node, newest, horizon_ns, situation, ledger, reports)
            if finding is not None:
                findings.append(finding)
        while self._others and self._others[0].ts_ns < horizon_ns - SPAN_S * SECOND:
            self._others.popleft()
        return findings + self._by_vip(horizon_ns, situation, ledger)

    def _forget(self, node: str, newest: int) -> None:
        """Old seconds become the healthy record of the node, unless they were part of a surge."""
        passed, blamed = self._passed[node], self._blamed[node]
        edge = newest - SPAN_S
        if self._learned_s.get(node, 0) + SPAN_S > edge:
            return
        dropped = handled = 0
        for second in [s for s in passed if s < edge]:
            handled += passed.pop(second)
        kept = deque(p for p in blamed if p.ts_ns // SECOND >= edge)
        dropped = len(blamed) - len(kept)
        self._blamed[node] = kept
        self._learned_s[node] = edge
        old_dropped, old_handled = self._healthy.get(node, (0.0, 0.0))
        if dropped < MIN_DROPS or lower_bound(dropped, dropped + handled) < MIN_SHARE:
            self._healthy[node] = (
                old_dropped * FORGETTING + dropped,
                old_handled * FORGETTING + dropped + handled,
            )

    def _node(
        self,
        node: str,
        newest: int,
        horizon: int,
        situation: Situation,
        ledger: Ledger,
        reports: Mapping[str, NodeReport],
    ) -> Finding | None:
        passed = self._passed[node]
        report = reports.get(node)
        blamed = self._blamed[node]
        if report is not None:
            report.trace_points = sum(n for s, n in passed.items() if newest - WINDOWS_S[-1] < s <= newest)
            report.drop_points = sum(1 for p in blamed if newest - WINDOWS_S[-1] < p.ts_ns // SECOND <= newest)
        if len(blamed) < MIN_DROPS:
            return None
        old_dropped, old_handled = self._healthy.get(node, (0.0, 0.0))
        healthy = max((old_dropped + 0.5) / (old_handled + 200.0), FLOOR)
        for window in WINDOWS_S:
            drops = [p for p in blamed if newest - window < p.ts_ns // SECOND <= newest]
            handled = len(drops) + sum(n for s, n in passed.items() if newest - window < s <= newest)
            if len(drops) < MIN_DROPS:
                continue
            low = lower_bound(len(drops), handled, 0.999)
            chance = at_least(len(drops), handled, healthy)
            if low <= max(MIN_SHARE, 5 * healthy) or chance >= CHANCE:
                continue
            reasons = Counter(DropReason(p.reason).name for p in drops)
            workers = Counter(p.worker for p in drops)
            reason, most = reasons.most_common(1)[0]
            evidence = {
                "window_s": window,
                "drop_points": len(drops),
                "handled": handled,
                "share": round(len(drops) / handled, 4),
                "share_at_least": round(low, 4),
                "healthy_share": round(healthy, 4),
                "chance": chance,
                "reason": reason,
                "reasons": dict(reasons),
                "hops": dict(Counter(Hop(p.hop).name.lower() for p in drops)),
                "workers": {str(w): n for w, n in workers.items()},
            }
            if report is not None:
                report.verdict = "jitter"
            vips, probers = _touched(drops, ledger)
            return Finding(
                "jitter",
                node,
                "node",
                f"{node} dropped {len(drops)} of {handled} coloured packets in {window} s, {most} of them {reason}",
                horizon,
                cluster=situation.region.cluster_of(node),
                nodes=[node],
                vips=vips,
                probers=probers,
                evidence=evidence,
                samples=list(dict.fromkeys(p.probe_id for p in drops))[:10],
            )
        return None

    def _by_vip(self, horizon: int, situation: Situation, ledger: Ledger) -> list[Finding]:
        missing: dict[tuple[str, int], list[Point]] = defaultdict(list)
        limited: dict[int, list[Point]] = defaultdict(list)
        for point in self._others:
            if point.ts_ns > horizon:
                continue
            entry = ledger.get(point.probe_id)
            vip = (entry.vip_id if entry else 0) or point.vip_id
            # A VIP that has left the fleet document is no fault of a node that does not know it.
            if vip not in situation.region.vips or not situation.settled(vip, point.ts_ns):
                continue
            if point.reason == DropReason.NO_VIP and Hop(point.hop) in (Hop.EIP_IN, Hop.CLB_IN):
                missing[(point.node, vip)].append(point)
            elif point.reason == DropReason.FLOW_LIMIT:
                limited[vip].append(point)
        return [
            *self._missing(missing, horizon, situation, ledger),
            *self._limited(limited, horizon, situation, ledger),
        ]

    def _missing(
        self, missing: Mapping[tuple[str, int], list[Point]], horizon: int, situation: Situation, ledger: Ledger
    ) -> list[Finding]:
        findings = []
        region = situation.region
        per_node = Counter(node for node, _ in missing)
        for (node, vip), drops in missing.items():
            cluster = region.cluster_of(node)
            serves = region.role(node) == "eip" or situation.cluster_of_vip(vip) == cluster
            held = len(region.vips) if region.role(node) == "eip" else len(situation.vips_of(cluster))
            # A node that misses most of its VIPs has no tables: that is another fault.
            if len(drops) < MIN_VIP_DROPS or not serves or (held > 2 and per_node[node] > held / 2):
                continue
            if situation.maintained(node):
                continue
            name = region.vips[vip].name
            _, probers = _touched(drops, ledger)
            findings.append(
                Finding(
                    "vip_missing",
                    f"{name}@{node}",
                    "vip",
                    f"{node} does not know VIP {name}, which its cluster holds: {len(drops)} probes dropped, NO_VIP",
                    horizon,
                    cluster=cluster,
                    nodes=[node],
                    vips=[vip],
                    probers=probers,
                    evidence={"drop_points": len(drops), "reason": "NO_VIP", "window_s": SPAN_S},
                    samples=list(dict.fromkeys(p.probe_id for p in drops))[:10],
                )
            )
        return findings

    def _limited(
        self, limited: Mapping[int, list[Point]], horizon: int, situation: Situation, ledger: Ledger
    ) -> list[Finding]:
        findings = []
        for vip, drops in limited.items():
            cluster = situation.cluster_of_vip(vip)
            nodes = set(situation.expected_members(cluster))
            if len(drops) < MIN_ATTACK_DROPS or not nodes or not nodes <= {p.node for p in drops}:
                continue
            name = situation.region.vips[vip].name
            _, probers = _touched(drops, ledger)
            findings.append(
                Finding(
                    "attack",
                    name,
                    "vip",
                    f"every node of {cluster} limits new connections of VIP {name}: its traffic is the cause",
                    horizon,
                    cluster=cluster,
                    nodes=sorted(nodes),
                    vips=[vip],
                    probers=probers,
                    evidence={"drop_points": len(drops), "reason": "FLOW_LIMIT", "window_s": SPAN_S},
                    samples=list(dict.fromkeys(p.probe_id for p in drops))[:10],
                )
            )
        return findings


def _touched(drops: list[Point], ledger: Ledger) -> tuple[list[int], list[str]]:
    vips, probers = set(), set()
    for point in drops:
        entry = ledger.get(point.probe_id)
        if entry is not None:
            vips.add(entry.vip_id)
            probers.add(entry.prober)
    return sorted(vips - {0}), sorted(probers - {""})
