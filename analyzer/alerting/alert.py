"""An alert: an incident as people are told of it."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.incident import Incident

ALERT_NAMES = {
    "node_down": "TgwNodeDown",
    "cluster_down": "TgwClusterDown",
    "jitter": "TgwNodeJitter",
    "feed_lost": "TgwFeedLost",
    "collector_outage": "TgwCollectorOutage",
    "real_server_dead": "TgwRealServerDead",
    "prober_lost": "TgwProberLost",
    "vip_missing": "TgwVipMissing",
    "attack": "TgwAttack",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """`ends_ns`: 0 while it fires. `nodes`: where the fault lies, for inhibition."""

    incident_id: str
    fingerprint: str
    family: str
    labels: dict[str, str]
    annotations: dict[str, str]
    nodes: tuple[str, ...]
    vips: tuple[int, ...]
    starts_ns: int
    ends_ns: int

    @property
    def firing(self) -> bool:
        return self.ends_ns == 0


def of(incident: Incident, url: str) -> Alert:
    """The alert of an incident. `url`: where the analyzer's API is, for the link."""
    labels = {
        "alertname": ALERT_NAMES[incident.family],
        "region": incident.region,
        "severity": incident.severity,
        "kind": incident.kind,
        "subject": incident.subject,
    }
    if incident.az:
        labels["az"] = incident.az
    if incident.cluster:
        labels["cluster"] = incident.cluster
    if incident.subject_type == "node":
        labels["node"] = incident.subject
    annotations = {
        "summary": incident.summary,
        "incident": incident.id,
        "nodes": ", ".join(incident.named_nodes),
        "description": f"{incident.summary}. Evidence and timeline: {url}/v1/incidents/{incident.id}",
    }
    return Alert(
        incident.id,
        incident.fingerprint,
        incident.family,
        labels,
        annotations,
        (*incident.named_nodes, *([str(incident.evidence["host"])] if "host" in incident.evidence else [])),
        tuple(incident.vips),
        incident.opened_ns,
        incident.closed_ns,
    )
