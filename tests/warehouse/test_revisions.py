"""The schema goes up and down, holds the declared columns, and says so when it cannot."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contract.records import POINT_COLUMNS, PROBE_COLUMNS
from warehouse.client import connect
from warehouse.migrate import LEDGER, UNDER_WAY, Remote, SchemaError, migrate
from warehouse.revisions import Retention, Variant, all_revisions, render

NAME, TIME = "LowCardinality(String)", "DateTime64(9, 'UTC')"
WORDS = {"hop", "direction", "verdict", "reason", "outcome"}
NEWEST = len(all_revisions())
EVERY = [f"{r.number:04} {r.name} up" for r in all_revisions()]


def declared(columns: dict[str, str], time: str, source: str, leave_out: set[str]) -> dict[str, str]:
    """The columns of a table of records: those of contract/records.toml, words by name, times as times."""
    out = {"ts": TIME, source: NAME, "boot_id": NAME}
    for name, kind in columns.items():
        if name == time or name in leave_out:
            continue
        out["closed" if name == "closed_ns" else name] = (
            NAME if name in WORDS else TIME if name == "closed_ns" else kind
        )
    return out | {"landed": "DateTime64(6, 'UTC')"}


class Scratch:
    """A database of its own in the warehouse under test."""

    def __init__(self, database: Remote, client: Any, name: str) -> None:
        self.database, self.client, self.variant = database, client, Variant(database=name)

    def migrate(self, to: int | None = None) -> list[str]:
        return migrate(self.database, self.variant, to)

    def tables(self) -> set[str]:
        found = self.client.query(f"SELECT name FROM system.tables WHERE database = '{self.variant.database}'")
        return {str(row[0]) for row in found.result_rows} - {LEDGER}

    def definitions(self) -> dict[str, str]:
        """What makes each table: columns, order, settings."""
        found = self.client.query(
            f"SELECT name, create_table_query FROM system.tables WHERE database = '{self.variant.database}'"
        )
        return {str(name): str(query) for name, query in found.result_rows if name != LEDGER}

    def columns(self, table: str) -> dict[str, str]:
        found = self.client.query(
            f"SELECT name, type FROM system.columns WHERE database = '{self.variant.database}' AND table = '{table}'"
        )
        return {str(name): str(kind) for name, kind in found.result_rows}


@pytest.fixture
def scratch(warehouse: Any) -> Iterator[Scratch]:
    client = connect(warehouse.settings())
    client.command("DROP DATABASE IF EXISTS scratch SYNC")
    yield Scratch(Remote(client), client, "scratch")
    client.command("DROP DATABASE IF EXISTS scratch SYNC")
    client.close()


def test_all_revisions_up_yield_the_columns_of_the_contract(scratch: Scratch) -> None:
    assert scratch.migrate() == EVERY
    assert scratch.columns("trace_points") == declared(POINT_COLUMNS, "ts_ns", "node", {"kind", "reason"})
    assert scratch.columns("drop_points") == declared(POINT_COLUMNS, "ts_ns", "node", {"kind"})
    assert scratch.columns("probes") == declared(PROBE_COLUMNS, "ts_ns", "prober", set())


def test_down_removes_everything_and_up_again_is_the_same(scratch: Scratch) -> None:
    scratch.migrate()
    before = {t: scratch.columns(t) for t in scratch.tables()}
    assert scratch.migrate(0) == [line.replace(" up", " down") for line in reversed(EVERY)]
    assert scratch.tables() == set()
    assert scratch.migrate() == EVERY
    assert {t: scratch.columns(t) for t in scratch.tables()} == before


def test_every_revision_undoes_exactly_itself(scratch: Scratch) -> None:
    seen = [scratch.definitions()]
    for number in range(1, NEWEST + 1):
        scratch.migrate(number)
        seen.append(scratch.definitions())
        assert seen[-1] != seen[-2]
    for number in range(NEWEST - 1, -1, -1):
        scratch.migrate(number)
        assert scratch.definitions() == seen[number]


def test_many_small_inserts_are_few_merges(scratch: Scratch) -> None:
    scratch.migrate()
    inserts = 72
    for n in range(inserts):
        scratch.client.command(f"INSERT INTO scratch.feeds (ts, write_cursor) SELECT now64(9), {n}")

    def parts(where: str) -> int:
        found = scratch.client.query(
            f"SELECT count() FROM system.parts WHERE database = 'scratch' AND table = 'feeds' AND {where}"
        )
        return int(found.result_rows[0][0])

    deadline = time.monotonic() + 30
    while parts("active") > 40 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert parts("active") <= 40, "they are merged in the end"
    # Parts that were merged stay listed for minutes, what they were merged into has a level of its own.
    assert parts("level > 0") <= inserts / 12, "each merge takes many"
    assert scratch.client.query("SELECT count() FROM scratch.feeds").result_rows == [(inserts,)]


def test_a_second_run_has_nothing_to_do(scratch: Scratch) -> None:
    scratch.migrate()
    assert scratch.migrate() == []


def test_an_interrupted_revision_is_taken_back_and_done_again(scratch: Scratch) -> None:
    scratch.migrate(1)
    broken = all_revisions()[1]
    scratch.client.command(
        f"INSERT INTO scratch.{LEDGER} (number, name, state) VALUES (2, '{broken.name}', {UNDER_WAY})"
    )
    scratch.database.command(render(broken.up, scratch.variant)[0])  # its first table, and no more
    assert scratch.migrate() == ["0002 feeds down", *EVERY[1:]]


def test_a_table_that_nobody_recorded_is_never_dropped(scratch: Scratch) -> None:
    scratch.migrate()
    scratch.client.command(f"DROP TABLE scratch.{LEDGER} SYNC")
    with pytest.raises(Exception, match="already exists"):
        scratch.migrate()
    assert "trace_points" in scratch.tables()


def test_a_newer_schema_is_refused(scratch: Scratch) -> None:
    scratch.migrate()
    scratch.client.command(f"INSERT INTO scratch.{LEDGER} (number, name, state) VALUES ({NEWEST + 1}, 'later', 1)")
    with pytest.raises(SchemaError, match=f"revision {NEWEST + 1:04} later"):
        scratch.migrate()


def test_an_unknown_target_is_refused(scratch: Scratch) -> None:
    with pytest.raises(SchemaError, match=f"expected 0..{NEWEST}"):
        scratch.migrate(NEWEST + 1)


def test_the_cluster_variant_is_replicated_everywhere() -> None:
    variant = Variant(cluster="main")
    for revision in all_revisions():
        for statement in render(revision.up, variant) + render(revision.down, variant):
            assert "ON CLUSTER 'main'" in statement
            assert "$" not in statement
            assert "@" not in statement
            for engine in re.findall(r"ENGINE = (\S+?)\(", statement):
                assert engine.startswith("Replicated")
                assert "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'" in statement


def test_a_plain_table_is_told_how_far_back_to_look_for_tokens() -> None:
    for revision in all_revisions():
        for statement in render(revision.up, Variant()):
            assert ("ENGINE =" in statement) == ("non_replicated_deduplication_window" in statement)


def test_retention_reaches_the_tables() -> None:
    up = "".join(r.up for r in all_revisions())
    text = "".join(render(up, Variant(retention=Retention(records=3, rollups=5, history=7))))
    assert {int(d) for d in re.findall(r"INTERVAL (\d+) DAY", text)} == {3, 5, 7}


@pytest.mark.parametrize("name", ["a b", "1a", "a;DROP", "a`", ""])
def test_a_database_name_is_an_identifier(name: str) -> None:
    with pytest.raises(ValidationError):
        Variant(database=name)


def test_a_missing_number_or_way_down_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0001_a.up.sql").write_text("")
    with pytest.raises(ValueError, match=r"0001_a\.down\.sql"):
        all_revisions(tmp_path)
    (tmp_path / "0001_a.down.sql").write_text("")
    (tmp_path / "0003_b.up.sql").write_text("")
    (tmp_path / "0003_b.down.sql").write_text("")
    with pytest.raises(ValueError, match=r"1\.\.2 once each"):
        all_revisions(tmp_path)
