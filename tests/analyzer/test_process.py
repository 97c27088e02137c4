"""The analyzer as a process beside a real warehouse: it reads, serves, stops, and refuses bad settings."""

from __future__ import annotations

import ipaddress
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from analyzer.region import SECOND
from analyzer.rows import Rows
from analyzer.telemetry import Telemetry, address
from contract.vocabulary import DropReason, Hop, Outcome
from tests.analyzer.model import Model, fleet
from warehouse.client import Connection, Unavailable
from warehouse.settings import WarehouseSettings

ROLES = {0: "prober", 1: "eip", 2: "clb", 3: "vswitch"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def mapped(text: str) -> ipaddress.IPv6Address:
    if not text:
        return ipaddress.IPv6Address("::")
    found = ipaddress.ip_address(text)
    return found if isinstance(found, ipaddress.IPv6Address) else ipaddress.IPv6Address(f"::ffff:{found}")


@dataclass
class Place:
    """A running warehouse and where its secrets are."""

    settings: WarehouseSettings
    directory: Path

    def store(self, rows: Rows) -> None:
        """Write rows as the collector would."""
        connection = Connection(self.settings)
        columns = ["ts", "node", "boot_id", "seq", "probe_id", "hop", "tcp_flags", "src_addr", "outer_src",
                   "outer_dst", "vip_id", "server_id", "residence_ns", "worker"]  # fmt: skip
        for kind, table in ((1, "trace_points"), (2, "drop_points")):
            lines = [
                [p.ts_ns, p.node, p.boot_id, p.seq, p.probe_id, Hop(p.hop).name.lower(), p.tcp_flags,
                 mapped(p.src_addr), mapped(p.outer_src), mapped(p.outer_dst), p.vip_id, p.server_id,
                 p.residence_ns, p.worker, *([DropReason(p.reason).name] if kind == 2 else [])]
                for p in rows.points if p.kind == kind
            ]  # fmt: skip
            if lines:
                connection.insert(table, [*columns, *(["reason"] if kind == 2 else [])], lines)
        connection.insert(
            "probes",
            [
                "prober",
                "boot_id",
                "seq",
                "ts",
                "closed",
                "probe_id",
                "outcome",
                "rtt_ns",
                "vip_id",
                "src_port",
                "dst_port",
            ],
            [[*p[:6], Outcome(p.outcome).name.lower(), *p[7:]] for p in rows.probes],
        )
        connection.insert(
            "feeds",
            ["ts", "node", "worker", "role", "boot_id", "heartbeat", "write_cursor", "shipped", "lost", "alive"],
            [[f.ts_ns, f.node, f.worker, ROLES[f.role], *f[4:9], int(f.alive)] for f in rows.feeds],
        )
        connection.insert(
            "batches",
            ["node", "worker", "boot_id", "first_seq", "rows", "ts", "kind", "token"],
            [[b.node, b.worker, b.boot_id, 0, b.next_seq, time.time_ns(), "point", "t"] for b in rows.batches],
        )
        connection.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("warehouse")
    for name in ("writer", "reader"):
        (directory / name).write_text(f"{name}-password-0123456789\n")
    port = free_port()
    config = directory / "warehouse.toml"
    config.write_text(
        f'state_dir = "{directory}/state"\nlisten = {{ host = "127.0.0.1", port = {port} }}\n'
        f'writer = {{ name = "writer", password_file = "{directory}/writer" }}\n'
        f'reader = {{ name = "reader", password_file = "{directory}/reader" }}\n'
    )
    process = subprocess.Popen([sys.executable, "-m", "warehouse", str(config)], stderr=subprocess.DEVNULL)
    settings = WarehouseSettings(url=f"http://127.0.0.1:{port}", user="writer", password_file=directory / "writer")
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/ping", timeout=2, trust_env=False).is_success
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the warehouse ended"
                assert time.monotonic() < deadline, "the warehouse does not answer"
                time.sleep(0.2)
        yield Place(settings, directory)
    finally:
        process.terminate()
        process.wait(20)


def analyzer_toml(place: Place, directory: Path, port: int) -> Path:
    (directory / "fleet.json").write_text(fleet().model_dump_json())
    path = directory / "analyzer.toml"
    path.write_text(
        f'fleet = "{directory}/fleet.json"\nstate_dir = "{directory}/state"\n'
        f'listen = {{ host = "127.0.0.1", port = {port} }}\n'
        f'[control]\nurl = "http://127.0.0.1:{free_port()}"\n'
        f'[warehouse]\nurl = "{place.settings.url}"\nuser = "writer"\npassword_file = "{place.directory}/writer"\n'
    )
    return path


def test_addresses() -> None:
    assert address("::ffff:10.3.0.1") == "10.3.0.1"
    assert address("::") == ""
    assert address("2001:db8::1") == "2001:db8::1"


def test_rows_come_back_from_a_real_warehouse_as_they_went_in(place: Place) -> None:
    model = Model(fleet(), start_ns=time.time_ns() // SECOND * SECOND - 60 * SECOND)
    model.nodes["ld-a1"].encap_fail = 0.5
    model.advance(model.now + 30 * SECOND)
    rows = model.read(model.now + 30 * SECOND)
    assert rows is not None
    place.store(rows)
    telemetry = Telemetry(place.settings)
    found = telemetry.read(model.now - 60 * SECOND)
    assert sorted(found.points) == sorted(rows.points)
    assert sorted(found.probes) == sorted(rows.probes)
    assert sorted(found.feeds) == sorted(rows.feeds)
    assert {p.kind for p in found.points} == {1, 2}
    assert max(b.next_seq for b in found.batches) == max(b.next_seq for b in rows.batches)
    one = rows.probes[0].probe_id
    journey = telemetry.journey(one)
    assert sorted(journey.points) == sorted(p for p in rows.points if p.probe_id == one)
    assert len(journey.probes) == 1
    # What lands now is read, although the times in it are old.
    model.advance(model.now + 5 * SECOND)
    more = model.read(model.now + 5 * SECOND)
    assert more is not None
    place.store(more)
    assert set(more.points) <= set(telemetry.read(0).points)
    telemetry.close()


def test_what_began_to_land_before_another_collectors_feeds_is_read(place: Place) -> None:
    """And what lands after the warehouse's clock was set back."""
    connection, telemetry = Connection(place.settings), Telemetry(place.settings)
    now_us = time.time_ns() // 1000

    def feeds(node: str, landed_us: int) -> None:
        at = datetime.fromtimestamp(landed_us / 1e6, UTC)
        connection.insert("feeds", ["ts", "node", "boot_id", "landed"], [[at, node, "two", at]])

    def point(node: str, seq: int, landed_us: int) -> None:
        at = datetime.fromtimestamp(landed_us / 1e6, UTC)
        columns = ["ts", "node", "boot_id", "seq", "probe_id", "hop", "landed"]
        connection.insert("trace_points", columns, [[at, node, "two", seq, 1, "clb_in", at]])

    def seen() -> set[tuple[str, int]]:
        return {(p.node, p.seq) for p in telemetry.read(time.time_ns() - 2 * SECOND).points if p.boot_id == "two"}

    feeds("slow", now_us)
    feeds("fast", now_us)
    seen()
    feeds("fast", now_us + 3_000_000)
    seen()
    point("slow", 7, now_us + 100_000)  # took three seconds from its stamp until it could be seen
    feeds("slow", now_us + 3_100_000)
    assert seen() == {("slow", 7)}
    feeds("fast", now_us + 3_600_000_000)
    feeds("slow", now_us + 3_600_000_000)
    seen()
    point("fast", 8, time.time_ns() // 1000)
    assert ("fast", 8) in seen()
    connection.close()
    telemetry.close()


def test_a_warehouse_that_is_not_there() -> None:
    here = Path(__file__)
    with pytest.raises(Unavailable):
        Telemetry(WarehouseSettings(url=f"http://127.0.0.1:{free_port()}", user="u", password_file=here)).read(0)


def test_the_process_serves_mirrors_and_stops_in_good_order(place: Place, tmp_path: Path) -> None:
    port = free_port()
    config = analyzer_toml(place, tmp_path, port)
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([sys.executable, "-m", "analyzer", str(config)], stderr=log)
    try:
        deadline = time.monotonic() + 30
        health = None
        while (
            health is None
            or "reading the warehouse" in health["failing"]
            or health["looked_ns"] == health["started_ns"]
        ):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (health, (tmp_path / "log").read_text())
            time.sleep(0.2)
            try:
                health = httpx.get(f"http://127.0.0.1:{port}/v1/health", timeout=2, trust_env=False).json()
            except httpx.HTTPError:
                continue
        assert list(health["failing"]) == ["control"]  # there is none
        reader = Connection(place.settings)
        while not (named := reader.query("SELECT count() FROM dim_nodes FINAL")[0][0]):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert named == 20
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 3
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        log.close()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("127.0.0.1", "0.0.0.0"), "expected a token"),
        (("user", "usr"), "warehouse.usr"),
        (("fleet.json", "none.json"), "none.json"),
    ],
)
def test_bad_settings_name_file_and_path(place: Place, tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    config = analyzer_toml(place, tmp_path, 0)
    config.write_text(config.read_text().replace(*change, 1))
    done = subprocess.run([sys.executable, "-m", "analyzer", str(config)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert expected in done.stderr
