"""The BIRD configuration of a node. Pure text: settings and the whole desired set in, bird.conf out."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from gateway.speaker.liveness import Decision, Side
from gateway.speaker.settings import Session, SpeakerSettings


def render(settings: SpeakerSettings, announce: Decision) -> str:
    """bird.conf that announces exactly the set of `announce`, takes nothing in and leaves the kernel alone."""
    parts = [
        "# Written by the speaker of tgw; every change starts from its whole desired set.\n",
        f"log stderr {{ warning, error, fatal, bug, auth }};\nrouter id {settings.router_id};\n",
        # Interfaces only: without a kernel protocol no route is read or installed here.
        "protocol device { scan time 10; }\n",
    ]
    if any(s.bfd for s in settings.session):
        parts.append(_bfd(settings))
    tables = sorted({(s.side, s.family) for s in settings.session})
    for side, family in tables:
        wanted = [p for p in announce.of(side) if ipaddress.ip_network(p).version == family]
        parts.append(_static(f"{side}{family}", family, wanted))
    parts += [_bgp(settings, s) for s in settings.session]
    return "\n".join(parts)


def protocol_name(session: Session) -> str:
    """The name of a session's protocol in BIRD."""
    return f"bgp_{session.name.replace('-', '_')}"


def unannounceable(settings: SpeakerSettings, announce: Decision) -> list[str]:
    """Routes of the desired set that no session of their side and family can carry."""
    carried = {(s.side, s.family) for s in settings.session}
    sides: tuple[Side, Side] = ("fabric", "edge")
    return [
        f"{side}: {prefix} (no IPv{version} session)"
        for side in sides
        for prefix in announce.of(side)
        if (side, version := ipaddress.ip_network(prefix).version) not in carried
    ]


def _bfd(settings: SpeakerSettings) -> str:
    interval = f"{settings.bfd_interval_ms} ms"
    pace = f"interval {interval}; multiplier {settings.bfd_multiplier}; idle tx interval {interval};"
    names = sorted({s.interface for s in settings.session if s.bfd})
    return "protocol bfd {\n" + "".join(f'  interface "{n}" {{ {pace} }};\n' for n in names) + "}\n"


def _static(name: str, family: int, prefixes: Sequence[str]) -> str:
    # A table per side: the same prefix may stand on both without one hiding the other.
    routes = "".join(f"  route {p} blackhole;\n" for p in prefixes)
    return (
        f"ipv{family} table t_{name};\n"
        f"protocol static static_{name} {{\n  ipv{family} {{ table t_{name}; }};\n{routes}}}\n"
    )


def _bgp(settings: SpeakerSettings, session: Session) -> str:
    return (
        f"protocol bgp {protocol_name(session)} {{\n"
        f"  local {session.local} as {settings.asn};\n"
        f"  neighbor {session.neighbor} as {session.neighbor_asn};\n"
        f'  interface "{session.interface}";\n'
        f"  direct;\n  hold time {settings.hold_s};\n  connect retry time 1;\n  connect delay time 1;\n"
        f"  error wait time 1, 2;\n  graceful restart off;\n  bfd {'on' if session.bfd else 'off'};\n"
        f"  ipv{session.family} {{\n    table t_{session.side}{session.family};\n    import none;\n"
        "    export where source = RTS_STATIC;\n    next hop self;\n  };\n}\n"
    )
