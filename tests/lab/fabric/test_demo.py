"""The whole story over the fabric, with every real process beside it, as a machine without root would tell it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.state import Run, marked


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_the_story_holds_without_namespaces(tmp_path: Path) -> None:
    pytest.importorskip("gateway._dataplane")
    run, out = Run(tmp_path / "run"), tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "demo", "--fabric", "--out", str(out)],
        env=os.environ | {"TGW_RUN": str(run.root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=270,
    )
    assert "in-process fabric" in done.stdout
    assert (out / "report.json").exists(), done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads((out / "report.json").read_text())
    assert report["did_not_hold"] == []
    assert done.returncode == 0
    assert report["mode"] == "fabric"
    assert "simulated" in report["story"]
    assert [a["named_node"] for a in report["acts"]] == ["ld-a1, ld-a2", "ld-b1"]
    assert [a["action"]["vips_moved"] for a in report["acts"]] == [20, 20]
    assert report["probes_unexplained"] == report["records_lost"] == 0
    frames = report["fabric"]["frames"]
    assert frames["unaccounted"] == 0
    assert frames["originated"] > 5000
    assert marked(run) == []
