"""What the lab remembers, and that it ends its own processes and no other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import processes, region
from lab.state import (
    BadInput,
    LabError,
    Recorded,
    Run,
    State,
    alive,
    append_line,
    locked,
    machine_boot,
    marked,
    read_lines,
    read_state,
    recorded,
    start_ticks,
    stop,
)
from lab.topology import SMALL

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def make_run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.make()
    return run


def test_the_run_directory_is_private_and_its_removal_keeps_the_lock(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert run.root.stat().st_mode & 0o777 == 0o700
    with locked(run):
        (run.node("x")).mkdir()
        run.remove()
    assert [p.name for p in run.root.iterdir()] == ["lock"]


def test_a_second_command_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with locked(run), pytest.raises(LabError, match=f"another lab command is at work .pid {os.getpid()}"), locked(run):
        pass


def test_state_survives_a_round_trip_and_garbage_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert read_state(run) is None
    state = State("up", {"vips": 4}, "tgwt-", 1, machine_boot(), 2, {"control": "http://127.0.0.1:1"})
    state.write(run)
    assert read_state(run) == state
    assert run.state.stat().st_mode & 0o777 == 0o600
    run.state.write_text('{"phase": "up"')
    with pytest.raises(LabError, match=r"state\.json.*tgw lab down"):
        read_state(run)


def test_a_state_of_an_earlier_boot_is_no_lab(tmp_path: Path) -> None:
    from dataclasses import asdict

    run = make_run(tmp_path)
    State("up", asdict(SMALL), "tgwt-", 1, "another boot", 2).write(run)
    assert region.find(run) is None
    State("up", asdict(SMALL), "tgwt-", 1, machine_boot(), 2).write(run)
    assert region.find(run) is not None
    State("starting", asdict(SMALL), "tgwt-", 1, machine_boot(), 2).write(run)
    assert region.find(run) is None
    with pytest.raises(LabError, match="tgw lab up"):
        region.need(run)


def test_lines_cut_short_by_a_crash_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    append_line(path, {"a": 1})
    append_line(path, {"a": 2})
    with path.open("a") as file:
        file.write('{"a": 3')
    assert [e["a"] for e in read_lines(path)] == [1, 2]
    assert read_lines(tmp_path / "none") == []


def test_a_process_is_recorded_found_by_its_mark_and_ended_with_its_children(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    sleep = "import time; time.sleep(60)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]); {sleep}"
    process = processes.start(run, "parent", "test", [sys.executable, "-c", script])
    end = time.monotonic() + 10
    while len(marked(run)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(marked(run)) == 2
    assert recorded(run)["parent"] == process
    assert list(processes.living(run)) == ["parent"]
    assert stop(marked(run)) == []
    assert marked(run) == []
    assert processes.living(run) == {}


def test_a_frozen_process_is_ended_too(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    process = processes.start(run, "frozen", "test", SLEEP)
    os.kill(process.pid, signal.SIGSTOP)
    assert alive(process)
    stop([process.pid])
    assert not alive(process)


def test_a_process_that_refuses_to_end_is_killed(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    process = processes.start(run, "stubborn", "test", [sys.executable, "-c", script])
    processes.wait_all({"stubborn": lambda: "ready" in Path(process.log).read_text()}, run, 10)
    assert stop([process.pid], patience_s=0.3) == [process.pid]
    assert not alive(process)


def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    """A stranger now has the recorded pid: another start time, no mark."""
    run = make_run(tmp_path)
    stranger = subprocess.Popen(SLEEP)
    try:
        ticks = start_ticks(stranger.pid)
        assert ticks is not None
        record = Recorded("old", "node", stranger.pid, ticks - 1, None, ["x"], "log", 1)
        append_line(run.processes, {f: getattr(record, f) for f in Recorded.__slots__})
        assert processes.living(run) == {}
        assert stranger.pid not in marked(run)
        found = region.down(run, prefix="tgw-no-such-")
        assert found["processes"] == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_dies_while_starting_is_named_with_its_last_words(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    processes.start(run, "faulty", "test", [sys.executable, "-c", "import sys; sys.exit('no such thing')"])
    with pytest.raises(LabError, match=r"faulty ended while starting: .*no such thing"):
        processes.wait_all({"faulty": lambda: False}, run, 10)


def test_a_condition_that_never_holds_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(LabError, match=r"not ready after 0 s: a, b"):
        processes.wait_all({"a": lambda: False, "b": lambda: False, "c": lambda: True}, run, 0.05)


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(LabError, match="cannot start x: /no/such/program: No such file"):
        processes.start(run, "x", "test", ["/no/such/program"])


def test_the_callers_settings_do_not_leak_into_the_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGW_CONTROL_TOKEN", "secret")
    assert "TGW_CONTROL_TOKEN" not in processes.environment(Run(tmp_path))


def test_an_unknown_size_names_the_known_ones() -> None:
    with pytest.raises(BadInput, match="expected one of demo, small, got 'huge'"):
        region.named_size("huge")


def test_recorded_lines_of_another_shape_are_skipped(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    append_line(run.processes, {"name": "x"})
    run.processes.open("a").write(json.dumps([1]) + "\n")
    assert recorded(run) == {}
