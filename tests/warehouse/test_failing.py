"""A statement that fails once rows have gone out: nothing of it reaches the next, and no client takes it for whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import clickhouse_connect
import httpx
import pytest
from clickhouse_connect.driver.exceptions import Error

from tests.warehouse.conftest import PASSWORDS
from warehouse import encoding

FAILING = {
    "throwIf": ("SELECT throwIf(number = 3000000), number, 'X' FROM numbers(5000000)", {}),
    "time": ("SELECT number, 'X' FROM numbers(100000000000)", {"max_execution_time": "0.5"}),
    "rows": ("SELECT number, 'X' FROM numbers(5000000)", {"max_result_rows": "1000000"}),
    "cast": ("SELECT toUInt8(if(number = 3000000, 'X', '1')), number FROM numbers(5000000)", {}),
}


def told(warehouse: Any, query: str, **params: str) -> tuple[int, bytes, bool]:
    """(status, body, whether the body came to its end) of a writer's statement."""
    headers = {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": PASSWORDS["writer"], "Accept-Encoding": "identity"}
    body, whole = b"", False
    with httpx.stream(
        "POST", warehouse.url + "/", params=params, content=query, headers=headers, timeout=60, trust_env=False
    ) as answer:
        try:
            for chunk in answer.iter_raw():
                body = body[-10_000:] + chunk
            whole = True
        except httpx.RemoteProtocolError:
            pass
        tag = answer.headers["X-ClickHouse-Exception-Tag"].encode() if answer.status_code == 200 else b""
        if not whole:
            assert body.rstrip().endswith(tag + b"\r\n__exception__")
        return answer.status_code, body, whole


@pytest.mark.parametrize("cause", FAILING)
@pytest.mark.parametrize("form", ["TabSeparated", "JSON", "RowBinary", "Native", "Arrow", "CSVWithNames"])
def test_nothing_of_it_reaches_the_next_statement(warehouse: Any, cause: str, form: str) -> None:
    query, settings = FAILING[cause]
    status, body, whole = told(warehouse, query, default_format=form, **settings)
    assert (status, whole) == (200, False)
    assert b"DB::Exception" in body
    for _ in range(4):
        assert told(warehouse, "SELECT 1") == (200, b"1\n", True)


def test_a_failure_before_much_has_gone_out_has_its_status(warehouse: Any) -> None:
    status, body, whole = told(warehouse, "SELECT throwIf(number = 70000) FROM numbers(100000)", default_format="CSV")
    assert (status, whole) == (500, True)
    assert body.startswith(b"Code: 395. DB::Exception: ")


@pytest.mark.parametrize("compress", [False, True])
def test_clickhouse_connect_raises(warehouse: Any, compress: bool) -> None:
    client = clickhouse_connect.get_client(
        host="127.0.0.1", port=warehouse.port, username="writer", password=PASSWORDS["writer"], compress=compress
    )
    asks: list[Callable[[str], Any]] = [lambda sql: client.query(sql).result_rows]
    for ask in (*asks, client.query_df, client.query_arrow, client.raw_query):
        # Its query() gives the server's words; the calls that read a body at once say that it broke off.
        with pytest.raises(Error, match=r"Value passed to 'throwIf'|IncompleteRead"):
            ask(FAILING["throwIf"][0])
    assert client.query("SELECT 1").result_rows == [(1,)]
    client.close()


def cut_short(warehouse: Any, headers: dict[str, str], params: dict[str, str]) -> tuple[str, bytes]:
    """(Content-Encoding, body) of an answer whose body does not come to its end."""
    headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": PASSWORDS["reader"]} | headers
    query = "SELECT throwIf(number = 3000000), number, 'X' FROM numbers(5000000)"
    body = b""
    with httpx.stream(
        "POST", warehouse.url + "/", params=params, content=query, headers=headers, timeout=60, trust_env=False
    ) as answer:
        try:
            for chunk in answer.iter_raw():
                body += chunk
        except httpx.RemoteProtocolError:
            return answer.headers.get("Content-Encoding", ""), body
    raise AssertionError("the body came to its end")


@pytest.mark.parametrize("packing", ["gzip", "lz4", "zstd"])
@pytest.mark.parametrize("blocks", [False, True])
def test_a_packed_answer_tells_it_too(warehouse: Any, packing: str, blocks: bool) -> None:
    params = {"compress": "1"} if blocks else {}
    found, body = cut_short(warehouse, {"Accept-Encoding": packing}, params)
    assert found == packing
    first = encoding.unpackers(packing, False, 1 << 28)
    last = encoding.unpackers("", True, 1 << 28) if blocks else []
    text = b"".join(encoding.unpack([body], first + last))
    assert text.startswith(b"0\t0\tX\n")
    assert b"Code: 395" in text[-1000:]
    assert text.rstrip().endswith(b"__exception__")
