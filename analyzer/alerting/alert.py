"""An alert: an incident as people are told of it.

Its labels are its identity, to Alertmanager and to everyone who silences or routes by them: they hold nothing that can
change while the incident lives. `severity` among them is that of the fault at its worst. What changes (the kind that
detection settles on, the state, the severity of now, what redundancy is left) is in the annotations.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import structlog

from analyzer import standing
from analyzer.alerting.board import board
from analyzer.incident import Incident
from contract.incidents import CLOSED, MITIGATED, OPEN

log = structlog.get_logger()

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
    """`ends_ns`: 0 while it fires. `nodes`: where the fault lies, for inhibition. `state`: that of the incident."""

    incident_id: str
    fingerprint: str
    family: str
    labels: dict[str, str]
    annotations: dict[str, str]
    nodes: tuple[str, ...]
    vips: tuple[int, ...]
    starts_ns: int
    ends_ns: int
    severity: str = "critical"
    state: str = OPEN

    @property
    def firing(self) -> bool:
        return self.ends_ns == 0

    @property
    def mitigated(self) -> bool:
        return self.state == MITIGATED

    @property
    def mark(self) -> str:
        """What people are told of again when it changes: one fault, felt or mitigated."""
        return f"{self.starts_ns}{' mitigated' if self.mitigated else ''}"


@functools.cache
def name_of(family: str) -> str:
    """The name of a family's alert; a family that has none is told of all the same, and said once."""
    if family not in ALERT_NAMES:
        log.error("a family of faults has no name of its own among the alerts", family=family, alertname="TgwFault")
    return ALERT_NAMES.get(family, "TgwFault")


def of(incident: Incident, url: str, grafana: str = "") -> Alert:
    """The alert of an incident. `url`: where the analyzer's API is, `grafana`: where Grafana is, for links."""
    labels = {
        "alertname": name_of(incident.family),
        "region": incident.region,
        "severity": incident.worst,
        "subject": incident.subject,
    }
    if incident.az:
        labels["az"] = incident.az
    if incident.cluster:
        labels["cluster"] = incident.cluster
    if incident.subject_type == "node":
        labels["node"] = incident.subject
    annotations = {
        "summary": _summary(incident),
        "incident": incident.id,
        "kind": incident.kind,
        "state": incident.state,
        "severity_now": incident.severity,
        "nodes": ", ".join(incident.named_nodes),
        "description": f"{incident.summary}. Evidence and timeline: {url}/v1/incidents/{incident.id}",
    }
    if grafana:
        annotations["dashboard"] = board(grafana, incident)
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
        incident.severity,
        incident.state,
    )


def _summary(incident: Incident) -> str:
    if incident.state == MITIGATED:
        still = standing.still(incident.family, incident.named_nodes)
        return f"mitigated: traffic is clean, {still}: {incident.standing}"
    if incident.state == CLOSED and incident.ended:
        return f"over: {incident.summary} ({incident.ended})"
    return incident.summary
