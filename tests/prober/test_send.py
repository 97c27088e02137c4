"""Patched templates are the packets that scapy would build, checksums and all."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from prober.plan import Target
from prober.send import Link, Template, frame

V4 = Target(1, ip_address("203.0.113.9"), 443)
V6 = Target(2, ip_address("2001:db8:113::9"), 8080)
PORTS, ISNS, IDENTS = st.integers(1, 65535), st.integers(0, 2**32 - 1), st.integers(0, 65535)
TEMPLATES = {t: Template(t) for t in (V4, V6)}


@given(source=st.ip_addresses(v=4), port=PORTS, isn=ISNS, ident=IDENTS)
def test_ipv4(source: object, port: int, isn: int, ident: int) -> None:
    ip = IP(src=str(source), dst="203.0.113.9", ttl=64, flags="DF", id=ident)
    syn = bytes(ip / TCP(sport=port, dport=443, flags="S", seq=isn, window=65535))
    rst = bytes(ip / TCP(sport=port, dport=443, flags="R", seq=(isn + 1) % 2**32, window=0))
    template = TEMPLATES[V4]
    assert template.syn(source, port, isn, ident) == syn  # type: ignore[arg-type]
    assert template.rst(source, port, isn, ident) == rst  # type: ignore[arg-type]


@given(source=st.ip_addresses(v=6), port=PORTS, isn=ISNS)
def test_ipv6(source: object, port: int, isn: int) -> None:
    ip = IPv6(src=str(source), dst="2001:db8:113::9", hlim=64)
    syn = bytes(ip / TCP(sport=port, dport=8080, flags="S", seq=isn, window=65535))
    rst = bytes(ip / TCP(sport=port, dport=8080, flags="R", seq=(isn + 1) % 2**32, window=0))
    template = TEMPLATES[V6]
    assert template.syn(source, port, isn, 0) == syn  # type: ignore[arg-type]
    assert template.rst(source, port, isn, 0) == rst  # type: ignore[arg-type]


def test_the_frame_goes_to_the_next_hop_of_its_family_or_nowhere() -> None:
    link = Link(b"\x02" * 6, b"\x04" * 6, None)
    four = TEMPLATES[V4].syn(ip_address("198.18.0.1"), 1, 2, 3)
    six = TEMPLATES[V6].syn(ip_address("2001:db8:18::1"), 1, 2, 3)
    assert frame(link, four) == b"\x04" * 6 + b"\x02" * 6 + b"\x08\x00" + four
    assert frame(link, six) is None
    assert frame(Link(b"\x02" * 6, None, b"\x06" * 6), six) == b"\x06" * 6 + b"\x02" * 6 + b"\x86\xdd" + six
