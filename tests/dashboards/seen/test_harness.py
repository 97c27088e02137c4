"""The harness sees what is wrong: each fault that the other tests look for, planted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.dashboards.conftest import Seeded
from tests.dashboards.seen import board, bundle, pictures
from tests.dashboards.seen.board import Asker, Seen
from tests.dashboards.seen.browser import Browser, BrowserError

START = 1_800_000_000
RANGE = (START * 1000, (START + 600) * 1000)
RED = "#ff0000"
# Two series: `often` each 10 s, `seldom` at 0, 300 and 310 s.
LONG = f"""
SELECT toDateTime({START} + number * 10, 'UTC') AS time, arrayJoin(if(number IN (0, 30, 31), ['often', 'seldom'],
['often'])) AS who, toFloat64(4) AS value FROM numbers(60) ORDER BY time
"""


def document(*panels: dict[str, Any], **rest: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"fieldConfig": {"defaults": {}, "overrides": []}, "options": {}}
    placed = [
        {**base, "id": i, "gridPos": {"x": 0, "y": 8 * i, "w": 12, "h": 8}, **panel}
        for i, panel in enumerate(panels, 1)
    ]
    return {"title": "planted", "uid": "planted", "timezone": "utc", "panels": placed, **rest}


def target(sql: str, table: bool = False) -> list[dict[str, Any]]:
    return [{"refId": "A", "rawSql": sql, "format": int(table)}]


@pytest.fixture(scope="module")
def asker(empty: Seeded) -> Iterator[Asker]:
    found = Asker(empty.as_reader)
    yield found
    found.close()


def look(page: Browser, asker: Asker, given: dict[str, Any], **options: Any) -> Seen:
    return board.look(page, asker, given, RANGE, **options)


def chart(title: str = "chart", sql: str = LONG, **custom: Any) -> dict[str, Any]:
    config = {"defaults": {"custom": custom}, "overrides": []}
    return {"type": "timeseries", "title": title, "targets": target(sql), "fieldConfig": config}


def test_names_gaps_and_overrides(page: Browser, asker: Asker) -> None:
    panel = chart()
    panel["fieldConfig"]["overrides"] = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": key, "value": RED}]}
        for name, key in (("seldom", "color"), ("value seldom", "custom.lineColour"), ("value often", "unit"))
    ]
    seen = look(page, asker, document(panel))
    told = seen.panels["chart"]
    lines = {line["name"]: line for line in told["plotted"]["series"]}
    assert set(lines) == {"value often", "value seldom"}
    assert [(o["met"], o["unknown"]) for o in told["overrides"]] == [(0, []), (1, ["custom.lineColour"]), (1, [])]
    assert [v for v in lines["value seldom"]["values"] if v is not None] == [4, 4, 4]
    assert lines["value seldom"]["values"][1] is None
    assert len(pictures.findings(seen)) == 2


def test_a_hole_that_no_row_fills_is_told(page: Browser, asker: Asker) -> None:
    """Alone, the sparse series has three points with nothing between: the picture would be a line over five minutes."""
    seen = look(page, asker, document(chart(sql=f"SELECT * FROM ({LONG}) WHERE who = 'seldom'")))
    assert [t // 1000 - START for t in seen.panels["chart"]["plotted"]["times"]] == [0, 300, 310]
    seen = look(page, asker, document(chart(sql=f"SELECT * FROM ({LONG}) WHERE who = 'seldom'", insertNulls=15_000)))
    assert None in seen.panels["chart"]["plotted"]["series"][0]["values"]
    seen = look(page, asker, document(chart(spanNulls=True)))
    assert all(line["spanNulls"] for line in seen.panels["chart"]["plotted"]["series"])


def test_errors_are_told(page: Browser, asker: Asker) -> None:
    seen = look(
        page,
        asker,
        document(
            chart("wrong SQL", "SELECT nonsense"),
            chart("unsorted", f"SELECT toDateTime({START} - number, 'UTC') AS t, 'a' AS b, 1 AS v FROM numbers(3)"),
            {"type": "piechart", "title": "not here", "targets": target(LONG)},
            {"type": "timeseries", "title": "no macro", "targets": target("SELECT $__nothing(ts)")},
        ),
    )
    errors = {title: p["error"] for title, p in seen.panels.items()}
    assert "nonsense" in errors["wrong SQL"]
    assert "sorted ascending" in errors["unsorted"]
    assert "piechart" in errors["not here"]
    assert "unknown macro" in errors["no macro"]


def test_text_that_is_cut_is_told(page: Browser, asker: Asker) -> None:
    sql = "SELECT 'short' AS a, repeat('a long sentence that matters ', 20) AS b, 'fits' AS c"
    title = "a title " * 40
    panel = {"type": "table", "title": title, "targets": target(sql, table=True), "options": {"cellHeight": "sm"}}
    told = look(page, asker, document(panel)).panels[title]
    assert {c["text"][:7] for c in told["cut"]} == {"a title", "a long "}
    wide = {**panel, "title": "whole", "targets": target("SELECT 'short' AS a, 'fits too' AS b", table=True)}
    assert look(page, asker, document(wide)).panels["whole"]["cut"] == []


def test_links_and_variables(page: Browser, asker: Asker) -> None:
    url = (
        "/d/tgw-incident?var-incident=${__data.fields.id:percentencode}&from=${__from}&x=${__value.raw}&${v:queryparam}"
    )
    panel = {
        "type": "table",
        "title": "rows of ${v}",
        "targets": target("SELECT 'a/b' AS id, 7 AS n WHERE '${v}' = 'two words'", table=True),
        "fieldConfig": {
            "defaults": {},
            "overrides": [
                {"matcher": {"id": "byName", "options": "n"}, "properties": [{"id": "links", "value": [{"url": url}]}]}
            ],
        },
    }
    variable = {"name": "v", "type": "query", "query": "SELECT 'one' AS v UNION ALL SELECT 'two words'"}
    seen = look(page, asker, document(panel, templating={"list": [variable]}), chosen={"v": "two words"})
    (cell,) = seen.panels["rows of ${v}"]["cells"][1]["rows"]
    assert cell["links"] == [f"/d/tgw-incident?var-incident=a%2Fb&from={RANGE[0]}&x=7&var-v=two%20words"]
    assert seen.panels["rows of ${v}"]["title"] == "rows of two words"
    refused = {**panel, "fieldConfig": {"defaults": {"links": [{"url": "/d/x?${v:nonsense}"}]}, "overrides": []}}
    seen = look(page, asker, document(refused, templating={"list": [variable]}), chosen={"v": "two words"})
    assert "nonsense" in seen.panels["rows of ${v}"]["error"]


def test_the_picture_has_the_colours_and_other_eyes_see_others(page: Browser, asker: Asker, tmp_path: Path) -> None:
    panel = chart(drawStyle="bars", fillOpacity=100, lineWidth=2)
    panel["fieldConfig"]["defaults"]["color"] = {"mode": "fixed", "fixedColor": RED}
    panel["fieldConfig"]["defaults"]["displayName"] = "${__field.labels.who}"
    seen = look(page, asker, document(panel), mode="light", picture=tmp_path / "plain.png")
    assert [line["name"] for line in seen.panels["chart"]["plotted"]["series"]] == ["often", "seldom"]
    look(page, asker, document(panel), mode="light", picture=tmp_path / "other.png", vision="deuteranopia")
    plain, other = (_colours(tmp_path / name) for name in ("plain.png", "other.png"))
    assert plain[255, 0, 0] > 1000
    assert other.get((255, 0, 0), 0) == 0
    pictures.small(tmp_path / "plain.png")
    assert _colours(tmp_path / "plain.png")[255, 0, 0] == pytest.approx(plain[255, 0, 0], rel=0.02)


def _colours(path: Path) -> dict[Any, int]:
    with Image.open(path) as image:
        return {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24) or []}


def test_the_browser_says_what_the_page_throws(page: Browser) -> None:
    with pytest.raises(BrowserError, match="planted"):
        page.evaluate("(() => { throw new Error('planted') })()")
    assert page.evaluate("new Promise((done) => setTimeout(() => done(7), 10))") == 7
    with pytest.raises(BrowserError, match="no answer in time"):
        page.evaluate("new Promise(() => {})", timeout_s=0.3)
    assert page.evaluate("1 + 1") == 2


def test_a_browser_that_dies_is_told_and_leaves_nothing(page: Browser) -> None:
    del page  # where it could be had, another can
    with Browser(bundle.made(), "index.html") as dying:
        profile = Path(f"/proc/{dying.pid}/cmdline").read_text().split("--user-data-dir=")[1].split("\0")[0]
        assert Path(profile).is_dir()
        os.killpg(dying.pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(BrowserError, match="the browser ended"):
                dying.evaluate("1 + 1")
    assert not Path(profile).parent.exists()
