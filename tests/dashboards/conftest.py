"""A warehouse in a process of its own, seeded with what the dashboards are to show, and its reader."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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


@dataclass(frozen=True, slots=True)
class Seeded:
    """A seeded warehouse: connections as its writer and as its reader, and the time that the seed took as now [ns]."""

    writer: Connection
    reader: Connection
    now_ns: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """One seeded warehouse for all tests here; they only read it."""
    now_ns = time.time_ns()
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
        reader = Connection(settings(home, port, "reader", "reader"))
        yield Seeded(writer, reader, now_ns)
        reader.close()
        writer.close()
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
