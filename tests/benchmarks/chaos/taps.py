"""Tap files with a writer on them, and what the warehouse would say of their records."""

from __future__ import annotations

import mmap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.chaos import accounts
from benchmarks.chaos.witness import Life
from contract import tap
from contract.records import POINT_KIND, POINT_SIZE, PointRecord
from contract.tap import TapHeader, TapWriter
from contract.vocabulary import Direction, DropReason, Hop, Verdict


def header(node: str = "ld-1", capacity: int = 16, boot: int = 1) -> TapHeader:
    return TapHeader(POINT_KIND, POINT_SIZE, 0, capacity, bytes([boot]) * 16, node, 1, 1, 2)


def point(seq: int) -> PointRecord:
    """Every third is a Drop Point."""
    drop = seq % 3 == 2
    return PointRecord(
        seq=seq,
        ts_ns=1_700_000_000_000_000_000 + seq,
        probe_id=seq * 7,
        kind=accounts.DROP if drop else accounts.TRACE,
        hop=int(Hop.CLB_IN),
        reason=int(DropReason.NO_VIP) if drop else 0,
        verdict=int(Verdict.DROPPED if drop else Verdict.FORWARDED),
        ip_version=4,
        protocol=6,
        tcp_flags=2,
        direction=int(Direction.REQUEST),
        src_addr=bytes(15) + bytes([seq % 256]),
        dst_addr=bytes(16),
        src_port=seq % 65536,
        dst_port=80,
        residence_ns=100,
        outer_src=bytes(16),
        outer_dst=bytes(16),
        vip_id=1,
        server_id=2,
        frame_len=60,
        worker=0,
        tcp_seq=3,
        tcp_ack=4,
    )


class File:
    """A tap file with a writer on it."""

    def __init__(self, path: Path, head: TapHeader) -> None:
        path.write_bytes(bytes(head.file_size))
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.path = path
        self.writer = TapWriter(self.map, head)

    def write(self, count: int) -> None:
        for _ in range(count):
            assert self.writer.write(point(self.writer.next_seq).pack())

    def take(self, cursor: int | None = None) -> None:
        """A collector says that what is before the cursor is safe."""
        tap.set_read_cursor(self.map, self.writer.next_seq if cursor is None else cursor)


def life(count: int, acknowledged: int | None = None, lost: int = 0, boot: int = 1) -> Life:
    """What a witness has of a tap."""
    raw = bytearray(b"".join(point(seq).pack() for seq in range(count)))
    return Life(header(boot=boot), raw, count, count if acknowledged is None else acknowledged, lost)


def stored(*lives: Life) -> dict[str, pd.DataFrame]:
    """The tables of a warehouse that has every record of these taps."""
    rows: dict[str, list[dict[str, Any]]] = {"trace_points": [], "drop_points": [], "probes": []}
    for one in lives:
        node, boot, worker = one.key
        for seq in range(one.count):
            record = point(seq)
            row = asdict(record) | {"node": node, "boot_id": boot, "worker": worker}
            row |= {"hop": "clb_in", "direction": "request"}
            row["verdict"] = "dropped" if record.kind == accounts.DROP else "forwarded"
            row["reason"] = "NO_VIP"
            rows["drop_points" if record.kind == accounts.DROP else "trace_points"].append(row)
    columns = {
        name: ["node", "boot_id", "worker", *(c for c in cs if c != "worker")] for name, cs in accounts.TABLES.items()
    }
    return {name: pd.DataFrame(some, columns=columns[name]) for name, some in rows.items()}
