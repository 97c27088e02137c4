"""Shared by all tests: what this machine can do decides which tests run, and a skip says why."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess

import pytest

# The processes that tests start fail at a warning as well; see pyproject.toml for what is left out.
os.environ.setdefault("PYTHONWARNINGS", "error,ignore::ResourceWarning")
os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@functools.cache
def namespaces_missing() -> str | None:
    """Why network namespaces cannot be used here; None when they can."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "ethtool", "bird", "sysctl"):
        if shutil.which(tool) is None:
            return f"needs the command {tool}"
    name = f"tgwt-can-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return f"cannot make a network namespace: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("root") is not None and (why := namespaces_missing()) is not None:
            item.add_marker(pytest.mark.skip(reason=why))
