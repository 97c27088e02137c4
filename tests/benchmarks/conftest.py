"""The binary that is measured with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import dataplane


@pytest.fixture(scope="session")
def binary() -> Path:
    """tgw-bench: brought up to date as a release build if there is one, else as a debug build."""
    if shutil.which("cargo") is None:
        pytest.skip("needs cargo")
    where = subprocess.run(
        ["cargo", "metadata", "--no-deps", "--format-version", "1", "--manifest-path", str(dataplane.MANIFEST)],
        capture_output=True,
        text=True,
        check=True,
    )
    released = Path(json.loads(where.stdout)["target_directory"]) / "release" / "tgw-bench"
    if released.exists():
        return dataplane.build()
    return dataplane.build(release=False)
