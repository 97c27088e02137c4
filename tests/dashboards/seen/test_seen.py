"""What a person sees: each dashboard drawn by Grafana's own panels, on rows of the lab and on none."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from dashboards.panels import NEUTRAL
from tests.dashboards.seen import board
from tests.dashboards.seen.conftest import Draw
from tests.dashboards.seen.data import SEEDS

BOARDS = sorted(board.documents())
both = pytest.mark.parametrize(("rows", "uid"), [(rows, uid) for rows in SEEDS for uid in BOARDS])
each = pytest.mark.parametrize("uid", BOARDS)


@both
def test_every_panel_draws(draw: Draw, rows: str, uid: str) -> None:
    seen = draw(rows, uid)
    assert {title: p["error"] for title, p in seen.panels.items() if "error" in p} == {}
    assert seen.complaints == []
    assert {p["title"] for p in seen.document["panels"] if p["type"] != "row"} == set(seen.panels)


@each
def test_every_override_meets_a_series(draw: Draw, uid: str) -> None:
    unmet = [
        (title, override["matcher"], override["unknown"])
        for title, panel in draw("lab", uid).panels.items()
        for override in panel["overrides"]
        if not override["met"] or override["unknown"]
    ]
    assert unmet == []


@each
def test_series_are_named_by_their_labels(draw: Draw, uid: str) -> None:
    for title, panel in draw("lab", uid).panels.items():
        lines = panel.get("plotted", {}).get("series", []) + panel.get("lanes", [])
        names = [line["name"] for line in lines]
        assert len(set(names)) == len(names), title
        for line in lines:
            assert "value" not in line["name"].split(), (title, line["name"])
            assert all(word in line["name"] for word in line.get("labels", {}).values()), (title, line["name"])


@each
def test_a_gap_is_a_gap(draw: Draw, uid: str) -> None:
    """Between two points that a line joins lies one step; what is not known is a hole in the drawing too."""
    for title, panel in draw("lab", uid).panels.items():
        plotted = panel.get("plotted")
        if plotted is None:
            continue
        times = plotted["times"]
        steps = {b - a for a, b in pairwise(times)}
        assert len(steps) == 1, (title, steps)
        for line in plotted["series"]:
            assert line["spanNulls"] in (False, -1), (title, line["name"])
            assert "over" not in line["values"], (title, line["name"])
            if line["style"] == "bars":
                assert line["stacking"] == "normal"
            else:  # a sparse line would be stacked on what is not there
                assert line["stacking"] == "none", (title, line["name"])


@each
def test_links_lead_somewhere(draw: Draw, uid: str) -> None:
    found = 0
    for title, panel in draw("lab", uid).panels.items():
        for column in panel.get("cells", []):
            for cell in column["rows"]:
                for href in cell["links"]:
                    found += 1
                    assert "$" not in href.replace("%24__all", ""), (title, href)
                    match = re.match(r"/d/([\w-]+)(?:/[\w-]*)?(?:\?|$)", href)
                    assert match is None or match[1] in BOARDS, (title, href)
    assert found > 0


@each
def test_nothing_is_not_healthy(draw: Draw, uid: str) -> None:
    """On an empty store every number is neutral, and every chart and table says that there is nothing."""
    for title, panel in draw("empty", uid).panels.items():
        if panel["type"] == "stat":
            assert {v["color"].lower() for v in panel["values"]} == {NEUTRAL.lower()}, (title, panel["values"])
        else:
            points = [v for line in panel.get("plotted", {}).get("series", []) for v in line["values"]]
            assert set(points) <= {None}, title
            assert panel.get("nothing") or "no data" in panel["text"], (title, panel["text"])
