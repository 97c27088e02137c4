"""Whatever stands in a variable stays a value: hostile ones, run in the real engine as the reader."""

from __future__ import annotations

from typing import Any

import pytest

from dashboards import build
from dashboards.source import Range, among, expand, names, text
from tests.dashboards.conftest import Seeded

SPAN = Range(from_ms=0, to_ms=1_000)
HOSTILE = [
    "\\",
    "\\' OR 1=1 -- ",
    "' OR '1'='1",
    "x') OR 1=1 -- ",
    "'; DROP TABLE probes; --",
    "${incident}",
    "$__fromTime_ms",
    "%27 OR 1=1",
    "\\x27 OR 1=1 --",
    "{a,b}",
    "a\nb\t\0c",
    "π 'ü' 🦊",
    "/* */ -- #",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_comes_out_as_it_went_in(seeded: Seeded, value: str) -> None:
    assert seeded.reader.query(expand(f"SELECT {text('x')}", SPAN, {"x": value})) == [(value,)]


@pytest.mark.parametrize("value", HOSTILE)
def test_it_is_among_the_names_it_stands_for_and_no_others(seeded: Seeded, value: str) -> None:
    sql = f"SELECT {among('c', 'x')} FROM (SELECT arrayJoin(['a', 'clb-a', 'vip-01']) AS c)"
    found = seeded.reader.query(expand(sql, SPAN, {"x": value}))
    assert found == [(int(value == "{a,b}"),), (0,), (0,)]  # Grafana writes several values so, of plain names alone


def test_several_and_all(seeded: Seeded) -> None:
    sql = f"SELECT {names('x')}, {among('c', 'x')} FROM (SELECT 'clb-b' AS c)"
    for value, expected in (
        ("clb-b", (["clb-b"], 1)),
        (["clb-b"], (["clb-b"], 1)),
        (["clb-a", "clb-b"], (["clb-a", "clb-b"], 1)),
        (["clb-a"], (["clb-a"], 0)),
        ("*", (["*"], 1)),
    ):
        assert seeded.reader.query(expand(sql, SPAN, {"x": value})) == [expected]


def test_grafanas_own_quoting_is_no_protection(seeded: Seeded) -> None:
    """Why the dashboards do not use it: a backslash before the quote ends the string early."""
    sql = "SELECT count() FROM numbers(7) WHERE 'nothing' = ${x:sqlstring}"
    assert seeded.reader.query(expand(sql, SPAN, {"x": "\\' OR 1=1 -- "})) == [(7,)]


def statements() -> list[Any]:
    found = []
    for uid, document in build.documents().items():
        for panel in document["panels"]:
            found += [pytest.param(t["rawSql"], id=f"{uid}: {panel['title']}") for t in panel.get("targets", [])]
        for variable in document["templating"].get("list", []):
            if variable["type"] == "query":
                found.append(pytest.param(variable["query"], id=f"{uid}: ${variable['name']}"))
        for query in document["annotations"].get("list", []):
            found.append(pytest.param(query["target"]["rawSql"], id=f"{uid}: annotation {query['name']}"))
    return found


@pytest.mark.parametrize("sql", statements())
def test_no_statement_takes_a_variable_in_another_way(sql: str) -> None:
    for part in sql.split("${")[1:]:
        assert part.split("}")[0].endswith(":percentencode")
    assert "$" not in sql.replace("$__", "").replace("${", "")
