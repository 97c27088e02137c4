"""Closed probes become records in this prober's tap file, from where the collector takes them."""

from __future__ import annotations

import mmap
import os
from ipaddress import IPv6Address
from pathlib import Path

from contract import records
from contract.colour import probe_id
from contract.records import ProbeRecord
from contract.tap import TapHeader, TapWriter
from contract.vocabulary import Outcome
from prober.judge import Closed

_TCP = 6
_MAPPED = bytes(10) + b"\xff\xff"


def encode(closed: Closed, seq: int) -> bytes:
    """The record of a closed probe, PROBE_SIZE bytes."""
    probe = closed.probe
    return ProbeRecord(
        seq=seq,
        ts_ns=probe.sent_ns,
        probe_id=_name(probe.source, probe.source_port, probe.isn),
        outcome=int(closed.outcome),
        ip_version=4 if probe.source.startswith(_MAPPED) else 6,
        protocol=_TCP,
        retransmits=min(closed.retransmits, 0xFF),
        rtt_ns=min(closed.rtt_ns, 0xFFFFFFFF),
        src_addr=probe.source,
        dst_addr=probe.vip,
        src_port=probe.source_port,
        dst_port=probe.vip_port,
        isn=probe.isn,
        closed_ns=closed.closed_ns,
        vip_id=probe.vip_id,
        reply_ttl=closed.reply_ttl if closed.outcome in (Outcome.ANSWERED, Outcome.REFUSED) else 0,
    ).pack()


def _name(source: bytes, source_port: int, isn: int) -> int:
    return probe_id(IPv6Address(source), source_port, isn)


class Tap:
    """The tap file of one prober: <name>.0.<boot id, 8 digits>.tap, which appears whole or not at all."""

    def __init__(self, directory: Path, name: str, boot_id: bytes, capacity: int, created_ns: int) -> None:
        """OSError when the file cannot be made."""
        header = TapHeader(
            records.PROBE_KIND, records.PROBE_SIZE, 0, capacity, boot_id, name, created_ns, os.getpid(), role=0
        )
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / f"{name}.0.{boot_id.hex()[:8]}.tap"
        temporary = directory / f".{self.path.name}.new"
        with temporary.open("w+b") as file:
            file.truncate(header.file_size)
            self._map = mmap.mmap(file.fileno(), header.file_size)
        self._view = memoryview(self._map)
        self._writer = TapWriter(self._view, header)
        self._writer.beat(created_ns)
        temporary.rename(self.path)

    def write(self, closed: Closed) -> bool:
        """Record a closed probe; False (and counted in the tap) when the ring is full."""
        return self._writer.write(encode(closed, self._writer.next_seq))

    def beat(self, wall_ns: int) -> None:
        """Store the heartbeat."""
        self._writer.beat(wall_ns)

    def close(self) -> None:
        """Mark an end in good order and let the file go; it stays for the collector."""
        self._writer.close()
        self._view.release()
        self._map.close()
