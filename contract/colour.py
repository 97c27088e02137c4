"""The colour of a probe: a reserved source prefix and a cookie in the TCP initial sequence number.

ISN = 12-bit nonce (high) | 20-bit keyed MAC (low). The MAC is BLAKE2s with the fleet's probe key over
(nonce, epoch), never over addresses or ports, which NAT rewrites. A SYN carries the ISN as its sequence number,
the SYN-ACK carries ISN + 1 as its acknowledgement, the prober's RST carries ISN + 1 as its sequence number.
The Rust twin is gateway/dataplane/contract/src/colour.rs; tests hold both to the same vectors.
"""

from __future__ import annotations

import hashlib
import ipaddress

EPOCH_SECONDS = 64
NONCE_BITS = 12
MAC_BITS = 20
KEY_BYTES = 16

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def epoch_of(now_ns: int) -> int:
    """The colour epoch of a wall-clock time [ns since 1970]."""
    return now_ns // (EPOCH_SECONDS * 1_000_000_000)


def cookie(key: bytes, nonce: int, epoch: int) -> int:
    """The ISN of a probe. `key`: KEY_BYTES bytes; `nonce`: 0..4095; `epoch`: see epoch_of. ValueError otherwise."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the probe key must be {KEY_BYTES} bytes, got {len(key)}")
    if not 0 <= nonce < 1 << NONCE_BITS:
        raise ValueError(f"the nonce must be in 0..{(1 << NONCE_BITS) - 1}, got {nonce}")
    message = nonce.to_bytes(2, "little") + epoch.to_bytes(8, "little")
    digest = hashlib.blake2s(message, key=key, digest_size=4).digest()
    return nonce << MAC_BITS | int.from_bytes(digest, "little") & (1 << MAC_BITS) - 1


def is_cookie(key: bytes, isn: int, now_ns: int) -> bool:
    """Whether `isn` is a cookie of this epoch or one beside it (clocks differ)."""
    epoch, nonce = epoch_of(now_ns), isn >> MAC_BITS
    return any(cookie(key, nonce, e) == isn for e in (epoch, epoch - 1, epoch + 1) if e >= 0)


def probe_id(source: Address, source_port: int, isn: int) -> int:
    """The 64-bit name of a probe that every hop can compute: low 16 bits of the source, source port, ISN."""
    return (int(source) & 0xFFFF) << 48 | source_port << 32 | isn
