"""Roll-ups say what the records say: late rows, repeated tokens, killed runs, a clock set back, long backlogs."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.warehouse.conftest import Warehouse, run_in
from warehouse import migrate, rollups
from warehouse.client import connect
from warehouse.engine import Engine, EngineError
from warehouse.migrate import Remote
from warehouse.revisions import Variant
from warehouse.rollups import MAX_STEPS, ROLLUPS, Roller, roll

MINUTE = 60 * 1_000_000_000
START = 1_800_000_000 * 1_000_000_000  # a whole minute

ASKED = {
    "probes": "outcome, prober, vip_id, probes, quantilesTDigestMerge(0.5, 0.99)(rtt_ns)",
    "trace_points": "hop, node, worker, points, quantilesTDigestMerge(0.5, 0.99)(residence_ns)",
    "drop_points": "reason, hop, node, worker, points, uniqMerge(vips)",
}
TRUTH = {
    "probes": "outcome, prober, vip_id, count(), quantilesTDigestIf(0.5, 0.99)(rtt_ns, rtt_ns > 0)",
    "trace_points": "hop, node, worker, count(), quantilesTDigest(0.5, 0.99)(residence_ns)",
    "drop_points": "reason, hop, node, worker, count(), uniq(vip_id)",
}
GROUPS = {
    "probes": "outcome, prober, vip_id, probes",
    "trace_points": "hop, node, worker, points",
    "drop_points": "reason, hop, node, worker, points",
}


def truth(engine: Engine, source: str) -> list[Any]:
    keys = ", ".join(next(r.keys for r in ROLLUPS if r.source == source))
    return [
        tuple(row)
        for row in engine.rows(
            f"SELECT toStartOfMinute(toDateTime(ts)) AS minute, {TRUTH[source]} FROM tgw.{source} "
            f"GROUP BY minute, {keys} ORDER BY minute, {keys}"
        )
    ]


def rolled(engine: Engine, source: str) -> list[Any]:
    keys = ", ".join(next(r.keys for r in ROLLUPS if r.source == source))
    return [
        tuple(row)
        for row in engine.rows(
            f"SELECT minute, {ASKED[source]} FROM tgw.{source}_1m "
            f"GROUP BY minute, {GROUPS[source]} ORDER BY minute, {keys}"
        )
    ]


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def insert(engine: Engine, source: str, times_ns: list[int], token: str, **columns: list[Any]) -> None:
    rows = pa.table({"ts": pa.array(times_ns, pa.timestamp("ns", tz="UTC")), **columns})
    engine.insert(f"tgw.{source}", "Arrow", arrow(rows), {"insert_deduplication_token": token})


def probes(engine: Engine, times_ns: list[int], token: str, vip: int = 1, landed_us: int = 0) -> None:
    count = len(times_ns)
    more: dict[str, list[Any]] = {"landed": pa.array([landed_us] * count, pa.timestamp("us", tz="UTC"))}
    insert(
        engine,
        "probes",
        times_ns,
        token,
        outcome=["answered"] * count,
        prober=["p"] * count,
        vip_id=[vip] * count,
        rtt_ns=[1000 + 7 * i for i in range(count)],
        **(more if landed_us else {}),
    )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = Engine(tmp_path / "engine", "tgw")
    migrate.migrate(opened, Variant())
    yield opened
    opened.close()


def test_every_rollup_says_what_its_records_say(engine: Engine) -> None:
    times = [START + i * MINUTE // 7 for i in range(50)]
    probes(engine, times, "a")
    insert(engine, "trace_points", times, "a", hop=["eip_in"] * 50, node=["e"] * 50, residence_ns=list(range(50)))
    insert(engine, "drop_points", times, "a", reason=["X"] * 50, hop=["eip_in"] * 50, vip_id=[1, 2] * 25)
    roll(engine, "tgw")
    for source in TRUTH:
        assert len(truth(engine, source)) == 8
        assert rolled(engine, source) == truth(engine, source)
    assert {r.source for r in ROLLUPS} == set(TRUTH)


def test_late_rows_and_repeated_tokens(engine: Engine) -> None:
    probes(engine, [START + i for i in range(10)], "a")
    roll(engine, "tgw")
    probes(engine, [START + i for i in range(10)], "a")  # the collector was not told that it is in
    probes(engine, [START - 90 * MINUTE, START + 5], "late")
    roll(engine, "tgw")
    roll(engine, "tgw")
    assert rolled(engine, "probes") == truth(engine, "probes")
    assert [row[4] for row in rolled(engine, "probes")] == ["1", "11"]


def test_the_views_by_the_second_are_the_records(engine: Engine) -> None:
    probes(engine, [START, START + 1, START + 1_000_000_000], "a")
    assert engine.rows("SELECT second, probes FROM tgw.probes_1s ORDER BY second") == [
        ["2027-01-15 08:00:00", "2"],
        ["2027-01-15 08:00:01", "1"],
    ]


def test_a_run_that_was_killed_is_done_again(engine: Engine) -> None:
    class Killed(BaseException):
        pass

    class Dying:
        """Dies before its n-th statement, or after it."""

        def __init__(self, left: float) -> None:
            self.left = left

        def command(self, statement: str) -> None:
            self.step()
            engine.command(statement)
            self.step()

        def rows(self, query: str) -> Any:
            return engine.rows(query)

        def step(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    for moment in range(4):  # before and after its rows, before and after the mark
        probes(engine, [START + moment * MINUTE, START], f"batch-{moment}")
        with pytest.raises(Killed):
            roll(Dying(moment), "tgw")
        roll(engine, "tgw")
        assert rolled(engine, "probes") == truth(engine, "probes")


def test_rows_that_had_begun_to_land_before_the_last_run_are_seen(engine: Engine) -> None:
    now_us = time.time_ns() // 1000
    probes(engine, [START], "a")
    roll(engine, "tgw")
    probes(engine, [START + MINUTE], "slow", landed_us=now_us - (rollups.OVERLAP_S - 5) * 1_000_000)
    roll(engine, "tgw")
    assert rolled(engine, "probes") == truth(engine, "probes")


def test_a_clock_that_was_set_back_hides_nothing(engine: Engine) -> None:
    engine.command("INSERT INTO tgw.rolled (name, through) SELECT 'rolled_probes', now64(6) + toIntervalHour(1)")
    probes(engine, [START], "a")
    roll(engine, "tgw")
    assert rolled(engine, "probes") == truth(engine, "probes")


def test_a_long_backlog_takes_many_steps(engine: Engine) -> None:
    now_us = time.time_ns() // 1000
    hours = MAX_STEPS + 6
    for hour in range(hours):
        probes(engine, [START + hour * MINUTE], f"h{hour}", landed_us=now_us - (hours - hour) * 3600 * 1_000_000)
    # A step is an hour from the first that landed, less what the next looks at again.
    assert roll(engine, "tgw")["rolled_probes"] == MAX_STEPS
    assert 0 < len(rolled(engine, "probes")) < hours
    roll(engine, "tgw")
    assert rolled(engine, "probes") == truth(engine, "probes")


def test_what_expires_of_the_records_does_not_take_it_from_the_rollup(engine: Engine) -> None:
    probes(engine, [START + i for i in range(10)], "a")
    roll(engine, "tgw")
    engine.command("ALTER TABLE tgw.probes DELETE WHERE rtt_ns > 1020 SETTINGS mutations_sync = 2")
    probes(engine, [START + 20], "late")
    roll(engine, "tgw")
    assert [row[4] for row in rolled(engine, "probes")] == ["10"]
    engine.command("OPTIMIZE TABLE tgw.rolled_probes FINAL")
    assert [row[4] for row in rolled(engine, "probes")] == ["10"]


def test_a_roller_goes_on_after_a_failure() -> None:
    class Flaky:
        def __init__(self) -> None:
            self.asked = 0

        def command(self, statement: str) -> None:
            raise AssertionError(statement)

        def rows(self, query: str) -> list[Any]:
            self.asked += 1
            if self.asked == 1:
                raise EngineError("Code: 241. DB::Exception: no memory")
            return [] if "rolled" in query else [("0", "0", "0")]

    flaky = Flaky()
    roller = Roller(flaky, "tgw", every_s=0.001)
    roller.start()
    deadline = time.monotonic() + 10
    while flaky.asked < 9 and time.monotonic() < deadline:
        time.sleep(0.002)
    roller.end()
    assert flaky.asked >= 9
    assert not roller.is_alive()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Warehouse]:
    yield from run_in(tmp_path)


def test_rollups_of_a_warehouse_process_that_is_killed(process: Warehouse) -> None:
    """A client rolls up over HTTP, as beside a server, and the process dies in between."""
    for turn in range(2):
        client = connect(process.settings())
        times = pa.array([START + turn * MINUTE + i for i in range(100)], pa.timestamp("ns", tz="UTC"))
        client.insert_arrow("probes", pa.table({"ts": times, "prober": ["k"] * 100, "vip_id": [turn] * 100}))
        roll(Remote(client), "tgw")
        client.close()
        process.end(signal.SIGKILL)
        process.start()
    assert process.rows("SELECT vip_id, probes FROM probes_1m WHERE prober = 'k' ORDER BY vip_id") == [
        (0, 100),
        (1, 100),
    ]
