"""Rows that were acknowledged are there after kill -9, and tokens are remembered."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from typing import Any

import httpx
import pyarrow as pa

from tests.warehouse.conftest import PASSWORDS
from warehouse.client import Connection, Refused, Unavailable


def rows(batch: int) -> pa.Table:
    """A batch of a hundred probes; the batch's number is their VIP."""
    numbers = pa.array(range(100), pa.uint64())
    times = pa.array([1_900_000_000_000_000_000 + i for i in range(100)], pa.timestamp("ns", tz="UTC"))
    return pa.table(
        {"ts": times, "seq": numbers, "vip_id": pa.array([batch] * 100, pa.uint32()), "prober": ["d"] * 100}
    )


def test_acknowledged_rows_survive_kill_9_once(own_warehouse: Any) -> None:
    acknowledged: list[int] = []
    started: list[int] = []
    rng = random.Random(7)
    for turn in range(3):
        enough = threading.Event()
        goal = len(acknowledged) + rng.randint(3, 12)

        def insert(turn: int = turn, goal: int = goal, enough: threading.Event = enough) -> None:
            connection: Connection = own_warehouse.connection()
            for batch in range(turn * 10_000, (turn + 1) * 10_000):
                started.append(batch)
                try:
                    connection.insert_arrow("probes", rows(batch), f"batch-{batch}")
                except (Unavailable, Refused):
                    return
                acknowledged.append(batch)
                if len(acknowledged) >= goal:
                    enough.set()

        thread = threading.Thread(target=insert)
        thread.start()
        assert enough.wait(60)
        own_warehouse.end(signal.SIGKILL)
        thread.join(60)
        own_warehouse.start()
        found = dict(own_warehouse.rows("SELECT vip_id, count() FROM probes GROUP BY vip_id"))
        assert set(acknowledged) <= set(found) <= set(started)
        assert set(found.values()) == {100}

    # Everything again, as a collector does that was not told: nothing is there twice, not in the roll-up either.
    connection = own_warehouse.connection()
    for batch in started:
        connection.insert_arrow("probes", rows(batch), f"batch-{batch}")
    assert connection.query("SELECT count(), uniqExact(vip_id, seq) FROM probes") == [(len(started) * 100,) * 2]
    assert connection.query("SELECT sum(probes), uniqExact(vip_id) FROM probes_1s") == [
        (len(started) * 100, len(started))
    ]
    connection.close()


def test_tokens_are_remembered_over_a_clean_stop(own_warehouse: Any) -> None:
    for _ in range(2):
        connection = own_warehouse.connection()
        connection.insert_arrow("probes", rows(1), "the-token")
        connection.close()
        assert own_warehouse.end() == 0
        own_warehouse.start()
    assert own_warehouse.rows("SELECT count() FROM probes") == [(100,)]


def test_the_schema_is_kept_over_a_restart(own_warehouse: Any) -> None:
    before = own_warehouse.rows("SELECT table, name, type FROM system.columns WHERE database = 'tgw' ORDER BY ALL")
    own_warehouse.end(signal.SIGKILL)
    own_warehouse.start()
    after = own_warehouse.rows("SELECT table, name, type FROM system.columns WHERE database = 'tgw' ORDER BY ALL")
    assert before == after
    assert '"revisions": []' in own_warehouse.log.splitlines()[-1]


def test_half_a_body_is_no_insert(own_warehouse: Any) -> None:
    def torn() -> Any:
        yield b"1,2026-01-01 00:00:00\n" * 1000
        raise ConnectionError("the client died")

    with contextlib.suppress(ConnectionError, httpx.HTTPError):
        httpx.post(
            own_warehouse.url,
            params={"database": "tgw", "query": "INSERT INTO probes (seq, ts) FORMAT CSV"},
            content=torn(),
            headers={"X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"]},
            trust_env=False,
        )
    assert own_warehouse.rows("SELECT count() FROM probes") == [(0,)]
