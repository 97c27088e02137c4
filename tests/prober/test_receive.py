"""Answers are read by bytes, hostile bytes are no answer, and the kernel filter passes what it should alone."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet, Raw

from prober.receive import Answer, Kind, filter_program, mapped, parse

PROBER, VIP = "198.18.1.1", "203.0.113.1"
PROBER6, VIP6 = "2001:db8:18::1", "2001:db8:113::1"


def ether(packet: Packet | bytes) -> bytes:
    data = bytes(packet)
    return bytes(12) + (b"\x86\xdd" if data[0] >> 4 == 6 else b"\x08\x00") + data


def expected(kind: Kind, isn: int, ttl: int, six: bool = False) -> Answer:
    a, b = (PROBER6, VIP6) if six else (PROBER, VIP)
    return Answer(kind, mapped(ip_address(a).packed), 5000, mapped(ip_address(b).packed), 80, isn, ttl)


def tcp(flags: str, seq: int = 0, ack: int = 0) -> Packet:
    return TCP(sport=80, dport=5000, flags=flags, seq=seq, ack=ack)


def test_syn_ack_and_reset_name_the_isn_they_acknowledge() -> None:
    back = IP(src=VIP, dst=PROBER, ttl=61)
    assert parse(ether(back / tcp("SA", seq=9, ack=1001))) == expected(Kind.SYN_ACK, 1000, 61)
    assert parse(ether(back / tcp("RA", ack=1001))) == expected(Kind.RESET, 1000, 61)
    assert parse(ether(back / tcp("SA", ack=0))) == expected(Kind.SYN_ACK, 2**32 - 1, 61)
    back6 = IPv6(src=VIP6, dst=PROBER6, hlim=60)
    assert parse(ether(back6 / tcp("SA", ack=1001))) == expected(Kind.SYN_ACK, 1000, 60, six=True)


def test_ip_options_are_skipped() -> None:
    back = IP(src=VIP, dst=PROBER, ttl=61, options=b"\x01\x01\x01\x00")
    assert parse(ether(back / tcp("SA", ack=8))) == expected(Kind.SYN_ACK, 7, 61)


def test_padding_behind_a_short_packet_is_no_part_of_it() -> None:
    assert parse(ether(bytes(IP(src=VIP, dst=PROBER, ttl=9) / tcp("SA", ack=8)) + bytes(6))) is not None


@pytest.mark.parametrize("flags", ["A", "S", "R", "FA", "PA"])
def test_other_segments_are_no_answer(flags: str) -> None:
    assert parse(ether(IP(src=VIP, dst=PROBER) / tcp(flags, ack=5))) is None


def test_unreachable_is_read_from_the_quoted_probe() -> None:
    syn = IP(src=PROBER, dst=VIP) / TCP(sport=5000, dport=80, seq=77)
    for kind in (3, 11):
        error = IP(src="192.0.2.1", dst=PROBER, ttl=50) / ICMP(type=kind) / Raw(bytes(syn)[:28])
        assert parse(ether(error)) == expected(Kind.UNREACHABLE, 77, 50)
    syn6 = IPv6(src=PROBER6, dst=VIP6) / TCP(sport=5000, dport=80, seq=77)
    error6 = IPv6(src="2001:db8::1", dst=PROBER6, hlim=50) / ICMPv6DestUnreach() / Raw(bytes(syn6))
    assert parse(ether(error6)) == expected(Kind.UNREACHABLE, 77, 50, six=True)


def test_fragments_and_other_protocols_are_no_answer() -> None:
    assert parse(ether(IP(src=VIP, dst=PROBER, flags="MF") / tcp("SA", ack=5))) is None
    assert parse(ether(IP(src=VIP, dst=PROBER) / UDP(sport=80, dport=5000))) is None
    assert parse(bytes(12) + b"\x08\x06" + bytes(28)) is None


SEEDS = [
    ether(IP(src=VIP, dst=PROBER) / tcp("SA", ack=5)),
    ether(IPv6(src=VIP6, dst=PROBER6) / tcp("SA", ack=5)),
    ether(IP(src="192.0.2.1", dst=PROBER) / ICMP(type=3) / IP(src=PROBER, dst=VIP) / TCP(sport=5000, dport=80)),
    ether(IPv6(dst=PROBER6) / ICMPv6DestUnreach() / IPv6(src=PROBER6, dst=VIP6) / TCP(sport=5000, dport=80)),
]


@given(
    seed=st.sampled_from(SEEDS),
    cut=st.integers(0, 120),
    changes=st.lists(st.tuples(st.integers(0, 99), st.binary(min_size=1, max_size=1))),
)
def test_hostile_bytes_never_raise(seed: bytes, cut: int, changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(seed[: max(0, len(seed) - cut)])
    for at, value in changes:
        if at < len(data):
            data[at : at + 1] = value
    answer = parse(bytes(data))
    assert answer is None or (0 <= answer.isn < 2**32 and len(answer.vip) == 16)


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    parse(data)


def run(program: bytes, frame: bytes) -> int:
    """A plain interpreter of the few classic BPF instructions used: the oracle of the kernel's."""
    code = list(struct.iter_unpack("=HBBI", program))
    at, a = 0, 0
    while True:
        op, jt, jf, k = code[at]
        at += 1
        if op in (0x28, 0x20):
            size = 2 if op == 0x28 else 4
            if k + size > len(frame):
                return 0
            a = int.from_bytes(frame[k : k + size], "big")
        elif op == 0x54:
            a &= k
        elif op == 0x15:
            at += jt if a == k else jf
        else:
            assert op == 0x06
            return int(k)


NETWORKS = [
    ip_network("198.18.1.0/24"),
    ip_network("198.18.9.128/25"),
    ip_network("2001:db8:18:1::/64"),
    ip_network("2001:db8:19::5/128"),
]


@given(address=st.one_of(st.ip_addresses(), *(st.ip_addresses(network=n) for n in NETWORKS)))
def test_the_filter_passes_the_networks_and_nothing_else(address: object) -> None:
    packet = IPv6(src="::1", dst=str(address)) if ":" in str(address) else IP(src="192.0.2.1", dst=str(address))
    wanted = any(address in n for n in NETWORKS)
    assert bool(run(filter_program(NETWORKS), ether(packet / tcp("SA")))) == wanted


def test_the_filter_refuses_other_ethertypes_and_short_frames() -> None:
    program = filter_program(NETWORKS)
    assert run(program, bytes(12) + b"\x08\x06" + bytes(60)) == 0
    assert run(program, ether(IP(src=VIP, dst=PROBER))[:30]) == 0
    assert run(filter_program([]), ether(IP(src=VIP, dst=PROBER))) == 0


def test_more_networks_than_a_jump_spans_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer source networks"):
        filter_program([ip_network(f"198.18.{i}.0/24") for i in range(80)])
