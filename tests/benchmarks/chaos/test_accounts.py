"""The comparison finds each fault that is planted, and nothing where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from benchmarks.chaos.accounts import Account, Loss, compare
from tests.benchmarks.chaos.taps import life, stored

Tables = dict[str, pd.DataFrame]
GONE = {"missing": 1, "acknowledged_lost": 1, "gaps_unstated": 1}
STRANGE = GONE | {"invented": 1}


def faults(account: Account) -> dict[str, int]:
    names = ("missing", "acknowledged_lost", "duplicated", "wrong", "invented", "gaps_unstated", "unseen")
    return {name: value for name in names if (value := getattr(account, name))}


def test_nothing_is_wrong_where_all_is_there() -> None:
    lives = [life(50), life(7, boot=2), life(0, boot=3)]
    found = compare(lives, stored(*lives), [])
    assert faults(found) == {}
    assert (found.taps, found.written, found.acknowledged, found.stored) == (3, 57, 57, 57)
    assert found.examples == ()


def without(*seqs: int) -> Callable[[Tables], Tables]:
    return lambda tables: {name: rows[~rows["seq"].isin(seqs)] for name, rows in tables.items()}


def twice(table: str, seq: int) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        rows = tables[table]
        return tables | {table: pd.concat([rows, rows[rows["seq"] == seq]])}

    return change


def altered(table: str, column: str, value: object) -> Callable[[Tables], Tables]:
    def change(tables: Tables) -> Tables:
        rows = tables[table].copy()
        rows.loc[rows.index[0], column] = value  # type: ignore[call-overload]
        return tables | {table: rows}

    return change


def moved(tables: Tables) -> Tables:
    """A Drop Point among the Trace Points."""
    rows = tables["drop_points"]
    return {
        "trace_points": pd.concat([tables["trace_points"], rows[:1].drop(columns="reason")]),
        "drop_points": rows[1:],
        "probes": tables["probes"],
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without(3), GONE),
        (without(3, 4, 5, 9), {"missing": 4, "acknowledged_lost": 4, "gaps_unstated": 2}),
        (without(49), {"missing": 1, "gaps_unstated": 1}),
        (twice("trace_points", 6), {"duplicated": 1}),
        (twice("drop_points", 8), {"duplicated": 1}),
        (altered("trace_points", "src_port", 9), {"wrong": 1}),
        (altered("drop_points", "reason", "NO_LISTENER"), {"wrong": 1}),
        (altered("trace_points", "src_addr", b"x" * 16), {"wrong": 1}),
        (altered("trace_points", "ts_ns", 1), {"wrong": 1}),
        (altered("trace_points", "hop", "eip_in"), {"wrong": 1}),
        (
            altered("trace_points", "boot_id", "ff" * 16),
            STRANGE,
        ),
        (
            altered("trace_points", "seq", 1000),
            STRANGE,
        ),
        (moved, {"invented": 1}),
    ],
)
def test_each_planted_fault_is_found(change: Callable[[Tables], Tables], expected: dict[str, int]) -> None:
    lives = [life(50, acknowledged=49)]
    found = compare(lives, change(stored(*lives)), [])
    assert faults(found) == expected
    assert found.examples or "duplicated" in expected


def test_a_stated_loss_is_no_unstated_gap_but_still_lost() -> None:
    lives = [life(50)]
    torn = Loss(lives[0].key, 10, 5, "spool_torn")
    tables = without(*range(10, 15))(stored(*lives))
    assert faults(compare(lives, tables, [torn])) == {"missing": 5, "acknowledged_lost": 5}
    for short in (
        Loss(lives[0].key, 10, 4, "spool_torn"),
        Loss(lives[0].key, 11, 5, "spool_torn"),
        Loss(life(1, boot=2).key, 10, 5, "spool_torn"),
    ):
        assert compare(lives, tables, [short]).gaps_unstated == 1
    halves = [Loss(lives[0].key, 12, 3, "corrupt"), Loss(lives[0].key, 10, 2, "spool_torn")]
    assert compare(lives, tables, halves).gaps_unstated == 0


@pytest.mark.parametrize(("told", "gaps"), [([3], 0), ([1, 2], 0), ([2], 1), ([3, 3], 1), ([], 1)])
def test_losses_add_up_to_what_found_no_room(told: list[int], gaps: int) -> None:
    lives = [life(20, lost=3)]
    losses = [Loss(lives[0].key, 20, n, "ring_full") for n in told]
    assert compare(lives, stored(*lives), losses).gaps_unstated == gaps


def test_a_record_that_nobody_saw_is_said() -> None:
    lives = [life(20)]
    lives[0].missed = 2
    assert faults(compare(lives, stored(*lives), [])) == {"unseen": 2}
