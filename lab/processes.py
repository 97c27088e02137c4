"""Starting the processes of the lab: each in its namespace, in a session of its own, written down before it matters."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import lab
from lab.state import MARK, LabError, Recorded, Run, alive, append_line, recorded, start_ticks

SOURCE = Path(lab.__file__).resolve().parent.parent


def environment(run: Run) -> dict[str, str]:
    """What a process of the lab inherits: the run's mark, this code, and no setting of the caller's shell."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "LC_ALL", "TERM")}
    return kept | {
        MARK: str(run.root),
        "PYTHONPATH": str(SOURCE),
        "PYTHONUNBUFFERED": "1",
        # Small processes, many of them: no thread pools of numeric libraries, few memory arenas.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


def start(run: Run, name: str, kind: str, command: Sequence[str], namespace: str | None = None) -> Recorded:
    """Start one process and write it down. LabError when the program cannot be run at all.

    `command` runs in `namespace`, with a /sys that shows its interfaces (`ip` becomes the program: the pid is its own).
    """
    argv = [*_inside(namespace), *command]
    log = run.logs / f"{name}.log"
    with log.open("ab") as out:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(run),
                cwd=SOURCE,
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(f"cannot start {name}: {argv[0]}: {error.strerror}") from None
    # The handle would warn about a child left running, which is the very purpose.
    child.returncode = 0
    ticks = start_ticks(child.pid) or 0
    process = Recorded(name, kind, child.pid, ticks, namespace, list(argv), str(log), time.time_ns())
    append_line(run.processes, asdict(process))
    return process


def again(run: Run, process: Recorded) -> Recorded:
    """Start a recorded process anew, as it was started. LabError."""
    command = process.argv[len(_inside(process.namespace)) :]
    return start(run, process.name, process.kind, command, process.namespace)


@contextmanager
def starting(run: Run) -> Iterator[None]:
    """Hold what keeps two from starting the same process: look whether it lives within, then start it."""
    with (run.root / "starting.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _inside(namespace: str | None) -> list[str]:
    return ["ip", "netns", "exec", namespace] if namespace else []


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this code."""
    return [sys.executable, "-m", module, *arguments]


def living(run: Run) -> dict[str, Recorded]:
    """The recorded processes that still run."""
    return {name: process for name, process in recorded(run).items() if alive(process)}


def wait_all(
    conditions: Mapping[str, Callable[[], bool]],
    run: Run,
    timeout_s: float,
    progress: Callable[[int, int], None] | None = None,
    poll_s: float = 0.1,
) -> None:
    """Wait until every condition has held once. LabError naming those that did not, with the end of their logs.

    The name of a condition is the name of the process it is about, if it is about one: its death ends the wait.
    """
    waiting = dict(conditions)
    end = time.monotonic() + timeout_s
    known = recorded(run)
    while waiting:
        for name in list(waiting):
            # First: what answers in the place of a dead process is somebody else.
            if name in known and not alive(known[name]):
                raise LabError(f"{name} ended while starting: {last_lines(Path(known[name].log))}")
            if waiting[name]():
                del waiting[name]
        if progress:
            progress(len(conditions) - len(waiting), len(conditions))
        if waiting and time.monotonic() > end:
            names = ", ".join(sorted(waiting)[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
            first = known.get(sorted(waiting)[0])
            hint = f": {last_lines(Path(first.log))}" if first else ""
            raise LabError(f"not ready after {timeout_s:.0f} s: {names}{hint}")
        if waiting:
            time.sleep(poll_s)


def last_lines(log: Path, count: int = 3) -> str:
    """The end of a log in one line, for a message; the log's path when it is empty."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()[-count:]
    except OSError:
        lines = []
    return f"{' | '.join(lines)[-600:]} ({log})" if lines else f"see {log}"
