"""`make bench-services` on the smallest region over the in-process fabric: what it writes, and when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import services
from benchmarks.usage import Process, Usage
from lab.state import LabError


def test_processes_of_a_kind_stand_together() -> None:
    found = [
        Usage(Process("ld-1", "node", 1), 2.0, 2**20, 2**21),
        Usage(Process("ld-2", "node", 2), 1.5, 2**20, 2**20),
        Usage(Process("warehouse", "warehouse", 3), 9.0, 2**28, 2**28),
    ]
    assert services.kinds(found) == [
        {"kind": "warehouse", "processes": 1, "cpu_percent": 9.0, "rss_mib": 256.0, "peak_mib": 256.0},
        {"kind": "node", "processes": 2, "cpu_percent": 3.5, "rss_mib": 2.0, "peak_mib": 3.0},
    ]


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 99), (0.0, 0)])
def test_quantiles(share: float, value: float) -> None:
    assert services.quantile(list(range(100)), share) == value
    assert services.quantile([], share) is None


def test_what_was_not_measured_is_a_missed_goal() -> None:
    waits = {"probes": {"p99_s": 1.0}, "trace_points": {"p99_s": None}}
    cpu, queryable = services.goals_of({"idle": {"kinds": []}, "queryable": waits})
    assert (cpu.reached, cpu.holds, queryable.reached, queryable.holds) == (None, False, None, False)
    waits["trace_points"] = {"p99_s": 2.5}
    kinds = [{"kind": "warehouse", "cpu_percent": 7.9}]
    cpu, queryable = services.goals_of({"idle": {"kinds": kinds}, "queryable": waits})
    assert (cpu.holds, queryable.reached, queryable.holds) == (True, 2.5, False)


def test_a_region_that_does_not_come_up_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise LabError("no room")

    monkeypatch.setattr(services, "run", fails)
    assert services.main(["--fabric", "--out", str(tmp_path / "x.json")]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_small_region_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "services.json"
    options = ["--fabric", "--size", "small", "--settle", "4", "--seconds", "6", "--out", str(out)]
    assert services.main(options) == 0
    document = json.loads(out.read_text())
    assert document["mode"] == "fabric"
    assert {goal["name"] for goal in document["goals"]} == {"warehouse, idle region", "a record can be queried, 99 %"}
    for name in ("idle", "traffic"):
        part = document[name]
        assert {"warehouse", "collector", "analyzer", "control"} <= {k["kind"] for k in part["kinds"]}
        assert part["ended_meanwhile"] == []
        assert part["warehouse"]["inserts_per_s"] > 1
        assert part["warehouse"]["rows_per_s"] > part["warehouse"]["inserts_per_s"]
        assert all(p["rss_mib"] > 1 for p in part["processes"])
    for wait in document["queryable"].values():
        assert wait["records"] >= 1
        assert 0 < wait["p50_s"] <= wait["p99_s"] < 30
