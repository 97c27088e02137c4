"""What dies is started again, with waits that grow and shrink; what a fault has killed stays dead until healed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import faults, processes, region, supervisor
from lab.region import Lab
from lab.restarts import FIRST_S, LONGEST_S, STABLE_S, Restarts
from lab.state import LabError, Run, alive, held, hold, recorded, release
from lab.topology import Topology

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def starts(policy: Restarts, seconds: float, alive_at: Callable[[float], bool], *, until: float = 0.0) -> list[float]:
    """When `x` is started, at virtual time from `until` on in steps of a tenth of a second."""
    ticks = range(round(until * 10), round((until + seconds) * 10))
    return [tick / 10 for tick in ticks if policy.step(tick / 10, {"x": alive_at(tick / 10)}, ())]


def test_waits_double_up_to_a_bound() -> None:
    found = starts(Restarts(), 200, lambda now: False)
    waits = [round(b - a, 1) for a, b in zip([0.0, *found], found, strict=False)]
    assert waits[0] == FIRST_S
    # A turn sees that it has died again, the next ones count its wait.
    assert [round(w - 0.1, 1) for w in waits[1:6]] == [2, 4, 8, 16, LONGEST_S]
    assert set(waits[6:]) == {LONGEST_S + 0.1}


def test_a_stable_minute_makes_the_wait_short_again() -> None:
    policy = Restarts()
    starts(policy, 40, lambda now: False)
    assert policy.watched["x"].wait_s > 8
    assert starts(policy, STABLE_S - 1, lambda now: True, until=40) == []
    assert policy.watched["x"].wait_s > 8
    assert starts(policy, 3, lambda now: True, until=40 + STABLE_S - 1) == []
    (again,) = starts(policy, 1.5, lambda now: False, until=42 + STABLE_S)
    assert round(again - 42 - STABLE_S, 1) == FIRST_S


def test_what_is_held_is_not_started_until_it_is_let_go() -> None:
    policy = Restarts()
    assert policy.step(0, {"x": True, "y": True}, ()) == []
    for now in range(1, 500):
        assert policy.step(now, {"x": False, "y": True}, ("x",)) == []
    assert policy.watched["x"].state == "held"
    assert policy.step(500, {"x": False, "y": True}, ()) == []
    assert policy.step(501, {"x": False, "y": True}, ()) == ["x"]


def test_one_that_was_never_seen_alive_and_one_that_is_forgotten() -> None:
    policy = Restarts()
    assert policy.step(0, {"x": False}, ()) == []
    assert policy.step(1, {"x": False}, ()) == ["x"]
    assert policy.step(2, {}, ()) == []
    assert policy.watched == {}


def until(what: Callable[[], bool], seconds: float, message: str) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, message
        time.sleep(0.05)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path / "run")
    made.make()
    yield made
    region.down(made)


def test_a_real_process_is_started_again_and_a_killed_one_is_not(run: Run) -> None:
    for name in ("ld-a1", "collector"):
        processes.start(run, name, "node" if name == "ld-a1" else name, SLEEP)
    watching = supervisor.start(run)
    first = dict(recorded(run))
    lab = Lab(run, Topology(), {})
    time.sleep(2 * supervisor.PERIOD_S)
    faults.make(lab, "kill", "ld-a1")
    os.kill(first["collector"].pid, signal.SIGKILL)
    until(lambda: recorded(run)["collector"].pid != first["collector"].pid, 15, "it is not started again")
    again = recorded(run)["collector"]
    assert alive(again)
    assert again.argv == first["collector"].argv
    until(lambda: supervisor.read(run).get("ld-a1", {}).get("state") == "held", 10, "it is not said to be held")
    assert recorded(run)["ld-a1"].pid == first["ld-a1"].pid
    shown = {p["name"]: p for p in region.process_list(run)}
    assert (shown["collector"]["restarts"], shown["collector"]["running"]) == (1, True)
    assert (shown["ld-a1"]["held"], shown["ld-a1"]["running"]) == ("fault kill", False)
    said = Path(watching.log).read_text()
    assert "a process has ended and is started again" in said
    assert "stays so" in said
    # Healed: it is the supervisor's again.
    release(run, ["ld-a1"])
    until(lambda: recorded(run)["ld-a1"].pid != first["ld-a1"].pid, 15, "it is not started once it is let go")
    # Taken down, nobody starts anything.
    region.down(run)
    assert not any(alive(p) for p in (watching, again))


def test_a_fault_is_written_down_before_the_kill(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.start(run, "ld-a1", "node", SLEEP)
    seen: list[dict[str, str]] = []
    kill = os.kill

    def look(pid: int, number: int) -> None:
        if number == signal.SIGKILL:
            seen.append(held(run))
        kill(pid, number)

    monkeypatch.setattr(os, "kill", look)
    faults.make(Lab(run, Topology(), {}), "kill", "ld-a1")
    assert seen[0] == {"ld-a1": "fault kill"}
    with pytest.raises(LabError, match="does not run"):
        faults.make(Lab(run, Topology(), {}), "kill", "ld-a2")
    assert held(run) == {"ld-a1": "fault kill"}, "what did not run is not held"


def test_two_do_not_start_the_same_process(run: Run) -> None:
    """A person heals a node while the supervisor is about to start it."""
    process = processes.start(run, "ld-a1", "node", SLEEP)
    hold(run, ["ld-a1"], "x")
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: not alive(process), 5, "it does not die")
    watching = supervisor.start(run)
    with processes.starting(run):
        release(run, ["ld-a1"])
        time.sleep(2.5)  # by now the supervisor wants to
        processes.start(run, "ld-a1", "node", SLEEP)
    time.sleep(1.2)
    lines = run.processes.read_text().splitlines()
    assert sum('"ld-a1"' in line for line in lines) == 2
    assert alive(watching)
