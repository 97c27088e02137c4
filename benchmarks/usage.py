"""What processes take of the machine: time of cores and memory, as the kernel counts them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process. `kind`: what it is one of."""

    name: str
    kind: str
    pid: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A process now: ticks of a core until now (its own, not those of its children), memory [bytes]."""

    ticks: int
    resident: int
    peak: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A process over a while: share of one core [%], memory at its end and at its peak meanwhile [bytes]."""

    process: Process
    cpu_percent: float
    resident: int
    peak: int


def read(pid: int, proc: Path = PROC) -> Reading | None:
    """A process as it is now; None when it is gone or has ended."""
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        status = (proc / str(pid) / "status").read_text()
    except OSError:
        return None
    if fields[0] in "ZX":
        return None
    memory = {line.partition(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Vm")}
    return Reading(
        int(fields[11]) + int(fields[12]), int(memory.get("VmRSS", 0)) * 1024, int(memory.get("VmHWM", 0)) * 1024
    )


def children(pids: Mapping[int, Process], candidates: list[int], proc: Path = PROC) -> list[Process]:
    """Those of the candidates that are not in `pids`, named after the one they descend from and themselves."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for pid in candidates:
        with suppress(OSError, ValueError):
            stat = (proc / str(pid) / "stat").read_text()
            names[pid] = stat[stat.index("(") + 1 : stat.rindex(")")]
            parents[pid] = int(stat.rpartition(")")[2].split()[1])
    out = []
    for pid in sorted(set(parents) - set(pids)):
        above = parents[pid]
        while above in parents and above not in pids:
            above = parents[above]
        owner = pids[above].name if above in pids else "?"
        out.append(Process(f"{owner}/{names[pid]}", names[pid], pid))
    return out


def forget_peak(pid: int) -> bool:
    """Let a process's peak of memory begin anew; whether it may be done (else the peak is that of its whole life)."""
    try:
        (PROC / str(pid) / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def over(
    processes: list[Process], seconds: float, sleep: Callable[[float], None] = time.sleep
) -> tuple[list[Usage], list[str], float]:
    """The processes over so many seconds, greatest first; the names of those that ended meanwhile; the seconds."""
    for process in processes:
        forget_peak(process.pid)
    before = {p.pid: read(p.pid) for p in processes}
    began = time.monotonic()
    sleep(seconds)
    passed = time.monotonic() - began
    found, gone = [], []
    for process in processes:
        first, last = before[process.pid], read(process.pid)
        if first is None or last is None:
            gone.append(process.name)
            continue
        share = 100 * (last.ticks - first.ticks) / TICKS_PER_S / passed
        found.append(Usage(process, share, last.resident, last.peak))
    return sorted(found, key=lambda u: -u.cpu_percent), gone, passed
