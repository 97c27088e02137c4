"""Batches as columns: raw records -> Arrow tables, one for each table of the warehouse. No Python object per record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collector.spool import Batch, Segment
from contract import records
from contract.vocabulary import Direction, DropReason, Hop, Outcome, Role, Verdict

_TRACE, _DROP = 1, 2
_INTEGERS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_TIME = pa.timestamp("ns", tz="UTC")


def _dtype(fields: Sequence[tuple[str, int, int]], size: int) -> np.dtype[Any]:
    names, offsets, sizes = zip(*fields, strict=True)
    formats = [_INTEGERS.get(s, f"V{s}") for s in sizes]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


POINT = _dtype(records.POINT_FIELDS, records.POINT_SIZE)
PROBE = _dtype(records.PROBE_FIELDS, records.PROBE_SIZE)


def _words(words: type[Any], lower: bool) -> pa.Array:
    """Names by number, 0..255; a number nobody has declared says so, and 0 ("unspecified") is empty."""
    known = {int(w): (w.name.lower() if lower else w.name) for w in words}
    return pa.array([""] + [known.get(n, f"unknown-{n}") for n in range(1, 256)])


_HOPS, _DIRECTIONS = _words(Hop, True), _words(Direction, True)
_VERDICTS, _OUTCOMES, _REASONS = _words(Verdict, True), _words(Outcome, True), _words(DropReason, False)

COUNTER_NAMES: dict[int, str] = {index: name for name, index in records.COUNTERS.items()} | {
    records.DROP_BASE + int(reason): f"drop.{reason.name}" for reason in DropReason
}

# The columns of the tables that are not records, in the order of Batch.rows.
TAP_COLUMNS = (("ts", _TIME), ("node", pa.string()), ("boot_id", pa.string()), ("worker", pa.uint16()))
ROW_SCHEMAS: dict[str, pa.Schema] = {
    "losses": pa.schema([*TAP_COLUMNS, ("first_seq", pa.uint64()), ("count", pa.uint64()), ("cause", pa.string())]),
    "feeds": pa.schema(
        [
            *TAP_COLUMNS,
            ("role", pa.string()),
            ("heartbeat", _TIME),
            ("write_cursor", pa.uint64()),
            ("shipped", pa.uint64()),
            ("lost", pa.uint64()),
            ("suppressed", pa.uint64()),
            ("alive", pa.uint8()),
        ]
    ),
    "node_counters": pa.schema([*TAP_COLUMNS, ("counter", pa.string()), ("value", pa.uint64())]),
    "batches": pa.schema(
        [
            *TAP_COLUMNS,
            ("kind", pa.string()),
            ("first_seq", pa.uint64()),
            ("rows", pa.uint64()),
            ("token", pa.string()),
        ]
    ),
}


def role_name(role: int) -> str:
    """The name of a tap's role; a prober's tap has none."""
    try:
        return Role(role).name.lower()
    except ValueError:
        return "prober" if role == 0 else f"unknown-{role}"


def tables(batch: Batch, token: str) -> Iterator[tuple[str, pa.Table]]:
    """(table name, rows) of a batch, none of them empty. The last one's rows say that all others are in.

    `feeds` says it where the batch has it (of every tap), and `batches` otherwise.
    """
    for kind, name in ((records.POINT_KIND, "points"), (records.PROBE_KIND, "probes")):
        segments = [s for s in batch.segments if s.kind == kind]
        if not any(s.kept for s in segments):
            continue
        raw = _raw_of(batch, kind)
        sources = _Sources(segments)
        if name == "probes":
            yield "probes", _probes(np.frombuffer(raw, dtype=PROBE), sources)
        else:
            yield from _points(np.frombuffer(raw, dtype=POINT), sources)
    for name in ("losses", "node_counters", "feeds"):
        if rows := batch.rows.get(name):
            yield name, _rows(name, rows)
    if batch.segments and not batch.rows.get("feeds"):
        kinds = {records.POINT_KIND: "point", records.PROBE_KIND: "probe"}
        yield (
            "batches",
            _rows(
                "batches",
                [
                    [batch.created_ns, s.node, s.boot_id, s.worker, kinds[s.kind], s.first, s.kept, token]
                    for s in batch.segments
                ],
            ),
        )


def _rows(name: str, rows: list[list[Any]]) -> pa.Table:
    schema = ROW_SCHEMAS[name]
    arrays = [pa.array(column, type=field.type) for column, field in zip(zip(*rows, strict=True), schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _raw_of(batch: Batch, kind: int) -> bytes:
    """The records of one kind; both kinds have their own size."""
    sizes = {records.POINT_KIND: records.POINT_SIZE, records.PROBE_KIND: records.PROBE_SIZE}
    parts, at = [], 0
    for segment in batch.segments:
        length = segment.kept * sizes[segment.kind]
        if segment.kind == kind:
            parts.append(batch.raw[at : at + length])
        at += length
    return b"".join(parts)


class _Sources:
    """Which tap each record came from: node and boot id as dictionary columns."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._index = np.repeat(np.arange(len(segments), dtype=np.int32), [s.kept for s in segments])
        self._nodes = pa.array([s.node for s in segments])
        self._boots = pa.array([s.boot_id for s in segments])

    def columns(self, keep: npt.NDArray[np.bool_] | None) -> dict[str, pa.Array]:
        index = pa.array(self._index if keep is None else self._index[keep])
        return {"node": self._nodes.take(index), "boot_id": self._boots.take(index)}


def _column(table: npt.NDArray[Any], name: str) -> pa.Array:
    values = np.ascontiguousarray(table[name])
    if values.dtype.kind == "V":
        width = values.dtype.itemsize
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])
    return pa.array(values)


def _times(table: npt.NDArray[Any], name: str) -> pa.Array:
    # A nonsense time (beyond the year 2262) would wrap to a negative one.
    values = np.minimum(table[name], np.uint64(2**63 - 1)).astype(np.int64)
    return pa.array(values).cast(_TIME)


def _points(table: npt.NDArray[Any], sources: _Sources) -> Iterator[tuple[str, pa.Table]]:
    for kind, name in ((_TRACE, "trace_points"), (_DROP, "drop_points")):
        keep = table["kind"] == kind
        if keep.any():
            yield name, _point_columns(table[keep], sources.columns(keep), drops=kind == _DROP)


def _point_columns(table: npt.NDArray[Any], sources: dict[str, pa.Array], *, drops: bool) -> pa.Table:
    columns: dict[str, pa.Array] = {"ts": _times(table, "ts_ns"), **sources}
    words = {"hop": _HOPS, "direction": _DIRECTIONS, "verdict": _VERDICTS, "reason": _REASONS}
    for name in records.POINT_COLUMNS:
        if name in ("ts_ns", "kind") or (name == "reason" and not drops):
            continue
        value = _column(table, name)
        columns[name] = words[name].take(value) if name in words else value
    return pa.table(columns)


def _probes(table: npt.NDArray[Any], sources: _Sources) -> pa.Table:
    named = sources.columns(None)
    columns: dict[str, pa.Array] = {
        "ts": _times(table, "ts_ns"),
        "prober": named["node"],
        "boot_id": named["boot_id"],
        "closed": _times(table, "closed_ns"),
    }
    for name in records.PROBE_COLUMNS:
        if name in ("ts_ns", "closed_ns"):
            continue
        value = _column(table, name)
        columns[name] = _OUTCOMES.take(value) if name == "outcome" else value
    return pa.table(columns)
