"""What the dashboards are drawn on: the recorded run, nothing at all, and (in many.py) a region of 1,000 VIPs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.dashboards.conftest import Seeded, warehouse
from tests.dashboards.seen import recorded
from warehouse.client import Connection

SECOND = 1_000_000_000
# The recording ended so long before now, as if the collector had shipped until a moment ago [s].
LATELY = 3


def _lab(writer: Connection, now_ns: int) -> None:
    recorded.load(writer, now_ns - LATELY * SECOND)


def _empty(writer: Connection, now_ns: int) -> None:
    del writer, now_ns


SEEDS = {"lab": _lab, "empty": _empty}
SAID = {"lab": "a recorded run of the lab", "empty": "an empty store"}


@contextlib.contextmanager
def store(name: str) -> Iterator[Seeded]:
    """A warehouse in a process of its own with one of SEEDS in it."""
    with tempfile.TemporaryDirectory(prefix="tgw-seen-store-") as home, warehouse(Path(home), SEEDS[name]) as found:
        yield found


def span(uid: str, now_ns: int) -> tuple[int, int]:
    """The time range to draw a dashboard over [ms]: what happened in the recording, and a little before."""
    now = now_ns // 1_000_000
    return now - (420_000 if uid != "tgw-probe" else 3_600_000), now
