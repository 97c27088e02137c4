"""What the lab remembers of a run, so that it can be taken down even after the lab itself was killed.

RUN/state.json says what was being made; RUN/processes.jsonl gains one line as each process starts. A process is known
by its pid, its start time and a mark in its environment (TGW_LAB_RUN, inherited by its children): never by its name,
and a pid that was given to somebody else in the meantime is left alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_RUN = Path("/run/tgw-lab")
# How a region runs: real namespaces, or the in-process fabric of a machine without root.
NAMESPACES, FABRIC_MODE = "namespaces", "fabric"
MARK = "TGW_LAB_RUN"
PROC = Path("/proc")


class LabError(RuntimeError):
    """The lab cannot do what was asked; the message says why and what to do, in one line."""


class BadInput(LabError):
    """What was asked names something that does not exist; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Run:
    """The run directory and the places in it."""

    root: Path

    @classmethod
    def default(cls) -> Run:
        """TGW_RUN, or /run/tgw-lab; without root a directory of this user."""
        named = os.environ.get("TGW_RUN")
        if named or os.geteuid() == 0:
            return cls(Path(named or DEFAULT_RUN).absolute())
        own = os.environ.get("XDG_RUNTIME_DIR")
        if own and os.access(own, os.W_OK):
            return cls(Path(own).absolute() / "tgw-lab")
        return cls(Path(tempfile.gettempdir()).absolute() / f"tgw-lab-{os.geteuid()}")

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def processes(self) -> Path:
        return self.root / "processes.jsonl"

    @property
    def faults(self) -> Path:
        return self.root / "faults.jsonl"

    @property
    def held(self) -> Path:
        """Which processes are meant to be dead; see `hold`."""
        return self.root / "held.jsonl"

    @property
    def webhooks(self) -> Path:
        return self.root / "webhooks.jsonl"

    @property
    def fleet(self) -> Path:
        return self.root / "fleet.json"

    @property
    def taps(self) -> Path:
        return self.root / "taps"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def node(self, name: str) -> Path:
        """The directory of a node: its settings, API socket and state."""
        return self.root / "nodes" / name

    def socket(self, name: str) -> Path:
        """The API socket of a node."""
        return self.node(name) / "api.sock"

    def part(self, name: str) -> Path:
        """The directory of any other process."""
        return self.root / name

    def traffic(self, client: str) -> Path:
        """The request log of a client."""
        return self.root / "traffic" / f"{client}.jsonl"

    def make(self) -> None:
        """Make the directory, for this user alone. LabError when it belongs to somebody else."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root.stat().st_uid != os.geteuid():
            raise LabError(f"{self.root}: expected a directory of this user; set TGW_RUN to another one")
        self.root.chmod(0o700)
        for path in (self.taps, self.logs, self.root / "nodes", self.root / "traffic"):
            path.mkdir(mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Delete everything in it but the lock, whose holder may be somebody else."""
        if self.root.is_dir():
            for path in self.root.iterdir():
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold the run's lock: one `up`, `down` or demo at a time. LabError when another process holds it."""
    run.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (run.root / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LabError(f"{run.root}: another lab command is at work ({file.read().strip() or 'unknown'})") from None
        file.seek(0)
        file.truncate()
        file.write(f"pid {os.getpid()}")
        file.flush()
        os.set_inheritable(file.fileno(), False)
        yield


@dataclass(frozen=True, slots=True)
class State:
    """What state.json holds. `phase`: starting, up or stopping; `addresses`: URL or path by name."""

    phase: str
    size: dict[str, int]
    prefix: str
    started_ns: int
    machine_boot: str
    pid: int
    addresses: dict[str, str] = field(default_factory=dict)
    probe_period_s: float = 5.0
    probe_timeout_s: float = 2.0
    mode: str = NAMESPACES

    def write(self, run: Run) -> None:
        """Replace state.json whole."""
        write_atomically(run.state, json.dumps(asdict(self), indent=1))


def read_state(run: Run) -> State | None:
    """The state of the run; None when there is none. LabError when the file cannot be read as one."""
    try:
        return State(**json.loads(run.state.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise LabError(f"{run.state}: expected the lab's own JSON: {error}; `tgw lab down` removes it") from None


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file whole: a reader sees the old text or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    beside.replace(path)


def append_line(path: Path, entry: dict[str, Any]) -> None:
    """Add one JSON line; whole lines only, from any number of writers."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, (json.dumps(entry) + "\n").encode())
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line cut short by a crash is left out, a missing file is empty."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    out = []
    for line in text.split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            out.append(entry)
    return out


def hold(run: Run, names: Iterable[str], why: str) -> None:
    """Let processes stay dead once they die; written down before they are killed."""
    for name in names:
        append_line(run.held, {"name": name, "why": why})


def release(run: Run, names: Iterable[str]) -> None:
    """They are to live again."""
    for name in names:
        append_line(run.held, {"name": name, "why": ""})


def held(run: Run) -> dict[str, str]:
    """The processes that are meant to be dead, and why."""
    found = {str(e.get("name")): str(e.get("why", "")) for e in read_lines(run.held)}
    return {name: why for name, why in found.items() if why}


def machine_boot() -> str:
    """The kernel's boot id: a state file of an earlier boot knows no living process."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class Recorded:
    """One started process. `start_ticks`: field 22 of /proc/PID/stat."""

    name: str
    kind: str
    pid: int
    start_ticks: int
    namespace: str | None
    argv: list[str]
    log: str
    started_ns: int


def start_ticks(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, blanks and parentheses too.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(process: Recorded) -> bool:
    """Whether this very process still runs (stopped counts as running)."""
    return start_ticks(process.pid) == process.start_ticks


def recorded(run: Run) -> dict[str, Recorded]:
    """The latest start of every process of the run, by name."""
    out = {}
    for entry in read_lines(run.processes):
        try:
            process = Recorded(**entry)
        except TypeError:
            continue
        out[process.name] = process
    return out


def marked(run: Run) -> list[int]:
    """Pids of living processes that carry this run's mark in their environment, children of children included."""
    want = f"{MARK}={run.root}".encode()
    out = []
    for path in PROC.iterdir():
        if not path.name.isdigit() or int(path.name) == os.getpid():
            continue
        try:
            environment = (path / "environ").read_bytes()
        except OSError:
            continue
        if want in environment.split(b"\0") and start_ticks(int(path.name)) is not None:
            out.append(int(path.name))
    return out


def stop(pids: Iterable[int], patience_s: float = 3.0) -> list[int]:
    """End processes: SIGTERM (and SIGCONT, for the frozen), then SIGKILL; the pids that had to be killed."""
    started = {pid: ticks for pid in pids if (ticks := start_ticks(pid)) is not None}
    for pid in started:
        _send(pid, signal.SIGTERM)
        _send(pid, signal.SIGCONT)
    left = _wait(started, patience_s)
    for pid in left:
        _send(pid, signal.SIGKILL)
    _wait(dict.fromkeys(left, 0) | {pid: started[pid] for pid in left}, 5.0)
    return left


def _wait(started: dict[int, int], seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while True:
        for pid in started:
            # A child of this very process stays a zombie until it is waited for.
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        left = [pid for pid, ticks in started.items() if start_ticks(pid) == ticks]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
