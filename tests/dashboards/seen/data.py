"""What the dashboards are drawn on: the recorded run, nothing at all, and a generated region of 1,000 VIPs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import boards
from tests.dashboards.conftest import Seeded, warehouse
from tests.dashboards.seen import recorded
from tests.dashboards.seen.board import Asker
from warehouse.client import Connection, connect

SECOND = 1_000_000_000
# The recording ended so long before now, as if the collector had shipped until a moment ago [s].
LATELY = 3


def _lab(writer: Connection, now_ns: int) -> None:
    recorded.load(writer, now_ns - LATELY * SECOND)


def _empty(writer: Connection, now_ns: int) -> None:
    del writer, now_ns


SEEDS = {"lab": _lab, "empty": _empty, "many": _empty}
SAID = {"lab": "a recorded run of the lab", "empty": "an empty store", "many": "generated: 1,000 VIPs, 50 nodes, 7 min"}
VIPS, SECONDS = 1000, 420


@contextlib.contextmanager
def store(name: str) -> Iterator[Seeded]:
    """A warehouse in a process of its own with one of SEEDS in it."""
    with tempfile.TemporaryDirectory(prefix="tgw-seen-store-") as home, warehouse(Path(home), SEEDS[name]) as found:
        if name == "many":
            secret = found.as_reader.password_file.with_name("writer.password")
            writer = found.as_reader.model_copy(update={"user": "tgw", "password_file": secret})
            client = connect(writer)
            boards.fill(client, VIPS, SECONDS, found.now_ns // SECOND - LATELY)
            client.close()
        yield found


def span(uid: str, now_ns: int) -> tuple[int, int]:
    """The time range to draw a dashboard over [ms]: what happened in the recording, and a little before."""
    now = now_ns // 1_000_000
    return now - (420_000 if uid != "tgw-probe" else 3_600_000), now


def chosen(asker: Asker, uid: str) -> dict[str, Any]:
    """What somebody would have clicked on: an incident about which something was done, a probe that died on its way."""
    if uid == "tgw-incident":
        (acted,) = asker.ask("SELECT incident_id FROM actions FINAL WHERE state = 'done' ORDER BY ts LIMIT 1")
        return {"incident": acted.values[0]} if acted.values else {}
    if uid == "tgw-probe":
        (probe,) = asker.ask(
            "SELECT toString(argMax(probe_id, ts)) AS probe FROM probes WHERE outcome = 'silent' "
            "AND probe_id IN (SELECT probe_id FROM drop_points)"
        )
        return {"probe": probe.values[0] or "0"}
    return {}
