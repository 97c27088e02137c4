"""Shares of a core and memory of real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from benchmarks import usage
from benchmarks.usage import Process

BUSY = "import time\nwhile True: pass"
IDLE = "import time\ntime.sleep(60)"
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {IDLE!r}])"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def start(started: list[subprocess.Popen[bytes]], program: str, name: str) -> Process:
    started.append(subprocess.Popen([sys.executable, "-c", program]))
    return Process(name, "python", started[-1].pid)


def test_a_busy_process_takes_a_core_and_a_sleeping_one_nothing(started: list[subprocess.Popen[bytes]]) -> None:
    busy, idle = start(started, BUSY, "busy"), start(started, IDLE, "idle")
    time.sleep(0.5)  # both have begun
    found, gone, seconds = usage.over([idle, busy], 1.0)
    assert gone == []
    assert seconds >= 1.0
    assert [u.process.name for u in found] == ["busy", "idle"]
    # The machine may have other work; the sleeping one's share is a tick or two.
    assert 20 < found[0].cpu_percent <= 101
    assert found[1].cpu_percent < 5
    assert all(u.peak >= u.resident > 2**20 for u in found)


def test_a_process_that_ends_meanwhile_is_named(started: list[subprocess.Popen[bytes]]) -> None:
    short = start(started, IDLE, "short")

    def sleep(_: float) -> None:
        started[0].kill()
        time.sleep(0.05)  # a zombie now: nobody has waited for it

    found, gone, _ = usage.over([short], 0, sleep)
    assert (found, gone) == ([], ["short"])


def test_what_a_process_started_is_named_after_it(started: list[subprocess.Popen[bytes]]) -> None:
    parent, other = start(started, PARENT, "speaker-x"), start(started, IDLE, "node")
    deadline = time.monotonic() + 20
    while not (child := _children_of(parent.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    known = {p.pid: p for p in (parent, other)}
    (found,) = usage.children(known, [*child, *known, 1 << 22])
    assert found.name.startswith("speaker-x/python")
    assert found.pid in child
    (child_process,) = child
    subprocess.run(["kill", str(child_process)], check=True)


def _children_of(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]
