"""A simulated node's process id lives and dies with the node, and with the process that holds it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from collector.taps import process_alive
from contract import records
from contract.tap import TapHeader, read_header
from lab.fabric.identity import Identity, publish


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while process_alive(pid, time.time_ns()):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_it_lives_until_it_is_ended() -> None:
    made = time.time_ns()
    identity = Identity()
    assert process_alive(identity.pid, made)
    identity.end()
    assert not process_alive(identity.pid, made)


def test_it_ends_with_a_holder_that_was_killed() -> None:
    code = "import time; from lab.fabric.identity import Identity; i = Identity(); print(i.pid, flush=True); "
    with subprocess.Popen([sys.executable, "-c", code + "time.sleep(60)"], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        assert process_alive(pid, time.time_ns())
        holder.send_signal(signal.SIGKILL)
    assert gone(pid)


def test_published_taps_name_their_writer(tmp_path: Path) -> None:
    making, place = tmp_path / ".making", tmp_path
    making.mkdir()
    header = TapHeader(records.POINT_KIND, records.POINT_SIZE, 1, 2, bytes(16), "ld-a1", 5, 77, 2)
    (making / "ld-a1.1.00000000.tap").write_bytes(header.pack().ljust(header.file_size, b"\0"))
    (path,) = publish(making.iterdir(), place, 4242)
    assert path == place / "ld-a1.1.00000000.tap"
    found = read_header(path.read_bytes())
    assert (found.pid, found.node, found.created_ns, found.worker) == (4242, "ld-a1", 5, 1)
    assert list(making.iterdir()) == []
