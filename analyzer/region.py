"""The region as the analyzer knows it: the fleet document indexed, and control's view of it at one moment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.fleet import Cluster, Fleet, Policy, RealServer, Vip

SECOND = 1_000_000_000
# After a VIP moved, old and new cluster share its packets for a moment; neither is tested on them.
SETTLE_NS = 3 * SECOND


class Region:
    """A fleet document, indexed for look-ups by address, id and name."""

    def __init__(self, fleet: Fleet, epoch: int = 0) -> None:
        self.fleet = fleet
        self.epoch = epoch
        self.policy: Policy = fleet.policy
        self.period_ns = int(fleet.probing.period_s * SECOND)
        self.timeout_ns = int(fleet.probing.timeout_s * SECOND)
        self.clusters: dict[str, Cluster] = {c.name: c for c in fleet.clusters}
        self.nodes = {n.name: n for n in fleet.nodes}
        self.members: dict[str, list[str]] = {c.name: [] for c in fleet.clusters}
        for node in fleet.nodes:
            self.members[node.cluster].append(node.name)
        self.vips: dict[int, Vip] = {v.id: v for v in fleet.vips}
        self.servers: dict[int, RealServer] = {s.id: s for s in fleet.real_servers}
        self.probers = [p.name for p in fleet.probing.probers]
        self.eips = [n.name for n in fleet.nodes if self.clusters[n.cluster].role == "eip"]
        self.hosts = [n.name for n in fleet.nodes if self.clusters[n.cluster].role == "vswitch"]
        self._node_at = {str(n.tunnel_address): n.name for n in fleet.nodes}
        self._vip_at = {str(v.service): v.id for v in fleet.vips}
        self._prober_nets = [(net, p.name) for p in fleet.probing.probers for net in p.sources]
        self._prober_of: dict[str, str | None] = {}

    def node_at(self, address: str) -> str | None:
        """The node whose tunnel end point has this address."""
        return self._node_at.get(address)

    def vip_at(self, address: str) -> int | None:
        """The VIP whose service address this is."""
        return self._vip_at.get(address)

    def prober_of(self, source: str) -> str | None:
        """The prober that owns a source address."""
        if source not in self._prober_of:
            found = None
            try:
                address = ipaddress.ip_address(source)
            except ValueError:
                return None
            for net, name in self._prober_nets:
                if address.version == net.version and address in net:
                    found = name
                    break
            if len(self._prober_of) > 100_000:  # sources come from packets
                self._prober_of.clear()
            self._prober_of[source] = found
        return self._prober_of[source]

    def role(self, node: str) -> str:
        """The role of a node, "" when the fleet does not know it."""
        found = self.nodes.get(node)
        return self.clusters[found.cluster].role if found else ""

    def cluster_of(self, node: str) -> str:
        """The cluster of a node, "" when the fleet does not know it."""
        found = self.nodes.get(node)
        return found.cluster if found else ""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as control sees it. `state`: up, unreachable, maintenance, unknown."""

    state: str
    forwarding_alive: bool | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a VIP is served. `moving`: the id of the migration that moves it now."""

    cluster: str
    since_ns: int = 0
    moving: str | None = None


@dataclass(frozen=True, slots=True)
class ControlView:
    """Control's answers at `at_ns`. An empty one (at_ns 0) is what is known when control never answered."""

    at_ns: int = 0
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    placement: Mapping[int, Placed] = field(default_factory=dict)
    migrations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rails: Mapping[str, Any] = field(default_factory=dict)

    def state(self, node: str) -> str:
        """Control's word on a node; "unknown" when there is none."""
        found = self.nodes.get(node)
        return found.state if found else "unknown"


class Situation:
    """The region and control's view together: who serves what, who is meant to serve."""

    def __init__(self, region: Region, view: ControlView) -> None:
        self.region = region
        self.view = view

    def cluster_of_vip(self, vip_id: int) -> str:
        """The cluster that serves a VIP now ("" for an unknown VIP)."""
        placed = self.view.placement.get(vip_id)
        if placed is not None:
            return placed.cluster
        vip = self.region.vips.get(vip_id)
        return vip.cluster if vip else ""

    def settled(self, vip_id: int, ts_ns: int) -> bool:
        """Whether the VIP was in one place only at that time."""
        placed = self.view.placement.get(vip_id)
        if placed is None:
            return True
        return placed.moving is None and ts_ns >= placed.since_ns + SETTLE_NS

    def vips_of(self, cluster: str) -> list[int]:
        """The VIPs that a cluster serves now."""
        return [v for v in self.region.vips if self.cluster_of_vip(v) == cluster]

    def maintained(self, node: str) -> bool:
        """Whether an operator has taken the node out."""
        found = self.region.nodes.get(node)
        return self.view.state(node) == "maintenance" or (found is not None and found.maintenance)

    def expected_members(self, cluster: str) -> list[str]:
        """The nodes of a cluster that are meant to forward."""
        return [n for n in self.region.members.get(cluster, []) if not self.maintained(n)]
