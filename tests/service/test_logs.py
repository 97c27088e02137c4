"""Log lines go to standard error as it is when they are written."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from service import logs

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_an_event_is_one_json_line(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    logs.configure("unit", "INFO")
    log.info("begun", number=1)
    monkeypatch.setattr(sys, "stderr", second)
    first.close()
    log.info("ended")
    line = json.loads(second.getvalue())
    assert line["event"] == "ended"
    assert line["process"] == "unit"
    assert line["level"] == "info"


def test_the_level_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    logs.configure("unit", "WARNING")
    log.info("quiet")
    log.warning("loud")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["loud"]
