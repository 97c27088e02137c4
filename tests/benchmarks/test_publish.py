"""README's results: all tables and pictures, between their marks, again and again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import plots, publish, report
from tests.benchmarks import sample


def published(directory: Path, readme: str) -> str:
    results = directory / "dataplane.json"
    results.write_text(json.dumps(sample.document()))
    (directory / "README.md").write_text(readme)
    words = [str(results), "--readme", str(directory / "README.md"), "--pictures", str(directory / "docs" / "bench")]
    assert publish.main(words) == 0
    return (directory / "README.md").read_text()


def test_every_table_and_every_picture(tmp_path: Path) -> None:
    text = published(tmp_path, f"before\n{publish.BEGIN}\nstale\n{publish.END}\nafter\n")
    assert (text[:7], text[-7:]) == ("before\n", "\nafter\n")
    assert "stale" not in text
    for table in report.tables(sample.document()):
        assert f"<summary>{table.title}</summary>" in text
    for name in plots.PLOTS:
        assert f"(docs/bench/{name}.svg)" in text
        assert (tmp_path / "docs" / "bench" / f"{name}.svg").exists()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > len(sample.document()["cases"])
    assert "difference 0" in text
    assert published(tmp_path, text) == text


def test_a_readme_without_a_place_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no place for results"):
        published(tmp_path, "# tgw\n")
    assert (tmp_path / "README.md").read_text() == "# tgw\n"
    assert not (tmp_path / "docs").exists()
