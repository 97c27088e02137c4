"""The collector process on real files: killed again and again, stopped, and left alone."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collector import spool
from collector.__main__ import main
from collector.taps import process_alive
from contract import tap
from contract.records import PointRecord
from contract.tap import TapHeader, TapWriter

ROOT = Path(__file__).parents[2]
Start = Callable[[], subprocess.Popen[bytes]]


class FileTap:
    """A node's tap file, written by this process."""

    def __init__(self, directory: Path, node: str, worker: int = 0, capacity: int = 4096) -> None:
        header = TapHeader(1, 128, worker, capacity, os.urandom(16), node, time.time_ns(), os.getpid(), 2)
        self.path = directory / f"{node}.{worker}.{header.boot_id.hex()[:8]}.tap"
        temporary = self.path.with_suffix(".new")
        with temporary.open("w+b") as file:
            file.truncate(header.file_size)
            self._map = mmap.mmap(file.fileno(), header.file_size)
        self.node = node
        self.writer = TapWriter(memoryview(self._map), header)
        temporary.rename(self.path)

    def write(self, count: int) -> None:
        for _ in range(count):
            now = time.time_ns()
            none = bytes(16)
            seq = self.writer.next_seq
            record = PointRecord(
                seq, now, 1, 1, 2, 0, 1, 4, 6, 2, 1, none, none, 1, 2, 3, none, none, 1, 1, 60, 0, 1, 2
            )
            assert self.writer.write(record.pack())

    @property
    def read_cursor(self) -> int:
        return tap.read_state(self._map[:]).read_cursor


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the collector; its warehouse is a port where nobody listens."""
    (tmp_path / "taps").mkdir()
    (tmp_path / "password").write_text("secret")
    (tmp_path / "collector.toml").write_text(
        f"""
        taps_dir = "{tmp_path}/taps"
        spool_dir = "{tmp_path}/spool"
        warehouse = {{ url = "http://127.0.0.1:9", user = "collector", password_file = "{tmp_path}/password" }}
        intervals = {{ poll_s = 0.05, poll_behind_s = 0.05 }}
        """
    )
    running: list[subprocess.Popen[bytes]] = []

    def run() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "collector", str(tmp_path / "collector.toml")]
        running.append(subprocess.Popen(command, cwd=ROOT, stderr=(tmp_path / "log").open("ab")))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()


def spooled(directory: Path) -> dict[str, list[int]]:
    """The sequence numbers of each node in the spool, in order of the files."""
    found: dict[str, list[int]] = {}
    for path in sorted((directory / "spool").glob("*.batch")):
        batch = spool.decode(path.read_bytes())
        at = 0
        for s in batch.segments:
            raw = batch.raw[at : at + s.kept * 128]
            at += len(raw)
            found.setdefault(s.node, []).extend(
                PointRecord.unpack(raw[i : i + 128]).seq for i in range(0, len(raw), 128)
            )
    return found


def until(what: Callable[[], bool], seconds: float, message: str) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, message
        time.sleep(0.02)


def test_killed_again_and_again_it_has_each_record_once(start: Start, tmp_path: Path) -> None:
    taps = [FileTap(tmp_path / "taps", f"ld{i}") for i in range(3)]
    for life in range(4):
        process = start()
        end = time.monotonic() + 0.9 + 0.13 * life
        while time.monotonic() < end:
            for each in taps:
                each.write(2)
            time.sleep(0.005)
        process.kill()
        process.wait()
    for each in taps:
        each.write(5)
    process = start()
    until(lambda: all(t.read_cursor == t.writer.next_seq for t in taps), 10, "not all is read")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(timeout=5) == 0
    assert time.monotonic() - began < 2
    assert spooled(tmp_path) == {t.node: list(range(t.writer.next_seq)) for t in taps}
    assert b"cannot be reached" in (tmp_path / "log").read_bytes()


def test_a_stop_makes_the_last_records_safe(start: Start, tmp_path: Path) -> None:
    node = FileTap(tmp_path / "taps", "ld1")
    node.write(1)
    process = start()
    until(lambda: node.read_cursor == 1, 10, "nothing is read")
    node.write(7)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert spooled(tmp_path) == {"ld1": list(range(8))}


def test_idle_it_sleeps(start: Start, tmp_path: Path) -> None:
    taps = [FileTap(tmp_path / "taps", f"n{i}", worker=w) for i in range(20) for w in range(2)]
    text = (tmp_path / "collector.toml").read_text()
    (tmp_path / "collector.toml").write_text("\n".join(x for x in text.splitlines() if "intervals" not in x))
    process = start()
    taps[0].write(1)
    until(lambda: taps[0].read_cursor == 1, 10, "nothing is read")

    def cpu() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = cpu()
    time.sleep(5)
    share = (cpu() - before) / 5
    print(f"forty idle taps: {share:.1%} of a core")
    assert share < 0.12


def test_a_dead_writer_is_known_and_another_process_with_its_number_is_not_it(tmp_path: Path) -> None:
    now = time.time_ns()
    assert process_alive(os.getpid(), now)
    assert not process_alive(os.getpid(), now - 10 * 365 * 86400 * 10**9)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert not process_alive(child.pid, now)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taps_dir = 'x'", "spool_dir"),
        (
            "taps_dir = 'x'\nspool_dir = 'y'\nwarehouse = {url = 'ftp://x', user = 'u', password_file = 'p'}",
            "warehouse.url",
        ),
        ("taps_dir = 'x'\nspool_dir = 'y'\nwarehouse = {url = 'http://u:p@x', user = 'u', password_file = 'p'}", "url"),
        ("taps_dir = 'x'\nspool_dir = 'y'\nspool_max_bytes = 5\n", "spool_max_bytes"),
        (
            "taps_dir = 'x'\nspool_dir = 'y'\nwarehouse = {url = 'http://x', user = 'u', password_file = '/none'}",
            "/none",
        ),
    ],
)
def test_wrong_configuration_is_refused(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "collector.toml"
    path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main([str(path)])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
