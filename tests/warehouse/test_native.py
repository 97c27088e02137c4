"""The Native format with block info: byte for byte for a small block, and for every type the engine can write."""

from __future__ import annotations

from typing import Any

import pytest

from warehouse import native

EXPRESSIONS = [
    "number",
    "toString(repeat('x', number * 50))",
    "toLowCardinality(toString(number % 3))",
    "CAST(if(number = 1, NULL, 'a') AS LowCardinality(Nullable(String)))",
    "if(number = 1, NULL, number)",
    "range(number)",
    "arrayMap(x -> toLowCardinality(toString(x)), range(number))",
    "CAST([] AS Array(LowCardinality(String)))",
    "[[1, 2], [], [number]]",
    "(number, 'a', [1])",
    "CAST((number, 'a') AS Tuple(first UInt64, `second one` LowCardinality(String)))",
    "map('k', number)",
    "CAST(map('k', ['v', 'w']) AS Map(LowCardinality(String), Array(String)))",
    "toIPv6('::1')",
    "toIPv4('127.0.0.1')",
    "generateUUIDv4()",
    "toDate('2026-01-01')",
    "toDate32('2026-01-01')",
    "now()",
    "now64(9, 'Europe/Zurich')",
    "toDecimal32(1, 2)",
    "toDecimal64(1, 2)",
    "toDecimal128(1, 2)",
    "toDecimal256(1, 2)",
    "toFixedString('abc', 5)",
    "CAST('a' AS Enum8('a' = 1, 'b, (c)' = 2))",
    "CAST('a' AS Enum16('a' = 1))",
    "true",
    "toInt256(number)",
    "1.5",
    "toFloat32(1.5)",
    "NULL",
    "toIntervalSecond(3)",
    "CAST(number AS SimpleAggregateFunction(sum, UInt64))",
]
INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


def test_a_small_block_byte_for_byte() -> None:
    plain = b"\x02\x01" + b"\x01a\x05UInt8\x07" + b"\x01b\x06String\x02hi"
    assert native.framed(plain, 54460) == INFO + b"\x02\x01" + b"\x01a\x05UInt8\0\x07" + b"\x01b\x06String\0\x02hi"
    assert native.framed(plain, 54405) == INFO + plain
    assert native.framed(plain, 0) == plain
    assert native.framed(plain * 2, 54460) == native.framed(plain, 54460) * 2


def test_the_header_of_an_empty_result_is_a_block() -> None:
    block = native.header([("a", "UInt8"), ("b" * 200, "Array(LowCardinality(String))")])
    assert block == b"\x02\x00\x01a\x05UInt8\xc8\x01" + b"b" * 200 + b"\x1dArray(LowCardinality(String))"
    assert native.framed(block, 54460).count(b"\0") == block.count(b"\0") + INFO.count(b"\0") + 2


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("rows", [1, 5])
def test_the_end_of_every_type_is_found(warehouse: Any, expression: str, rows: int) -> None:
    query = f"SELECT {expression} AS value, 'sentinel' AS after FROM numbers({rows}) FORMAT Native"
    plain = warehouse.post(query).content
    framed = warehouse.post(query, client_protocol_version="54460").content
    # The second column's header starts where the first one ends, and only the right end has it there.
    second = b"\x05after\x06String"
    assert plain.count(second) == 1
    assert framed.startswith(INFO)
    assert second + b"\0" in framed
    assert len(framed) == len(plain) + len(INFO) + 2


def test_many_blocks(warehouse: Any) -> None:
    query = "SELECT number, toString(number) AS s FROM numbers(200000) FORMAT Native"
    framed = warehouse.post(query, client_protocol_version="54460").content
    plain = warehouse.post(query).content
    blocks = framed.count(INFO)
    assert blocks > 1
    assert len(framed) == len(plain) + blocks * (len(INFO) + 2)


def test_a_type_that_cannot_be_framed_is_an_error_in_words(warehouse: Any) -> None:
    answer = warehouse.post("SELECT sumState(number) FROM numbers(3) FORMAT Native", client_protocol_version="54460")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (501, "48")
    assert "AggregateFunction(sum, UInt64)" in answer.text


@pytest.mark.parametrize("user", ["reader", "writer"])
def test_no_rows_still_have_columns(warehouse: Any, user: str) -> None:
    answer = warehouse.post("SELECT ts, node FROM trace_points WHERE 0 FORMAT Native", user)
    assert answer.content == native.header([("ts", "DateTime64(9, 'UTC')"), ("node", "LowCardinality(String)")])
