"""The lab's topology as a simulated region: every link, router, node, host and prober of it, and the faults."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from contract.documents import check
from gateway.node_state import NodeSettings
from lab import documents
from lab.fabric.engine import Fabric
from lab.fabric.hosts import HttpClient, HttpServer
from lab.fabric.node import Booted, Node
from lab.fabric.router import Attachment, Router
from lab.fabric.speaker import Session, Speaker
from lab.fabric.witness import Witness
from lab.state import Run
from lab.topology import EDGE, EDGE_MTU, FABRIC, GATEWAY4, GATEWAY6, Link, Side, Topology
from lab.traffic import Request, targets
from prober.judge import Closed

Boot = Callable[[str, str], Booted]


class Region:
    """A region in one process. Nothing runs until `start`, and time stands until the fabric is advanced.

    `run`: where the nodes' settings say that files are; nothing is written there. `boot`: (node, role) -> a
    fresh process. `record`: (prober, closed probe) -> written or not. `note`: (client, request).
    """

    def __init__(
        self,
        topology: Topology,
        run: Run,
        fabric: Fabric,
        seed: int,
        key: bytes,
        boot: Boot,
        record: Callable[[str, Closed], bool],
        note: Callable[[str, Request], None],
    ) -> None:
        self.topology = topology
        self.fabric = fabric
        self._run = run
        self._boot = boot
        self.edge = Router(fabric, EDGE, seed, inner_hash=False, answers_icmp=False)
        self.fabric_router = Router(fabric, FABRIC, seed + 1, inner_hash=True, answers_icmp=True)
        self._routers: dict[str, Router] = {EDGE: self.edge, FABRIC: self.fabric_router}
        for link in topology.links:
            self._routers[link.side].attach(
                Attachment(link.index, _mac(link.router_mac), _mac(link.mac), ip_address(link.router4).packed)
            )
        self.nodes = {name: self._node(name) for name in topology.nodes}
        self.servers = {name: self._server(name) for name in topology.servers}
        self.clients = {name: self._client(name, note) for name in topology.clients}
        self.probers = {name: self._prober(name, key, record) for name in topology.probers}

    def start(self) -> None:
        """Start every node that does not run, without tables."""
        for node in self.nodes.values():
            if node.life.value == "dead":
                node.start()

    def probe(self) -> None:
        """Let the probers begin."""
        for prober in self.probers.values():
            prober.set_fleet(self.topology.fleet)

    def ask(self, rate: float, kept: int) -> None:
        """Let the clients begin: `rate` new connections a second and `kept` open ones, each."""
        for client in self.clients.values():
            client.start(targets(self.topology.fleet), rate, kept)

    def pipeline_drops(self) -> int:
        """Frames that living pipelines dropped, by their own counters (a killed one took its counters along)."""
        return sum(sum(node.drops().values()) for node in self.nodes.values())

    def _attach(self, station: Any, link: Link, port: int = 0) -> None:
        self.fabric.connect((self._routers[link.side], link.index), (station, port), link.mtu)

    def _node(self, name: str) -> Node:
        topology, role = self.topology, self.topology.role(name)
        link = topology.link(name, "fabric")
        sessions = [Session("fabric", "fabric", 4, self.fabric_router, link.index)]
        ports = [self._port(0, link)]
        if role == "eip":
            edge = topology.link(name, "edge")
            sessions.append(Session("edge4", "edge", 4, self.edge, edge.index))
            sessions.append(Session("edge6", "edge", 6, self.edge, edge.index))
            ports.append(self._port(1, edge))
        ports += [
            {
                "index": server.port,
                "interface": server.interface,
                "mac": server.host_mac,
                "next_hop_mac": server.mac,
                "mtu": EDGE_MTU,
                "host_addresses": [GATEWAY4, GATEWAY6],
            }
            for server in topology.server_links
            if server.host == name
        ]
        settings = check(documents.node(topology, self._run, name), NodeSettings, f"the settings of {name}")
        speaker = Speaker(self.fabric, name, sessions)
        node = Node(self.fabric, settings, ports, speaker, lambda: self._boot(name, role))
        self._attach(node, link)
        if role == "eip":
            self._attach(node, topology.link(name, "edge"), 1)
        return node

    @staticmethod
    def _port(index: int, link: Link) -> dict[str, Any]:
        return {
            "index": index,
            "interface": link.interface,
            "mac": link.mac,
            "next_hop_mac": link.router_mac,
            "mtu": link.mtu,
            "host_addresses": [link.address4, *([link.address6] if link.side == "edge" else [])],
        }

    def _server(self, name: str) -> HttpServer:
        link = next(s for s in self.topology.server_links if s.server == name)
        services = {
            (str(vip.private), listener.port)
            for vip in self.topology.vips_of_server(name)
            for listener in vip.listeners
            if listener.protocol == "tcp" and name in listener.real_servers
        }
        server = HttpServer(self.fabric, name, _mac(link.mac), _mac(link.host_mac), sorted(services))
        self.fabric.connect((self.nodes[link.host], link.port), (server, 0), EDGE_MTU)
        return server

    def _client(self, name: str, note: Callable[[str, Request], None]) -> HttpClient:
        link = self._host_link(name)
        addresses = [link.address4, link.address6]
        client = HttpClient(
            self.fabric, name, _mac(link.mac), _mac(link.router_mac), addresses, lambda request: note(name, request)
        )
        self._attach(client, link)
        self.edge.announce(f"static-{name}", link.index, [f"{link.address4}/32", f"{link.address6}/128"])
        return client

    def _prober(self, name: str, key: bytes, record: Callable[[str, Closed], bool]) -> Witness:
        link = self._host_link(name)
        prober = Witness(
            self.fabric, name, key, _mac(link.mac), _mac(link.router_mac), lambda closed: record(name, closed)
        )
        self._attach(prober, link)
        sources = next(p.sources for p in self.topology.fleet.probing.probers if p.name == name)
        self.edge.announce(f"static-{name}", link.index, [str(n) for n in sources])
        return prober

    def _host_link(self, name: str, side: Side = "edge") -> Link:
        return self.topology.link(name, side)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
