"""Loss and round trips by group."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from warehouse.statistics import COLUMNS, summary

MS = 1_000_000


def frame(*rows: tuple[str, str, int]) -> pd.DataFrame:
    """(vip, outcome, rtt in ms) as the query gives them."""
    data = [(vip, outcome, rtt * MS, "prober-1", 10000, "clb-a") for vip, outcome, rtt in rows]
    return pd.DataFrame(data, columns=["vip", "outcome", "rtt_ns", "prober", "port", "cluster"])


def test_the_worst_comes_first_with_its_numbers() -> None:
    table = summary(
        frame(
            ("a", "answered", 1), ("a", "answered", 3), ("b", "answered", 2), ("b", "silent", 0), ("b", "refused", 9)
        ),
        "vip",
    )
    assert list(table.index) == ["b", "a"]
    assert tuple(table.columns) == COLUMNS
    assert [table.at["b", c] for c in ("probes", "answered", "refused", "silent", "unsent")] == [3, 1, 1, 1, 0]
    assert table.loc["b", "loss"] == pytest.approx(2 / 3)
    assert table.loc["a", "loss"] == 0
    assert [table.at["a", c] for c in ("rtt_p50_ms", "rtt_max_ms")] == [2, 3]
    # A refusal came back too, but it is no round trip of the service.
    assert table.loc["b", "rtt_max_ms"] == 2


def test_unsent_probes_are_no_loss_and_no_answer_has_no_round_trip() -> None:
    table = summary(frame(("a", "unsent", 0), ("b", "silent", 0)), "vip")
    assert math.isnan(table["loss"]["a"])
    assert table.loc["b", "loss"] == 1
    assert math.isnan(table["rtt_p50_ms"]["b"])


def test_other_groups() -> None:
    rows = frame(("a", "answered", 1), ("b", "silent", 0))
    assert summary(rows, "cluster").loc["clb-a", "loss"] == 0.5
    assert summary(rows, "port").index.tolist() == [10000]


def test_nothing_is_nothing() -> None:
    table = summary(frame(), "prober")
    assert table.empty
    assert tuple(table.columns) == COLUMNS
