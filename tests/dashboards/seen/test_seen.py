"""What a person sees: each dashboard drawn by Grafana's own panels, on rows of the lab and on none."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from dashboards.panels import NEUTRAL
from tests.dashboards.seen import board
from tests.dashboards.seen.board import Seen
from tests.dashboards.seen.conftest import Draw, Shown
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


def links(seen: Seen) -> dict[tuple[str, str], str]:
    """The first link of each column of a drawn dashboard that has any: (panel, column) -> URL."""
    return {
        (title, column["name"]): href
        for title, panel in seen.panels.items()
        for column in panel.get("cells", [])
        for cell in column["rows"][::-1]
        for href in cell["links"][:1]
    }


@each
def test_a_link_opens_what_it_names(draw: Draw, lab: Shown, uid: str) -> None:
    """Each kind of link is followed: the dashboard is there, knows the variables, and shows what was clicked on."""
    found = links(draw("lab", uid))
    assert found
    now_ms = lab.now_ns // 1_000_000
    followed: set[tuple[str, ...]] = set()
    for where, href in found.items():
        assert "$" not in unquote(href).replace("$__all", ""), (where, href)
        url = urlsplit(href)
        match = re.fullmatch(r"/d/([\w-]+)(?:/[\w-]*)?", url.path)
        if url.netloc or match is None:
            assert url.netloc, (where, href)  # into an API of tgw
            continue
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        names = {v["name"] for v in board.documents()[match[1]]["templating"]["list"]}
        chosen = {name[4:]: value for name, value in query.items() if name.startswith("var-") and value != "$__all"}
        assert chosen.keys() <= names, (where, href)
        if (match[1], *sorted(chosen)) in followed:
            continue
        followed.add((match[1], *sorted(chosen)))
        range_ms = [now_ms if query[end] == "now" else int(query[end]) for end in ("from", "to")]
        seen = lab.look(match[1], (range_ms[0], range_ms[1]), chosen)
        assert [p["error"] for p in seen.panels.values() if "error" in p] == [], (where, href)
        told = json.dumps([p["text"] for p in seen.panels.values()])
        for name, value in chosen.items():
            # An incident is shown by what it is about: its option reads "closed: jitter of ld-b1, when".
            shown = seen.variables[name]["text"].split(" of ")[1].split(",")[0] if name == "incident" else value
            assert shown in told, (where, href, shown)


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
