"""Desired states for the fabric's nodes, worked out from the fleet document: the tests' own stand-in for control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.topology import Topology


def tables(topology: Topology, epoch: int, placement: Mapping[str, str], key: str) -> dict[str, dict[str, Any]]:
    """The tables of every node. `placement`: VIP name -> cluster that serves it."""
    return {name: _tables(topology, name, epoch, placement, key) for name in topology.nodes}


def _tables(topology: Topology, name: str, epoch: int, placement: Mapping[str, str], key: str) -> dict[str, Any]:
    fleet, node = topology.fleet, topology.node(name)
    hosts = {n.name: n for n in fleet.nodes}
    servers = {s.name: s for s in fleet.real_servers}
    out: dict[str, Any] = {
        "epoch": epoch,
        "node": name,
        "role": topology.role(name),
        "tunnel": {"local": str(node.tunnel_address), "encap": node.encap},
        "probe": {"reserved": [str(n) for n in fleet.probing.reserved], "key": key},
        "routes": [f"{node.tunnel_address}/32"],
        "edge_routes": [],
    }
    anycast = str(fleet.tunnel.eip_anycast)
    if out["role"] == "eip":
        out["eip"] = {
            "anycast": anycast,
            "bindings": [
                {"vip_id": v.id, "public": str(v.public), "private": str(v.private), "service": str(v.service)}
                for v in fleet.vips
            ],
        }
        out["routes"].append(f"{anycast}/32")
        out["edge_routes"] = [f"{v.public}/{v.public.max_prefixlen}" for v in fleet.vips]
    elif out["role"] == "clb":
        mine = [v for v in fleet.vips if placement[v.name] == node.cluster]
        out["routes"] += [f"{v.service}/32" for v in mine]
        out["clb"] = {
            "reply_to": anycast,
            "reply_encap": fleet.tunnel.encap,
            "vips": [
                {
                    "id": v.id,
                    "address": str(v.private),
                    "service": str(v.service),
                    "new_flows_per_s": v.new_flows_per_s,
                    "listeners": [
                        {
                            "protocol": x.protocol,
                            "port": x.port,
                            "backends": [
                                {
                                    "id": servers[s].id,
                                    "tunnel": str(hosts[servers[s].host].tunnel_address),
                                    "key": servers[s].key,
                                    "encap": hosts[servers[s].host].encap,
                                    "weight": servers[s].weight,
                                }
                                for s in x.real_servers
                            ],
                        }
                        for x in v.listeners
                    ],
                }
                for v in mine
            ],
        }
    else:
        out["vswitch"] = {
            "servers": [
                {
                    "id": s.id,
                    "key": s.key,
                    "vips": [{"id": v.id, "address": str(v.private)} for v in topology.vips_of_server(s.name)],
                }
                for s in fleet.real_servers
                if s.host == name
            ]
        }
    return out
