"""The collector process, the real warehouse process and the real engine: every record once, whatever is killed."""

from __future__ import annotations

import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import tap
from contract.records import (
    COUNTERS,
    POINT_KIND,
    PROBE_KIND,
    TAP_AT_LOST,
    TAP_COUNTERS_OFFSET,
    PointRecord,
    ProbeRecord,
)
from contract.tap import TapHeader, TapWriter
from warehouse.client import Connection, Refused, Unavailable
from warehouse.settings import WarehouseSettings

ROOT = Path(__file__).parents[2]
NONE = bytes(16)


class Writer:
    """A tap file of a node or a prober, written by this process."""

    def __init__(self, directory: Path, node: str, kind: int = POINT_KIND) -> None:
        header = TapHeader(kind, 128, 0, 4096, os.urandom(16), node, time.time_ns(), os.getpid(), 2 if kind == 1 else 0)
        temporary = directory / f".{node}.new"
        with temporary.open("w+b") as file:
            file.truncate(header.file_size)
            self._map = mmap.mmap(file.fileno(), header.file_size)
        self.node, self.kind = node, kind
        self.writer = TapWriter(memoryview(self._map), header)
        temporary.rename(directory / f"{node}.0.{header.boot_id.hex()[:8]}.tap")

    def write(self, count: int) -> None:
        for _ in range(count):
            seq, now = self.writer.next_seq, time.time_ns()
            self.writer.beat(now)
            if self.kind == PROBE_KIND:
                data = ProbeRecord(seq, now, 5, 1, 4, 6, 0, 9, NONE, NONE, 1, 2, 3, now, 7, 64).pack()
            else:
                reason = 8 * (seq % 5 == 4)
                kind = verdict = 2 if reason else 1
                data = PointRecord(
                    seq,
                    now,
                    5,
                    kind,
                    2,
                    reason,
                    verdict,
                    4,
                    6,
                    2,
                    1,
                    NONE,
                    NONE,
                    1,
                    2,
                    3,
                    NONE,
                    NONE,
                    1,
                    1,
                    60,
                    0,
                    1,
                    2,
                ).pack()
            assert self.writer.write(data)

    def set(self, offset: int, value: int) -> None:
        """Store a u64 of the header, as the native writer does with its counters and losses."""
        self._map[offset : offset + 8] = value.to_bytes(8, "little")

    @property
    def read_cursor(self) -> int:
        return tap.read_state(self._map[:4096]).read_cursor


class Lab:
    """A warehouse and a collector that can be started and killed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "taps").mkdir()
        for user in ("collector", "reader"):
            (root / user).write_text(f"password-of-{user}")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        (root / "warehouse.toml").write_text(
            f"""
            state_dir = "{root}/warehouse"
            listen = {{ port = {port} }}
            writer = {{ name = "collector", password_file = "{root}/collector" }}
            reader = {{ name = "reader", password_file = "{root}/reader" }}
            """
        )
        (root / "collector.toml").write_text(
            f"""
            taps_dir = "{root}/taps"
            spool_dir = "{root}/spool"
            warehouse = {{ url = "{url}", user = "collector", password_file = "{root}/collector" }}
            """
        )
        self.connection = Connection(WarehouseSettings(url=url, user="reader", password_file=root / "reader"))
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, room: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", room, str(self.root / f"{room}.toml")]
        process = subprocess.Popen(command, cwd=ROOT, stderr=(self.root / f"{room}.log").open("ab"))
        self.running[room] = process
        if room == "warehouse":
            until(lambda: self.count("feeds") is not None, 40, "the warehouse does not answer")
        return process

    def kill(self, room: str) -> None:
        process = self.running.pop(room)
        process.kill()
        process.wait()

    def count(self, table: str) -> int | None:
        try:
            return int(self.connection.query(f"SELECT count() FROM {table}")[0][0])
        except (Unavailable, Refused):
            return None

    def records(self) -> dict[str, list[int]]:
        rows = self.connection.query(
            "SELECT node, arraySort(groupArray(seq)) FROM (SELECT node, seq FROM trace_points "
            "UNION ALL SELECT node, seq FROM drop_points UNION ALL SELECT prober, seq FROM probes) GROUP BY node"
        )
        return {node: list(seqs) for node, seqs in rows}

    def all_in(self, writers: list[Writer]) -> bool:
        wanted = sum(w.writer.next_seq for w in writers)
        return sum(self.count(t) or 0 for t in ("trace_points", "drop_points", "probes")) >= wanted


def until(what: Callable[[], bool], seconds: float, message: str) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, message
        time.sleep(0.05)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.connection.close()
    for room in list(made.running):
        made.kill(room)


def test_records_arrive_within_two_seconds_as_they_were_written(lab: Lab) -> None:
    node, prober = Writer(lab.root / "taps", "ld1"), Writer(lab.root / "taps", "p1", PROBE_KIND)
    lab.start("warehouse")
    lab.start("collector")
    node.write(5)
    until(lambda: lab.all_in([node]), 20, "nothing arrives")
    waits = []
    for _ in range(8):
        node.write(5)
        prober.write(1)
        began = time.monotonic()
        until(lambda: lab.all_in([node, prober]), 5, "a record does not arrive")
        waits.append(time.monotonic() - began)
    print(f"written to queryable: {min(waits):.2f} to {max(waits):.2f} s")
    assert sorted(waits)[-2] < 2
    assert lab.records() == {"ld1": list(range(45)), "p1": list(range(8))}
    ((hop, reason, verdict, direction, source),) = lab.connection.query(
        "SELECT DISTINCT hop, reason, verdict, direction, toString(src_addr) FROM drop_points"
    )
    assert (hop, reason, verdict, direction, source) == ("clb_in", "TUNNEL_ENCAP_FAIL", "dropped", "request", "::")
    assert lab.connection.query("SELECT DISTINCT outcome, rtt_ns FROM probes") == [("answered", 9)]
    until(lambda: (lab.count("feeds") or 0) >= 4, 5, "no feeds")
    assert set(lab.connection.query("SELECT DISTINCT node, role, alive FROM feeds")) == {
        ("ld1", "clb", 1),
        ("p1", "prober", 1),
    }
    assert lab.connection.query("SELECT node, max(shipped) FROM feeds GROUP BY node ORDER BY node") == [
        ("ld1", 45),
        ("p1", 8),
    ]
    node.set(TAP_COUNTERS_OFFSET + 8 * COUNTERS["frames_in"], 77)
    node.set(TAP_AT_LOST, 3)
    until(lambda: bool(lab.count("node_counters")) and bool(lab.count("losses")), 15, "no counters, or no losses")
    assert lab.connection.query("SELECT node, counter, value FROM node_counters") == [("ld1", "frames_in", 77)]
    assert lab.connection.query("SELECT node, worker, count, cause FROM losses") == [("ld1", 0, 3, "ring_full")]
    process = lab.running["collector"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=3) == 0
    assert not list((lab.root / "spool").glob("*.batch"))


@pytest.mark.slow
def test_every_record_is_there_once_though_both_are_killed(lab: Lab) -> None:
    writers = [Writer(lab.root / "taps", f"ld{i}") for i in range(3)] + [Writer(lab.root / "taps", "p1", PROBE_KIND)]

    def work(seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for writer in writers:
                writer.write(1)
            time.sleep(0.02)

    lab.start("warehouse")
    for life in range(4):
        lab.start("collector")
        work(2.2 + 0.17 * life)
        lab.kill("collector")
    lab.start("collector")
    work(1)
    lab.kill("warehouse")
    work(3)
    lab.start("warehouse")
    work(1)
    until(lambda: lab.all_in(writers), 30, "not all records arrive")
    time.sleep(1)  # a record too many would come with the next batches
    assert lab.records() == {w.node: list(range(w.writer.next_seq)) for w in writers}
    assert lab.count("losses") == 0
    assert all(w.read_cursor == w.writer.next_seq for w in writers)
