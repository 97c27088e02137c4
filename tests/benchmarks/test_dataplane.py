"""The benchmark of the packet path: the shape of its document, and a tiny run of the real binary."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import dataplane

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


def a_result() -> dict[str, Any]:
    case = {
        "case": "clb.request",
        "role": "clb",
        "flows": 1_000_000,
        "frame_bytes": 64,
        "mode": "zipf",
        "ns_per_packet": 42.5,
        "limit_ns_per_packet": 8.5,
        "ratio_to_limit": 5.0,
        "spread": 0.04,
    }
    exact = {"frames_in": 10, "frames_out": 7, "drops": 3, "drops_by_reason": {"NO_VIP": 3}, "difference": 0}
    return {"method": {"batch": 64}, "cases": [case], "exact": exact}


@pytest.fixture(scope="module")
def quick() -> tuple[int, dict[str, Any]]:
    """Exit status and result of `tgw-bench --quick`: of the release build if there is one, else a debug build."""
    if shutil.which("cargo") is None:
        pytest.skip("needs cargo")
    where = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1", "--manifest-path", str(dataplane.MANIFEST)],
        capture_output=True,
        text=True,
        check=True,
    )
    released = Path(json.loads(where.stdout)["target_directory"]) / "release" / "tgw-bench"
    binary = released if released.exists() else dataplane.build(release=False)
    done = subprocess.run([str(binary), "--quick"], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, json.loads(done.stdout)


def test_the_quick_run_measures_every_role_beside_the_limit(quick: tuple[int, dict[str, Any]]) -> None:
    _, result = quick
    assert {case["role"] for case in result["cases"]} == {"eip", "clb", "vswitch"}
    for case in result["cases"]:
        assert set(case) == CASE_KEYS
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


def test_the_document_holds_what_was_measured_and_nothing_else() -> None:
    whole = dataplane.document(a_result(), {"cpu": "x"}, {"id": "abc", "dirty": True})
    assert list(whole) == ["machine", "commit", "dirty", "method", "cases", "exact"]
    assert (whole["machine"], whole["commit"], whole["dirty"]) == ({"cpu": "x"}, "abc", True)
    without = dataplane.document({"method": {}, "cases": []}, {}, None)
    assert list(without) == ["machine", "method", "cases"]


def test_a_difference_is_told() -> None:
    whole = dataplane.document(a_result(), {}, None)
    assert dataplane.is_exact(whole)
    whole["exact"]["difference"] = -1
    assert not dataplane.is_exact(whole)


def test_the_table_shows_each_case() -> None:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(dataplane.table(a_result()))
    text = captured.get()
    for word in ("clb.request", "1,000,000", "42.5", "8.5", "5.00", "4%"):
        assert word in text


def test_the_machine_is_described_by_what_can_be_read() -> None:
    where = dataplane.machine()
    assert where["cores"] >= 1
    assert where["kernel"]
    assert None not in where.values()
    assert dataplane.cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert dataplane.cpu_model("processor\t: 0\n") is None


def test_the_commit_says_whether_files_were_changed(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    assert dataplane.commit(tmp_path / "nowhere") is None
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    clean = dataplane.commit(tmp_path)
    assert clean is not None
    assert len(clean["id"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "file").write_text("2")
    assert dataplane.commit(tmp_path) == {"id": clean["id"], "dirty": True}


def test_a_benchmark_without_a_result_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "tgw-bench"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(dataplane.BenchError, match="status 3"):
        dataplane.run(broken, [])
