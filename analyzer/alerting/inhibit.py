"""A greater fault speaks for the smaller ones it causes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from analyzer.alerting.alert import Alert


class Greater:
    """Finds, among the firing alerts, those that may explain another one, without asking each of them."""

    def __init__(self, firing: Iterable[Alert]) -> None:
        self._everywhere: list[Alert] = []
        self._nodes: dict[str, list[Alert]] = defaultdict(list)
        for alert in firing:
            if alert.family in ("cluster_down", "collector_outage"):
                self._everywhere.append(alert)
            elif alert.family == "node_down":
                for node in alert.nodes:
                    self._nodes[node].append(alert)

    def than(self, alert: Alert) -> list[Alert]:
        """Whom to ask about an alert."""
        return [*self._everywhere, *(a for node in alert.nodes for a in self._nodes.get(node, ()))]


def inhibited(alert: Alert, firing: Iterable[Alert]) -> str | None:
    """Why an alert is held back: the firing one that explains it; None when nothing does."""
    for other in firing:
        if other.fingerprint == alert.fingerprint:
            continue
        if other.mitigated and not set(alert.nodes) & set(other.nodes):
            continue  # its traffic has gone elsewhere: it explains no more than its own nodes
        if other.mitigated and alert.family not in ("node_down", "feed_lost", "real_server_dead"):
            continue
        if other.family == "cluster_down":
            same = alert.labels.get("cluster") == other.labels.get("cluster")
            if alert.family in ("node_down", "jitter", "feed_lost") and same:
                return f"{other.incident_id}: the whole cluster {other.labels.get('cluster')} is down"
            if alert.family in ("vip_missing", "attack") and set(alert.vips) & set(other.vips):
                return f"{other.incident_id}: the cluster of its VIP is down"
        if other.family == "node_down" and set(alert.nodes) & set(other.nodes):
            if alert.family in ("feed_lost", "jitter", "vip_missing"):
                return f"{other.incident_id}: {other.labels.get('subject')} is down"
            if alert.family == "real_server_dead":
                return f"{other.incident_id}: its host is down"
        if other.family == "collector_outage" and alert.family in ("feed_lost", "prober_lost"):
            return f"{other.incident_id}: no feed lands at all"
    return None
