"""Every panel's SQL runs in the real engine, through its real HTTP server, as the reader; and what it shows fits."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dashboards import build
from dashboards.panels import NEUTRAL
from dashboards.source import Range
from tests.dashboards import story
from tests.dashboards.conftest import Seeded
from tests.dashboards.frames import BUILT_IN, EVERYTHING, Frame, ask, by_name, kind, lines, urls

DOCUMENTS = build.documents()


def panels() -> list[Any]:
    return [
        pytest.param(panel, target["rawSql"], id=f"{uid}: {panel['title']}")
        for uid, document in DOCUMENTS.items()
        for panel in document["panels"]
        for target in panel.get("targets", [])
    ]


def the_range(seeded: Seeded, interval_s: int = 10) -> Range:
    now_ms = seeded.now_ns // 1_000_000
    return Range(from_ms=now_ms - story.BEGAN * 1000, to_ms=now_ms, interval_s=interval_s)


CHOSEN = {"incident": story.INCIDENT, "probe": story.number(1, story.DIED)}


@pytest.mark.parametrize(("panel", "sql"), panels())
def test_it_runs_and_every_rule_of_the_panel_meets_something(seeded: Seeded, panel: dict[str, Any], sql: str) -> None:
    variables = dict(CHOSEN)
    interval = 60 if panel.get("interval") == "1m" else 10
    frame = ask(seeded.reader, sql, the_range(seeded, interval), **variables)
    assert frame.rows, "seeded data must show"
    rules = by_name(panel)
    match panel["type"]:
        case "timeseries" | "state-timeline":
            shown = lines(panel, frame)
            assert set(rules) <= {line.name for line in shown}
            assert not [line.name for line in shown if line.name.startswith("value")]
            assert len(shown) <= 25
            if shown[0].labels:
                assert list(shown[0].labels) == re.findall(
                    r"labels\.(\w+)", panel["fieldConfig"]["defaults"]["displayName"]
                )
        case "stat":
            assert (len(frame.rows), len(frame.columns)) == (1, 1)
            text = panel["fieldConfig"]["defaults"]["unit"] == "string"
            assert kind(frame.columns[0][1]) == ("string" if text else "number")
            # Grafana leaves texts out of a stat unless it is told to take every field.
            assert panel["options"]["reduceOptions"]["fields"] == ("/.*/" if text else "")
        case "table":
            assert set(rules) <= {name for name, _ in frame.columns}
            assert frame.column(frame.columns[0][0])
        case other:
            pytest.fail(f"a panel of type {other} is not known here")
    for url in urls(panel):
        assert_resolves(url, panel, frame)


def assert_resolves(url: str, panel: dict[str, Any], frame: Frame) -> None:
    """Every variable in a link is one that Grafana can fill in there."""
    labels = set(lines(panel, frame)[0].labels) if panel["type"] != "table" else set()
    for name in re.findall(r"\$\{([^}]+)\}", url):
        base = name.split(":")[0]
        if base.startswith("__data.fields."):
            assert base.removeprefix("__data.fields.") in {n for n, _ in frame.columns}
        elif base.startswith("__field.labels."):
            assert base.removeprefix("__field.labels.") in labels
        else:
            assert base in BUILT_IN | {"analyzer", "control"}
    if url.startswith("/d/"):
        uid, _, query = url.removeprefix("/d/").partition("?")
        given = dict(part.split("=", 1) for part in query.split("&"))
        known = {f"var-{v['name']}" for v in DOCUMENTS[uid]["templating"]["list"]}
        assert set(given) <= known | {"from", "to"}
        assert {"from", "to"} <= set(given), "a link says which time it is about"


@pytest.mark.parametrize(("panel", "sql"), panels())
def test_it_runs_where_nothing_was_ever_written(empty: Seeded, panel: dict[str, Any], sql: str) -> None:
    """And then says that nothing is known: no number, no line, no colour but the neutral one."""
    frame = ask(empty.reader, sql, the_range(empty), **CHOSEN)
    match panel["type"]:
        case "stat" if panel["title"] not in ("What became of it", "Hops passed", "Drop Points"):
            assert [value for row in frame.rows for value in row if value is not None] == []
        case "timeseries" | "state-timeline":
            assert [v for line in lines(panel, frame) for v in line.values() if v is not None] == []
        case "table":
            assert frame.rows == []
    if panel["type"] == "stat":
        first = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]
        assert (first["value"], first["color"]) == (None, NEUTRAL)
        assert panel["fieldConfig"]["defaults"]["noValue"]


def variables() -> list[Any]:
    return [
        pytest.param(v["query"], id=f"{uid}: {v['name']}")
        for uid, document in DOCUMENTS.items()
        for v in document["templating"]["list"]
        if v["type"] == "query"
    ]


@pytest.mark.parametrize("sql", variables())
def test_every_variable_offers_something(seeded: Seeded, sql: str) -> None:
    frame = ask(seeded.reader, sql, the_range(seeded))
    assert frame.rows
    assert [kind(type_) for _, type_ in frame.columns] in (["string"], ["string", "string"])
    assert all(all(row) for row in frame.rows)


def marks() -> list[Any]:
    return [
        pytest.param(query["target"]["rawSql"], id=f"{uid}: {query['name']}")
        for uid, document in DOCUMENTS.items()
        for query in document["annotations"].get("list", [])
    ]


@pytest.mark.parametrize("sql", marks())
def test_every_annotation_has_a_time_and_a_text(seeded: Seeded, sql: str) -> None:
    frame = ask(seeded.reader, sql, the_range(seeded))
    kinds = {name: kind(type_) for name, type_ in frame.columns}
    assert kinds["time"] == "time"
    assert kinds["text"] == kinds["tags"] == "string"
    assert kinds.get("timeEnd", "time") == "time"
    assert len(frame.rows) == 1
    assert "ld-a1" in frame.column("text")[0] or "clb-a" in frame.column("text")[0]


def test_incidents_and_migrations_are_marked_wherever_there_are_charts() -> None:
    for document in DOCUMENTS.values():
        if any(panel["type"] in ("timeseries", "state-timeline") for panel in document["panels"]):
            assert [query["name"] for query in document["annotations"]["list"]] == ["incidents", "migrations"]


def test_every_variable_that_is_asked_for_is_there() -> None:
    for document in DOCUMENTS.values():
        names = {v["name"] for v in document["templating"]["list"]}
        for panel in document["panels"]:
            for target in panel.get("targets", []):
                assert set(re.findall(r"\$\{(\w+)", target["rawSql"])) <= names
        assert {"analyzer", "control"} <= names <= set(EVERYTHING) | set(CHOSEN)
