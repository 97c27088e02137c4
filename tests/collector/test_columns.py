"""Columns hold what the records say, field by field, for any record."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from enum import IntEnum

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from collector import columns
from collector.spool import Batch, Segment
from contract import records
from contract.records import PointRecord, ProbeRecord
from contract.vocabulary import Direction, DropReason, Hop, Outcome, Verdict

U8, U16, U32, U64 = (st.integers(0, 2**n - 1) for n in (8, 16, 32, 64))
BY_CODE = {"Q": U64, "I": U32, "H": U16, "B": U8}
ADDRESS = st.binary(min_size=16, max_size=16)


def record(layout: struct.Struct) -> st.SearchStrategy[bytes]:
    codes = [c for c in layout.format.lstrip("<").replace("16s", "s") if c in "QIHBs"]
    return st.tuples(*(BY_CODE.get(c, ADDRESS) for c in codes)).map(lambda values: layout.pack(*values))


def word(words: type[IntEnum], number: int, lower: bool = True) -> str:
    try:
        name = str(words(number).name)
    except ValueError:
        return f"unknown-{number}" if number else ""
    return name.lower() if lower else name


def tables(segments: list[Segment], raw: bytes) -> dict[str, pa.Table]:
    return dict(columns.tables(Batch(9, tuple(segments), raw), "token"))


def times(table: pa.Table, name: str) -> list[int]:
    return list(table[name].cast(pa.int64()).to_pylist())


@given(st.lists(record(records.POINT_STRUCT), min_size=1, max_size=8), st.integers(0, 8))
def test_points(raws: list[bytes], split: int) -> None:
    split = min(split, len(raws))
    segments = [
        Segment("a", "aa", 0, 2, records.POINT_KIND, 0, split, split),
        Segment("b", "bb", 0, 2, records.POINT_KIND, 0, len(raws) - split, len(raws) - split),
    ]
    found = tables(segments, b"".join(raws))
    points = [(("a", "aa") if i < split else ("b", "bb"), PointRecord.unpack(r)) for i, r in enumerate(raws)]
    for name, kind in (("trace_points", 1), ("drop_points", 2)):
        wanted = [(source, p) for source, p in points if p.kind == kind]
        if not wanted:
            assert name not in found
            continue
        table = found[name]
        assert times(table, "ts") == [min(p.ts_ns, 2**63 - 1) for _, p in wanted]
        rows = table.drop_columns(["ts"]).to_pylist()
        for row, ((node, boot), p) in zip(rows, wanted, strict=True):
            assert (row.pop("node"), row.pop("boot_id")) == (node, boot)
            assert row.pop("hop") == word(Hop, p.hop)
            assert row.pop("direction") == word(Direction, p.direction)
            assert row.pop("verdict") == word(Verdict, p.verdict)
            if kind == 2:
                assert row.pop("reason") == word(DropReason, p.reason, lower=False)
            for field, value in row.items():
                assert value == getattr(p, field), field
            assert set(row) == set(records.POINT_COLUMNS) - {"ts_ns", "kind", "hop", "direction", "verdict", "reason"}


@given(st.lists(record(records.PROBE_STRUCT), min_size=1, max_size=5))
def test_probes(raws: list[bytes]) -> None:
    found = tables([Segment("p1", "cc", 0, 0, records.PROBE_KIND, 0, len(raws), len(raws))], b"".join(raws))
    table = found["probes"]
    probes = [ProbeRecord.unpack(r) for r in raws]
    assert times(table, "ts") == [min(p.ts_ns, 2**63 - 1) for p in probes]
    assert times(table, "closed") == [min(p.closed_ns, 2**63 - 1) for p in probes]
    for row, p in zip(table.drop_columns(["ts", "closed"]).to_pylist(), probes, strict=True):
        assert (row.pop("prober"), row.pop("boot_id")) == ("p1", "cc")
        assert row.pop("outcome") == word(Outcome, p.outcome)
        assert {k: getattr(p, k) for k in row} == row


def test_both_kinds_in_one_batch_do_not_mix() -> None:
    none = bytes(16)
    point = PointRecord(1, 2, 3, 1, 1, 0, 1, 4, 6, 2, 1, none, none, 1, 2, 3, none, none, 4, 5, 6, 7, 8, 9)
    probe = ProbeRecord(11, 12, 13, 1, 4, 6, 0, 14, bytes(16), bytes(16), 1, 2, 3, 15, 16, 17)
    segments = [
        Segment("p1", "cc", 0, 0, records.PROBE_KIND, 11, 1, 1),
        Segment("a", "aa", 0, 2, records.POINT_KIND, 1, 1, 1),
        Segment("p1", "cc", 0, 0, records.PROBE_KIND, 12, 1, 1),
    ]
    found = tables(segments, probe.pack() + point.pack() + probe.pack())
    assert list(found) == ["trace_points", "probes", "batches"]
    assert found["probes"]["seq"].to_pylist() == [11, 11]
    assert found["trace_points"]["seq"].to_pylist() == [1]


def test_rows_that_are_no_records() -> None:
    now = 1_700_000_000_000_000_000
    batch = Batch(now, rows={"losses": [[now, "a", "aa", 3, 7, 2, "ring_full"]]})
    ((name, table),) = columns.tables(batch, "t")
    assert name == "losses"
    (row,) = table.to_pylist()
    assert row.pop("ts") == datetime.fromtimestamp(now / 1e9, UTC)
    assert row == {"node": "a", "boot_id": "aa", "worker": 3, "first_seq": 7, "count": 2, "cause": "ring_full"}


def test_a_probers_tap_has_the_role_prober() -> None:
    assert [columns.role_name(n) for n in (0, 1, 2, 3, 9)] == ["prober", "eip", "clb", "vswitch", "unknown-9"]
