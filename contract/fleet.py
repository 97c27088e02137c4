"""The fleet document: the one description of a region that control, prober and analyzer share."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, IPvAnyAddress, IPvAnyNetwork, model_validator

from contract.documents import Strict
from contract.protection import Blacklist, Rate, SourceLists, SynCookies, list_problems

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Id = Annotated[int, Field(ge=1, le=2**32 - 1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Encap = Literal["gre", "gre_udp", "vxlan", "ipip", "gue", "geneve"]
# Tunnels to a real server that may do without a key.
KEYLESS = ("ipip", "gue")
# Real servers of a listener: an LD's largest lookup table has room for their shares.
MOST_SERVERS = 1024


def _unicast(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """What nodes take: neither a mapped IPv4 address, which would be one address written in two ways, nor a scope."""
    odd = isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped)
    if address.is_unspecified or address.is_multicast or odd:
        raise ValueError(f"expected an IPv4 or IPv6 unicast address, got {address}")
    return address


Address = Annotated[IPvAnyAddress, AfterValidator(_unicast)]


class Az(Strict):
    """An availability zone."""

    name: Name


class Cluster(Strict):
    """Nodes of one role that share a fate. `purpose` buffer: holds no VIP until a dispersed migration brings some."""

    name: Name
    role: Literal["eip", "clb", "vswitch"]
    az: Name
    purpose: Literal["serving", "buffer"] = "serving"


class Node(Strict):
    """One forwarding node. `capacity`: the demand it can carry, in the unit of Vip.demand."""

    name: Name
    cluster: Name
    tunnel_address: Address
    capacity: Annotated[float, Field(gt=0)] = 100.0
    maintenance: bool = False
    encap: Encap = "gre"


class RealServer(Strict):
    """One real server behind the vSwitch `host`.

    `key`: names it in the tunnel (GRE key, VXLAN or Geneve VNI, GUE group identifier), and no other of the region. IPIP
    carries none and GUE may do without: then its host's address tells it from others, and on the host the VIP does.
    """

    id: Id
    name: Name
    host: Name
    key: Annotated[int, Field(ge=1, le=2**24 - 1)] | None = None
    address: Address
    weight: Annotated[int, Field(ge=0, le=1000)] = 100


class Health(Strict):
    """How LDs check real servers of a TCP listener: `rise` answers in a row bring one up, `fall` failures take it
    down.
    """

    interval_ms: Annotated[int, Field(ge=100, le=3_600_000)] = 1000
    timeout_ms: Annotated[int, Field(ge=50, le=3_600_000)] = 500
    rise: Annotated[int, Field(ge=1, le=100)] = 2
    fall: Annotated[int, Field(ge=1, le=100)] = 3


class QuicServerId(Strict):
    """Where real servers write their id (big endian) into the QUIC connection ids that they choose [bytes]."""

    offset: Annotated[int, Field(ge=0, le=19)]
    length: Annotated[int, Field(ge=1, le=4)]


class Listener(Strict):
    """A (protocol, port) of a VIP and the real servers that answer there, on the same port (no port translation).

    `client_address`: how the client's address reaches servers that see another source, because they stand behind one
    more NAT or proxy (those that the vSwitch serves see it as the source): in the TCP option TOA, or in a PROXY header.
    `balance`: how a new connection's real server is chosen. `affinity_s`: how long a client keeps its real server after
    its last connection. `slow_start_s`: how long a server's share grows after it came. `health`: none means that all
    are up. `dispatch`: which worker of an LD handles a packet; affinity implies "ip_pair".
    """

    protocol: Literal["tcp", "udp"] = "tcp"
    port: Port
    real_servers: Annotated[list[Name], Field(min_length=1, max_length=MOST_SERVERS)]
    probe: bool = True
    client_address: Literal["toa", "proxy_v2"] | None = None
    balance: Literal["maglev", "rendezvous"] = "maglev"
    affinity_s: Annotated[int, Field(ge=1, le=16_000)] | None = None
    slow_start_s: Annotated[int, Field(ge=1, le=86_400)] | None = None
    health: Health | None = None
    dispatch: Literal["tuple", "ip_pair", "quic"] = "tuple"
    quic_server_id: QuicServerId | None = None


class Vip(Strict):
    """A public address, the private one it is translated to, and the tunnel address its cluster announces for it.

    `mode`: replies go back through the LD that sent the request (tunnel), or straight to the EIP nodes (dsr).
    Rates are of each LD, for requests alone, and probes count as any client's: they must see what clients see.
    `flood_gate_per_s`: above so many new flows none gets a place in the flow table; they go on by consistent hash.
    `syn_cookies`: whether LDs answer SYNs themselves. `deny`, `allow`: names of `Fleet.source_lists`.
    """

    id: Id
    name: Name
    public: Address
    private: Address
    service: Address
    cluster: Name
    listeners: Annotated[list[Listener], Field(min_length=1)]
    demand: Annotated[float, Field(gt=0)] = 1.0
    new_flows_per_s: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    mode: Literal["tunnel", "dsr"] = "tunnel"
    packets_per_s: Rate | None = None
    bytes_per_s: Rate | None = None
    flood_gate_per_s: Annotated[int, Field(ge=1, le=2**32 - 1)] | None = None
    syn_cookies: SynCookies = "never"
    deny: Name | None = None
    allow: Name | None = None


class Prober(Strict):
    """A prober and the reserved source addresses it probes from."""

    name: Name
    sources: Annotated[list[IPvAnyNetwork], Field(min_length=1)]


class Probing(Strict):
    """How probes are coloured and paced. Every prober's sources lie in `reserved`."""

    reserved: Annotated[list[IPvAnyNetwork], Field(min_length=1)]
    period_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    timeout_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    probers: Annotated[list[Prober], Field(min_length=1)]


class Tunnel(Strict):
    """The tunnel between EIP nodes and LDs, and the anycast address that takes replies out."""

    encap: Encap = "gre"
    eip_anycast: Address


class Policy(Strict):
    """What the system may do by itself. See analyzer/remedy.py and gateway/control/rails.py."""

    actions_enabled: bool = True
    dry_run: bool = False
    buffer_clusters: Annotated[int, Field(ge=1, le=100)] = 10
    cooldown_s: Annotated[float, Field(ge=0)] = 600.0
    min_probers: Annotated[int, Field(ge=1)] = 2
    min_vips: Annotated[int, Field(ge=1)] = 3
    max_nodes_out_share: Annotated[float, Field(gt=0, le=1)] = 0.10
    on_crash: Literal["migrate_below_capacity", "migrate", "report"] = "migrate_below_capacity"
    on_jitter: Literal["migrate", "report"] = "migrate"
    verify_timeout_s: Annotated[float, Field(gt=0)] = 60.0


class Fleet(Strict):
    """A region. Checked as a whole: every name resolves, every id and address is used once."""

    format: Literal[1] = 1
    region: Name
    tunnel: Tunnel
    probing: Probing
    policy: Policy = Policy()
    azs: Annotated[list[Az], Field(min_length=1)]
    clusters: Annotated[list[Cluster], Field(min_length=1)]
    nodes: Annotated[list[Node], Field(min_length=1)]
    real_servers: list[RealServer] = Field(default_factory=list)
    vips: list[Vip] = Field(default_factory=list)
    source_lists: SourceLists = Field(default_factory=dict)
    blacklist: Blacklist | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problems(self) -> Iterable[str]:
        for kind, items in self._named().items():
            for name, count in Counter(items).items():
                if count > 1:
                    yield f"{kind}[{items.index(name)}].name: expected a name used once, {name!r} stands {count} times"
        azs = {a.name for a in self.azs}
        clusters = {c.name: c for c in self.clusters}
        nodes = {n.name: n for n in self.nodes}
        servers = {s.name for s in self.real_servers}
        for i, c in enumerate(self.clusters):
            if c.az not in azs:
                yield f"clusters[{i}].az: expected the name of an AZ, got {c.az!r}"
        for i, n in enumerate(self.nodes):
            if n.cluster not in clusters:
                yield f"nodes[{i}].cluster: expected the name of a cluster, got {n.cluster!r}"
        for i, s in enumerate(self.real_servers):
            host = nodes.get(s.host)
            if host is None or clusters.get(host.cluster) is None or clusters[host.cluster].role != "vswitch":
                yield f"real_servers[{i}].host: expected the name of a node of a vswitch cluster, got {s.host!r}"
        for i, v in enumerate(self.vips):
            home = clusters.get(v.cluster)
            if home is None or home.role != "clb":
                yield f"vips[{i}].cluster: expected the name of a clb cluster, got {v.cluster!r}"
            if v.public.version != v.private.version:
                yield f"vips[{i}].private: expected an IPv{v.public.version} address like public, got {v.private}"
            seen = set()
            for j, listener in enumerate(v.listeners):
                if (listener.protocol, listener.port) in seen:
                    yield f"vips[{i}].listeners[{j}].port: expected each protocol and port once"
                seen.add((listener.protocol, listener.port))
                named = set()
                for k, name in enumerate(listener.real_servers):
                    path = f"vips[{i}].listeners[{j}].real_servers[{k}]"
                    if name not in servers:
                        yield f"{path}: expected a real server, got {name!r}"
                    elif name in named:
                        yield f"{path}: expected each real server once, got {name!r}"
                    named.add(name)
                for problem in self._balancing(v, listener):
                    yield f"vips[{i}].listeners[{j}].{problem}"
            yield from self._protection(f"vips[{i}]", v)
        yield from self._families()
        yield from self._tunnels()
        yield from list_problems(self.source_lists)
        yield from self._addresses_once()
        for i, p in enumerate(self.probing.probers):
            for j, network in enumerate(p.sources):
                if not any(
                    r.version == network.version and network.subnet_of(r)  # type: ignore[arg-type]
                    for r in self.probing.reserved
                ):
                    yield f"probing.probers[{i}].sources[{j}]: expected a part of probing.reserved, got {network}"

    def _families(self) -> Iterable[str]:
        """Both ends of a tunnel are of one family: from EIP nodes to the service address, from LDs to hosts and to the
        EIP anycast address. Of all LDs, as any buffer cluster may come to hold a VIP.
        """
        roles = {c.name: c.role for c in self.clusters}
        nodes = {n.name: n for n in self.nodes}
        hosts = {s.name: nodes[s.host] for s in self.real_servers if s.host in nodes}
        anycast = self.tunnel.eip_anycast
        for i, n in enumerate(self.nodes):
            if roles.get(n.cluster) == "clb" and n.tunnel_address.version != anycast.version:
                yield (
                    f"nodes[{i}].tunnel_address: expected an IPv{anycast.version} address, as tunnel.eip_anycast is,"
                    f" got {n.tunnel_address}"
                )
        eips = [n for n in self.nodes if roles.get(n.cluster) == "eip"]
        for i, v in enumerate(self.vips):
            eip = next((n for n in eips if n.tunnel_address.version != v.service.version), None)
            if eip is not None:
                yield (
                    f"vips[{i}].service: expected an IPv{eip.tunnel_address.version} address, as tunnel_address of"
                    f" {eip.name} is, got {v.service}"
                )
            for j, listener in enumerate(v.listeners):
                for k, name in enumerate(listener.real_servers):
                    host = hosts.get(name)
                    if host is not None and host.tunnel_address.version != anycast.version:
                        yield (
                            f"vips[{i}].listeners[{j}].real_servers[{k}]: expected a host with an IPv{anycast.version}"
                            f" tunnel address, as tunnel.eip_anycast is, got {host.tunnel_address} of {host.name}"
                        )

    def _tunnels(self) -> Iterable[str]:
        """What the tunnel to a host can carry: keys, client addresses, replies that skip the LD."""
        nodes = {n.name: n for n in self.nodes}
        servers = {s.name: s for s in self.real_servers}
        for i, s in enumerate(self.real_servers):
            encap = nodes[s.host].encap if s.host in nodes else None
            if s.key is None and encap is not None and encap not in KEYLESS:
                yield f"real_servers[{i}].key: expected a key, which {encap} needs, got nothing"
            if s.key is not None and encap == "ipip":
                yield f"real_servers[{i}].key: expected nothing, ipip carries no key, got {s.key}"
        first: dict[tuple[str, object], tuple[str, str]] = {}
        for i, v in enumerate(self.vips):
            for j, listener in enumerate(v.listeners):
                at = f"vips[{i}].listeners[{j}]"
                if listener.client_address is not None and listener.protocol != "tcp":
                    yield f"{at}.client_address: expected nothing, only TCP can carry it, got a UDP listener"
                if listener.client_address == "proxy_v2" and v.mode == "dsr":
                    yield f'{at}.client_address: expected mode "tunnel" of the VIP, replies must pass the LD, got "dsr"'
                for k, name in enumerate(listener.real_servers):
                    server = servers.get(name)
                    host = nodes.get(server.host) if server else None
                    if server is None or host is None:
                        continue
                    path = f"{at}.real_servers[{k}]"
                    if server.key is None:
                        other, where = first.setdefault((host.name, v.private), (name, path))
                        if other != name:
                            yield (
                                f"{path}: expected a server with a key, or on another host than {other!r} at {where}:"
                                f" without keys the VIP tells servers of a host apart, got {name!r}"
                            )

    def _protection(self, path: str, vip: Vip) -> Iterable[str]:
        for field, name in (("deny", vip.deny), ("allow", vip.allow)):
            if name is not None and name not in self.source_lists:
                yield f"{path}.{field}: expected the name of a source list, got {name!r}"
        if vip.syn_cookies == "flood" and vip.flood_gate_per_s is None:
            yield f"{path}.syn_cookies: expected flood_gate_per_s beside it, which says what a flood is"
        if vip.syn_cookies != "never" and vip.mode == "dsr":
            yield f'{path}.syn_cookies: expected "never", as mode is "dsr": replies do not come by the LD'
        for j, listener in enumerate(vip.listeners):
            if vip.syn_cookies != "never" and listener.client_address is not None:
                yield (
                    f'{path}.listeners[{j}].client_address: expected nothing, as syn_cookies is not "never":'
                    " the LD's own SYN to the server carries no client address"
                )

    def _balancing(self, vip: Vip, listener: Listener) -> Iterable[str]:
        """What a listener asks for and cannot have, from its own field on."""
        if listener.dispatch == "quic":
            if listener.protocol != "udp":
                yield 'dispatch: expected "tuple" or "ip_pair" for a tcp listener, got \'quic\''
            if listener.affinity_s is not None:
                yield 'affinity_s: expected null where dispatch is "quic": ids say where a connection belongs'
        elif listener.quic_server_id is not None:
            yield 'quic_server_id: expected null unless dispatch is "quic"'
        if (written := listener.quic_server_id) is not None:
            if written.offset + written.length > 20:
                yield "quic_server_id.length: expected an end within the 20 bytes of a connection id"
            for server in self.real_servers:
                if server.name in listener.real_servers and server.id >= 256**written.length:
                    yield f"quic_server_id.length: expected bytes enough for the id {server.id} of {server.name}"
        if (health := listener.health) is not None:
            if listener.protocol != "tcp":
                yield "health: expected null for a udp listener: a check opens a TCP connection"
            if health.timeout_ms > health.interval_ms:
                yield f"health.timeout_ms: expected at most interval_ms, {health.interval_ms}, got {health.timeout_ms}"
            # A migration may bring the VIP to any buffer cluster.
            holders = {
                c.name for c in self.clusters if c.role == "clb" and (c.name == vip.cluster or c.purpose == "buffer")
            }
            for node in self.nodes:
                if node.cluster in holders and node.tunnel_address.version != vip.private.version:
                    yield (
                        f"health: expected null, or an IPv{vip.private.version} tunnel address of {node.name}: "
                        f"a check goes from there to {vip.private}"
                    )
                    break

    def _named(self) -> dict[str, list[str]]:
        return {
            "azs": [a.name for a in self.azs],
            "clusters": [c.name for c in self.clusters],
            "nodes": [n.name for n in self.nodes],
            "real_servers": [s.name for s in self.real_servers],
            "vips": [v.name for v in self.vips],
            "probing.probers": [p.name for p in self.probing.probers],
        }

    def _addresses_once(self) -> Iterable[str]:
        places: list[tuple[str, ipaddress.IPv4Address | ipaddress.IPv6Address]] = [
            ("tunnel.eip_anycast", self.tunnel.eip_anycast)
        ]
        places += [(f"nodes[{i}].tunnel_address", n.tunnel_address) for i, n in enumerate(self.nodes)]
        for i, v in enumerate(self.vips):
            places += [(f"vips[{i}].{f}", getattr(v, f)) for f in ("public", "private", "service")]
        first: dict[object, str] = {}
        for path, address in places:
            if address in first:
                yield f"{path}: expected an address used once, {address} stands at {first[address]} too"
            first.setdefault(address, path)
        seen: dict[tuple[str, int], int] = {}
        for kind, ids in (("vips", [v.id for v in self.vips]), ("real_servers", [s.id for s in self.real_servers])):
            for i, number in enumerate(ids):
                if (other := seen.get((kind, number))) is not None:
                    yield f"{kind}[{i}].id: expected an id used once, {number} stands at {kind}[{other}] too"
                seen.setdefault((kind, number), i)
        keys: dict[int, int] = {}
        for i, s in enumerate(self.real_servers):
            if s.key is not None and (at := keys.setdefault(s.key, i)) != i:
                yield f"real_servers[{i}].key: expected a key used once, {s.key} stands at real_servers[{at}] too"

    def cluster(self, name: str) -> Cluster:
        """The cluster of that name; KeyError."""
        for item in self.clusters:
            if item.name == name:
                return item
        raise KeyError(name)

    def nodes_of(self, cluster: str) -> list[Node]:
        """The nodes of a cluster, in document order."""
        return [n for n in self.nodes if n.cluster == cluster]

    def role_of(self, node: Node) -> Literal["eip", "clb", "vswitch"]:
        """The role of a node: its cluster's."""
        return self.cluster(node.cluster).role
