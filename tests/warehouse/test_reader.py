"""A reader's own limits, and what it may ask of them. What it may say at all is in test_guard.py."""

from __future__ import annotations

import time
from typing import Any

import pytest

from warehouse.choices import Policy
from warehouse.refusals import Refusal
from warehouse.tokens import tokens

KNOWN = frozenset({"max_execution_time", "max_threads", "extremes", "format_schema", "insert_deduplicate", "limit"})
POLICY = Policy(KNOWN, {"max_execution_time": 20, "max_threads": 2})


def test_a_reader_reads(warehouse: Any) -> None:
    assert warehouse.rows("SELECT 1 + 1", "reader") == [(2,)]
    assert warehouse.rows("SELECT name FROM system.tables WHERE name = 'probes'", "reader") == [("probes",)]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ({}, {}),
        ({"extremes": "1"}, {"extremes": "1"}),
        ({"max_execution_time": "1"}, {"max_execution_time": "1"}),
        ({"max_execution_time": "0.5"}, {"max_execution_time": "0.5"}),
        ({"max_execution_time": "20"}, {"max_execution_time": "20"}),
        ({"max_execution_time": "60", "limit": "3"}, {"limit": "3"}),
        ({"max_execution_time": "0"}, {}),
        ({"max_threads": "64"}, {}),
    ],
)
def test_limits_are_lowered_and_never_raised(asked: dict[str, str], chosen: dict[str, str]) -> None:
    assert POLICY.chosen(asked, reader=True) == chosen
    assert POLICY.chosen(asked, reader=False) == asked


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [("no_such", "1", 115), ("format_schema", "x", 452), ("insert_deduplicate", "1", 452), ("max_threads", "many", 36)],
)
def test_what_a_reader_may_not_choose_is_refused(name: str, value: str, code: int) -> None:
    with pytest.raises(Refusal) as raised:
        POLICY.chosen({name: value}, reader=True)
    assert raised.value.code == code


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("SELECT 1", 0),
        ("SELECT 1 SETTINGS extremes = 1", 1),
        ("SELECT 1 SETTINGS extremes, limit = 2 FORMAT CSV SETTINGS max_threads = 1", 2),
        ("SELECT 1 FROM (SELECT 2 SETTINGS max_threads = 1) SETTINGS limit = 1", 2),
        ("SELECT settings FROM t", 0),
        ("SELECT name FROM system.settings WHERE 1", 0),
        ("SHOW SETTINGS LIKE 'x'", 0),
    ],
)
def test_settings_in_a_statement(statement: str, found: int) -> None:
    assert POLICY.clauses(tokens(statement), reader=True) == found


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("SELECT 1 SETTINGS max_threads = 3", 452),
        ("SELECT 1 SETTINGS max_execution_time = 0", 452),
        ("SELECT 1 SETTINGS max_threads = {x:UInt8}", 36),
        ("SELECT 1 SETTINGS extremes, format_schema = 'x'", 452),
        ("SELECT (SELECT 1 SETTINGS format_schema = 'x'), 2", 452),
        ("SELECT 1 SETTINGS a = 1", 115),
    ],
)
def test_settings_in_a_statement_that_are_refused(statement: str, code: int) -> None:
    with pytest.raises(Refusal) as raised:
        POLICY.clauses(tokens(statement), reader=True)
    assert raised.value.code == code


def test_the_urls_parameters_give_a_reader_nothing(warehouse: Any) -> None:
    assert warehouse.post("SELECT getSetting('readonly')", "reader", readonly="0").text == "2\n"
    limit = warehouse.post("SELECT getSetting('max_execution_time')", "reader", max_execution_time="0").text
    assert float(limit) == 20
    lower = warehouse.post("SELECT getSetting('max_execution_time')", "reader", max_execution_time="3").text
    assert float(lower) == 3
    insert = warehouse.post("INSERT INTO probes (prober) FORMAT CSV", "reader", body=b"'mallory'\n", readonly="0")
    assert insert.status_code == 403


def test_a_reader_who_wants_a_second_waits_a_second(warehouse: Any) -> None:
    began = time.monotonic()
    query = "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = cityHash64(number) % 5"
    answer = warehouse.post(query, "reader", max_execution_time="1")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (408, "159")
    assert time.monotonic() - began < 8


def test_a_heavy_query_is_ended(own_warehouse_with_short_limit: Any) -> None:
    answer = own_warehouse_with_short_limit.post(
        "SELECT count() FROM numbers(1000000000000) WHERE number % 7", "reader"
    )
    assert answer.status_code == 408, answer.text
