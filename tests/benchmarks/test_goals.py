from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import goals


@pytest.mark.parametrize(
    ("kind", "reached", "holds"),
    [("<=", 8.0, True), ("<=", 8.1, False), (">=", 7.9, False), (">=", 8.0, True), ("==", 8, True), ("==", 0, False)],
)
def test_a_bound_holds_at_its_limit_and_on_its_side(kind: str, reached: float, holds: bool) -> None:
    assert goals.bound("cpu", kind, 8, reached, "% of a core").holds is holds  # type: ignore[arg-type]


def test_what_was_not_measured_does_not_hold_and_says_so() -> None:
    goal = goals.bound("lost", "==", 0, None)
    assert not goal.holds
    console = Console(width=100, file=io.StringIO())
    console.print(goals.table([goal], "chaos"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "not measured" in text
    assert "NO" in text


def test_a_result_file_has_machine_commit_and_goals_beside_its_data(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    goals.write(path, goals.result({"kills": 200}, [goals.bound("kills", ">=", 200, 200)]))
    read = json.loads(path.read_text())
    assert read["kills"] == 200
    assert read["machine"]["cores"] >= 1
    assert read["goals"] == [{"name": "kills", "goal": ">= 200", "reached": 200, "holds": True}]
    assert set(read) == {"machine", "commit", "goals", "kills"}
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_data_cannot_hide_the_goals() -> None:
    with pytest.raises(ValueError, match="goals"):
        goals.result({"goals": []}, [])
