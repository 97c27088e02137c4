"""A simulated router: longest-prefix table of what its neighbours announce, equal paths by a hash of the flow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from lab.fabric import wire
from lab.fabric.engine import ETHERNET, Fabric

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Attachment:
    """A port of a router. `address4`: the router's own there; `mac`, `peer_mac`: both ends of the link, 6 bytes."""

    port: int
    mac: bytes
    peer_mac: bytes
    address4: bytes


class Router:
    """Forwards by destination. `inner_hash`: equal paths are chosen by the flow inside a tunnel.

    The table is the union of what each owner announced; `announce` takes an owner's whole set.
    """

    def __init__(self, fabric: Fabric, name: str, seed: int, inner_hash: bool, answers_icmp: bool) -> None:
        self.name = name
        self._fabric = fabric
        self._salt = seed.to_bytes(8, "little", signed=True)
        self._inner = inner_hash
        self._icmp = answers_icmp
        self._ports: dict[int, Attachment] = {}
        self._announced: dict[str, tuple[int, frozenset[Network]]] = {}
        # length of the address -> [(prefix length, {network bits: ports})], longest first
        self._table: dict[int, list[tuple[int, dict[int, list[int]]]]] = {4: [], 16: []}

    def attach(self, attachment: Attachment) -> None:
        """Add a port. ValueError when it is taken."""
        if attachment.port in self._ports:
            raise ValueError(f"{self.name} port {attachment.port}: expected a free port")
        self._ports[attachment.port] = attachment

    def announce(self, owner: str, port: int, prefixes: Iterable[str]) -> bool:
        """From now on `owner`, behind `port`, announces these prefixes and no others; whether that is a change."""
        wanted = frozenset(ip_network(p) for p in prefixes)
        before = self._announced.get(owner, (port, frozenset()))
        if before == (port, wanted):
            return False
        self._announced[owner] = (port, wanted)
        self._rebuild()
        return True

    def __len__(self) -> int:
        """How many prefixes it has a path to."""
        return sum(len(networks) for table in self._table.values() for _, networks in table)

    def announced(self, owner: str) -> list[str]:
        """What an owner announces now."""
        return sorted(str(n) for n in self._announced.get(owner, (0, frozenset()))[1])

    def ports_to(self, address: bytes) -> list[int]:
        """The equal paths to an address, empty without a route."""
        bits, width = int.from_bytes(address, "big"), len(address) * 8
        for length, networks in self._table[len(address)]:
            ports = networks.get(bits >> (width - length))
            if ports:
                return ports
        return []

    def receive(self, port: int, frame: bytes) -> None:
        """Forward one frame, or drop it for a counted reason."""
        drop = self._fabric.drop
        if frame[:6] != self._ports[port].mac:
            return drop("router_wrong_mac")
        packet = frame[ETHERNET:]
        destination = wire.destination_of(packet)
        if destination is None:
            return drop("router_malformed")
        ports = self.ports_to(destination)
        if not ports:
            drop("router_no_route")
            return self._refuse(port, packet)
        older = wire.aged(packet)
        if older is None:
            return drop("router_ttl")
        out = ports[0] if len(ports) == 1 else ports[self._choice(packet, len(ports))]
        self._fabric.transmit(self, out, self._frame(out, older))
        return None

    def _choice(self, packet: bytes, count: int) -> int:
        key = wire.flow_key(packet, self._inner)
        digest = hashlib.blake2s(key, key=self._salt, digest_size=4).digest()
        return int.from_bytes(digest, "little") * count >> 32

    def _refuse(self, port: int, packet: bytes) -> None:
        if self._icmp and packet[0] >> 4 == 4:
            answer = wire.unreachable4(packet, self._ports[port].address4)
            if answer is not None:
                self._fabric.originate(self, port, self._frame(port, answer))

    def _frame(self, port: int, packet: bytes) -> bytes:
        end = self._ports[port]
        return end.peer_mac + end.mac + (wire.IPV6 if packet[0] >> 4 == 6 else wire.IPV4) + packet

    def _rebuild(self) -> None:
        tables: dict[int, dict[int, dict[int, set[int]]]] = {4: {}, 16: {}}
        for port, networks in self._announced.values():
            for network in networks:
                size = network.max_prefixlen // 8
                bits = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
                tables[size].setdefault(network.prefixlen, {}).setdefault(bits, set()).add(port)
        self._table = {
            size: [(n, {b: sorted(p) for b, p in table[n].items()}) for n in sorted(table, reverse=True)]
            for size, table in tables.items()
        }
