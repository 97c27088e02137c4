"""Nodes of the gateway in a measurement: their configuration, their tables, their processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.wires import Network, Process

EIP, ANYCAST, LD, HOST, SERVICE = "10.3.0.1", "10.3.255.1", "10.3.0.11", "10.3.1.1", "10.4.0.1"
PUBLIC, PRIVATE, PORT = "203.0.113.1", "10.100.0.1", 80
FLOW_CAPACITY = 1 << 20


def port(network: Network, name: str, index: int, interface: str, next_hop_mac: str | None) -> dict[str, Any]:
    """A port of a node, as its tables have it."""
    hop = {} if next_hop_mac is None else {"next_hop_mac": next_hop_mac}
    mac = network.mac(name, interface)
    return {"index": index, "interface": interface, "mac": mac, "mtu": 1600, "host_addresses": []} | hop


def tables(role: str, local: str, section: dict[str, Any], ports: list[dict[str, Any]]) -> dict[str, Any]:
    """The tables of a node."""
    return {
        "epoch": 1,
        "node": role,
        "role": role,
        "tunnel": {"local": local, "encap": "gre"},
        # Nothing here is a probe.
        "probe": {"reserved": ["198.18.0.0/16"], "key": "00" * 16},
        role: section,
        "routes": [],
        "edge_routes": [],
        "ports": ports,
    }


def eip() -> dict[str, Any]:
    binding = {"vip_id": 1, "public": PUBLIC, "private": PRIVATE, "service": SERVICE}
    return {"anycast": ANYCAST, "bindings": [binding]}


def clb(protocol: str, hosts: list[str]) -> dict[str, Any]:
    """One VIP with a real server on each host."""
    backends = [
        {"id": number, "tunnel": host, "key": number, "encap": "gre", "weight": 100}
        for number, host in enumerate(hosts, 1)
    ]
    listener = {"protocol": protocol, "port": PORT, "backends": backends}
    vip = {"id": 1, "address": PRIVATE, "service": SERVICE, "new_flows_per_s": None, "listeners": [listener]}
    return {"reply_to": ANYCAST, "reply_encap": "gre", "vips": [vip]}


def vswitch(server_mac: str) -> dict[str, Any]:
    server = {"id": 1, "key": 1, "port": 1, "mac": server_mac, "vips": [{"id": 1, "address": PRIVATE}]}
    return {"servers": [server]}


def start(
    network: Network, name: str, core: int, binary: Path, device: str, document: dict[str, Any], **settings: Any
) -> Process:
    """Start a node with these tables on its ports, which are of kind `device`. WireError when it does not start."""
    config = {
        "name": document["node"],
        "role": document["role"],
        "boot_id": "0" * 32,
        "flow_capacity": FLOW_CAPACITY,
        "workers": 1,
        # On one core a dispatcher would only take turns with its worker.
        "dispatchers": 0,
        "ports": [{"index": p["index"], "interface": p["interface"], "kind": device} for p in document["ports"]],
    }
    stem = network.directory / f"{network.prefix}{name}"
    files = (stem.with_suffix(".config.json"), stem.with_suffix(".tables.json"))
    for path, content in zip(files, (config | settings, document), strict=True):
        path.write_text(json.dumps(content))
    return network.start(name, core, str(binary), "node", "--config", str(files[0]), "--tables", str(files[1]))
