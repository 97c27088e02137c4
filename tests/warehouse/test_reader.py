"""A reader against the real engine: it reads, and nothing that it tries changes anything or leaves the warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warehouse.guard import _TABLE_FUNCTIONS, refusal


def test_a_reader_reads(warehouse: Any) -> None:
    assert warehouse.rows("SELECT 1 + 1", "reader") == [(2,)]
    assert warehouse.rows("SELECT name FROM system.tables WHERE name = 'probes'", "reader") == [("probes",)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO probes (prober) VALUES ('mallory')",
        "/* SELECT */ INSERT INTO probes (prober) SELECT 'mallory'",
        "INSERT INTO probes (prober) FORMAT CSV\n'mallory'\n",
        "WITH 1 AS x INSERT INTO probes (prober) SELECT 'mallory'",
        "SELECT 1; INSERT INTO probes (prober) VALUES ('mallory')",
        "EXPLAIN PIPELINE INSERT INTO probes (prober) SELECT 'mallory'",
        "TRUNCATE TABLE probes",
        "ALTER TABLE probes DELETE WHERE 1",
        "CREATE TABLE mine (a UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE mine (a UInt8)",
        "OPTIMIZE TABLE probes FINAL",
        "SYSTEM STOP MERGES",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "ATTACH TABLE probes",
        "BACKUP DATABASE tgw TO File('/tmp/x')",
    ],
)
def test_a_reader_changes_nothing(warehouse: Any, statement: str) -> None:
    answer = warehouse.post(statement, "reader")
    assert answer.status_code in (403, 500), answer.text
    assert answer.headers["X-ClickHouse-Exception-Code"] in ("164", "36", "62"), answer.text
    assert warehouse.rows("SELECT count() FROM probes WHERE prober = 'mallory'") == [(0,)]
    assert warehouse.rows("SELECT count() FROM system.tables WHERE name = 'mine'") == [(0,)]


def test_a_reader_writes_no_file(warehouse: Any, tmp_path: Path) -> None:
    path = tmp_path / "stolen.csv"
    for statement in (
        f"SELECT 1 INTO OUTFILE '{path}'",
        f"SELECT 1 INTO/*x*/OUTFILE '{path}' FORMAT CSV",
        f"INSERT INTO FUNCTION file('{path}', 'CSV') SELECT 1",
    ):
        assert warehouse.post(statement, "reader").status_code == 403
        assert warehouse.post(statement, "writer").status_code == 403
    assert not path.exists()


@pytest.mark.parametrize("user", ["reader", "writer"])
def test_nobody_reads_files(warehouse: Any, tmp_path: Path, user: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("kept-from-everyone\n")
    for statement in (
        f"SELECT file('{secret}')",
        f"SELECT `file`('{secret}')",
        f"SELECT “file”('{secret}')",
        f"SELECT * APPLY(file) FROM (SELECT '{secret}' AS a)",
        f"SELECT * FROM file('{secret}', 'LineAsString')",
        f"SELECT * FROM `{secret}`",
        f"SELECT * FROM '{secret}'",
        f"SELECT * FROM default.`{secret}`",
        f"SELECT * FROM `default`.`{secret}`",
        f"DESCRIBE TABLE `{secret}`",
    ):
        answer = warehouse.post(statement, user)
        assert answer.status_code >= 400, statement
        assert "kept-from-everyone" not in answer.text


def test_the_urls_parameters_give_a_reader_nothing(warehouse: Any) -> None:
    assert warehouse.post("SELECT getSetting('readonly')", "reader", readonly="0").text == "2\n"
    limit = warehouse.post("SELECT getSetting('max_execution_time')", "reader", max_execution_time="0").text
    assert float(limit) == 20
    insert = warehouse.post("INSERT INTO probes (prober) FORMAT CSV", "reader", body=b"'mallory'\n", readonly="0")
    assert insert.status_code == 403


def test_every_table_function_of_the_engine_is_refused_or_known_to_stay_inside(warehouse: Any) -> None:
    # These take a comma's second place in FROM; they compute, or read what is in the engine anyway.
    inside = _TABLE_FUNCTIONS | {
        "generaterandom", "null", "primes", "format", "viewifpermitted", "fuzzquery", "filesystemcache", "obfuscate",
        "sqlstandardvalues",
    }  # fmt: skip
    families = ("mergetree", "timeseries")
    functions = [name for (name,) in warehouse.rows("SELECT name FROM system.table_functions")]
    assert len(functions) > 50
    for name in functions:
        if name.lower() not in _TABLE_FUNCTIONS:
            assert refusal(f"SELECT * FROM {name}('a')") is not None
        if name.lower() not in inside and not name.lower().startswith(families):
            assert refusal(f"SELECT * FROM numbers(1), {name}('a')") is not None, name


def test_a_heavy_query_is_ended(own_warehouse_with_short_limit: Any) -> None:
    answer = own_warehouse_with_short_limit.post(
        "SELECT count() FROM numbers(1000000000000) WHERE number % 7", "reader"
    )
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159")
