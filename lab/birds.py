"""The BIRD configuration of the two routers of the lab. Pure text."""

from __future__ import annotations

from lab.topology import EDGE, EDGE_ASN, FABRIC_ASN, Link, Side, Topology

# The router's BFD pace: with the nodes' own the slower one counts. Slow enough for a busy machine of two cores.
BFD_INTERVAL_MS, BFD_MULTIPLIER = 200, 5
HOLD_S = 9

# What the nodes of a side may announce: nobody can take a link address or a client's network by mistake.
ALLOWED4: dict[Side, str] = {"edge": "203.0.113.0/24{32,32}", "fabric": "10.3.0.0/16{32,32}, 10.4.0.0/16{32,32}"}
ALLOWED6 = "2001:db8:100::/48{128,128}"


def router(topology: Topology, side: Side) -> str:
    """bird.conf of the edge or the fabric router: one BGP session with BFD per node (edge: one per family)."""
    asn, number = (EDGE_ASN, 1) if side == EDGE else (FABRIC_ASN, 2)
    parts = [
        f"log stderr all;\nrouter id 10.{number}.0.1;\n",
        "protocol device { scan time 10; }\n",
        # Sessions come and go with BFD, in milliseconds; the kernel gets all equal paths as one route.
        _kernel("ipv4"),
        *([_kernel("ipv6")] if side == EDGE else []),
        "protocol bfd {\n"
        f'  interface "*" {{ interval {BFD_INTERVAL_MS} ms; multiplier {BFD_MULTIPLIER}; '
        f"idle tx interval {BFD_INTERVAL_MS} ms; }};\n"
        "}\n",
    ]
    for link in topology.links:
        if link.side == side and link.name in topology.nodes:
            parts.append(_session(topology, link, asn, 4))
            if side == EDGE:
                parts.append(_session(topology, link, asn, 6))
    return "\n".join(parts)


def _kernel(family: str) -> str:
    return (
        f"protocol kernel k_{family} {{\n  {family} {{ import none; export where source = RTS_BGP; }};\n"
        "  merge paths yes limit 64;\n  scan time 10;\n}\n"
    )


def _session(topology: Topology, link: Link, asn: int, family: int) -> str:
    allowed = ALLOWED4[link.side] if family == 4 else ALLOWED6
    local, neighbor = (link.router4, link.address4) if family == 4 else (link.router6, link.address6)
    name = f"{link.name.replace('-', '_')}_{family}"
    return (
        f"protocol bgp {name} {{\n"
        f"  local {local} as {asn};\n"
        f"  neighbor {neighbor} as {topology.asn(link.name)};\n"
        f'  interface "{link.router_interface}";\n'
        f"  direct;\n  bfd on;\n  hold time {HOLD_S};\n  connect retry time 1;\n"
        "  connect delay time 1;\n  error wait time 1, 2;\n  graceful restart off;\n"
        f"  ipv{family} {{ import where net ~ [ {allowed} ]; export none; }};\n"
        "}\n"
    )
