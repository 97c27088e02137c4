"""What the API answers with."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from analyzer import journey
from analyzer.alerting.silence import Silence
from analyzer.engine import Engine
from analyzer.incident import Incident
from analyzer.region import SECOND
from analyzer.store import Store

RECENT_NS = 60 * SECOND


class Problem(BaseModel):
    """Why a request was not answered as wished."""

    detail: str


class Page(BaseModel):
    """Some of many, newest first. `next`: what to ask for the following page by (`before`); null: there is none."""

    items: list[dict[str, Any]]
    next: str | None


class Health(BaseModel):
    """How the analyzer is."""

    status: str
    failing: dict[str, str]
    frozen: str | None
    started_ns: int
    looked_ns: int
    look_s: float
    feed_lag_s: float
    open_incidents: int


class Totals(BaseModel):
    """How all probes ended that were sent since `since_ns`, when the analyzer's state began."""

    since_ns: int
    probes_total: int
    answered: int
    refused: int
    dropped: int
    silent: int
    unexplained: int
    unknown_feed: int
    unsent: int
    waiting: int
    without_probe_record: int
    records_lost: int


def document_of(engine: Engine, identity: str) -> dict[str, Any] | None:
    """An incident as it is now, from memory or from the store."""
    incident = engine.book.incidents.get(identity)
    document = incident.as_dict() if incident is not None else engine.store.incident(identity)
    return document and document | {"closed_ns": document.get("closed_ns") or None}


def incidents(engine: Engine, limit: int, before: str | None, states: Collection[str] | None) -> Page:
    """Incidents without their samples. `before`: opened_ns:id."""
    place: tuple[int, str] | None = None
    if before is not None:
        opened, _, identity = before.partition(":")
        place = min(int(opened), 2**63 - 1), identity
    found = engine.store.incident_page(limit, place, states)
    items = []
    for kept in found:
        document = document_of(engine, str(kept["id"])) or kept
        items.append({k: v for k, v in document.items() if k != "samples"})
    last = f"{found[-1]['opened_ns']}:{found[-1]['id']}" if len(found) == limit else None
    return Page(items=items, next=last)


class Silences(BaseModel):
    """Some silences, newest first. `next`: see Page."""

    items: list[Silence]
    next: str | None


def silences(found: Iterable[Silence], limit: int, before: str | None) -> Silences:
    """A page of silences. `before`: created_ns:id."""
    ordered = sorted(found, key=lambda s: (s.created_ns, s.id), reverse=True)
    if before is not None:
        created, _, identity = before.partition(":")
        ordered = [s for s in ordered if (s.created_ns, s.id) < (int(created), identity)]
    items = ordered[:limit]
    more = len(ordered) > limit
    return Silences(items=items, next=f"{items[-1].created_ns}:{items[-1].id}" if more else None)


def by_number(found: list[dict[str, Any]], limit: int) -> Page:
    """A page of what carries a number; newest first."""
    return Page(items=found, next=str(found[-1]["number"]) if len(found) == limit else None)


def whole(document: dict[str, Any], store: Store) -> dict[str, Any]:
    """An incident with everything about it: of its timeline the last, see its own page for the rest."""
    identity = str(document["id"])
    return document | {
        "timeline": store.events(identity, 1000),
        "actions": store.actions(identity)[-200:],
        "alerts": store.deliveries(identity)[-200:],
        "decisions": store.decisions(200, identity),
    }


def nodes(engine: Engine) -> list[dict[str, Any]]:
    """Every node with its verdict. An open incident about it outweighs the numbers of this second."""
    situation = engine.situation()
    region = engine.region
    blamed: dict[str, Incident] = {}
    for incident in engine.book.open_ones():
        for name in incident.named_nodes:
            blamed.setdefault(name, incident)
    out = []
    for node in region.fleet.nodes:
        report = engine.detector.reports.get(node.name)
        mine = blamed.get(node.name)
        out.append(
            {
                "name": node.name,
                "cluster": node.cluster,
                "role": region.role(node.name),
                "az": region.clusters[node.cluster].az,
                "verdict": report.verdict if report is not None else "learning",
                "incident": mine.id if mine is not None else None,
                "control": situation.view.state(node.name),
                "feed": engine.feeds.status(node.name),
                "heartbeat_ns": engine.feeds.heartbeat_ns(node.name),
                "numbers": asdict(report) if report is not None else None,
            }
        )
    return out


def vip_name(engine: Engine, vip_id: int) -> str | None:
    """The name of a VIP."""
    vip = engine.region.vips.get(vip_id)
    return vip.name if vip is not None else None


def vips(engine: Engine) -> list[dict[str, Any]]:
    """Every VIP with how its recent probes ended."""
    situation = engine.situation()
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    last: dict[int, int] = {}
    for entry in engine.ledger.recent(engine.now_ns - RECENT_NS):
        if entry.verdict is not None:
            counts[entry.vip_id][entry.verdict.kind] += 1
            if entry.verdict.kind == "answered" and entry.probe is not None:
                last[entry.vip_id] = max(last.get(entry.vip_id, 0), entry.probe.ts_ns)
    out = []
    for vip in engine.region.fleet.vips:
        placed = situation.view.placement.get(vip.id)
        out.append(
            {
                "id": vip.id,
                "name": vip.name,
                "public": str(vip.public),
                "home": vip.cluster,
                "cluster": situation.cluster_of_vip(vip.id),
                "moving": placed.moving if placed is not None else None,
                "demand": vip.demand,
                "probes": dict(counts[vip.id]),
                "last_answered_ns": last.get(vip.id),
            }
        )
    return out


def probes(engine: Engine, vip: int | None, outcome: str | None, since: int | None, limit: int) -> list[dict[str, Any]]:
    """Remembered probes, newest first."""
    out: list[dict[str, Any]] = []
    # Entries are in order of when they were first seen: nothing sent later than `since` was seen before it.
    for entry in engine.ledger.recent(since or 0):
        sent = entry.probe.ts_ns if entry.probe is not None else entry.first_ns
        if (vip is not None and entry.vip_id != vip) or (since is not None and sent < since):
            continue
        if outcome is not None and (entry.verdict is None or entry.verdict.kind != outcome):
            continue
        out.append(
            {
                "probe_id": str(entry.probe_id),
                "probe_id_hex": f"0x{entry.probe_id:016x}",
                "vip_id": entry.vip_id,
                "vip": vip_name(engine, entry.vip_id),
                "prober": entry.prober,
                "sent_ns": sent,
                "outcome": journey.outcome_name(entry.probe.outcome) if entry.probe is not None else None,
                "rtt_ns": entry.probe.rtt_ns if entry.probe is not None else None,
                "verdict": journey.verdict_of(entry.verdict),
            }
        )
        if len(out) >= limit:
            break
    return sorted(out, key=lambda p: -int(p["sent_ns"]))
