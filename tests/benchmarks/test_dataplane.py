"""The benchmark of the packet path: the shape of its document, and tiny runs of the real binary."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import dataplane, report
from tests.benchmarks import sample

CASE_KEYS = {
    "case",
    "role",
    "flows",
    "frame_bytes",
    "mode",
    "ns_per_packet",
    "limit_ns_per_packet",
    "ratio_to_limit",
    "spread",
}


@pytest.fixture(scope="module")
def quick(binary: Path) -> tuple[int, dict[str, Any]]:
    """Exit status and result of `tgw-bench --quick`."""
    done = subprocess.run([str(binary), "--quick"], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout)


def test_the_quick_run_measures_every_role_beside_the_limit(quick: tuple[int, dict[str, Any]]) -> None:
    _, result = quick
    assert {case["role"] for case in result["cases"]} == {"eip", "clb", "vswitch"}
    for case in result["cases"]:
        assert set(case) >= CASE_KEYS
        assert case["ns_per_packet"] > 0
        assert case["limit_ns_per_packet"] > 0
        ratio = case["ns_per_packet"] / case["limit_ns_per_packet"]
        assert case["ratio_to_limit"] == pytest.approx(ratio, rel=0.01)
        assert case["spread"] >= 0
    seen = [(case["case"], case["mode"], case["flows"], case["frame_bytes"]) for case in result["cases"]]
    assert len(set(seen)) == len(seen)


def test_the_quick_run_accounts_for_every_frame(quick: tuple[int, dict[str, Any]]) -> None:
    status, result = quick
    exact = result["exact"]
    assert exact["frames_in"] >= 20_000
    assert exact["frames_out"] > 0
    assert exact["drops"] == sum(exact["drops_by_reason"].values())
    assert exact["difference"] == exact["frames_in"] - exact["frames_out"] - exact["drops"] == 0
    assert status == 0


def test_two_cores_share_the_work(binary: Path) -> None:
    if dataplane.usable_cores() < 2:
        pytest.skip("needs two cores")
    section = dataplane.two_cores(binary, quick=True)
    assert {"dispatcher_ns", "worker_ns", "hop_ns", "derived_ratio", "spread"} <= set(section)
    assert section["dispatcher_ns"] > 0
    assert section["worker_ns"] > 0
    ratio = section["worker_ns"] / section["dispatcher_ns"]
    assert section["derived_ratio"] == pytest.approx(ratio, rel=0.02)
    extra = section["dispatcher_ns"] - section["classify_ns"] + section["worker_ns"] - section["one_thread_ns"]
    assert section["hop_ns"] == pytest.approx(extra, abs=0.05)


def test_the_document_holds_what_was_measured_and_nothing_else() -> None:
    result = {"exact": {}, "more": 1, "veth": {}, "cases": [], "method": {}}
    whole = dataplane.document(result, {"cpu": "x"}, {"id": "abc", "dirty": True})
    assert list(whole) == ["machine", "commit", "dirty", "method", "cases", "exact", "veth", "more"]
    assert (whole["machine"], whole["commit"], whole["dirty"]) == ({"cpu": "x"}, "abc", True)
    assert list(dataplane.document({"method": {}, "cases": []}, {}, None)) == ["machine", "method", "cases"]


def test_a_part_that_fails_takes_nothing_from_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "tgw-bench"
    broken.write_text('#!/bin/sh\n[ "$1" = two-cores ] && exit 3\necho \'{"cases": [], "method": {"batch": 64}}\'\n')
    broken.chmod(0o755)
    monkeypatch.setattr(dataplane, "usable_cores", lambda: 2)
    monkeypatch.setattr("benchmarks.wires.missing", lambda: "not root")
    result, complete = dataplane.measure(broken, list(dataplane.PARTS), ["af_packet"], True, [])
    assert not complete
    assert "two_cores" not in result
    assert result["cases"] == []
    assert result["veth"]["missing"] == ["not root"]
    assert {"tgw_af_xdp_pps", "tgw_af_packet_pps", "nftables_pps", "haproxy_cps", "tgw_cps"} <= set(result["veth"])
    assert result["veth"]["tgw_cps"] is None
    assert {"batch", "veth"} <= set(result["method"])
    with pytest.raises(dataplane.BenchError, match="status 3"):
        dataplane.run(broken, ["two-cores"])


def test_a_difference_is_told() -> None:
    whole = sample.document()
    assert dataplane.is_exact(whole)
    whole["exact"]["difference"] = -1
    assert not dataplane.is_exact(whole)


def test_the_tables_show_each_section() -> None:
    console = Console(width=140)
    with console.capture() as captured:
        dataplane.show(sample.document(), console)
    text = captured.get()
    for word in (
        "clb.request",
        "1,000,000",
        "all_off_ns",
        "established_evicted",
        "derived_ratio",
        "tgw_af_xdp",
        "haproxy",
    ):
        assert word in text
    assert "10 in = 7 out + 3 dropped by 1 reasons; difference 0" in text
    with console.capture() as captured:
        dataplane.show({"machine": {}}, console)
    assert captured.get() == ""


def test_the_machine_is_described_by_what_can_be_read() -> None:
    where = report.machine()
    assert where["cores"] >= 1
    assert where["kernel"]
    assert None not in where.values()
    assert report.cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert report.cpu_model("processor\t: 0\n") is None


def test_the_commit_says_whether_files_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    assert report.commit(tmp_path / "nowhere") is None
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    clean = report.commit(tmp_path)
    assert clean is not None
    assert len(clean["id"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert report.commit(tmp_path) == {"id": clean["id"], "dirty": True}


def test_replotting_measures_nothing(tmp_path: Path) -> None:
    out = tmp_path / "dataplane.json"
    out.write_text(json.dumps(sample.document()))
    assert dataplane.main(["--replot", "--out", str(out)]) == 0
    assert (tmp_path / "cases.svg").exists()
    assert json.loads(out.read_text()) == sample.document()
