"""What each node is to do. Pure: the fleet document and who holds what in, one node's desired state out.

Tables and announcements are decided apart: a cluster may hold a VIP without announcing it (before and after a move).
The result has no epoch: that belongs to whoever compares it with what the node was told last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contract.fleet import Fleet, Node, Vip
from gateway.control.models import Migration


@dataclass(frozen=True, slots=True)
class Holdings:
    """By VIP id: the clusters that hold its tables, and those among them that announce it."""

    tables: Mapping[int, frozenset[str]]
    announce: Mapping[int, frozenset[str]]


def holdings(current: Mapping[int, str], migrations: Iterable[Migration]) -> Holdings:
    """Who holds and announces each VIP, given where each is now and the migrations that are on their way.

    Make before break: both clusters hold a moving VIP from start to end, and both announce it while routes change.
    """
    tables = {vip: frozenset({cluster}) for vip, cluster in current.items()}
    announce = dict(tables)
    for migration in migrations:
        if not migration.active:
            continue
        for move in migration.moves:
            if move.vip_id not in tables:
                continue
            source, to = frozenset({move.source}), frozenset({move.to})
            tables[move.vip_id] = source | to
            if migration.settling or migration.state == "announcing":
                announce[move.vip_id] = source | to
            else:
                announce[move.vip_id] = to if migration.state == "verifying" else source
    return Holdings(tables, announce)


@dataclass(frozen=True, slots=True)
class Desired:
    """One node's desired state without its epoch. `vips`: the ids its tables hold; `routes` by VIP id it announces."""

    node: str
    document: dict[str, Any]
    vips: frozenset[int]
    routes: Mapping[int, str]

    @property
    def digest(self) -> str:
        """Names the content: the same document has the same digest after a restart of control."""
        return hashlib.sha256(json.dumps(self.document, sort_keys=True).encode()).hexdigest()


def host_route(address: object) -> str:
    """The prefix of one address: /32 or /128."""
    text = str(address)
    return f"{text}/{128 if ':' in text else 32}"


_PROTECTION = ("packets_per_s", "bytes_per_s", "flood_gate_per_s", "deny", "allow")


def _protection(vip: Vip) -> dict[str, Any]:
    """What a VIP asks for its protection, and nothing of what it does not."""
    asked = {field: getattr(vip, field) for field in _PROTECTION if getattr(vip, field) is not None}
    return asked if vip.syn_cookies == "never" else asked | {"syn_cookies": vip.syn_cookies}


def all_nodes(fleet: Fleet, held: Holdings, drained: Collection[str], probe_key: str) -> dict[str, Desired]:
    """The desired state of every node, by name. `drained`: nodes in maintenance, which keep tables and lose routes."""
    view = _View(fleet, held, probe_key)
    return {n.name: view.node(n, n.name in drained) for n in fleet.nodes}


class _View:
    """The fleet document by name, worked out once for all nodes."""

    def __init__(self, fleet: Fleet, held: Holdings, probe_key: str) -> None:
        self._fleet = fleet
        self._held = held
        self._roles = {c.name: c.role for c in fleet.clusters}
        self._nodes = {n.name: n for n in fleet.nodes}
        self._servers = {s.name: s for s in fleet.real_servers}
        self._probe = {"reserved": [str(r) for r in fleet.probing.reserved], "key": probe_key}
        self._vips_of_server: dict[str, list[Vip]] = {}
        for vip in fleet.vips:
            for name in dict.fromkeys(name for x in vip.listeners for name in x.real_servers):
                self._vips_of_server.setdefault(name, []).append(vip)
        self._vips_of_cluster: dict[str, list[Vip]] = {}
        for vip in fleet.vips:
            for cluster in held.tables.get(vip.id, frozenset()):
                self._vips_of_cluster.setdefault(cluster, []).append(vip)

    def node(self, node: Node, drained: bool) -> Desired:
        role = self._roles[node.cluster]
        section, vips, announced, edge = {"eip": self._eip, "clb": self._clb, "vswitch": self._vswitch}[role](node)
        own = [host_route(node.tunnel_address)]
        if role == "eip":
            own.append(host_route(self._fleet.tunnel.eip_anycast))
        document = {
            "node": node.name,
            "role": role,
            "tunnel": {
                "local": str(node.tunnel_address),
                "encap": node.encap if role == "vswitch" else self._fleet.tunnel.encap,
            },
            "probe": self._probe,
            role: section,
            "routes": [] if drained else own + list(dict.fromkeys(announced.values())),
            "edge_routes": [] if drained else edge,
        }
        return Desired(node.name, document, frozenset(vips), {} if drained else announced)

    def _eip(self, node: Node) -> tuple[dict[str, Any], list[int], dict[int, str], list[str]]:
        vips = self._fleet.vips
        bindings = [
            {"vip_id": v.id, "public": str(v.public), "private": str(v.private), "service": str(v.service)}
            for v in vips
        ]
        section = {"anycast": str(self._fleet.tunnel.eip_anycast), "bindings": bindings}
        return section, [v.id for v in vips], {}, [host_route(v.public) for v in vips]

    def _clb(self, node: Node) -> tuple[dict[str, Any], list[int], dict[int, str], list[str]]:
        vips = self._vips_of_cluster.get(node.cluster, [])
        section: dict[str, Any] = {
            "reply_to": str(self._fleet.tunnel.eip_anycast),
            "reply_encap": self._fleet.tunnel.encap,
            "vips": [self._vip(v) for v in vips],
        }
        names = {name for v in vips for name in (v.deny, v.allow) if name is not None}
        if names:
            section["source_lists"] = {name: self._fleet.source_lists[name] for name in sorted(names)}
        if self._fleet.blacklist is not None:
            section["blacklist"] = self._fleet.blacklist.model_dump()
        announced = {v.id: host_route(v.service) for v in vips if node.cluster in self._held.announce[v.id]}
        return section, [v.id for v in vips], announced, []

    def _vip(self, vip: Vip) -> dict[str, Any]:
        listeners = [
            {"protocol": x.protocol, "port": x.port, "backends": [self._backend(n) for n in x.real_servers]}
            for x in vip.listeners
        ]
        return {
            "id": vip.id,
            "address": str(vip.private),
            "service": str(vip.service),
            "new_flows_per_s": vip.new_flows_per_s,
            "listeners": listeners,
            **_protection(vip),
        }

    def _backend(self, name: str) -> dict[str, Any]:
        server = self._servers[name]
        host = self._nodes[server.host]
        return {
            "id": server.id,
            "tunnel": str(host.tunnel_address),
            "key": server.key,
            "encap": host.encap,
            "weight": server.weight,
        }

    def _vswitch(self, node: Node) -> tuple[dict[str, Any], list[int], dict[int, str], list[str]]:
        servers, ids = [], []
        for server in self._fleet.real_servers:
            if server.host == node.name:
                vips = self._vips_of_server.get(server.name, [])
                ids += [v.id for v in vips]
                addresses = [{"id": v.id, "address": str(v.private)} for v in vips]
                servers.append({"id": server.id, "key": server.key, "vips": addresses})
        return {"servers": servers}, ids, {}, []
