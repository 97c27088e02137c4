"""The analyzer's numbers for Prometheus, read when asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from analyzer.engine import Engine
from analyzer.ledger import KINDS
from contract.incidents import STATES


class EngineMetrics(Collector):
    """Takes a snapshot of the engine at each scrape."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        """The metric families."""
        engine = self._engine
        probes = CounterMetricFamily("tgw_probes", "Closed probes by how they ended [probes]", labels=["kind"])
        for kind in KINDS:
            probes.add_metric([kind], engine.ledger.totals[kind])
        yield probes
        incidents = GaugeMetricFamily("tgw_incidents", "Incidents by state [incidents]", labels=["state"])
        counts = Counter(i.state for i in engine.book.incidents.values())
        for state in STATES:
            incidents.add_metric([state], counts[state])
        yield incidents
        verdicts = GaugeMetricFamily("tgw_nodes", "Nodes by the verdict on them [nodes]", labels=["verdict"])
        for verdict, count in sorted(Counter(r.verdict for r in engine.detector.reports.values()).items()):
            verdicts.add_metric([verdict], count)
        yield verdicts
        notifications = GaugeMetricFamily(
            "tgw_notifications", "Notifications in the outbox by state [notifications]", labels=["state"]
        )
        deliveries = engine.store.delivery_counts()
        for state in ("pending", "delivered", "refused", "dropped"):
            notifications.add_metric([state], deliveries.get(state, 0))
        yield notifications
        yield GaugeMetricFamily("tgw_feed_lag_seconds", "Age of the newest feed report [s]", value=engine.lag_s)
        yield GaugeMetricFamily("tgw_actions_frozen", "1 while actions are frozen", value=float(bool(engine.frozen)))
