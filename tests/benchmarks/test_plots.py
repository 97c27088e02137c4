"""Every table has a picture; what is not there has none."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import plots
from tests.benchmarks import sample


def words(path: Path) -> str:
    """The comments of a picture, where matplotlib writes each text that it has drawn."""
    ElementTree.parse(path)
    return path.read_text()


def test_each_section_is_drawn_with_its_units_and_where_it_is_from(tmp_path: Path) -> None:
    drawn = plots.draw(sample.document(), tmp_path)
    assert [path.stem for path in drawn] == list(plots.PLOTS)
    units = {
        "cases": "ns per packet",
        "ablation": "without prefetch",
        "flood": "allowed: 10 %",
        "repeat_one": "1 M flows",
        "veth_packets": "nftables DNAT",
        "veth_connections": "HAProxy",
        "two_cores": "a dispatcher feeds 2.3 workers",
    }
    for path in drawn:
        text = words(path)
        assert "commit 0123456789ab with changes" in text
        assert units[path.stem] in text


@pytest.mark.parametrize("section", ["cases", "ablation", "flood", "repeat_one", "veth", "two_cores"])
def test_a_section_that_is_not_there_has_no_picture_not_even_an_old_one(tmp_path: Path, section: str) -> None:
    whole = sample.document()
    before = {path.stem for path in plots.draw(whole, tmp_path)}
    del whole[section]
    after = {path.stem for path in plots.draw(whole, tmp_path)}
    assert before - after == {name for name in before if name.startswith(section)}
    assert {path.stem for path in tmp_path.glob("*.svg")} == after


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    whole = sample.document()
    for one in whole["veth"]["connections"]:
        one["p999_us"] = None
    whole["veth"]["packets"][0] |= {"pps": 0, "ns_per_packet": None, "sweep": []}
    whole["cases"] = whole["cases"][:1]
    whole["ablation"] = {"all_on_ns": 55.0, "batching": {"ns": 70.0, "factor": 1.3}}
    whole["flood"] = {"slowdown": 1.04}
    assert len(plots.draw(whole, tmp_path)) == len(plots.PLOTS)
    assert plots.draw({}, tmp_path) == []
