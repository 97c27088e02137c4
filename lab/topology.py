"""What the region of the lab is made of: the fleet document, every link, address and MAC. Pure: no I/O, no clock.

Two routing domains. The edge router joins clients, probers and EIP nodes; the fabric router joins EIP nodes, LDs and
the hosts of real servers. Every attachment is a point-to-point veth with a /30 (and a /64 on the edge) of its own.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from contract import fleet as documents
from contract.documents import check

EDGE, FABRIC = "edge", "fabric"
EDGE_ASN, FABRIC_ASN, FIRST_NODE_ASN = 64512, 64513, 4_200_000_000
EDGE_MTU, FABRIC_MTU = 1500, 1600
GATEWAY4, GATEWAY6 = "169.254.1.1", "fe80::1"
RESERVED = ("198.18.0.0/16", "2001:db8:18::/48")
LD_CAPACITY, BUFFER_CAPACITY, OTHER_CAPACITY = 30.0, 15.0, 1000.0

Side = Literal["edge", "fabric"]


@dataclass(frozen=True, slots=True)
class Size:
    """How big a region is. `vips6` of the `vips` are IPv6; `lds` per serving cluster; every count is at least 1."""

    eips: int = 2
    clusters: int = 2
    lds: int = 2
    buffers: int = 10
    hosts: int = 4
    servers: int = 4
    probers: int = 2
    clients: int = 2
    vips: int = 40
    vips6: int = 4

    def __post_init__(self) -> None:
        limits = {"eips": 8, "clusters": 4, "lds": 4, "buffers": 20, "hosts": 8, "servers": 16, "probers": 4}
        limits |= {"clients": 4, "vips": 200, "vips6": self.vips}
        for name, limit in limits.items():
            value = getattr(self, name)
            least = 0 if name == "vips6" else 1
            if not least <= value <= limit:
                raise ValueError(f"{name}: expected {least} to {limit}, got {value}")
        if self.hosts > self.servers:
            raise ValueError(f"hosts: expected at most one host per real server ({self.servers}), got {self.hosts}")


DEMO = Size()
SMALL = Size(eips=1, clusters=1, lds=2, buffers=2, hosts=1, servers=2, probers=1, clients=1, vips=4, vips6=1)
SIZES = {"demo": DEMO, "small": SMALL}


@dataclass(frozen=True, slots=True)
class Link:
    """A veth pair between the far end `name` (a node, prober or client) and a router."""

    name: str
    side: Side
    index: int
    mtu: int

    @property
    def interface(self) -> str:
        """The interface's name at the far end."""
        return f"{self.side}0"

    @property
    def router_interface(self) -> str:
        return f"{self.side[0]}{self.index}"

    def _net(self) -> int:
        return 1 if self.side == EDGE else 2

    @property
    def router4(self) -> str:
        return f"10.{self._net()}.{self.index}.1"

    @property
    def address4(self) -> str:
        return f"10.{self._net()}.{self.index}.2"

    @property
    def router6(self) -> str:
        return f"fd0{self._net()}:0:0:{self.index:x}::1"

    @property
    def address6(self) -> str:
        return f"fd0{self._net()}:0:0:{self.index:x}::2"

    @property
    def router_mac(self) -> str:
        return f"02:7e:{self._net():02x}:00:{self.index:02x}:01"

    @property
    def mac(self) -> str:
        return f"02:7e:{self._net():02x}:00:{self.index:02x}:02"


@dataclass(frozen=True, slots=True)
class ServerLink:
    """A veth pair between a real server and port `port` of the vSwitch of its host."""

    server: str
    host: str
    number: int
    port: int

    @property
    def interface(self) -> str:
        """The interface's name in the host's namespace; `eth0` in the server's."""
        return f"srv{self.port}"

    @property
    def host_mac(self) -> str:
        return f"02:7e:05:00:{self.number:02x}:01"

    @property
    def mac(self) -> str:
        return f"02:7e:05:00:{self.number:02x}:02"

    @property
    def address(self) -> str:
        return f"10.5.0.{self.number}"


@dataclass(frozen=True)
class Topology:
    """A region of `size` whose namespaces are called `prefix` + name. `probe_period_s`: see Probing.period_s."""

    size: Size = DEMO
    prefix: str = "tgw-"
    probe_period_s: float = 5.0
    probe_timeout_s: float = 2.0
    # `kind` of every node's ports. AF_XDP works on veths, but two dozen nodes would take 6 MB of frames and a program
    # for each port, for no gain at the lab's rates.
    device: str = "af_packet"

    def namespace(self, name: str) -> str:
        """The network namespace of a node, router, real server, prober or client."""
        return f"{self.prefix}{name}"

    @property
    def namespaces(self) -> list[str]:
        """Every namespace of the region."""
        names = [EDGE, FABRIC, *self.nodes, *self.servers, *self.probers, *self.clients]
        return [self.namespace(n) for n in names]

    @property
    def nodes(self) -> list[str]:
        return [n.name for n in self.fleet.nodes]

    @property
    def servers(self) -> list[str]:
        return [f"rs-{i + 1}" for i in range(self.size.servers)]

    @property
    def probers(self) -> list[str]:
        return [f"prober-{i + 1}" for i in range(self.size.probers)]

    @property
    def clients(self) -> list[str]:
        return [f"client-{i + 1}" for i in range(self.size.clients)]

    def role(self, node: str) -> Literal["eip", "clb", "vswitch"]:
        """The role of a node; KeyError."""
        return self.fleet.role_of(self.node(node))

    def node(self, name: str) -> documents.Node:
        """The node of that name; KeyError."""
        for item in self.fleet.nodes:
            if item.name == name:
                return item
        raise KeyError(name)

    @cached_property
    def links(self) -> list[Link]:
        """Every veth to a router, edge ones first."""
        eips = [n for n in self.nodes if self.role(n) == "eip"]
        edge = [*eips, *self.probers, *self.clients]
        out = [Link(name, "edge", i + 1, EDGE_MTU) for i, name in enumerate(edge)]
        return out + [Link(name, "fabric", i + 1, FABRIC_MTU) for i, name in enumerate(self.nodes)]

    def link(self, name: str, side: Side) -> Link:
        """The link of `name` on that side; KeyError when it has none."""
        for item in self.links:
            if (item.name, item.side) == (name, side):
                return item
        raise KeyError(f"{name} has no {side} link")

    @cached_property
    def server_links(self) -> list[ServerLink]:
        """Every veth between a host and a real server."""
        ports: dict[str, int] = {}
        out = []
        for number, server in enumerate(self.fleet.real_servers, start=1):
            ports[server.host] = ports.get(server.host, 0) + 1
            out.append(ServerLink(server.name, server.host, number, ports[server.host]))
        return out

    def asn(self, node: str) -> int:
        """The autonomous system number of a node."""
        return FIRST_NODE_ASN + self.nodes.index(node) + 1

    def vips_of_server(self, server: str) -> list[documents.Vip]:
        """The VIPs that a real server answers for."""
        return [v for v in self.fleet.vips if any(server in x.real_servers for x in v.listeners)]

    @cached_property
    def ports(self) -> list[int]:
        """Every TCP port that some VIP listens on."""
        return sorted({x.port for v in self.fleet.vips for x in v.listeners})

    @cached_property
    def fleet(self) -> documents.Fleet:
        """The fleet document, checked."""
        return check(self._document(), documents.Fleet, "the lab's fleet")

    def _document(self) -> dict[str, object]:
        size = self.size
        clusters = list(self._clusters())
        hosts = [f"host-{i + 1}" for i in range(size.hosts)]
        servers = [
            {
                "id": i + 1,
                "name": name,
                "host": hosts[i % size.hosts],
                "key": 101 + i,
                "address": f"10.5.0.{i + 1}",
            }
            for i, name in enumerate(self.servers)
        ]
        return {
            "region": "lab",
            "tunnel": {"encap": "gre", "eip_anycast": "10.3.255.1"},
            "probing": {
                "reserved": list(RESERVED),
                "period_s": self.probe_period_s,
                "timeout_s": self.probe_timeout_s,
                "probers": [
                    {"name": n, "sources": [f"198.18.{i}.0/24", f"2001:db8:18:{i:x}::/64"]}
                    for i, n in enumerate(self.probers, start=1)
                ],
            },
            "policy": {
                "buffer_clusters": size.buffers,
                "min_probers": min(2, size.probers),
                "min_vips": min(3, size.vips),
            },
            "azs": [{"name": "az1"}, {"name": "az2"}],
            "clusters": clusters,
            "nodes": list(self._nodes(hosts)),
            "real_servers": servers,
            "vips": [self._vip(i) for i in range(size.vips)],
        }

    def _clusters(self) -> Iterator[dict[str, object]]:
        def az(i: int) -> str:
            return f"az{i % 2 + 1}"

        for i in range(min(2, self.size.eips)):
            yield {"name": f"eip-{'ab'[i]}", "role": "eip", "az": az(i)}
        for i in range(self.size.clusters):
            yield {"name": f"clb-{'abcd'[i]}", "role": "clb", "az": az(i)}
        for i in range(self.size.buffers):
            yield {"name": f"buf-{i + 1:02}", "role": "clb", "az": az(i), "purpose": "buffer"}
        for i in range(min(2, self.size.hosts)):
            yield {"name": f"hosts-{'ab'[i]}", "role": "vswitch", "az": az(i)}

    def _nodes(self, hosts: list[str]) -> Iterator[dict[str, object]]:
        size = self.size
        for i in range(size.eips):
            yield self._node(f"eip-{i + 1}", f"eip-{'ab'[i % 2]}", f"10.3.0.{i + 1}", OTHER_CAPACITY)
        for i in range(size.clusters):
            letter = "abcd"[i]
            for j in range(size.lds):
                yield self._node(f"ld-{letter}{j + 1}", f"clb-{letter}", f"10.3.{i + 1}.{j + 1}", LD_CAPACITY)
        for i in range(size.buffers):
            yield self._node(f"buf-{i + 1:02}-1", f"buf-{i + 1:02}", f"10.3.10.{i + 1}", BUFFER_CAPACITY)
        for i, host in enumerate(hosts):
            half = 0 if size.hosts == 1 else i * 2 // size.hosts
            encap = "vxlan" if i % 2 else "gre"
            yield self._node(host, f"hosts-{'ab'[half]}", f"10.3.20.{i + 1}", OTHER_CAPACITY, encap)

    @staticmethod
    def _node(name: str, cluster: str, tunnel: str, capacity: float, encap: str = "gre") -> dict[str, object]:
        return {"name": name, "cluster": cluster, "tunnel_address": tunnel, "capacity": capacity, "encap": encap}

    def _vip(self, i: int) -> dict[str, object]:
        size = self.size
        share = -(-size.vips // size.clusters)
        # Spread evenly, so that each cluster has some.
        six = (i + 1) * size.vips6 // size.vips != i * size.vips6 // size.vips
        count = min(2 + i % 3, size.servers)
        backends = [self.servers[(i + k) % size.servers] for k in range(count)]
        listeners = [{"protocol": "tcp", "port": 80, "real_servers": backends}]
        if i % 10 == 3:
            listeners.append({"protocol": "tcp", "port": 8080, "real_servers": backends[:2]})
        n = i + 1
        return {
            "id": n,
            "name": f"vip-{n:02}",
            "public": f"2001:db8:100::{n:x}" if six else str(ipaddress.ip_address("203.0.113.0") + n),
            "private": f"fd00:100::{n:x}" if six else f"10.100.0.{n}",
            "service": f"10.4.0.{n}",
            "cluster": f"clb-{'abcd'[i // share]}",
            "listeners": listeners,
            "demand": 1.0,
        }
