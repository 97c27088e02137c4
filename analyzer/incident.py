"""Incidents: opened under a stable fingerprint, kept with evidence and timeline, closed when the fault is gone.

open -> acting (a migration runs) -> verifying (fresh probes decide) -> closed; and back to open when it returns. An
incident about a node closes when the node is back, drained or removed as well; clean traffic alone makes it mitigated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import structlog
from pydantic import TypeAdapter

from analyzer import standing
from analyzer.collapse import NodeReport
from analyzer.findings import Finding
from analyzer.region import SECOND, Situation
from analyzer.store import Store
from contract.incidents import CLOSED, MITIGATED, OPEN, STATES

log = structlog.get_logger()

REOPEN_NS = 600 * SECOND
# In memory are the incidents of a day, and at most so many that are over.
MEMORY_NS = 24 * 3600 * SECOND
MOST_CLOSED = 2_000
# Families that close only when the finding itself has not been seen for two periods.
NEEDS_ABSENCE = {
    "jitter", "feed_lost", "collector_outage", "real_server_dead", "prober_lost", "vip_missing", "attack",
}  # fmt: skip
# Families that close only when the probes of their VIPs are clean.
NEEDS_CLEAN = {"node_down", "cluster_down", "jitter", "vip_missing", "attack"}
# Families about nodes: they close only when each node is back, drained or gone from the fleet.
ABOUT_NODES = {"node_down", "cluster_down", "jitter", "feed_lost"}
# So many probes lost since an incident was mitigated, and this share of what its nodes should have got, are no chance.
BROKEN_AGAIN, BROKEN_SHARE = 3, 0.3
SEVERITY = {
    "node_down": "critical",
    "cluster_down": "critical",
    "jitter": "critical",
    "attack": "critical",
    "collector_outage": "warning",
    "feed_lost": "warning",
    "real_server_dead": "warning",
    "prober_lost": "warning",
    "vip_missing": "warning",
}
MITIGATED_SEVERITY = "warning"


@dataclass(slots=True)
class Incident:
    """One incident. Times are ns since 1970, 0 when not yet. `remedy`: what analyzer.remedy keeps here.

    `severity` is that of now, `worst` that of the fault, which never changes. `standing`: what redundancy is left while
    it is mitigated. `boots`: which start of each node showed the fault. `ended`: why it was closed.
    """

    id: str
    fingerprint: str
    family: str
    kind: str
    subject: str
    subject_type: str
    severity: str
    region: str
    az: str
    cluster: str
    named_nodes: list[str]
    vips: list[int]
    probers: list[str]
    seen_by_vips: list[int]
    summary: str
    state: str
    first_seen_ns: int
    opened_ns: int
    updated_ns: int
    last_seen_ns: int
    worst: str = ""
    closed_ns: int = 0
    mitigated_ns: int = 0
    standing: str = ""
    ended: str = ""
    cleared: bool = False
    idle: bool = False
    reopened: int = 0
    evidence: dict[str, Any] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    remedy: dict[str, Any] = field(default_factory=dict)
    boots: dict[str, str] = field(default_factory=dict)
    # What a later analyzer has written of it, kept for it.
    other: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.worst = self.worst or self.severity

    @property
    def is_open(self) -> bool:
        return not STATES[self.state].over

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        document = asdict(self)
        other: dict[str, Any] = document.pop("other")
        return other | document


_FIELDS = {f.name for f in fields(Incident)} - {"other"}
_CHECKED: TypeAdapter[Incident] = TypeAdapter(Incident)


def of_document(document: Mapping[str, Any]) -> Incident:
    """An incident as it was stored, by an earlier or later analyzer; ValueError when it cannot be one.

    Fields that are not known here are kept. A state that is not known here counts as open: it may not be over.
    """
    known = {k: v for k, v in document.items() if k in _FIELDS}
    other = {k: v for k, v in document.items() if k not in _FIELDS}
    incident = _CHECKED.validate_python(known | {"other": other})
    if other:
        log.warning("fields of a stored incident are not known here", id=incident.id, fields=sorted(other)[:20])
    if incident.state not in STATES:
        log.warning("the state of a stored incident is not known here", id=incident.id, state=incident.state)
        incident.state = OPEN
    return incident


def fingerprint(family: str, subject: str) -> str:
    """The stable name of a fault: 16 hex digits."""
    return hashlib.sha256(f"{family}\0{subject}".encode()).hexdigest()[:16]


Evidence = Callable[[Finding], tuple[dict[str, Any], list[dict[str, Any]]]]


class Book:
    """Every incident, in memory and in the store."""

    def __init__(self, store: Store, now_ns: int) -> None:
        self._store = store
        self.incidents: dict[str, Incident] = {}
        self._latest: dict[str, Incident] = {}
        # Open incidents all of whose nodes are back at this look, and how.
        self._back: dict[str, str] = {}
        self._said: dict[str, str] = {}
        for document in store.hot_incidents(now_ns - MEMORY_NS, MOST_CLOSED):
            try:
                incident = of_document(document)
            except ValueError as error:
                store.set_aside("incidents", str(document.get("id")), str(error))
                continue
            # What an older analyzer closed over a dead node is opened again when it is seen again.
            incident.cleared = incident.cleared or not incident.is_open
            self.incidents[incident.id] = incident
            self._latest[incident.fingerprint] = incident

    def forget(self, now_ns: int) -> None:
        """Let go of what closed long ago; the store has it."""
        closed = sorted((i for i in self.incidents.values() if not i.is_open), key=lambda i: -i.closed_ns)
        for number, incident in enumerate(closed):
            if now_ns - incident.closed_ns > MEMORY_NS or (
                number >= MOST_CLOSED and now_ns - incident.closed_ns > REOPEN_NS
            ):
                del self.incidents[incident.id]
                if self._latest.get(incident.fingerprint) is incident:
                    del self._latest[incident.fingerprint]

    def down(self) -> set[str]:
        """Nodes that incidents have found to be down, and that are not back."""
        found = (i for i in self.incidents.values() if i.family in ("node_down", "cluster_down") and not i.cleared)
        return {n for i in found for n in i.named_nodes}

    def open_ones(self) -> list[Incident]:
        """Incidents that are not closed, oldest first."""
        return [i for i in self.incidents.values() if i.is_open]

    def find(self, family: str, subject: str) -> Incident | None:
        """The latest incident of a fault."""
        return self._latest.get(fingerprint(family, subject))

    def save(self, incident: Incident, now_ns: int) -> None:
        """Write an incident down after a change."""
        incident.updated_ns = now_ns
        self._store.save_incident(
            incident.id, incident.fingerprint, incident.state, incident.opened_ns, incident.as_dict()
        )

    def event(self, incident: Incident, now_ns: int, kind: str, text: str) -> None:
        """Add a line to the timeline."""
        self._store.add_event(incident.id, now_ns, kind, text)

    def move(self, incident: Incident, state: str, now_ns: int, why: str) -> None:
        """Change the state, and say why."""
        if incident.state == state:
            return
        before, incident.state = incident.state, state
        if state == CLOSED:
            incident.closed_ns, incident.ended, incident.severity = now_ns, why, incident.worst
        self.event(incident, now_ns, "state", f"{before} -> {state}: {why}")
        self.save(incident, now_ns)

    def _decide(self, now_ns: int, finding: Finding, decision: str, reason: str, incident_id: str = "") -> None:
        key = f"{finding.family}/{finding.subject}"
        if self._said.get(key) != decision + reason:
            self._said[key] = decision + reason
            self._store.add_decision(now_ns, "incident", finding.subject, decision, reason, incident_id)

    def take(
        self, findings: Iterable[Finding], situation: Situation, now_ns: int, evidence: Evidence
    ) -> list[Incident]:
        """Open, reopen or refresh incidents from confirmed findings; those opened or reopened now."""
        changed = []
        confirmed = [f for f in findings if f.confirmed]
        # A cluster that is down explains its nodes: it goes first.
        for finding in sorted(confirmed, key=lambda f: f.family != "cluster_down"):
            known = self.find(finding.family, finding.subject)
            if known is not None and known.is_open:
                self._refresh(known, finding, now_ns)
                if known.state == MITIGATED and _breaks_again(known, finding):
                    changed.append(self._reopen(known, finding, situation, now_ns, evidence))
                    self._decide(now_ns, finding, "opened", f"broken again: {finding.summary}", known.id)
                continue
            if finding.family == "node_down":
                above = self.find("cluster_down", finding.cluster)
                if above is not None and above.is_open and finding.subject in above.named_nodes:
                    reason = f"explained by {above.id}: its cluster is down"
                    self._decide(now_ns, finding, "not opened", reason, above.id)
                    continue
            # What would change the severity of the fault is another incident.
            same = known is not None and known.worst == _worst(finding)
            if known is not None and same and now_ns - known.closed_ns < REOPEN_NS:
                incident = self._reopen(known, finding, situation, now_ns, evidence)
            else:
                incident = self._open(finding, situation, now_ns, evidence)
            self._decide(now_ns, finding, "opened", finding.summary, incident.id)
            changed.append(incident)
            if finding.family == "cluster_down":
                self._absorb(incident, now_ns)
        return changed

    def _open(self, finding: Finding, situation: Situation, now_ns: int, evidence: Evidence) -> Incident:
        print_ = fingerprint(finding.family, finding.subject)
        region = situation.region
        cluster = region.clusters.get(finding.cluster)
        numbers, samples = evidence(finding)
        incident = Incident(
            id=f"inc-{now_ns // 1_000_000}-{print_[:8]}",
            fingerprint=print_,
            family=finding.family,
            kind=finding.kind,
            subject=finding.subject,
            subject_type=finding.subject_type,
            severity=_worst(finding),
            region=region.fleet.region,
            az=cluster.az if cluster else "",
            cluster=finding.cluster,
            named_nodes=list(finding.nodes),
            vips=_affected(finding, situation),
            probers=list(finding.probers),
            seen_by_vips=list(finding.vips),
            summary=finding.summary,
            state=OPEN,
            first_seen_ns=finding.since_ns,
            opened_ns=now_ns,
            updated_ns=now_ns,
            last_seen_ns=now_ns,
            idle=bool(finding.evidence.get("idle")),
            evidence=numbers,
            samples=samples,
        )
        self.incidents[incident.id] = incident
        self._latest[print_] = incident
        self.event(incident, finding.since_ns, "first_look", f"first look that showed it: {finding.kind}")
        self.event(incident, now_ns, "opened", finding.summary)
        self.save(incident, now_ns)
        return incident

    def _reopen(
        self, incident: Incident, finding: Finding, situation: Situation, now_ns: int, evidence: Evidence
    ) -> Incident:
        incident.reopened += 1
        incident.state, incident.closed_ns, incident.cleared = OPEN, 0, False
        incident.severity, incident.mitigated_ns, incident.standing, incident.ended = incident.worst, 0, "", ""
        incident.kind, incident.summary, incident.last_seen_ns = finding.kind, finding.summary, now_ns
        incident.vips = _affected(finding, situation)
        incident.probers, incident.seen_by_vips = list(finding.probers), list(finding.vips)
        incident.evidence, incident.samples = evidence(finding)
        # What was done is remembered: an incident that comes back does not start a second action at once.
        incident.remedy = {k: v for k, v in incident.remedy.items() if k in ("acted_ns", "past")}
        incident.remedy["reopened_ns"] = now_ns
        self.event(incident, now_ns, "reopened", finding.summary)
        self.save(incident, now_ns)
        return incident

    def _refresh(self, incident: Incident, finding: Finding, now_ns: int) -> None:
        incident.last_seen_ns = now_ns
        incident.cleared = False
        probers = sorted({*incident.probers, *finding.probers})
        vips = sorted({*incident.seen_by_vips, *finding.vips})
        grown = probers != incident.probers or vips != incident.seen_by_vips
        incident.probers, incident.seen_by_vips = probers, vips
        if incident.kind != finding.kind and finding.kind != "isolated":
            self.event(incident, now_ns, "kind", f"{incident.kind} -> {finding.kind}: {finding.summary}")
            incident.kind, incident.summary = finding.kind, finding.summary
            grown = True
        if grown:
            self.save(incident, now_ns)

    def _absorb(self, above: Incident, now_ns: int) -> None:
        for incident in self.open_ones():
            if incident.family == "node_down" and incident.subject in above.named_nodes:
                incident.cleared = True
                self.event(incident, now_ns, "absorbed", f"its whole cluster is down: {above.id}")
                self.move(incident, CLOSED, now_ns, f"absorbed by {above.id}")

    def clear(self, situation: Situation, reports: Mapping[str, NodeReport], now_ns: int) -> None:
        """Note which nodes have come back: an open incident ends with it, and a next failure counts as a new one."""
        self._back = {}
        for incident in self.open_ones():
            if incident.family not in ABOUT_NODES:
                continue
            if incident.last_seen_ns == now_ns:
                self._note_boots(incident, reports, now_ns)
            if _lately(incident, situation, now_ns):
                continue
            back = [standing.back(n, incident.family, incident.boots, situation, reports) for n in incident.named_nodes]
            if not all(back):
                continue
            self._back[incident.id] = "; ".join(dict.fromkeys(back))
            if not incident.cleared:
                incident.cleared = True
                self.event(incident, now_ns, "back", self._back[incident.id])
                self.save(incident, now_ns)

    def _note_boots(self, incident: Incident, reports: Mapping[str, NodeReport], now_ns: int) -> None:
        boots = {n: reports[n].boot for n in incident.named_nodes if n in reports and reports[n].boot}
        if boots != incident.boots:
            incident.boots = boots
            self.save(incident, now_ns)

    def close_what_is_clean(
        self, now_ns: int, situation: Situation, clean: Callable[[Incident], tuple[bool, str]]
    ) -> tuple[list[Incident], list[Incident]]:
        """Close what is over, and call mitigated what clients do not feel any more; both lists, changed now."""
        closed, mitigated = [], []
        for incident in self.open_ones():
            if incident.remedy.get("status") in ("posting", "posted") or _lately(incident, situation, now_ns):
                continue
            about_node = incident.family in ABOUT_NODES
            over = not about_node or (incident.cleared and incident.id in self._back)
            if incident.state == MITIGATED and not over:
                self._restate(incident, situation, now_ns)
                continue
            why = self._back.get(incident.id, "") if about_node else f"not seen for {_quiet(situation) / SECOND:.0f} s"
            if incident.family in NEEDS_CLEAN and incident.vips and not incident.idle:
                done, found = clean(incident)
                if not done:
                    continue
                why = f"{why}; {found}" if about_node else found
                if not over:
                    self._mitigate(incident, situation, now_ns, found)
                    mitigated.append(incident)
            if over:
                incident.cleared = True
                self.move(incident, CLOSED, now_ns, why)
                closed.append(incident)
        return closed, mitigated

    def _mitigate(self, incident: Incident, situation: Situation, now_ns: int, why: str) -> None:
        incident.mitigated_ns = now_ns
        incident.severity = MITIGATED_SEVERITY
        incident.standing = standing.redundancy(incident.cluster, incident.named_nodes, situation, self.down())
        still = standing.still(incident.family, incident.named_nodes)
        self.move(incident, MITIGATED, now_ns, f"{why}; {still}: {incident.standing}")

    def _restate(self, incident: Incident, situation: Situation, now_ns: int) -> None:
        """Say it when the redundancy that is left changes."""
        left = standing.redundancy(incident.cluster, incident.named_nodes, situation, self.down())
        if left != incident.standing:
            incident.standing = left
            self.event(incident, now_ns, "standing", left)
            self.save(incident, now_ns)


def _quiet(situation: Situation) -> int:
    return 2 * situation.region.period_ns


def _lately(incident: Incident, situation: Situation, now_ns: int) -> bool:
    """Whether a finding that must be gone for a while was seen a moment ago; not in the future, by a clock set back."""
    return incident.family in NEEDS_ABSENCE and 0 <= now_ns - incident.last_seen_ns < _quiet(situation)


def _worst(finding: Finding) -> str:
    return "warning" if finding.evidence.get("idle") else SEVERITY.get(finding.family, "warning")


def _breaks_again(incident: Incident, finding: Finding) -> bool:
    """Whether a mitigated fault is felt again. A dead node is found dead at every look; that alone is no news."""
    if finding.family not in ("node_down", "cluster_down"):
        return True
    lost = [prober for ts, prober in finding.lost if ts > incident.mitigated_ns]
    if len(set(lost)) < min(2, len(incident.probers)):
        return False  # one prober alone loses probes on its own way
    return len(lost) >= max(BROKEN_AGAIN, BROKEN_SHARE * float(finding.evidence.get("expected", 0)))


def _affected(finding: Finding, situation: Situation) -> list[int]:
    region = situation.region
    if finding.family in ("node_down", "cluster_down", "jitter") and finding.cluster:
        role = region.clusters[finding.cluster].role if finding.cluster in region.clusters else ""
        if role == "clb":
            return situation.vips_of(finding.cluster)
    return list(finding.vips)
