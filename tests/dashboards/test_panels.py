"""Every panel's SQL runs on seeded data in the real engine, through its real HTTP server, as the reader Grafana is."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards import build
from dashboards.source import Range, expand
from warehouse.client import Connection, Unavailable
from warehouse.settings import WarehouseSettings

SECOND = 1_000_000_000
PROBE = 0x0101_2710_0000_0001
LOST = PROBE + 1
HOPS = [
    ("eip_in", "eip-1", 2),
    ("clb_in", "ld-a1", 2),
    ("vsw_in", "host-1", 2),
    ("vsw_out", "host-1", 18),
    ("clb_out", "ld-a1", 18),
    ("eip_out", "eip-1", 18),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def now_ns() -> int:
    return time.time_ns()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, now_ns: int) -> Iterator[Connection]:
    """A seeded warehouse, as its reader."""
    home = tmp_path_factory.mktemp("warehouse")
    port = free_port()
    for name in ("writer", "reader"):
        (home / f"{name}.password").write_text(f"{name}-password-of-the-test")
    (home / "warehouse.toml").write_text(
        f'state_dir = "{home / "state"}"\n[listen]\nport = {port}\n'
        f'[writer]\nname = "tgw"\npassword_file = "{home / "writer.password"}"\n'
        f'[reader]\nname = "reader"\npassword_file = "{home / "reader.password"}"\n'
    )
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "warehouse", str(home / "warehouse.toml")], stdout=log, stderr=log
        )
    try:
        writer = Connection(settings(home, port, "tgw", "writer"))
        wait_for(writer, process, home / "log")
        seed(writer, now_ns)
        writer.close()
        connection = Connection(settings(home, port, "reader", "reader"))
        yield connection
        connection.close()
    finally:
        process.terminate()
        process.wait(timeout=20)


def settings(home: Path, port: int, user: str, file: str) -> WarehouseSettings:
    return WarehouseSettings(url=f"http://127.0.0.1:{port}", user=user, password_file=home / f"{file}.password")


def wait_for(connection: Connection, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            connection.query("SELECT 1")
            return
        except Unavailable:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the warehouse did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)


def seed(writer: Connection, now_ns: int) -> None:
    """Two probes: one answered with its whole journey, one dropped at an LD; the incident it led to; feeds; names."""
    sent = now_ns - 30 * SECOND
    probe_columns = [
        "ts",
        "prober",
        "boot_id",
        "closed",
        "seq",
        "probe_id",
        "outcome",
        "rtt_ns",
        "src_addr",
        "dst_addr",
    ]
    probe_columns += ["src_port", "dst_port", "vip_id"]
    rows: list[list[Any]] = []
    for probe_id, outcome, rtt in ((PROBE, "answered", 2_000_000), (LOST, "silent", 0)):
        head = [sent, "prober-1", "ab", sent + 2 * SECOND, probe_id - PROBE, probe_id, outcome, rtt]
        rows.append([*head, "::ffff:198.18.1.1", "::ffff:203.0.113.1", 10000, 80, 1])
    writer.insert("probes", probe_columns, rows)
    point = ["ts", "node", "boot_id", "seq", "probe_id", "hop", "verdict", "tcp_flags", "direction", "residence_ns"]
    point += ["outer_src", "outer_dst", "vip_id", "server_id", "worker"]
    rest = ["::ffff:10.3.0.1", "::ffff:10.3.0.2", 1, 1, 0]
    passed = [
        [sent + i * 100_000, node, "cd", i, PROBE, hop, "forwarded", flags, "request", 20_000, *rest]
        for i, (hop, node, flags) in enumerate(HOPS, 1)
    ]
    writer.insert("trace_points", point, passed)
    dropped = [sent + 100_000, "ld-a1", "cd", 9, LOST, "clb_in", "dropped", 2, "request", 20_000, "::", "::", 1, 0, 0]
    writer.insert("drop_points", [*point, "reason"], [[*dropped, "TUNNEL_ENCAP_FAIL"]])
    feed = ["ts", "node", "boot_id", "worker", "role", "heartbeat", "write_cursor", "shipped", "lost", "alive"]
    writer.insert("feeds", feed, [[sent, "ld-a1", "cd", 0, "clb", sent, 10, 10, 0, 1]])
    lost = ["ts", "node", "boot_id", "worker", "first_seq", "count", "cause"]
    writer.insert("losses", lost, [[sent, "ld-a1", "cd", 0, 1, 3, "ring_full"]])
    opened = sent + 5 * SECOND
    writer.insert(
        "incidents",
        ["id", "kind", "subject", "state", "severity", "named_nodes", "vips", "summary", "opened", "revision"],
        [["inc-1", "node_jitter", "ld-a1", "open", "critical", ["ld-a1"], [1], "it drops", opened, 1]],
    )
    events = ["incident_id", "seq", "ts", "kind", "text"]
    writer.insert("incident_events", events, [["inc-1", 1, opened, "opened", "jitter of ld-a1"]])
    actions = ["id", "incident_id", "ts", "kind", "cluster", "state", "detail", "revision"]
    writer.insert("actions", actions, [["mig-1", "inc-1", opened, "dispersed", "clb-a", "done", "20 VIPs", 1]])
    dims = ["id", "name", "home", "public", "private", "service", "epoch", "revision"]
    addresses = ["::ffff:203.0.113.1", "::ffff:10.100.0.1", "::ffff:10.4.0.1"]
    writer.insert("dim_vips", dims, [[1, "vip-01", "clb-a", *addresses, 1, 1]])
    servers = ["id", "name", "host", "address", "epoch", "revision"]
    writer.insert("dim_servers", servers, [[1, "rs-1", "host-1", "::ffff:10.5.0.1", 1, 1]])


def panels() -> list[Any]:
    return [
        pytest.param(panel, target, id=f"{uid}: {panel['title']}")
        for uid, document in build.documents().items()
        for panel in document["panels"]  # type: ignore[attr-defined]
        for target in panel.get("targets", [])
    ]


def described(connection: Connection, sql: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in connection.query(f"DESCRIBE TABLE ({sql})")]


@pytest.mark.parametrize(("panel", "target"), panels())
def test_panel(reader: Connection, now_ns: int, panel: dict[str, Any], target: dict[str, Any]) -> None:
    probe = LOST if panel["title"] == "Drop Points" else PROBE
    now_ms = now_ns // 1_000_000
    span = Range(from_ms=now_ms - 900_000, to_ms=now_ms + 1000)
    sql = expand(target["rawSql"], span, {"incident": "inc-1", "probe": probe})
    rows = reader.query(sql)
    assert rows, "seeded data must show"
    columns = described(reader, sql)
    if panel["type"] == "timeseries":
        assert len(columns) == 3
        assert columns[0][0] == "time"
        assert columns[0][1].startswith("DateTime")
        assert "String" in columns[1][1]
        assert re.search(r"Int|Float", columns[2][1])
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    elif panel["type"] == "stat":
        assert len(rows) == 1
        assert len(columns) == 1
        assert re.search(r"Int|Float", columns[0][1])
        assert rows[0][0] is not None
    else:
        assert panel["type"] == "table"
        named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        links = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if any(property_["id"] in ("links", "unit") for property_ in override["properties"])
        }
        assert links <= {name for name, _ in columns} <= {name for name, _ in columns} | named


def test_the_journey_reads_in_order(reader: Connection, now_ns: int) -> None:
    sql = next(
        target["rawSql"]
        for panel in build.documents()["tgw-probe"]["panels"]  # type: ignore[attr-defined]
        if panel["title"] == "Journey"
        for target in panel["targets"]
    )
    span = Range(0, now_ns // 1_000_000)
    passed = reader.query(expand(sql, span, {"probe": PROBE}))
    assert [(row[1], row[2]) for row in passed] == [(hop, node) for hop, node, _ in HOPS]
    assert [row[5] for row in passed] == ["passed"] * 6
    assert passed[0][7:] == ("10.3.0.1", "10.3.0.2", "rs-1")
    died = reader.query(expand(sql, span, {"probe": LOST}))
    assert [row[5] for row in died] == ["dropped: TUNNEL_ENCAP_FAIL"]


def test_the_variable_lists_incidents(reader: Connection) -> None:
    variables = build.documents()["tgw-incident"]["templating"]["list"]  # type: ignore[index]
    assert [reader.query(v["query"]) for v in variables] == [[("inc-1",)]]
