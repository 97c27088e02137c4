"""What comes back: a kernel filter that lets only packets to the reserved sources pass, and their reading, by bytes.

Every byte here may be hostile: a frame that is not plainly an answer to a probe is None.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

_ETHERNET = 14
_MAPPED = bytes(10) + b"\xff\xff"
_SYN, _RST, _ACK = 0x02, 0x04, 0x10


class Kind(Enum):
    """What an answer says."""

    SYN_ACK = "syn_ack"
    RESET = "reset"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a probe that it names by ISN. Addresses: 16 bytes, IPv4 mapped."""

    kind: Kind
    source: bytes
    source_port: int
    vip: bytes
    vip_port: int
    isn: int
    ttl: int


def mapped(packed: bytes) -> bytes:
    """Any address as 16 bytes."""
    return packed if len(packed) == 16 else _MAPPED + packed


def parse(frame: bytes) -> Answer | None:
    """The answer in an Ethernet frame, None when there is none."""
    ethertype = frame[12:14]
    if ethertype == b"\x08\x00":
        return _parse4(frame[_ETHERNET:])
    if ethertype == b"\x86\xdd":
        return _parse6(frame[_ETHERNET:])
    return None


def _parse4(packet: bytes) -> Answer | None:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header, total = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
    if header < 20 or total < header or total > len(packet) or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return None
    body, ttl = packet[header:total], packet[8]
    if packet[9] == 6:
        return _tcp(body, packet[12:16], packet[16:20], ttl)
    # Destination unreachable and time exceeded quote the packet they are about.
    if packet[9] == 1 and len(body) >= 8 + 20 and body[0] in (3, 11):
        quoted = body[8:]
        inner = (quoted[0] & 15) * 4
        if quoted[0] >> 4 == 4 and inner >= 20 and quoted[9] == 6:
            return _quoted(quoted[inner:], quoted[12:16], quoted[16:20], ttl)
    return None


def _parse6(packet: bytes) -> Answer | None:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return None
    end = 40 + int.from_bytes(packet[4:6], "big")
    if end > len(packet):
        return None
    body, ttl = packet[40:end], packet[7]
    if packet[6] == 6:
        return _tcp(body, packet[8:24], packet[24:40], ttl)
    if packet[6] == 58 and len(body) >= 8 + 40 and body[0] in (1, 3):
        quoted = body[8:]
        if quoted[0] >> 4 == 6 and quoted[6] == 6:
            return _quoted(quoted[40:], quoted[8:24], quoted[24:40], ttl)
    return None


def _tcp(segment: bytes, sender: bytes, receiver: bytes, ttl: int) -> Answer | None:
    if len(segment) < 20:
        return None
    vip_port, source_port, _, ack = struct.unpack_from("!HHII", segment)
    flags = segment[13]
    # The answer to a SYN acknowledges it; a RST that acknowledges nothing names no probe.
    if not flags & _ACK:
        return None
    if flags & _RST:
        kind = Kind.RESET
    elif flags & _SYN:
        kind = Kind.SYN_ACK
    else:
        return None
    return Answer(kind, mapped(receiver), source_port, mapped(sender), vip_port, ack - 1 & 0xFFFFFFFF, ttl)


def _quoted(segment: bytes, source: bytes, destination: bytes, ttl: int) -> Answer | None:
    if len(segment) < 8:
        return None
    source_port, vip_port, isn = struct.unpack_from("!HHI", segment)
    return Answer(Kind.UNREACHABLE, mapped(source), source_port, mapped(destination), vip_port, isn, ttl)


_LDH, _LDW, _AND, _JEQ, _RET = 0x28, 0x20, 0x54, 0x15, 0x06
_KEEP = 0xFFFF


def filter_program(networks: Sequence[IPv4Network | IPv6Network]) -> bytes:
    """A classic BPF program over Ethernet frames: passes IP packets whose destination is in one of the networks.

    ValueError for more networks than a program's short jumps can span.
    """
    four = [_match(30, n) for n in networks if n.version == 4]
    six = [_match(38, n) for n in networks if n.version == 6]
    refuse = _instruction(_RET, 0)
    section4, section6 = b"".join(four) + refuse, b"".join(six) + refuse
    if max(len(section4), len(section6)) // 8 > 255:
        raise ValueError(f"expected fewer source networks, got {len(networks)}")
    return (
        _instruction(_LDH, 12)
        + _instruction(_JEQ, 0x0800, 0, len(section4) // 8)
        + section4
        + _instruction(_JEQ, 0x86DD, 0, len(section6) // 8)
        + section6
        + refuse
    )


def _match(offset: int, network: IPv4Network | IPv6Network) -> bytes:
    """Instructions that keep the packet when the address at `offset` is in the network, and fall through when not."""
    address, mask = network.network_address.packed, network.netmask.packed
    words = [
        (at, int.from_bytes(address[at : at + 4], "big"), int.from_bytes(mask[at : at + 4], "big"))
        for at in range(0, len(address), 4)
    ]
    words = [w for w in words if w[2]]
    out = b""
    for i, (at, value, bits) in enumerate(words):
        rest = 3 * (len(words) - 1 - i) + 1  # instructions of this match that follow the jump
        out += _instruction(_LDW, offset + at) + _instruction(_AND, bits) + _instruction(_JEQ, value, 0, rest)
    return out + _instruction(_RET, _KEEP)


def _instruction(code: int, k: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, k)
