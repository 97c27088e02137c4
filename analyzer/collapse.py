"""Signature one: the Trace Points of a node collapse, measured against what came its way.

A node whose Trace Points are missing while its packets go on (journeys with a hole where it must have been) has lost
its feed; only one whose packets end is down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analyzer import feeds as feed_states
from analyzer.arrivals import Arrival, Tier
from analyzer.feeds import Feeds
from analyzer.findings import Finding
from analyzer.region import SECOND, Situation
from analyzer.stats import at_most

WINDOWS_NS = tuple(int(s * SECOND) for s in (2, 3, 4, 6, 8, 12, 20))
# Arrivals younger than this are tested; older ones teach what is healthy.
TEST_SPAN_NS = WINDOWS_NS[-1]
LAG_NS = SECOND
MIN_EXPECTED = 8.0
MIN_SEEN = 8  # a node never seen healthy cannot collapse
COLLAPSED = 0.15
CLUSTER_COLLAPSED = 0.10
# Chance of a healthy series looking like this, per test; the looser one when an independent witness agrees.
ALONE, WITNESSED = 1e-10, 1e-5
MIN_HOLES = 3
FORGETTING = 1 / 400  # per arrival


@dataclass(slots=True)
class Share:
    """The healthy share of a series: `seen` of `arrived`, both forgetting slowly."""

    arrived: float = 0.0
    seen: float = 0.0

    def learn(self, seen: bool) -> None:
        """One more arrival."""
        self.arrived += 1.0 - self.arrived * FORGETTING
        self.seen += (1.0 if seen else 0.0) - self.seen * FORGETTING


@dataclass(slots=True)
class NodeReport:
    """What detection thinks of one node, with its numbers. `verdict`: ok | suspect | down | feed_lost | jitter |
    maintenance | learning | idle | no_feed. `boot`: the newest start of its process that was seen, "" for none."""

    node: str
    verdict: str
    arrived: int = 0
    expected: float = 0.0
    seen: int = 0
    holes: int = 0
    share: float | None = None
    feed: str = feed_states.UNKNOWN
    trace_points: int = 0
    drop_points: int = 0
    why: str = ""
    boot: str = ""


class Collapse:
    """Keeps each node's healthy share and tests the last seconds against it."""

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        self._coverage: dict[str, Share] = {}
        self._learned_ns: dict[str, int] = {}

    def forget(self, node: str) -> None:
        """The node is out on purpose: its share must be learned anew."""
        self._shares.pop(node, None)

    def test(
        self, key: str, tier: Tier, feeds: Feeds, situation: Situation, now_ns: int, reports: dict[str, NodeReport]
    ) -> list[Finding]:
        """The findings in one tier; fills the reports of its nodes."""
        horizon = min([now_ns - LAG_NS, *(feeds.landed(n) for n in tier.nodes)])
        arrivals = [a for a in tier.arrivals if a.ts_ns <= horizon]
        old = [a for a in arrivals if a.ts_ns <= horizon - TEST_SPAN_NS]
        young = arrivals[len(old) :]
        findings: list[Finding] = []
        # The cluster as a whole: nobody shows for what arrives. Twice as quick as finding each node by itself.
        whole = self._whole(key, tier, young, horizon, feeds, situation) if len(tier.nodes) > 1 else None
        for node in tier.nodes:
            finding, report = self._node(node, tier, young, horizon, feeds, situation)
            reports[node] = report
            if finding is not None and not (whole is not None and finding.family == "node_down"):
                findings.append(finding)
        if whole is not None:
            findings.append(whole)
            for node in tier.nodes:
                reports[node].verdict = "down"
        self._learn(key, tier, old, reports, whole is not None)
        return findings

    def _learn(self, key: str, tier: Tier, old: list[Arrival], reports: dict[str, NodeReport], down: bool) -> None:
        until = self._learned_ns.get(key, 0)
        fresh = [a for a in old if a.ts_ns > until]
        if not fresh:
            return
        self._learned_ns[key] = fresh[-1].ts_ns
        if not down:
            coverage = self._coverage.setdefault(key, Share())
            for arrival in fresh:
                coverage.learn(bool(arrival.node))
        for node in tier.nodes:
            if reports[node].verdict in ("ok", "learning", "idle"):
                share = self._shares.setdefault(node, Share())
                for arrival in fresh:
                    share.learn(arrival.node == node)

    def _node(
        self, node: str, tier: Tier, young: list[Arrival], horizon: int, feeds: Feeds, situation: Situation
    ) -> tuple[Finding | None, NodeReport]:
        status = feeds.status(node)
        known = self._shares.get(node) or Share()
        total = sum(1 for a in young if a.node == node)
        nominal = 1.0 / len(tier.nodes)
        report = NodeReport(node, "learning", feed=status)
        report.arrived, report.seen = len(young), total
        report.holes = sum(1 for a in young if a.hole == node)
        if not young:
            report.verdict, report.why = "idle", "no probe comes its way"
        control = situation.view.state(node)
        witnessed = status in (feed_states.STALE, feed_states.ENDED, feed_states.GONE) or control == "unreachable"
        count, seen, passed, at = 0, 0, 0, len(young)
        for window in WINDOWS_NS:
            while at > 0 and young[at - 1].ts_ns > horizon - window:
                at -= 1
                count += 1
                seen += young[at].node == node
                passed += young[at].hole == node
            before_seen = known.seen + total - seen
            before = known.arrived + len(young) - count
            if before_seen < MIN_SEEN:
                continue
            share = min(before_seen / before, nominal, 0.98)
            expected = count * share
            if expected < MIN_EXPECTED:
                continue
            report.share, report.expected = share, expected
            report.arrived, report.seen, report.holes = count, seen, passed
            if seen > COLLAPSED * expected:
                if report.verdict != "suspect":
                    report.verdict = "ok"
                continue
            chance = at_most(seen, count, share)
            lost_feed = passed >= MIN_HOLES and seen + passed >= 0.3 * expected
            if chance >= (WITNESSED if witnessed or lost_feed else ALONE):
                report.verdict, report.why = "suspect", f"{seen} of {expected:.1f} expected probes, not yet sure"
                continue
            evidence = _numbers(window, count, expected, seen, passed, chance, share, status, control)
            within = [a for a in young if a.ts_ns > horizon - window]
            if lost_feed:
                report.verdict = "feed_lost"
                text = (
                    f"{node} recorded {seen} of {expected:.1f} expected probes in {window / SECOND:.0f} s, "
                    f"but {passed} went through it without a record: its feed is lost, it forwards"
                )
                return _finding("feed_lost", node, text, tier, [node], within, horizon, evidence, node), report
            if passed > max(1.0, 0.1 * expected):
                report.verdict, report.why = "suspect", f"{passed} probes went through it without a record"
                continue
            report.verdict = "down"
            kind, how = _kind(status, control, situation, node)
            text = (
                f"{node} recorded {seen} of {expected:.1f} expected probes in {window / SECOND:.0f} s "
                f"(healthy share {share:.0%}): {how}"
            )
            return _finding(kind, node, text, tier, [node], within, horizon, evidence), report
        return None, report

    def _whole(
        self, key: str, tier: Tier, young: list[Arrival], horizon: int, feeds: Feeds, situation: Situation
    ) -> Finding | None:
        known = self._coverage.get(key) or Share()
        total = sum(1 for a in young if a.node)
        states = {n: feeds.status(n) for n in tier.nodes}
        control = {n: situation.view.state(n) for n in tier.nodes}
        witnessed = all(
            states[n] in (feed_states.STALE, feed_states.ENDED, feed_states.GONE) or control[n] == "unreachable"
            for n in tier.nodes
        )
        count, seen, passed, at = 0, 0, 0, len(young)
        for window in WINDOWS_NS:
            while at > 0 and young[at - 1].ts_ns > horizon - window:
                at -= 1
                count += 1
                seen += bool(young[at].node)
                passed += bool(young[at].hole)
            before_seen, before = known.seen + total - seen, known.arrived + len(young) - count
            if before_seen < MIN_SEEN:
                continue
            share = min(before_seen / before, 0.98)
            expected = count * share
            if expected < MIN_EXPECTED or seen > CLUSTER_COLLAPSED * expected or passed > max(1.0, 0.1 * expected):
                continue
            chance = at_most(seen, count, share)
            if chance >= (WITNESSED if witnessed else ALONE):
                continue
            evidence = _numbers(
                window, count, expected, seen, passed, chance, share, ", ".join(sorted(set(states.values()))), ""
            )
            evidence["nodes"] = {
                n: {"feed": states[n], "control": control[n], "kind": _kind(states[n], control[n], situation, n)[0]}
                for n in tier.nodes
            }
            within = [a for a in young if a.ts_ns > horizon - window]
            text = (
                f"cluster {tier.cluster}: {count} probes came its way in {window / SECOND:.0f} s and its nodes "
                f"({', '.join(tier.nodes)}) recorded {seen}"
            )
            return _finding("cluster_down", tier.cluster, text, tier, tier.nodes, within, horizon, evidence)
        return None


def _kind(status: str, control: str, situation: Situation, node: str) -> tuple[str, str]:
    view = situation.view.nodes.get(node)
    if status == feed_states.STALE:
        return "hang", "its process lives, but its workers have stopped turning"
    if status in (feed_states.ENDED, feed_states.GONE):
        return "crash", "its process is gone"
    if view is not None and view.forwarding_alive is False and control != "unreachable":
        return "hang", "it answers, but it does not forward"
    if control == "unreachable":
        return "crash", "control cannot reach it"
    return "isolated", "its workers turn, but nothing reaches it"


def _numbers(
    window: int, arrived: int, expected: float, seen: int, holes: int, chance: float, share: float, feed: str,
    control: str,
) -> dict[str, Any]:  # fmt: skip
    return {
        "window_s": window / SECOND,
        "arrived": arrived,
        "expected": round(expected, 2),
        "seen": seen,
        "holes": holes,
        "chance": chance,
        "healthy_share": round(share, 4),
        "feed": feed,
        "control": control,
    }


def _finding(
    kind: str,
    subject: str,
    text: str,
    tier: Tier,
    nodes: list[str],
    within: list[Arrival],
    horizon: int,
    evidence: dict[str, Any],
    hole: str = "",
) -> Finding:
    # Whoever probed through the tier in the window took part in the measurement; what nobody recorded shows the fault.
    lost = [a for a in within if (a.hole == hole if hole else not a.node and not a.hole)]
    return Finding(
        kind,
        subject,
        "cluster" if kind == "cluster_down" else "node",
        text,
        horizon,
        cluster=tier.cluster,
        nodes=list(nodes),
        vips=sorted({a.vip_id for a in within if a.vip_id}),
        probers=sorted({a.prober for a in within if a.prober}),
        evidence=evidence,
        samples=[a.probe_id for a in lost[:10]],
        lost=[(a.ts_ns, a.prober) for a in lost],
    )
