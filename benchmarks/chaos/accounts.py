"""What was written against what is stored: every record once, as it was, or its loss stated. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.chaos.witness import Life
from contract import records
from contract.vocabulary import Direction, DropReason, Hop, Outcome, Verdict

# Table of records -> the columns that are compared, `kind` (which table it must be in) aside.
POINT_COLUMNS = tuple(c for c in records.POINT_COLUMNS if c not in ("kind", "reason"))
TABLES: dict[str, tuple[str, ...]] = {
    "trace_points": POINT_COLUMNS,
    "drop_points": (*POINT_COLUMNS, "reason"),
    "probes": tuple(records.PROBE_COLUMNS),
}
_WORDS = {"hop": Hop, "direction": Direction, "verdict": Verdict, "outcome": Outcome}
_INTEGERS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
TRACE, DROP = 1, 2
TapKey = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Loss:
    """A row of the table `losses`."""

    key: TapKey
    first_seq: int
    count: int
    cause: str


@dataclass(frozen=True, slots=True)
class Account:
    """The result, in rows but for `taps` and `gaps_unstated`.

    `gaps_unstated`: runs of missing records that no loss row covers, and taps whose records that found no room are not
    as many as the loss rows say. `wrong`: stored, but not as written. `invented`: stored, but never written. `missing`:
    all that is not there, stated or not. `unseen`: written over before it could be copied; must be 0.
    """

    taps: int
    written: int
    acknowledged: int
    stored: int
    missing: int
    acknowledged_lost: int
    duplicated: int
    wrong: int
    invented: int
    gaps_unstated: int
    unseen: int
    examples: tuple[str, ...] = ()


def written(lives: Sequence[Life]) -> dict[str, pd.DataFrame]:
    """The taps' records as the warehouse's tables should have them: columns `tap` (index in `lives`) and TABLES."""
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    for number, life in enumerate(lives):
        if life.header.record_kind == records.PROBE_KIND:
            raw = np.frombuffer(bytes(life.raw), dtype=_dtype(records.PROBE_FIELDS, records.PROBE_SIZE))
            parts["probes"].append(_frame(raw, number, TABLES["probes"]))
            continue
        raw = np.frombuffer(bytes(life.raw), dtype=_dtype(records.POINT_FIELDS, records.POINT_SIZE))
        for kind, name in ((TRACE, "trace_points"), (DROP, "drop_points")):
            parts[name].append(_frame(raw[raw["kind"] == kind], number, TABLES[name]))
    return {name: pd.concat(some) if some else _empty(TABLES[name]) for name, some in parts.items()}


def compare(
    lives: Sequence[Life], found: Mapping[str, pd.DataFrame], losses: Sequence[Loss], side_duplicates: int = 0
) -> Account:
    """Hold the warehouse's rows against the taps.

    `found`: for each of TABLES its rows, with columns `node`, `boot_id`, `worker` and those of TABLES, words as words.
    `side_duplicates`: rows that stand twice in tables which are not records (see stored.py).
    """
    numbers = {life.key: n for n, life in enumerate(lives)}
    wrong = duplicated = invented = stored = 0
    there = [np.zeros(life.count, dtype=np.int64) for life in lives]
    examples: list[str] = []
    for name, truth in written(lives).items():
        rows = found[name]
        stored += len(rows)
        taps = [numbers.get(key, -1) for key in zip(rows["node"], rows["boot_id"], rows["worker"], strict=True)]
        # An empty table has no types of its own.
        rows = rows.assign(tap=np.array(taps, dtype=np.int64)).astype({"seq": np.uint64})
        truth = truth.astype({"tap": np.int64, "seq": np.uint64})
        for tap, seqs in rows.groupby("tap")["seq"]:
            _mark(there, int(str(tap)), seqs.to_numpy(dtype=np.uint64))
        once = rows.drop_duplicates(["tap", "seq"])
        both = truth.merge(once, on=["tap", "seq"], suffixes=("", "_found"), how="outer", indicator=True)
        alone = both[both["_merge"] == "right_only"]
        invented += len(alone)
        examples += [f"{name}: invented {r}" for r in alone[["tap", "seq"]].head(3).to_dict("records")]
        same = both[both["_merge"] == "both"]
        differ = np.zeros(len(same), dtype=bool)
        for column in TABLES[name]:
            if column not in ("seq",):
                differ |= (same[column] != same[f"{column}_found"]).to_numpy()
        wrong += int(differ.sum())
        examples += [f"{name}: not as written {r}" for r in same[differ][["tap", "seq"]].head(3).to_dict("records")]
    missing = lost = 0
    gaps = 0
    for life, counts in zip(lives, there, strict=True):
        duplicated += int(np.maximum(counts - 1, 0).sum())
        absent = np.flatnonzero(counts == 0)
        missing += len(absent)
        lost += int((absent < life.acknowledged).sum())
        own = [loss for loss in losses if loss.key == life.key]
        for first, end in _runs(absent):
            if not _stated(first, end, own):
                gaps += 1
                examples.append(f"{life.key}: records {first}..{end} are missing and nothing says so")
        told = sum(loss.count for loss in own if loss.cause == "ring_full")
        if told != life.lost:
            gaps += 1
            examples.append(f"{life.key}: {life.lost} records found no room in the ring, the losses say {told}")
    return Account(
        taps=len(lives),
        written=sum(life.count for life in lives),
        acknowledged=sum(life.acknowledged for life in lives),
        stored=stored,
        missing=missing,
        acknowledged_lost=lost,
        duplicated=duplicated + side_duplicates,
        wrong=wrong,
        invented=invented,
        gaps_unstated=gaps,
        unseen=sum(life.missed for life in lives),
        examples=tuple(examples[:20]),
    )


def _mark(there: list[npt.NDArray[np.int64]], tap: int, seqs: npt.NDArray[np.uint64]) -> None:
    if tap >= 0:
        np.add.at(there[tap], seqs[seqs < len(there[tap])].astype(np.int64), 1)


def _runs(numbers: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Half-open ranges of consecutive numbers."""
    if not len(numbers):
        return []
    pieces = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [(int(p[0]), int(p[-1]) + 1) for p in pieces]


def _stated(first: int, end: int, losses: Sequence[Loss]) -> bool:
    """Whether loss rows of torn or corrupt records cover the whole range."""
    covered = sorted((x.first_seq, x.first_seq + x.count) for x in losses if x.cause != "ring_full")
    for begin, stop in covered:
        if begin <= first < stop:
            first = stop
    return first >= end


def _frame(raw: npt.NDArray[np.void], tap: int, columns: Sequence[str]) -> pd.DataFrame:
    out: dict[str, object] = {"tap": np.full(len(raw), tap, dtype=np.int64)}
    for name in columns:
        values = raw[name]
        if name in _WORDS:
            out[name] = [_WORDS[name](int(v)).name.lower() if v else "" for v in values]
        elif name == "reason":
            out[name] = [DropReason(int(v)).name for v in values]
        elif values.dtype.kind == "V":
            out[name] = [v.tobytes() for v in values]
        else:
            out[name] = values
    return pd.DataFrame(out)


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in ("tap", *columns)})


def _dtype(fields: Sequence[tuple[str, int, int]], size: int) -> np.dtype[np.void]:
    names, offsets, sizes = zip(*fields, strict=True)
    formats = [_INTEGERS.get(s, f"V{s}") for s in sizes]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
