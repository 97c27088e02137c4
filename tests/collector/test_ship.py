"""When a batch is tried again, and that repeating a delivery is harmless."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from collector import spool
from collector.ship import Schedule, deliver
from warehouse.client import Connection, Unavailable
from warehouse.settings import WarehouseSettings

MS = 1_000_000


def test_the_oldest_goes_first_and_nothing_pending_needs_no_waking() -> None:
    schedule = Schedule(random.Random(1))
    assert schedule.next(["a", "b"], 0) == "a"
    assert schedule.next([], 0) is None
    assert schedule.wake([], 0) is None
    assert schedule.wake(["a"], 7) == 7


def test_delays_double_up_to_a_bound_and_a_success_ends_them() -> None:
    schedule = Schedule(random.Random(1), first_ns=200 * MS, last_ns=5000 * MS)
    now, delays = 0, []
    for _ in range(10):
        schedule.unavailable(now)
        wake = schedule.wake(["a"], now)
        assert wake is not None
        assert schedule.next(["a"], wake - 1) is None
        assert schedule.next(["a"], wake) == "a"
        delays.append(wake - now)
        now = wake
    bounds = [min(5000, 200 << n) * MS for n in range(10)]
    assert all(bound / 2 <= delay <= bound for delay, bound in zip(delays, bounds, strict=True))
    schedule.shipped("a")
    assert schedule.next(["b"], now) == "b"


def test_a_refused_batch_lets_others_pass_and_is_tried_again() -> None:
    schedule = Schedule(random.Random(1))
    schedule.refused("a", 0)
    wake = schedule.wake(["a", "b"], 0)
    assert wake is not None
    assert schedule.next(["a", "b"], wake) == "b"
    schedule.shipped("b")
    later = schedule.wake(["a"], wake)
    assert later is not None
    assert schedule.next(["a"], later) == "a"


def test_each_table_has_its_own_token_and_a_repeat_has_the_same() -> None:
    batch = spool.Batch(
        5, rows={"losses": [[5, "a", "aa", 0, 1, 1, "x"]], "node_counters": [[5, "a", "aa", 0, "c", 1]]}
    )
    seen: list[tuple[str, str]] = []

    def insert(table: str, rows: pa.Table, token: str) -> None:
        seen.append((table, token))

    deliver(batch.encode(), insert)
    deliver(batch.encode(), insert)
    assert seen[:2] == seen[2:]
    assert len({token for _, token in seen}) == 2


def test_a_warehouse_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    warehouse = WarehouseSettings(url="http://127.0.0.1:9", user="u", password_file=tmp_path / "password", timeout_s=1)
    with pytest.raises(Unavailable):
        Connection(warehouse).insert_arrow("t", pa.table({"a": [1]}), "token")
