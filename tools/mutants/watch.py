"""A pytest plugin (`-p tools.mutants.watch`) that notes which test runs which line, and how long each test takes.

Written to the file that TGW_WATCH names, as JSON: {"lines": {path: {line: [test, ...]}}, "seconds": {test: s},
"failed": [test, ...]}. Paths are relative to the working directory. Lines run by processes that tests start are not
seen.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

ROOMS = ("analyzer", "gateway", "collector", "prober")


class Watch:
    """Switches the context of coverage with each test."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._seconds: dict[str, float] = {}
        self._failed: set[str] = set()
        self._coverage = coverage.Coverage(data_file=None, config_file=False, source=[str(Path(r)) for r in ROOMS])
        self._coverage.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        began = time.perf_counter()
        yield
        self._seconds[item.nodeid] = round(time.perf_counter() - began, 3)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        here = Path.cwd()
        lines: dict[str, dict[int, list[str]]] = {}
        for file in data.measured_files():
            found = data.contexts_by_lineno(file)
            lines[str(Path(file).relative_to(here))] = {n: sorted(filter(None, tests)) for n, tests in found.items()}
        document: dict[str, Any] = {"lines": lines, "seconds": self._seconds, "failed": sorted(self._failed)}
        self._out.write_text(json.dumps(document))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch(Path(os.environ["TGW_WATCH"])), "mutants-watch")
