"""Mirrors incidents, their timelines and actions, and the names of things into the warehouse, for dashboards.

Goes by the store's own numbers, so a restart or an outage leaves no gap; a repeated insert carries the same token. A
token names the store, or one that was lost and made anew would repeat the lost one's, and the engine drop its rows.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from analyzer.region import Region
from analyzer.store import Store

INCIDENTS = (
    "id", "fingerprint", "kind", "subject", "state", "severity", "summary", "named_nodes", "vips", "opened",
    "closed", "evidence", "revision",
)  # fmt: skip
EVENTS = ("ts", "incident_id", "seq", "kind", "text")
ACTIONS = ("ts", "id", "incident_id", "kind", "cluster", "state", "detail", "revision")
DIM_NODES = ("name", "cluster", "role", "az", "tunnel_address", "epoch", "revision")
DIM_VIPS = ("id", "name", "home", "public", "private", "service", "epoch", "revision")
DIM_SERVERS = ("id", "name", "host", "address", "epoch", "revision")


@dataclass(slots=True)
class Insert:
    """Rows for one table, once per token."""

    table: str
    columns: Sequence[str]
    rows: list[list[Any]]
    token: str


@dataclass(slots=True)
class Work:
    """Inserts, and what to remember once they are all in."""

    inserts: list[Insert] = field(default_factory=list)
    remember: dict[str, int] = field(default_factory=dict)


def due(store: Store) -> Work:
    """What the warehouse lacks."""
    work = Work()
    after = int(store.get("mirrored_revision", 0))
    incidents, actions = store.incidents_after(after), store.actions_after(after)
    # The oldest rows of both, so that one mark serves both.
    last = max([after, *(r for r, _ in incidents), *(r for r, _ in actions)])
    if len(incidents) == 500 or len(actions) == 500:
        last = min(x[-1][0] for x in (incidents, actions) if len(x) == 500)
    rows = _rows(store, "incidents", _incident, incidents, last)
    if rows:
        work.inserts.append(Insert("incidents", INCIDENTS, rows, f"analyzer-{store.id}-incidents-{after}-{last}"))
    rows = _rows(store, "actions", _action, actions, last)
    if rows:
        work.inserts.append(Insert("actions", ACTIONS, rows, f"analyzer-{store.id}-actions-{after}-{last}"))
    if last > after:
        work.remember["mirrored_revision"] = last
    seen = int(store.get("mirrored_event", 0))
    events = store.events_after(seen)
    if events:
        newest = int(events[-1]["number"])
        lines = [[e["ts_ns"], e["incident_id"], e["number"], e["kind"], e["text"]] for e in events]
        work.inserts.append(Insert("incident_events", EVENTS, lines, f"analyzer-{store.id}-events-{seen}-{newest}"))
        work.remember["mirrored_event"] = newest
    return work


def _rows(
    store: Store,
    table: str,
    make: Callable[[int, dict[str, Any]], list[Any]],
    documents: Iterable[tuple[int, dict[str, Any]]],
    last: int,
) -> list[list[Any]]:
    """A row for each document up to a revision; one that lacks what a row needs is set aside, or it would end us."""
    out = []
    for revision, document in documents:
        if revision <= last:
            try:
                out.append(make(revision, document))
            except (KeyError, TypeError) as error:
                store.set_aside(table, str(document.get("id")), repr(error))
    return out


def names(region: Region, store_id: str) -> Work:
    """The dimension tables of a fleet document, whose epoch rises with every document: the highest is the fleet's."""
    fleet, epoch = region.fleet, region.epoch
    revision = epoch
    nodes: list[list[Any]] = [
        [
            n.name,
            n.cluster,
            region.role(n.name),
            region.clusters[n.cluster].az,
            _ipv6(n.tunnel_address),
            epoch,
            revision,
        ]
        for n in fleet.nodes
    ]
    vips: list[list[Any]] = [
        [v.id, v.name, v.cluster, _ipv6(v.public), _ipv6(v.private), _ipv6(v.service), epoch, revision]
        for v in fleet.vips
    ]
    servers: list[list[Any]] = [[s.id, s.name, s.host, _ipv6(s.address), epoch, revision] for s in fleet.real_servers]
    work = Work()
    for table, columns, rows in (
        ("dim_nodes", DIM_NODES, nodes),
        ("dim_vips", DIM_VIPS, vips),
        ("dim_servers", DIM_SERVERS, servers),
    ):
        if rows:
            work.inserts.append(Insert(table, columns, rows, f"analyzer-{store_id}-{table}-{revision}"))
    return work


def _ipv6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)


def _incident(revision: int, document: dict[str, Any]) -> list[Any]:
    return [
        document["id"],
        document["fingerprint"],
        document["kind"],
        document["subject"],
        document["state"],
        document["severity"],
        document["summary"],
        document["named_nodes"],
        document["vips"],
        document["opened_ns"],
        document["closed_ns"] or None,
        json.dumps(document["evidence"]),
        revision,
    ]


def _action(revision: int, document: dict[str, Any]) -> list[Any]:
    return [
        document["requested_ns"],
        document["id"],
        document["incident_id"],
        document["kind"],
        document["cluster"],
        document["state"],
        document["detail"],
        revision,
    ]
