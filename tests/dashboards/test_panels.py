"""Every panel's SQL runs on seeded data in the real engine, through its real HTTP server, as the reader Grafana is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dashboards import build
from dashboards.source import Range, expand
from tests.dashboards.conftest import HOPS, LOST, PROBE, Seeded
from warehouse.client import Connection


def panels() -> list[Any]:
    return [
        pytest.param(panel, target, id=f"{uid}: {panel['title']}")
        for uid, document in build.documents().items()
        for panel in document["panels"]  # type: ignore[attr-defined]
        for target in panel.get("targets", [])
    ]


def described(connection: Connection, sql: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in connection.query(f"DESCRIBE TABLE ({sql})")]


@pytest.mark.parametrize(("panel", "target"), panels())
def test_panel(seeded: Seeded, panel: dict[str, Any], target: dict[str, Any]) -> None:
    probe = LOST if panel["title"] == "Drop Points" else PROBE
    now_ms = seeded.now_ns // 1_000_000
    span = Range(from_ms=now_ms - 900_000, to_ms=now_ms + 1000)
    sql = expand(target["rawSql"], span, {"incident": "inc-1", "probe": probe})
    rows = seeded.reader.query(sql)
    assert rows, "seeded data must show"
    columns = described(seeded.reader, sql)
    if panel["type"] == "timeseries":
        assert len(columns) == 3
        assert columns[0][0] == "time"
        assert columns[0][1].startswith("DateTime")
        assert "String" in columns[1][1]
        assert re.search(r"Int|Float", columns[2][1])
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    elif panel["type"] == "stat":
        assert len(rows) == 1
        assert len(columns) == 1
        assert re.search(r"Int|Float", columns[0][1])
        assert rows[0][0] is not None
    else:
        assert panel["type"] == "table"
        named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        links = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if any(property_["id"] in ("links", "unit") for property_ in override["properties"])
        }
        assert links <= {name for name, _ in columns} <= {name for name, _ in columns} | named


def test_the_journey_reads_in_order(seeded: Seeded) -> None:
    sql = next(
        target["rawSql"]
        for panel in build.documents()["tgw-probe"]["panels"]  # type: ignore[attr-defined]
        if panel["title"] == "Journey"
        for target in panel["targets"]
    )
    span = Range(0, seeded.now_ns // 1_000_000)
    passed = seeded.reader.query(expand(sql, span, {"probe": PROBE}))
    assert [(row[1], row[2]) for row in passed] == [(hop, node) for hop, node, _ in HOPS]
    assert [row[5] for row in passed] == ["passed"] * 6
    assert passed[0][7:] == ("10.3.0.1", "10.3.0.2", "rs-1")
    died = seeded.reader.query(expand(sql, span, {"probe": LOST}))
    assert [row[5] for row in died] == ["dropped: TUNNEL_ENCAP_FAIL"]


def test_the_variable_lists_incidents(seeded: Seeded) -> None:
    variables = build.documents()["tgw-incident"]["templating"]["list"]  # type: ignore[index]
    assert [seeded.reader.query(v["query"]) for v in variables] == [[("inc-1",)]]
