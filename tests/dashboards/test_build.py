"""The committed dashboards are what the code builds, and hold together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dashboards import build, source


def panels(document: dict[str, Any]) -> list[dict[str, Any]]:
    """All panels of a dashboard that show data."""
    return [panel for panel in document["panels"] if panel["type"] != "row"]


DOCUMENTS = build.documents()
ALL = [(uid, panel) for uid, document in DOCUMENTS.items() for panel in panels(document)]


def test_nothing_committed_is_stale() -> None:
    assert build.stale() == []


def test_a_stale_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "OUT", tmp_path)
    monkeypatch.setattr(build, "PAPER", tmp_path / "paper.md")
    build.PAPER.write_text(f"before\n{build.BEGIN}\nold\n{build.END}\nafter\n")
    assert len(build.build()) == len(build.files())
    assert build.stale() == []
    paper = build.PAPER.read_text()
    assert paper.startswith("before\n")
    assert paper.endswith("after\n")
    assert "| Newest record |" in paper
    assert "old" not in paper.splitlines()
    (tmp_path / "dashboards" / "tgw" / "tgw-fleet.json").write_text("{}")
    assert [path.name for path in build.stale()] == ["tgw-fleet.json"]


def test_building_twice_gives_the_same_bytes() -> None:
    assert build.files() == build.files()


def test_there_are_the_three_dashboards() -> None:
    assert set(DOCUMENTS) == {"tgw-fleet", "tgw-incident", "tgw-probe"}


@pytest.mark.parametrize(("uid", "panel"), ALL, ids=lambda value: value if isinstance(value, str) else value["title"])
def test_every_panel_is_described_and_asks_our_source(uid: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": source.PLUGIN, "uid": source.UID}
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["rawSql"]
        assert (target["format"] == 1) == (target["queryType"] == "table")


def test_panels_do_not_overlap() -> None:
    for uid, document in DOCUMENTS.items():
        taken: set[tuple[int, int]] = set()
        for panel in panels(document):
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in cells) < 24, (uid, panel["title"])
            assert not cells & taken, (uid, panel["title"])
            taken |= cells


def test_links_lead_to_our_dashboards() -> None:
    text = json.dumps(list(DOCUMENTS.values()))
    for part in text.split('"/d/')[1:]:
        assert part.split("?")[0] in DOCUMENTS
