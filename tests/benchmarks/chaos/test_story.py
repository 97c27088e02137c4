"""A few kills of a small region, real processes all: everything is accounted for, and the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.chaos.__main__ import main
from lab.state import Run, marked


@pytest.mark.slow
def test_six_kills_cost_nothing(tmp_path: Path) -> None:
    out = tmp_path / "chaos" / "report.json"
    arguments = ["--small", "--fabric", "--kills", "6", "--mean", "0.8", "--seed", "3"]
    assert main([*arguments, "--run", str(tmp_path / "run"), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    reached = {g["name"]: g["reached"] for g in report["goals"]}
    assert reached.pop("kills") == 6
    assert reached == dict.fromkeys(reached, 0), report["account"]["examples"]
    assert {"acknowledged_rows_lost", "rows_duplicated", "gaps_unstated", "false_actions"} < set(reached)
    assert report["account"]["written"] == report["account"]["stored"] > 100
    assert [g["holds"] for g in report["goals"] if g["name"] == "kills"] == [False]
    assert marked(Run(tmp_path / "run")) == [], "it leaves no process behind"
