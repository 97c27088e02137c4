"""The settings file of every process of the lab. Pure: topology and places in, TOML text out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import birds
from lab.state import Run
from lab.topology import EDGE, EDGE_ASN, FABRIC, FABRIC_ASN, Topology

TAP_CAPACITY = 16384
WRITER, READER = "writer", "reader"
SERVICES = ("control", "warehouse", "analyzer", "receiver")


@dataclass(frozen=True, slots=True)
class Secrets:
    """What must not be guessed. `probe_key`: 32 hex digits; the rest: passwords of 32 characters."""

    probe_key: str
    warehouse_writer: str
    warehouse_reader: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where the services listen on loopback: a port by name of SERVICES."""

    ports: Mapping[str, int]

    def url(self, name: str) -> str:
        """The base URL of a service."""
        return f"http://127.0.0.1:{self.ports[name]}"


def files(topology: Topology, run: Run, places: Places, secrets: Secrets) -> dict[Path, str]:
    """Every settings file of the region by path."""
    out: dict[Path, str] = {
        run.fleet: topology.fleet.model_dump_json(indent=1),
        run.part(EDGE) / "bird.conf": birds.router(topology, "edge"),
        run.part(FABRIC) / "bird.conf": birds.router(topology, "fabric"),
        run.root / "probe.key": secrets.probe_key + "\n",
    }
    for name in topology.nodes:
        out[run.node(name) / "node.toml"] = toml(node(topology, run, name))
        out[run.node(name) / "speaker.toml"] = toml(speaker(topology, run, name))
    for name in topology.probers:
        out[run.part(name) / "prober.toml"] = toml(prober(topology, run, name))
    out[run.part("control") / "control.toml"] = toml(control(run, places))
    out[run.part("warehouse") / "warehouse.toml"] = toml(warehouse(run, places))
    out[run.part("collector") / "collector.toml"] = toml(collector(run, places))
    out[run.part("analyzer") / "analyzer.toml"] = toml(analyzer(run, places))
    out[password(run, WRITER)] = secrets.warehouse_writer + "\n"
    out[password(run, READER)] = secrets.warehouse_reader + "\n"
    return out


def node(topology: Topology, run: Run, name: str) -> dict[str, Any]:
    """node.toml. Port 0 is the fabric; port 1 the edge of an EIP node; 1 and up the servers of a vSwitch."""
    role = topology.role(name)
    fabric = topology.link(name, "fabric")
    ports: list[dict[str, Any]] = [
        {"index": 0, "interface": fabric.interface, "next_hop": fabric.router4, "mtu": fabric.mtu}
    ]
    if role == "eip":
        edge = topology.link(name, "edge")
        ports.append(
            {
                "index": 1,
                "interface": edge.interface,
                "next_hop": edge.router4,
                "next_hop6": edge.router6,
                "mtu": edge.mtu,
            }
        )
    server_ports = []
    keys = {s.name: s.key for s in topology.fleet.real_servers}
    for link in topology.server_links:
        if link.host == name:
            ports.append({"index": link.port, "interface": link.interface, "next_hop": link.address, "mtu": 1500})
            server_ports.append({"key": keys[link.server], "port": link.port, "mac": link.mac})
    for port in ports:
        port["kind"] = topology.device
    return {
        "name": name,
        "role": role,
        "state_dir": str(run.node(name)),
        "tap_dir": str(run.taps),
        "tap_capacity": TAP_CAPACITY,
        # One dispatcher is worker 0 of an LD; one processing worker each is enough for the lab's traffic.
        "workers": 1,
        "allow_faults": True,
        "api": {"socket": str(run.socket(name))},
        "port": ports,
        **({"server_port": server_ports} if server_ports else {}),
    }


def speaker(topology: Topology, run: Run, name: str) -> dict[str, Any]:
    """speaker.toml: a session with the fabric router; an EIP node has two more with the edge router."""
    fabric = topology.link(name, "fabric")
    sessions: list[dict[str, Any]] = [
        {
            "name": "fabric",
            "interface": fabric.interface,
            "neighbor": fabric.router4,
            "neighbor_asn": FABRIC_ASN,
            "local": fabric.address4,
            "bfd": True,
            "family": 4,
            "side": "fabric",
        }
    ]
    if topology.role(name) == "eip":
        edge = topology.link(name, "edge")
        for family, neighbor, local in ((4, edge.router4, edge.address4), (6, edge.router6, edge.address6)):
            sessions.append(
                {
                    "name": f"edge{family}",
                    "interface": edge.interface,
                    "neighbor": neighbor,
                    "neighbor_asn": EDGE_ASN,
                    "local": local,
                    "bfd": True,
                    "family": family,
                    "side": "edge",
                }
            )
    return {
        "node": name,
        "state_dir": str(run.node(name)),
        "router_id": fabric.address4,
        "asn": topology.asn(name),
        "session": sessions,
    }


def prober(topology: Topology, run: Run, name: str) -> dict[str, Any]:
    """prober.toml."""
    link = topology.link(name, "edge")
    return {
        "name": name,
        "interface": link.interface,
        "fleet": str(run.fleet),
        "key_file": str(run.root / "probe.key"),
        "tap_dir": str(run.taps),
        "next_hop": link.router4,
        "next_hop6": link.router6,
    }


def control(run: Run, places: Places) -> dict[str, Any]:
    """control.toml."""
    return {
        "state_dir": str(run.part("control")),
        "node_socket": str(run.root / "nodes" / "{node}" / "api.sock"),
        "probe_key_file": str(run.root / "probe.key"),
        "api": {"host": "127.0.0.1", "port": places.ports["control"]},
    }


def password(run: Run, user: str) -> Path:
    """The file that holds the password of a user of the warehouse."""
    return run.part("keys") / f"{user}.password"


def warehouse(run: Run, places: Places) -> dict[str, Any]:
    """warehouse.toml."""
    return {
        "state_dir": str(run.part("warehouse")),
        "listen": {"host": "127.0.0.1", "port": places.ports["warehouse"]},
        "writer": {"name": WRITER, "password_file": str(password(run, WRITER))},
        "reader": {"name": READER, "password_file": str(password(run, READER))},
    }


def _warehouse_client(run: Run, places: Places) -> dict[str, Any]:
    return {"url": places.url("warehouse"), "user": WRITER, "password_file": str(password(run, WRITER))}


def collector(run: Run, places: Places) -> dict[str, Any]:
    """collector.toml."""
    return {
        "taps_dir": str(run.taps),
        "spool_dir": str(run.part("collector") / "spool"),
        "warehouse": _warehouse_client(run, places),
    }


def analyzer(run: Run, places: Places) -> dict[str, Any]:
    """analyzer.toml."""
    return {
        "state_dir": str(run.part("analyzer")),
        "fleet": str(run.fleet),
        "listen": {"host": "127.0.0.1", "port": places.ports["analyzer"]},
        "control": {"url": places.url("control")},
        "warehouse": _warehouse_client(run, places),
        "receivers": [{"name": "lab", "url": places.url("receiver") + "/alerts"}],
    }


def toml(data: Mapping[str, Any]) -> str:
    """TOML of nested mappings, lists of mappings, strings, numbers, booleans and lists of those."""
    return "".join(_table(data, ""))


def _table(data: Mapping[str, Any], path: str) -> list[str]:
    lines = [f"{k} = {_value(v)}\n" for k, v in data.items() if not _nested(v)]
    for key, value in data.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            lines += [f"\n[{where}]\n", *_table(value, where)]
        elif _nested(value):
            for item in value:
                lines += [f"\n[[{where}]]\n", *_table(item, where)]
    return lines


def _nested(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return isinstance(value, Mapping) or (is_list and len(value) > 0 and isinstance(value[0], Mapping))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # A JSON string is a TOML basic string.
        return json.dumps(value)
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"no TOML for {type(value).__name__}")
