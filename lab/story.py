"""What a demo run shows, worked out from what was observed. Pure: recorded observations in, report out.

All times come in as ns since 1970 and go out as seconds since the act's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from contract.incidents import STATES

DETECT_WITHIN_S, RESTORE_WITHIN_S, IDLE_CPU_PERCENT = 15.0, 45.0, 30.0
DONE_STATES = ("done",)


@dataclass(frozen=True, slots=True)
class Probe:
    """A closed probe. `target` is (vip_id, port)."""

    ts_ns: int
    closed_ns: int
    outcome: str
    vip_id: int
    port: int
    prober: str

    @property
    def answered(self) -> bool:
        return self.outcome == "answered"

    @property
    def target(self) -> tuple[int, int]:
        return self.vip_id, self.port


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as the analyzer tells it. `named`: the nodes it blames."""

    id: str
    kind: str
    named: list[str]
    opened_ns: int
    closed_ns: int | None
    state: str
    mitigated_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """One delivered webhook about the incident `incident_id`."""

    ts_ns: int
    incident_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of a client."""

    start_ns: int
    end_ns: int
    outcome: str
    vip_id: int
    kind: str

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


@dataclass
class Act:
    """One fault and everything seen between it and the end of the act."""

    name: str
    fault: str
    target: str
    nodes: list[str]
    affected_vips: list[int]
    fault_ns: int
    probers: int
    end_ns: int | None = None
    probes: list[Probe] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    migrations: list[dict[str, Any]] = field(default_factory=list)
    webhooks: list[Webhook] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def after_s(self, ns: int | None) -> float | None:
        """Seconds from the fault; None stays None."""
        return None if ns is None else round((ns - self.fault_ns) / 1e9, 3)

    def own_incidents(self) -> list[Incident]:
        """Incidents opened since the fault, oldest first."""
        return sorted((i for i in self.incidents if i.opened_ns >= self.fault_ns), key=lambda i: i.opened_ns)

    def named(self) -> list[str]:
        """Every node that an incident of this act blames."""
        return sorted({n for i in self.own_incidents() for n in i.named})

    def detected_ns(self) -> int | None:
        """When the first incident of the act opened."""
        return next((i.opened_ns for i in self.own_incidents()), None)

    def migration(self) -> dict[str, Any] | None:
        """The latest migration of the act's cluster that moved something, or else any that was asked for."""
        asked = [m for m in self.migrations if int(m.get("requested_ns") or 0) >= self.fault_ns]
        moved = [m for m in asked if m.get("announced_ns")]
        found = moved or asked
        return found[-1] if found else None

    def restored_ns(self) -> int | None:
        """When every affected target had been answered after the routes moved, with no unanswered probe since.

        Of each affected (VIP, port): the first answer to a probe sent after the announcement and after the last
        probe that stayed unanswered; the latest of these. None while one is missing.
        """
        migration = self.migration()
        announced = int(migration.get("announced_ns") or 0) if migration else 0
        if not announced:
            return None
        latest = announced
        targets = {p.target for p in self.probes if p.vip_id in self.affected_vips}
        if not targets:
            return None
        for target in targets:
            mine = [p for p in self.probes if p.target == target]
            since = max([announced, *(p.ts_ns for p in mine if not p.answered and p.ts_ns >= self.fault_ns)])
            clean = [p.closed_ns for p in mine if p.answered and p.ts_ns >= since]
            if not clean:
                return None
            latest = max(latest, min(clean))
        return latest

    def recovered_ns(self) -> int | None:
        """When every VIP with a failed request had answered one that began after its last failure; None before."""
        last: dict[int, int] = {}
        for request in self.requests:
            if not request.ok and request.start_ns >= self.fault_ns:
                last[request.vip_id] = max(last.get(request.vip_id, 0), request.start_ns)
        good: dict[int, int] = {}
        for request in self.requests:
            if request.ok and request.start_ns > last.get(request.vip_id, request.start_ns):
                good[request.vip_id] = min(good.get(request.vip_id, request.end_ns), request.end_ns)
        return max(good.values()) if last and good.keys() == last.keys() else None

    def closed_ns(self) -> int | None:
        """When the last incident of the act closed; None while one is open or there is none."""
        closed = [i.closed_ns for i in self.own_incidents()]
        return max(c for c in closed if c) if closed and all(closed) else None

    def settled_ns(self) -> int | None:
        """When clients felt nothing of the last incident of the act any more: mitigated, or closed."""
        settled = [i.mitigated_ns or i.closed_ns for i in self.own_incidents() if not STATES[i.state].hurts]
        return max(s for s in settled if s) if settled and len(settled) == len(self.own_incidents()) else None

    def resolved(self) -> Webhook | None:
        """The first webhook that says that an incident of this act is over."""
        ids = {i.id for i in self.own_incidents()}
        mine = [w for w in self.webhooks if w.incident_id in ids and w.status == "resolved"]
        return min(mine, key=lambda w: w.ts_ns, default=None)

    def webhook(self) -> Webhook | None:
        """The first webhook about an incident of this act."""
        ids = {i.id for i in self.own_incidents()}
        mine = [w for w in self.webhooks if w.incident_id in ids and w.ts_ns >= self.fault_ns]
        return min(mine, key=lambda w: w.ts_ns, default=None)

    def finished(self) -> bool:
        """Whether everything that the act waits for has happened."""
        migration = self.migration()
        return bool(
            self.restored_ns() is not None
            and self.webhook() is not None
            and migration is not None
            and migration.get("state") in DONE_STATES
            and set(self.named()) >= set(self.nodes)
            and self.settled_ns() is not None
        )


def report_of_act(act: Act) -> dict[str, Any]:
    """The entry of `acts` in report.json. None where something was not seen: never a made-up number."""
    restored = act.restored_ns()
    mine = [r for r in act.requests if r.start_ns >= act.fault_ns and (act.end_ns is None or r.start_ns <= act.end_ns)]
    failed = [r for r in mine if not r.ok]
    after = None if restored is None else sum(1 for r in failed if r.start_ns >= restored)
    migration = act.migration()
    named = act.named()
    hook = act.webhook()
    return {
        "act": act.name,
        "fault": f"{act.fault} {act.target}",
        "fault_nodes": act.nodes,
        "detected_after_s": act.after_s(act.detected_ns()),
        "named_node": ", ".join(named) or None,
        "named_correctly": named == sorted(act.nodes),
        "incidents": [asdict(i) for i in act.own_incidents()],
        "action": None
        if migration is None
        else {
            "kind": f"{migration.get('kind')} migration",
            "id": migration.get("id"),
            "cluster": migration.get("cluster"),
            "state": migration.get("state"),
            "vips_moved": len(migration.get("moves") or []),
            "to_clusters": len({m["to"] for m in migration.get("moves") or []}),
            "requested_after_s": act.after_s(migration.get("requested_ns")),
            "announced_after_s": act.after_s(migration.get("announced_ns")),
            "finished_after_s": act.after_s(migration.get("finished_ns")),
            "detail": migration.get("detail"),
        },
        "restored_after_s": act.after_s(restored),
        "webhook_delivered": hook is not None,
        "webhook_after_s": act.after_s(hook.ts_ns) if hook else None,
        "requests_recovered_after_s": act.after_s(act.recovered_ns()),
        "incident_mitigated_after_s": act.after_s(act.settled_ns()),
        "incident_closed_after_s": act.after_s(act.closed_ns()),
        "requests_total": len(mine),
        "requests_failed": len(failed),
        "requests_failed_after_restore": after,
    }


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the timeline. `ts_ns` is when it happened, not when it was seen."""

    ts_ns: int
    act: str
    what: str
    detail: str


def timeline(act: Act) -> list[Event]:
    """The events of an act in the order in which they happened."""
    out = [Event(act.fault_ns, act.name, "fault", f"{act.fault} {act.target} ({', '.join(act.nodes)})")]

    def add(ts_ns: int | None, what: str, detail: str) -> None:
        if ts_ns:
            out.append(Event(int(ts_ns), act.name, what, detail))

    failed = sorted((r for r in act.requests if not r.ok and r.start_ns >= act.fault_ns), key=lambda r: r.end_ns)
    if failed:
        add(failed[0].end_ns, "requests fail", f"first: {failed[0].kind} connection to VIP {failed[0].vip_id}")
    silent = _first(act.probes, lambda p: not p.answered and p.ts_ns >= act.fault_ns)
    if silent:
        add(silent.ts_ns, "first silent probe", f"sent by {silent.prober} to VIP {silent.vip_id}: {silent.outcome}")
    for incident in act.own_incidents():
        add(incident.opened_ns, "incident opened", f"{incident.kind}: {', '.join(incident.named) or 'nobody named'}")
        add(incident.mitigated_ns, "incident mitigated", f"traffic is clean; {', '.join(incident.named)} still faulty")
        if incident.closed_ns:
            add(incident.closed_ns, "incident closed", ", ".join(incident.named))
    hook = act.webhook()
    if hook:
        add(hook.ts_ns, "webhook received", f"{hook.status}")
    resolved = act.resolved()
    if resolved:
        add(resolved.ts_ns, "webhook received", f"{resolved.status}")
    migration = act.migration()
    if migration:
        moves = migration.get("moves") or []
        add(migration.get("requested_ns"), "migration asked for", str(migration.get("cluster")))
        clusters = len({m["to"] for m in moves})
        add(migration.get("announced_ns"), "routes moved", f"{len(moves)} VIPs to {clusters} buffer clusters")
        add(migration.get("finished_ns"), f"migration {migration.get('state')}", str(migration.get("detail") or ""))
        announced = int(migration.get("announced_ns") or 0)
        if announced:
            clean = _first(act.probes, lambda p: p.answered and p.ts_ns >= announced and p.vip_id in act.affected_vips)
            if clean:
                add(clean.closed_ns, "first clean probe", f"{clean.prober}, VIP {clean.vip_id}")
    restored = act.restored_ns()
    add(restored, "restored", "every affected VIP and port answers its probes")
    recovered = act.recovered_ns()
    if recovered:
        add(recovered, "requests recovered", f"{len(failed)} had failed; every VIP that had failures answers again")
    return sorted(out, key=lambda e: e.ts_ns)


def _first(probes: Iterable[Probe], holds: Callable[[Probe], bool]) -> Probe | None:
    return min((p for p in probes if holds(p)), key=lambda p: p.ts_ns, default=None)


def verdict(report: dict[str, Any]) -> list[str]:
    """What did not hold, one line each; empty when all did. The bounds are the story's own."""
    out = []

    def hold(condition: bool, text: str) -> None:
        if not condition:
            out.append(text)

    for act in report["acts"]:
        name = act["act"]
        detected, restored = act["detected_after_s"], act["restored_after_s"]
        hold(
            detected is not None and detected <= DETECT_WITHIN_S,
            f"{name}: detected_after_s: expected at most {DETECT_WITHIN_S:.0f}, got {detected}",
        )
        hold(
            restored is not None and restored <= RESTORE_WITHIN_S,
            f"{name}: restored_after_s: expected at most {RESTORE_WITHIN_S:.0f}, got {restored}",
        )
        hold(
            act["named_correctly"],
            f"{name}: named_node: expected {', '.join(act['fault_nodes'])}, got {act['named_node']}",
        )
        state = act["action"]["state"] if act["action"] else None
        hold(state in DONE_STATES, f"{name}: action: expected a finished migration, got {state}")
        hold(act["webhook_delivered"], f"{name}: webhook_delivered: expected true, got false")
        hold(act["requests_total"] > 0, f"{name}: requests_total: expected some, got 0")
        settled = act["incident_mitigated_after_s"]
        hold(settled is not None, f"{name}: incident_mitigated_after_s: expected a time, got None")
        after = act["requests_failed_after_restore"]
        hold(after == 0, f"{name}: requests_failed_after_restore: expected 0, got {after}")
    hold(report["probes_unexplained"] == 0, f"probes_unexplained: expected 0, got {report['probes_unexplained']}")
    total = report["probes_total"]
    hold(bool(total), f"probes_total: expected some, got {total}")
    hold(bool(report["records_written"]), f"records_written: expected some, got {report['records_written']}")
    hold(report["records_lost"] == 0, f"records_lost: expected 0, got {report['records_lost']}")
    twice = report["records_twice"]
    hold(twice == 0, f"records_twice: expected 0, got {twice}")
    cpu = report["idle_cpu_percent"]
    hold(
        cpu is not None and cpu < IDLE_CPU_PERCENT,
        f"idle_cpu_percent: expected below {IDLE_CPU_PERCENT:.0f}, got {cpu}",
    )
    left = report.get("processes_left")
    hold(not left, f"processes_left: expected none, got {left}")
    spaces = report.get("namespaces_left")
    hold(not spaces, f"namespaces_left: expected none, got {spaces}")
    return out


def probes_of(rows: Sequence[dict[str, Any]]) -> list[Probe]:
    """Probes from warehouse rows (64-bit numbers may be strings)."""
    return [
        Probe(
            int(r["ts_ns"]), int(r["closed_ns"]), str(r["outcome"]), int(r["vip_id"]), int(r["dst_port"]), r["prober"]
        )
        for r in rows
    ]


def requests_of(lines: Sequence[dict[str, Any]]) -> list[Request]:
    """Requests from a client's log."""
    return [Request(x["start_ns"], x["end_ns"], x["outcome"], x["vip_id"], x["kind"]) for x in lines]
