"""Prometheus metrics of the control plane, read from the orchestrator when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.control.orchestrator import Orchestrator


class ControlCollector(Collector):
    """A snapshot of the orchestrator."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator

    def collect(self) -> Iterator[Metric]:
        """Every metric of control, now."""
        o = self._orchestrator
        fleet = o.fleet
        yield GaugeMetricFamily("tgw_control_fleet_epoch", "Epoch of the fleet document in force", value=o.epoch)
        nodes = GaugeMetricFamily("tgw_control_nodes", "Nodes of the fleet document by state", labels=["state"])
        states = Counter(o.node_state(n) for n in (fleet.nodes if fleet else []))
        for state in ("up", "unreachable", "maintenance", "unknown"):
            nodes.add_metric([state], states[state])
        yield nodes
        links = [link for operator in o.operators.values() for link in operator.links.values()]
        behind = sum(link.reach == "up" and not link.acked for link in links)
        yield GaugeMetricFamily(
            "tgw_control_nodes_behind", "Reachable nodes that have not acknowledged what is wanted", value=behind
        )
        for name, text, value in (
            ("pushes", "Desired states acknowledged by nodes since control started", sum(x.pushes for x in links)),
            (
                "push_failures",
                "Desired states that a node refused or did not answer",
                sum(x.push_failures for x in links),
            ),
            ("polls_missed", "Status polls without an answer in time", sum(x.polls_missed for x in links)),
        ):
            yield CounterMetricFamily(f"tgw_control_{name}", text, value=value)
        moves = GaugeMetricFamily("tgw_control_migrations", "Migrations that are kept, by state", labels=["state"])
        for migration_state, count in o.store.migration_states().items():
            moves.add_metric([migration_state], count)
        yield moves
        away = sum(p.home != p.current for p in o.placement())
        yield GaugeMetricFamily("tgw_control_vips_away", "VIPs that are not at their home cluster", value=away)


def render(orchestrator: Orchestrator) -> bytes:
    """The metrics in Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ControlCollector(orchestrator))
    return generate_latest(registry)
