"""Frames to send: scapy builds one template for each target and kind, the hot path patches bytes.

Variable parts: source address, source port, sequence number, IPv4 identification, and both checksums, which are the
template's sum plus the patched words.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from contract.colour import Address
from prober.plan import Target

ETHERNET = 14
TTL = 64
WINDOW = 65535


@dataclass(frozen=True, slots=True)
class Link:
    """Ethernet addresses: ours, and the next hop's for each IP version (None while it is not resolved)."""

    mac: bytes
    next_hop: bytes | None
    next_hop6: bytes | None


def ones_sum(data: bytes | bytearray) -> int:
    """The plain sum of the 16-bit big-endian words of an even number of bytes (not folded)."""
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def fold(total: int) -> int:
    """The Internet checksum (RFC 1071) of a plain sum of words."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Template:
    """A TCP segment without options or payload to one target, as SYN and as RST."""

    def __init__(self, target: Target) -> None:
        self._six = target.address.version == 6
        self._tcp_at = 40 if self._six else 20
        self._syn = _build(target, "S", WINDOW)
        self._rst = _build(target, "R", 0)
        self._ip_sum = 0 if self._six else ones_sum(self._syn[:20])
        destination = target.address.packed
        pseudo = ones_sum(destination) + 6 + 20
        self._syn_sum = pseudo + ones_sum(self._syn[self._tcp_at :])
        self._rst_sum = pseudo + ones_sum(self._rst[self._tcp_at :])

    def syn(self, source: Address, source_port: int, isn: int, identification: int) -> bytes:
        """The IP packet of a probe."""
        return self._patch(self._syn, self._syn_sum, source, source_port, isn, identification)

    def rst(self, source: Address, source_port: int, isn: int, identification: int) -> bytes:
        """The IP packet of the bare RST (sequence number ISN + 1) that ends the probe's connection."""
        return self._patch(self._rst, self._rst_sum, source, source_port, isn + 1 & 0xFFFFFFFF, identification)

    def _patch(self, base: bytes, tcp_sum: int, source: Address, port: int, seq: int, identification: int) -> bytes:
        packet, at = bytearray(base), self._tcp_at
        packed = source.packed
        source_sum = ones_sum(packed)
        if self._six:
            packet[8:24] = packed
        else:
            packet[4:6] = identification.to_bytes(2, "big")
            packet[12:16] = packed
            packet[10:12] = fold(self._ip_sum + identification + source_sum).to_bytes(2, "big")
        packet[at : at + 2] = port.to_bytes(2, "big")
        packet[at + 4 : at + 8] = seq.to_bytes(4, "big")
        packet[at + 16 : at + 18] = fold(tcp_sum + source_sum + port + (seq >> 16) + (seq & 0xFFFF)).to_bytes(2, "big")
        return bytes(packet)


def frame(link: Link, packet: bytes) -> bytes | None:
    """The Ethernet frame that carries an IP packet to the next hop; None while that has no Ethernet address."""
    if packet[0] >> 4 == 6:
        return None if link.next_hop6 is None else link.next_hop6 + link.mac + b"\x86\xdd" + packet
    return None if link.next_hop is None else link.next_hop + link.mac + b"\x08\x00" + packet


def _build(target: Target, flags: str, window: int) -> bytes:
    # scapy takes most of a second to import; only a process that probes pays for it.
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6

    tcp = TCP(sport=0, dport=target.port, flags=flags, seq=0, ack=0, window=window, chksum=0)
    if target.address.version == 6:
        return bytes(IPv6(src="::", dst=str(target.address), hlim=TTL, nh=6, plen=20) / tcp)
    return bytes(IP(src="0.0.0.0", dst=str(target.address), ttl=TTL, flags="DF", id=0, chksum=0, len=40) / tcp)
