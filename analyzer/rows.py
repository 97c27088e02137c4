"""The rows the analyzer works on, as the warehouse holds them.

Times are ns since 1970; addresses are text, "" when unset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

TRACE, DROP = 1, 2

TCP_SYN, TCP_RST, TCP_ACK = 0x02, 0x04, 0x10


class Point(NamedTuple):
    """A Trace Point or Drop Point. `hop`, `reason`: numbers of the vocabulary (reason 0 in a Trace Point)."""

    node: str
    worker: int
    boot_id: str
    seq: int
    ts_ns: int
    probe_id: int
    kind: int
    hop: int
    reason: int
    tcp_flags: int
    src_addr: str
    outer_src: str
    outer_dst: str
    vip_id: int
    server_id: int
    residence_ns: int


class Probe(NamedTuple):
    """What a prober saw of one probe. `outcome`: number of the vocabulary."""

    prober: str
    boot_id: str
    seq: int
    ts_ns: int
    closed_ns: int
    probe_id: int
    outcome: int
    rtt_ns: int
    vip_id: int
    src_port: int
    dst_port: int


class Feed(NamedTuple):
    """What the collector saw of one tap at `ts_ns`. `role`: 0 for a prober. `shipped`: records landed."""

    ts_ns: int
    node: str
    worker: int
    role: int
    boot_id: str
    heartbeat_ns: int
    write_cursor: int
    shipped: int
    lost: int
    alive: bool


class Loss(NamedTuple):
    """Records of a tap that the collector knows to be lost."""

    ts_ns: int
    node: str
    worker: int
    boot_id: str
    records: int


class Batch(NamedTuple):
    """A batch of a tap's records that is in the warehouse. `next_seq`: the first record after it."""

    node: str
    worker: int
    boot_id: str
    next_seq: int


@dataclass(slots=True)
class Rows:
    """One reading of the warehouse, in any order, possibly with rows that were read before."""

    batches: list[Batch] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
