"""What ends a query before its end: its client goes, it is killed, its time is up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.warehouse.conftest import PASSWORDS

SLOW = "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = cityHash64(number, '{}') % 5"


def running(warehouse: Any, word: str) -> int:
    """How many statements with this word run, but for this question."""
    rows = warehouse.rows(f"SELECT count() FROM system.processes WHERE query LIKE '%{word}%' AND query LIKE '%city%'")
    return int(rows[0][0]) - 1


def until(holds: Any, seconds: float = 15.0) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


@contextlib.contextmanager
def slow(warehouse: Any, word: str, user: str = "reader", count: int = 1, **params: str) -> Iterator[list[Any]]:
    """Slow queries that run while this stands; yields their answers."""
    answers: list[Any] = []

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError):
            answers.append(warehouse.post(SLOW.format(word), user, **params))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        while any(thread.is_alive() for thread in threads):
            warehouse.post(f"KILL QUERY WHERE query LIKE '%{word}%' AND query LIKE '%city%' ASYNC")
            time.sleep(0.1)


def leave(warehouse: Any, query: str, user: str = "reader") -> None:
    """Ask, and go before the answer is there."""
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": PASSWORDS[user]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(warehouse.url + "/", content=query, headers=headers, timeout=1.0, trust_env=False)


@pytest.mark.parametrize("user", ["reader", "writer"])
def test_a_query_ends_when_its_client_goes(warehouse: Any, user: str) -> None:
    leave(warehouse, SLOW.format(f"gone-{user}"), user)
    assert until(lambda: running(warehouse, f"gone-{user}") == 0) < 1.5


def test_an_answer_that_nobody_takes_any_more_ends(warehouse: Any) -> None:
    headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": PASSWORDS["reader"]}
    query = "SELECT repeat('x', 1000), 'city-cut' FROM numbers(40000000)"
    with httpx.stream("POST", warehouse.url + "/", content=query, headers=headers, trust_env=False) as answer:
        assert answer.status_code == 200
        taking = answer.iter_raw()
        assert sum(len(next(taking)) for _ in range(10)) > 0
        assert running(warehouse, "city-cut") == 1
    assert until(lambda: running(warehouse, "city-cut") == 0) < 1.5


def test_a_query_in_line_ends_with_its_client(own_warehouse: Any) -> None:
    with slow(own_warehouse, "line", count=12):
        until(lambda: running(own_warehouse, "line") == 10)  # one client's share
        leave(own_warehouse, SLOW.format("never"))
        own_warehouse.post("KILL QUERY WHERE query LIKE '%line%' AND query LIKE '%city%' ASYNC")
    until(lambda: running(own_warehouse, "line") == 0)
    assert running(own_warehouse, "never") == 0
    assert own_warehouse.rows("SELECT 1", "reader") == [(1,)]


@pytest.mark.parametrize("killer", ["reader", "writer"])
def test_a_query_is_killed_by_its_id(warehouse: Any, killer: str) -> None:
    name = f"killed-by-{killer}"
    with slow(warehouse, name, query_id=name) as answers:
        until(lambda: running(warehouse, name) == 1)
        again = warehouse.post("SELECT 1", "reader", query_id=name)
        assert (again.status_code, again.headers["X-ClickHouse-Exception-Code"]) == (500, "216")
        test = warehouse.post(f"KILL QUERY WHERE query_id = '{name}' TEST", killer)
        assert test.text.split("\t")[:3] == ["waiting", name, "reader"]
        assert running(warehouse, name) == 1
        began = time.monotonic()
        done = warehouse.post(f"KILL QUERY WHERE query_id = '{name}' SYNC FORMAT JSONEachRow", killer)
        assert time.monotonic() - began < 1.5
        assert done.json() == {
            "kill_status": "finished",
            "query_id": name,
            "user": "reader",
            "query": SLOW.format(name),
        }
        assert running(warehouse, name) == 0
        until(lambda: answers)
        assert answers[0].headers["X-ClickHouse-Exception-Code"] == "394"
    assert warehouse.post(f"KILL QUERY WHERE query_id = '{name}'", killer).text == ""


def test_a_reader_does_not_kill_what_is_not_its_own(warehouse: Any) -> None:
    with slow(warehouse, "writers", "writer", query_id="the-writers"):
        until(lambda: running(warehouse, "writers") == 1)
        for statement in (
            "KILL QUERY WHERE query_id = 'the-writers'",
            "KILL QUERY WHERE query_id = 'the-writers' AND user = 'writer' SYNC",
            "KILL QUERY WHERE 1",
            "KILL QUERY WHERE query_id = 'the-writers' OR 1",
            "KILL QUERY WHERE query LIKE '%writers%'",
        ):
            answer = warehouse.post(statement, "reader")
            assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "497"), statement
        assert running(warehouse, "writers") == 1


def test_a_killed_query_in_line_ends(own_warehouse: Any) -> None:
    with slow(own_warehouse, "busy", count=10):
        until(lambda: running(own_warehouse, "busy") == 10)
        with slow(own_warehouse, "waits", query_id="waits") as answers:
            time.sleep(0.3)
            until(lambda: own_warehouse.post("KILL QUERY WHERE query_id = 'waits' SYNC").text != "")
            until(lambda: answers)
            assert answers[0].headers["X-ClickHouse-Exception-Code"] == "394"


@pytest.mark.parametrize(
    ("asked", "seconds", "code"),
    [("1", 1.0, "159"), ("0.5", 0.5, "159"), ("0", 2.0, "159"), ("3600", 2.0, "159"), ("1e9", None, "36")],
)
def test_a_reader_lowers_its_time_and_never_raises_it(
    warehouse_of_two_seconds: Any, asked: str, seconds: float | None, code: str
) -> None:
    began = time.monotonic()
    answer = warehouse_of_two_seconds.post(SLOW.format("time"), "reader", max_execution_time=asked)
    assert answer.headers["X-ClickHouse-Exception-Code"] == code, answer.text
    if seconds is not None:
        assert seconds <= time.monotonic() - began < seconds + 1.5


@pytest.mark.parametrize(
    ("query", "setting", "code"),
    [
        ("SELECT groupArray(number) FROM numbers(4000000)", {"max_memory_usage": "8000000"}, "241"),
        ("SELECT number FROM numbers(1000)", {"max_result_rows": "10"}, "396"),
        ("SELECT sum(number) FROM numbers(1000000)", {"max_rows_to_read": "10"}, "158"),
    ],
)
def test_other_limits_are_lowered_too(warehouse: Any, query: str, setting: dict[str, str], code: str) -> None:
    assert warehouse.post(query, "reader").status_code == 200
    assert warehouse.post(query, "reader", **setting).headers["X-ClickHouse-Exception-Code"] == code
    clause = ", ".join(f"{name} = {value}" for name, value in setting.items())
    told = warehouse.post(f"{query} SETTINGS {clause}", "reader")
    assert told.headers["X-ClickHouse-Exception-Code"] == code


def test_slow_queries_do_not_keep_a_short_one_waiting(own_warehouse: Any) -> None:
    with slow(own_warehouse, "eight", count=8):
        until(lambda: running(own_warehouse, "eight") == 8)
        took = []
        for _ in range(10):
            began = time.monotonic()
            assert own_warehouse.post("SELECT 1", "reader").text == "1\n"
            took.append(time.monotonic() - began)
        assert max(took) < 2
