"""Packets of the simulated hosts and routers: TCP segments in IPv4 and IPv6, flow keys, TTL, ICMP. Pure bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ETHERNET = 14
IPV4, IPV6 = b"\x08\x00", b"\x86\xdd"
ICMP, TCP, UDP, GRE, ICMP6 = 1, 6, 17, 47, 58
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
# RFC 1812 4.3.2.3: as much of the original as fits into 576 bytes.
ICMP_LIMIT = 576
_TRANSPARENT_ETHERNET = 0x6558


class Unreadable(ValueError):
    """A packet that a host must drop; the message is the reason, one word."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment without options and the ends it travels between. Addresses: 4 or 16 bytes."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    payload: bytes = b""
    window: int = 65535

    @property
    def length(self) -> int:
        """Sequence numbers it takes up."""
        return len(self.payload) + bool(self.flags & SYN) + bool(self.flags & FIN)


def ones_sum(data: bytes | bytearray | memoryview) -> int:
    """The plain sum of the 16-bit big-endian words, an odd last byte padded with zero (not folded)."""
    odd = len(data) & 1
    total: int = sum(struct.unpack_from(f"!{len(data) // 2}H", data))
    return total + (data[-1] << 8) if odd else total


def fold(total: int) -> int:
    """The Internet checksum (RFC 1071) of a plain sum of words."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def build(segment: Segment, ttl: int = 64, identification: int = 0) -> bytes:
    """The IP packet that carries a segment. ValueError when it is longer than IP allows."""
    size = 20 + len(segment.payload)
    if size > 65515:
        raise ValueError(f"payload: expected at most 65495 bytes, got {len(segment.payload)}")
    ends = segment.source + segment.destination
    head = struct.pack(
        "!HHIIBBHHH",
        segment.source_port,
        segment.destination_port,
        segment.seq,
        segment.ack,
        5 << 4,
        segment.flags,
        segment.window,
        0,
        0,
    )
    check = fold(ones_sum(ends) + TCP + size + ones_sum(head) + ones_sum(segment.payload))
    tcp = head[:16] + check.to_bytes(2, "big") + head[18:] + segment.payload
    if len(segment.source) == 16:
        return struct.pack("!IHBB", 6 << 28, size, TCP, ttl) + ends + tcp
    return header4(segment.source, segment.destination, TCP, size, ttl, identification) + tcp


def header4(source: bytes, destination: bytes, protocol: int, size: int, ttl: int, identification: int = 0) -> bytes:
    """An IPv4 header without options, don't-fragment set, for `size` bytes of payload."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, identification, 0x4000, ttl, protocol, 0) + source + destination
    return head[:10] + fold(ones_sum(head)).to_bytes(2, "big") + head[12:]


def parse(packet: bytes) -> Segment:
    """The segment in an IP packet, lengths and checksums checked. Unreadable with the reason."""
    source, destination, protocol, body = _open(packet)
    if protocol != TCP:
        raise Unreadable("not_tcp")
    if len(body) < 20 or (offset := body[12] >> 4) < 5 or offset * 4 > len(body):
        raise Unreadable("malformed")
    if fold(ones_sum(source + destination) + TCP + len(body) + ones_sum(body)) != 0:
        raise Unreadable("bad_checksum")
    source_port, destination_port, seq, ack, _, flags, window = struct.unpack_from("!HHIIBBH", body)
    return Segment(source, destination, source_port, destination_port, seq, ack, flags, body[offset * 4 :], window)


def _open(packet: bytes) -> tuple[bytes, bytes, int, bytes]:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        if header < 20 or not header <= total <= len(packet):
            raise Unreadable("malformed")
        if fold(ones_sum(packet[:header])) != 0:
            raise Unreadable("bad_checksum")
        if int.from_bytes(packet[6:8], "big") & 0x3FFF:
            raise Unreadable("fragment")
        return packet[12:16], packet[16:20], packet[9], packet[header:total]
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        end = 40 + int.from_bytes(packet[4:6], "big")
        if end > len(packet):
            raise Unreadable("malformed")
        return packet[8:24], packet[24:40], packet[6], packet[40:end]
    raise Unreadable("malformed")


def destination_of(packet: bytes) -> bytes | None:
    """The destination address of an IP packet, 4 or 16 bytes; None when there is none to read."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return packet[16:20]
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return packet[24:40]
    return None


def flow_key(packet: bytes, inner: bool) -> bytes:
    """What a router hashes to choose among equal paths: addresses, protocol and ports.

    With `inner`, those of the packet inside GRE (as the kernel's hash policy 3); a UDP tunnel has its entropy in the
    outer source port, where the kernel takes it from too.
    """
    if len(packet) < 20:
        return packet
    if packet[0] >> 4 == 6:
        ends, protocol, at = packet[8:40], packet[6], 40
    else:
        ends, protocol, at = packet[12:20], packet[9], (packet[0] & 15) * 4
    if protocol in (TCP, UDP):
        return ends + bytes([protocol]) + packet[at : at + 4]
    if inner and protocol == GRE and len(packet) >= at + 4:
        flags, kind = struct.unpack_from("!HH", packet, at)
        at += 4 + 4 * (flags >> 15 & 1) + 4 * (flags >> 13 & 1) + 4 * (flags >> 12 & 1)
        if kind == _TRANSPARENT_ETHERNET:
            at += ETHERNET
        return flow_key(packet[at:], inner=False)
    return ends + bytes([protocol])


def aged(packet: bytes) -> bytes | None:
    """The packet with a TTL (hop limit) one lower; None when that would be zero."""
    at = 7 if packet[0] >> 4 == 6 else 8
    if packet[at] <= 1:
        return None
    out = bytearray(packet)
    out[at] -= 1
    if at == 8:
        # RFC 1624: the TTL is the high byte of its word.
        check = (~int.from_bytes(out[10:12], "big") & 0xFFFF) + 0xFEFF
        out[10:12] = fold(check).to_bytes(2, "big")
    return bytes(out)


def unreachable4(packet: bytes, router: bytes) -> bytes | None:
    """ICMP "network unreachable" to the sender of an IPv4 packet; None when ICMP forbids an answer (RFC 1122 3.2.2)."""
    header = (packet[0] & 15) * 4
    if len(packet) < header + 8 or (packet[9] == ICMP and packet[header] not in (0, 8, 13, 14)):
        return None
    if int.from_bytes(packet[6:8], "big") & 0x1FFF:
        return None
    body = struct.pack("!BBHI", 3, 0, 0, 0) + packet[: ICMP_LIMIT - 28]
    body = body[:2] + fold(ones_sum(body)).to_bytes(2, "big") + body[4:]
    return header4(router, packet[12:16], ICMP, len(body), 64) + body
