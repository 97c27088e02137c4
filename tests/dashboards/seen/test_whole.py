"""A person can read it: no text is cut off, and words with colours have meanings."""

from __future__ import annotations

import pytest

from tests.dashboards.seen import board
from tests.dashboards.seen.conftest import Draw
from tests.dashboards.seen.data import SEEDS

# What a large or bold text needs of contrast to what is behind it (WCAG 2.2, AA).
LEAST = 3.0
every = pytest.mark.parametrize(("rows", "uid"), [(rows, uid) for rows in SEEDS for uid in sorted(board.documents())])


@every
def test_no_text_is_cut_off(draw: Draw, rows: str, uid: str) -> None:
    cut = [(title, c["text"], c["by"]) for title, panel in draw(rows, uid).panels.items() for c in panel["cut"]]
    assert cut == []


@every
def test_a_word_with_a_colour_has_a_meaning(draw: Draw, rows: str, uid: str) -> None:
    """A word that no mapping knows would get Grafana's first threshold, which may be green."""
    for title, panel in draw(rows, uid).panels.items():
        for column in panel.get("cells", []):
            for cell in column["rows"]:
                assert cell["color"] is None or cell["mapped"] or cell["text"] == "", (title, column["name"], cell)


@pytest.mark.parametrize("mode", ["dark", "light"])
@every
def test_text_stands_out(draw: Draw, rows: str, uid: str, mode: str) -> None:
    faint = {
        (title, f["text"], round(f["contrast"], 1))
        for title, panel in draw(rows, uid, mode).panels.items()
        for f in panel["faint"]
        if f["contrast"] < LEAST
    }
    assert faint == set()
