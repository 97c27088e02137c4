"""Looks at the ledger once a second and says what departs from health."""

from __future__ import annotations

from analyzer import endpoints
from analyzer import feeds as feed_states
from analyzer.arrivals import tiers
from analyzer.collapse import TEST_SPAN_NS, Collapse, NodeReport
from analyzer.feeds import Feeds
from analyzer.findings import Confirmation, Finding
from analyzer.ledger import Ledger
from analyzer.region import SECOND, Situation
from analyzer.rows import Point
from analyzer.surges import Surges

# Entries are found by when they were seen first, which a lagging feed delays.
SCAN_NS = TEST_SPAN_NS + 15 * SECOND
IDLE_DEAD_NS = 10 * SECOND


class Detector:
    """All detection, with its memory. `reports`: the last word on every node."""

    def __init__(self, started_ns: int) -> None:
        self.reports: dict[str, NodeReport] = {}
        self._started_ns = started_ns
        self._collapse = Collapse()
        self._surges = Surges()
        self._confirmation = Confirmation()
        self._dead_since: dict[str, int] = {}

    def add(self, point: Point) -> None:
        """Take one new record of a coloured packet."""
        self._surges.add(point)

    def look(
        self, now_ns: int, ledger: Ledger, feeds: Feeds, situation: Situation, unreadable_since_ns: int | None = None
    ) -> list[Finding]:
        """The findings of this moment, confirmed or not."""
        outage = endpoints.collector(feeds, now_ns, self._started_ns, unreadable_since_ns)
        if outage is not None:
            # Nothing lands: absence of records says nothing of anybody.
            self._confirmation.take([outage], now_ns)
            return [outage]
        region = situation.region
        for node in region.nodes:
            if situation.maintained(node):
                self._collapse.forget(node)
        reports: dict[str, NodeReport] = {}
        findings: list[Finding] = []
        entries = list(ledger.recent(now_ns - SCAN_NS))
        for key, tier in tiers(entries, situation).items():
            findings += self._collapse.test(key, tier, feeds, situation, now_ns, reports)
        horizon = now_ns
        for node in region.nodes:
            if node not in reports:
                reports[node] = NodeReport(node, "idle", feed=feeds.status(node), why="no probe comes its way")
            if situation.maintained(node):
                reports[node].verdict, reports[node].why = "maintenance", "taken out by an operator"
            reports[node].boot = feeds.boot(node)
        findings += self._surges.test(horizon, situation, ledger, feeds, reports)
        recent = [
            e for e in entries if e.verdict is not None and e.probe and e.probe.closed_ns > now_ns - endpoints.WINDOW_NS
        ]
        findings += endpoints.real_servers(recent, horizon, situation)
        findings += endpoints.probers(recent, horizon, situation, feeds)
        findings += self._idle_dead(now_ns, feeds, situation, reports)
        self._confirmation.take(findings, now_ns)
        self.reports = reports
        return findings

    def _idle_dead(
        self, now_ns: int, feeds: Feeds, situation: Situation, reports: dict[str, NodeReport]
    ) -> list[Finding]:
        """Nodes that no probe would miss: two witnesses must agree, the collector and control. Never acted upon."""
        findings = []
        for node in situation.region.nodes:
            status, control = feeds.status(node), situation.view.state(node)
            stopped = status in (feed_states.STALE, feed_states.ENDED, feed_states.GONE)
            if reports[node].verdict != "idle" or not stopped or control != "unreachable":
                self._dead_since.pop(node, None)
                continue
            since = self._dead_since.setdefault(node, now_ns)
            if now_ns - since < IDLE_DEAD_NS:
                continue
            reports[node].verdict = "down"
            kind, word = ("hang", "hangs") if status == feed_states.STALE else ("crash", "is gone")
            findings.append(
                Finding(
                    kind,
                    node,
                    "node",
                    f"{node}, which serves no probed VIP, {word}: "
                    "its heartbeat has stopped and control cannot reach it",
                    now_ns,
                    cluster=situation.region.cluster_of(node),
                    nodes=[node],
                    evidence={"feed": status, "control": control, "idle": True},
                )
            )
        return findings
