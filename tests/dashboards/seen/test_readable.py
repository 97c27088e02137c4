"""What is said by colour is seen by everybody, and said by a word too."""

from __future__ import annotations

import math
import re
from itertools import combinations
from typing import Any

import pytest

from dashboards.panels import MIGRATIONS, OUTCOMES, STATES
from tests.dashboards.seen import board
from tests.dashboards.seen.conftest import Draw

BOARDS = sorted(board.documents())

# How a person without green cones (deuteranopia) sees linear RGB: Machado, Oliveira and Fernandes, 2009, full strength
DEUTERANOPIA = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))


def seen(colour: str) -> tuple[float, float, float]:
    """A colour as such a person sees it, in CIELAB."""
    rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    r, g, b = (min(1.0, max(0.0, sum(w * c for w, c in zip(row, linear, strict=True)))) for row in DEUTERANOPIA)
    x, y, z = (
        0.4124 * r + 0.3576 * g + 0.1805 * b,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        0.0193 * r + 0.1192 * g + 0.9505 * b,
    )
    fx, fy, fz = (math.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x / 0.9505, y, z / 1.089))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("words", [OUTCOMES, STATES, MIGRATIONS], ids=["outcomes", "states", "migrations"])
def test_colours_differ_for_everybody(words: dict[str, str]) -> None:
    """What means different things is told apart without green cones too (a difference of 10 is seen at a glance)."""
    for one, other in combinations(sorted(set(words.values())), 2):
        assert math.dist(seen(one), seen(other)) >= 10, (one, other)


@pytest.mark.parametrize("uid", BOARDS)
def test_colour_never_speaks_alone(draw: Draw, uid: str) -> None:
    """Every state timeline has its words in the legend, every tile and coloured cell has a text, every line a name."""
    for title, panel in draw("lab", uid).panels.items():
        told: list[dict[str, Any]] = [
            *panel.get("values", []),
            *(cell for column in panel.get("cells", []) for cell in column["rows"] if cell["color"]),
            *(box for lane in panel.get("lanes", []) for box in lane["boxes"]),
        ]
        assert all(re.search(r"\w", one["text"]) for one in told), title
        for lane in panel.get("lanes", []):
            assert all(box["text"] in panel["text"] for box in lane["boxes"]), (title, lane["name"])
