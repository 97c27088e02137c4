"""The simulated hosts' packets, held against scapy's."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE

from lab.fabric import wire


def segment(source: str, destination: str, payload: bytes = b"abc") -> wire.Segment:
    ends = ip_address(source).packed, ip_address(destination).packed
    return wire.Segment(*ends, 1234, 80, 0xFFFFFFF0, 7, wire.ACK | wire.PSH, payload)


@pytest.mark.parametrize(("source", "destination"), [("192.0.2.1", "203.0.113.9"), ("2001:db8::1", "2001:db8:100::9")])
@pytest.mark.parametrize("payload", [b"", b"abc", b"abcd" * 300])
def test_built_packets_are_what_scapy_builds(source: str, destination: str, payload: bytes) -> None:
    built = wire.build(segment(source, destination, payload), ttl=61, identification=9)
    tcp = TCP(sport=1234, dport=80, seq=0xFFFFFFF0, ack=7, flags="PA", window=65535) / payload
    ip = (
        IP(src=source, dst=destination, ttl=61, id=9, flags="DF")
        if "." in source
        else IPv6(src=source, dst=destination, hlim=61)
    )
    assert built == bytes(ip / tcp)


@pytest.mark.parametrize(("source", "destination"), [("192.0.2.1", "203.0.113.9"), ("2001:db8::1", "2001:db8:100::9")])
def test_parse_gives_back_what_build_took(source: str, destination: str) -> None:
    assert wire.parse(wire.build(segment(source, destination))) == segment(source, destination)


@pytest.mark.parametrize(("source", "destination"), [("192.0.2.1", "203.0.113.9"), ("2001:db8::1", "2001:db8:100::9")])
def test_a_flipped_bit_is_a_bad_checksum_and_a_cut_is_malformed(source: str, destination: str) -> None:
    packet = bytearray(wire.build(segment(source, destination)))
    packet[-1] ^= 1
    with pytest.raises(wire.Unreadable, match="bad_checksum"):
        wire.parse(bytes(packet))
    for cut in range(len(packet)):
        with pytest.raises(wire.Unreadable):
            wire.parse(bytes(packet[:cut]))


def test_aged_lowers_the_ttl_and_keeps_the_checksum_right() -> None:
    packet = wire.build(segment("192.0.2.1", "203.0.113.9"), ttl=64)
    for left in range(63, 0, -1):
        older = wire.aged(packet)
        assert older is not None
        assert older[8] == left
        assert wire.parse(older) == segment("192.0.2.1", "203.0.113.9")
        packet = older
    assert wire.aged(packet) is None


def test_the_flow_inside_gre_decides_and_the_outer_ports_of_udp() -> None:
    def gre(port: int, key: int | None = None) -> bytes:
        inner = IP(src="192.0.2.1", dst="10.100.0.1") / TCP(sport=port, dport=80)
        shim = GRE(proto=0x0800) if key is None else GRE(proto=0x0800, key_present=1, key=key)
        return bytes(IP(src="10.3.0.1", dst="10.4.0.1") / shim / inner)

    assert wire.flow_key(gre(1000), inner=True) == wire.flow_key(gre(1000, key=5), inner=True)
    assert wire.flow_key(gre(1000), inner=True) != wire.flow_key(gre(1001), inner=True)
    assert wire.flow_key(gre(1000), inner=False) == wire.flow_key(gre(1001), inner=False)
    udp = [bytes(IP(src="10.3.0.1", dst="10.4.0.1") / UDP(sport=p, dport=4789) / b"x") for p in (5, 6)]
    assert wire.flow_key(udp[0], inner=True) != wire.flow_key(udp[1], inner=True)


def test_unreachable_quotes_the_packet_and_never_answers_an_error() -> None:
    packet = wire.build(segment("10.3.0.1", "10.4.0.1"))
    answer = wire.unreachable4(packet, ip_address("10.2.1.1").packed)
    assert answer is not None
    seen = IP(answer)
    assert (seen.src, seen.dst, seen[ICMP].type, seen[ICMP].code) == ("10.2.1.1", "10.3.0.1", 3, 0)
    assert bytes(seen[ICMP])[8:] == packet
    check = seen[ICMP].chksum
    del seen[ICMP].chksum
    assert IP(bytes(seen))[ICMP].chksum == check
    assert wire.unreachable4(answer, ip_address("10.2.1.1").packed) is None
