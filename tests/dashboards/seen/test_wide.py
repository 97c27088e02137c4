"""From long to wide as grafana-plugin-sdk-go documents it, in its own words where there are any."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv6Address
from typing import Any

import pytest

from tests.dashboards.seen.oracle import cases as oracle
from tests.dashboards.seen.wide import Field, Fill, NotWide, fields, kind, series


def long(*rows: tuple[Any, ...], names: str = "time host value", types: str = "time string number") -> list[Field]:
    columns = list(zip(*rows, strict=True))
    return [
        Field(name, of, list(values)) for name, of, values in zip(names.split(), types.split(), columns, strict=True)
    ]


def shown(frame: list[Field]) -> list[tuple[str, dict[str, str], list[Any]]]:
    return [(f.name, f.labels, f.values) for f in frame]


def test_a_series_for_each_label() -> None:
    wide = series(long((1, "b", 10), (1, "a", 20), (2, "a", 21), (2, "b", 11)))
    assert shown(wide) == [
        ("time", {}, [1, 2]),
        ("value", {"host": "a"}, [20, 21]),
        ("value", {"host": "b"}, [10, 11]),
    ]


@pytest.mark.parametrize(
    ("fill", "first", "second"),
    [
        ("null", [20, None, None, 23], [None, 11, None, None]),
        ("previous", [20, 20, 20, 23], [None, 11, 11, 11]),
        (0.0, [20, 0.0, 0.0, 23], [0.0, 11, 0.0, 0.0]),
    ],
)
def test_what_is_missing(fill: Fill, first: list[Any], second: list[Any]) -> None:
    """`b` begins late, and both miss the time that only `c` has."""
    wide = series(long((1, "a", 20), (2, "b", 11), (3, "c", 5), (4, "a", 23)), fill)
    assert [f.values for f in wide[:3]] == [[1, 2, 3, 4], first, second]


def test_there_is_a_point_only_where_some_row_is() -> None:
    """Nothing at 2 and 3: the source adds no times, so a line goes on over them unless the SQL gives them rows."""
    assert series(long((1, "a", 20), (4, "a", 23)))[0].values == [1, 4]


def test_several_values_and_labels() -> None:
    frame = long(
        (1, "a", True, 1, 2), (1, "a", False, 3, 4), names="time host up x y", types="time string boolean number number"
    )
    assert shown(series(frame)) == [
        ("time", {}, [1]),
        ("x", {"host": "a", "up": "false"}, [3]),
        ("x", {"host": "a", "up": "true"}, [1]),
        ("y", {"host": "a", "up": "false"}, [4]),
        ("y", {"host": "a", "up": "true"}, [2]),
    ]


def test_the_last_row_of_a_time_counts() -> None:
    assert series(long((1, "a", 1), (1, "a", 2)))[1].values == [2]


def test_no_label_is_the_empty_one() -> None:
    assert series(long((1, None, 1)))[1].labels == {"host": ""}


def test_the_first_time_is_the_index_and_another_is_a_value() -> None:
    frame = long((1, 7, "a"), names="time seen host", types="time time string")
    assert shown(series(frame)) == [("time", {}, [1]), ("seen", {"host": "a"}, [7])]


def test_what_is_wide_already_or_no_series_stays() -> None:
    wide = long((1, 2), (3, 4), names="time value", types="time number")
    assert series(wide) is wide
    table = long(("a", 4), names="host value", types="string number")
    assert series(table) is table


def test_no_rows_are_no_frame() -> None:
    assert series([Field("time", "time", []), Field("host", "string", []), Field("value", "number", [])]) == []
    assert series([]) == []


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (long((2, "a", 1), (1, "a", 2)), "sorted ascending"),
        (long((None, "a", 1)), "null time values"),
        (long((1, "a", "b", 2), names="time x x value", types="time string string number"), "duplicate key"),
    ],
)
def test_what_is_refused(frame: list[Field], said: str) -> None:
    with pytest.raises(NotWide, match=said):
        series(frame)


@pytest.mark.parametrize(
    ("type_name", "expected"),
    [
        ("LowCardinality(Nullable(String))", "string"),
        ("Enum8('a' = 1)", "string"),
        ("Nullable(IPv6)", "string"),
        ("FixedString(4)", "string"),
        ("Bool", "boolean"),
        ("UInt8", "number"),
        ("Nullable(Decimal(9, 2))", "number"),
        ("SimpleAggregateFunction(sum, UInt64)", "number"),
        ("DateTime64(9, 'UTC')", "time"),
        ("Nullable(Date)", "time"),
        ("Array(String)", "other"),
        ("Map(String, UInt8)", "other"),
    ],
)
def test_kinds(type_name: str, expected: str) -> None:
    assert kind(type_name) == expected


def test_values() -> None:
    names = ["at", "day", "address", "price", "bad", "none"]
    types = ["DateTime64(9)", "Date", "IPv6", "Decimal(9, 2)", "Float64", "Nullable(UInt8)"]
    at = datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    row = [at, date(2026, 1, 1), IPv6Address("::1"), Decimal("1.5"), float("nan"), None]
    day = 1767225600000
    assert [f.values[0] for f in fields(names, types, [row])] == [day + 1500, day, "::1", 1.5, None, None]


def test_as_grafana_does_it() -> None:
    """Frames that Grafana's own code was asked about."""
    refused = 0
    for case in json.loads(oracle.FILE.read_text()):
        asked, answered = case["asked"], case["answered"]
        fill: Fill = asked["value"] if asked["fill"] == "value" else asked["fill"]
        frame = [Field(c["name"], c["type"], c["values"]) for c in asked["fields"]]
        if said := answered.get("error"):
            refused += 1
            with pytest.raises(NotWide, match="null time values" if "null time values" in said else "ascending"):
                series(frame, fill)
        else:
            expected = [(c["name"], c.get("labels", {}), c["values"]) for c in answered["fields"]]
            assert shown(series(frame, fill)) == expected, asked
    assert refused > 3
