"""`python -m lab.supervisor RUN`: starts again what has died, but for what a fault of the lab has killed.

It is one of the lab's own processes, and ended first when the region is taken down. What it does stands in its log and
in RUN/supervisor.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from lab import processes
from lab.fabric import launch
from lab.restarts import Restarts
from lab.state import LabError, Recorded, Run, alive, held, recorded, write_atomically
from service import logs

NAME = "supervisor"
PERIOD_S = 0.5

log = structlog.get_logger()


def start(run: Run) -> Recorded:
    """Start the supervisor of a run."""
    return processes.start(run, NAME, NAME, processes.python("lab.supervisor", str(run.root)))


def read(run: Run) -> dict[str, Any]:
    """By process: its state, restarts and, while it waits, `due_ns`. Empty when there is no supervisor's word."""
    try:
        found = json.loads(_file(run).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _file(run: Run) -> Path:
    return run.root / "supervisor.json"


class Supervisor:
    """Ties the rule of lab/restarts.py to processes and the clock."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._restarts = Restarts()
        self._written = ""
        self._untold = False

    def turn(self) -> None:
        """Look at every process once, and start who is due."""
        _reap()
        known = {n: p for n, p in recorded(self._run).items() if p.name != NAME}
        stay_dead = held(self._run)
        before = {n: w.state for n, w in self._restarts.watched.items()}
        due = self._restarts.step(time.monotonic(), {n: alive(p) for n, p in known.items()}, stay_dead)
        for name, one in self._restarts.watched.items():
            if one.state != before.get(name) and one.state == "waiting":
                wait = round((one.due_s or 0) - time.monotonic(), 1)
                last = processes.last_lines(Path(known[name].log))
                log.warning("a process has ended and is started again", name=name, in_s=wait, last=last)
            elif one.state != before.get(name) and one.state == "held":
                log.info("a process is dead by a fault of the lab, and stays so", name=name)
        for name in due:
            self._again(name)
        if self._untold:
            self._untold = not launch.tell_again(self._run)
        self._write()

    def _again(self, name: str) -> None:
        with processes.starting(self._run):
            process = recorded(self._run).get(name)
            if process is None or alive(process) or name in held(self._run):
                return  # somebody was faster
            if process.kind == "node":
                self._run.socket(name).unlink(missing_ok=True)
            try:
                found = processes.again(self._run, process)
            except LabError as error:
                log.error("a process cannot be started", name=name, problem=str(error))
                return
        self._untold = self._untold or name == launch.NAME
        log.info("started again", name=name, pid=found.pid, restarts=self._restarts.watched[name].restarts)

    def _write(self) -> None:
        now_s, now_ns = time.monotonic(), time.time_ns()
        out = {}
        for name, one in self._restarts.watched.items():
            entry = {k: v for k, v in asdict(one).items() if k in ("state", "restarts")}
            if one.due_s is not None:
                entry["due_ns"] = (now_ns + round((one.due_s - now_s) * 1e9)) // 10**8 * 10**8
            if one.restarts or one.state != "running":
                out[name] = entry
        text = json.dumps(out, indent=1)
        if text != self._written:
            write_atomically(_file(self._run), text)
            self._written = text


def _reap() -> None:
    """What was started from here and has ended is a zombie until somebody asks for it."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(arguments: list[str]) -> int:
    """Run until SIGTERM or SIGINT."""
    if len(arguments) != 1:
        print("usage: python -m lab.supervisor RUN", file=sys.stderr)
        return 2
    logs.configure(NAME, "INFO")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    supervisor = Supervisor(Run(Path(arguments[0])))
    while not stop.wait(PERIOD_S):
        try:
            supervisor.turn()
        except OSError as error:  # a full disk, or a run directory that is just being removed
            log.error("a turn has failed", problem=str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
