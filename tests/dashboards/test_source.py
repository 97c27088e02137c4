"""Macros and variables stand for what the plugin's documentation says."""

from __future__ import annotations

import pytest

from dashboards.source import Query, Range, expand

SPAN = Range(from_ms=1_000_500, to_ms=2_000_500, interval_s=10)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("$__timeFilter(ts)", "ts >= toDateTime(1000) AND ts <= toDateTime(2000)"),
        (
            "$__timeFilter_ms(ts)",
            "ts >= fromUnixTimestamp64Milli(1000500) AND ts <= fromUnixTimestamp64Milli(2000500)",
        ),
        ("$__timeInterval(second)", "toStartOfInterval(toDateTime(second), INTERVAL 10 second)"),
        ("$__fromTime_ms", "fromUnixTimestamp64Milli(1000500)"),
        ("$__interval_s", "10"),
        ("x IN (${names:sqlstring})", "x IN ('a','it''s')"),
        ("'${names:percentencode}'", "'%7Ba%2Cit%27s%7D'"),
        ("'${number:percentencode}'", "'7'"),
        ("$__fromTime", "toDateTime(1000)"),
        ("$__toTime", "toDateTime(2000)"),
        ("n = ${number}", "n = 7"),
    ],
)
def test_expansion(sql: str, expected: str) -> None:
    assert expand(sql, SPAN, {"names": ["a", "it's"], "number": 7}) == expected


@pytest.mark.parametrize("sql", ["$__nonsense(ts)", "${missing}"])
def test_unknown_ones_are_refused(sql: str) -> None:
    with pytest.raises(ValueError, match="unknown"):
        expand(sql, SPAN, {})


def test_a_query_loses_its_indentation() -> None:
    query = Query("\n    SELECT 1\n      FROM t\n", table=True).build()
    assert query.sql == "SELECT 1\nFROM t"
    assert query.to_json()["format"] == 1
