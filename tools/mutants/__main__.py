"""`python -m tools.mutants`: a sample is tried, out/mutants/report.json. Status 0 also where the goal is missed."""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from benchmarks import goals
from benchmarks.report import Document
from tools.mutants.mutate import Mutant, candidates, sample
from tools.mutants.trial import Place, Result, Watched

ROOT = Path(__file__).resolve().parent.parent.parent
GOAL = 0.85
Job = tuple[Mutant, Watched, tuple[str, ...]]
J = TypeVar("J")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Room:
    """Where the code is, the tests that are run for it, and which of them start it as a process."""

    code: str
    tests: tuple[str, ...]
    process: tuple[str, ...]


ROOMS = {
    "analyzer": Room("analyzer", ("tests/analyzer",), ("tests/analyzer/test_process.py",)),
    "control": Room(
        "gateway/control", ("tests/gateway/control", "tests/gateway/api"), ("tests/gateway/control/test_process.py",)
    ),
    "collector": Room(
        "collector",
        ("tests/collector", "tests/contract/test_tap_python.py"),
        ("tests/collector/test_process.py", "tests/collector/test_warehouse.py"),
    ),
    "prober": Room("prober", ("tests/prober",), ("tests/prober/test_process.py",)),
}


def drawn(room: Room, count: int, seed: int, only: str | None) -> list[Mutant]:
    """The sample of a room."""
    paths = [p.relative_to(ROOT) for p in sorted((ROOT / room.code).rglob("*.py"))]
    every = {str(p): candidates(str(p), (ROOT / p).read_text()) for p in paths if only is None or only in str(p)}
    return sample(every, count, seed)


def watch(place: Place, room: Room, name: str) -> Watched:
    """Run the tests of a room once, all of them. RuntimeError when there is nothing to learn from it."""
    out = place.root / f".watched-{name}.json"
    status, said = place.run(
        room.tests, 1200, ["-p", "tools.mutants.watch", "--maxfail=1000", "-m", "not slow"], TGW_WATCH=str(out)
    )
    if status not in (0, 1) or not out.exists():
        raise RuntimeError(f"the tests of {name} do not run: status {status}\n{said[-2000:]}")
    return Watched.read(out)


def trials(work: Sequence[Job], places: Sequence[Place], console: Console) -> list[Result]:
    """Every mutant tried, as many at a time as there are places."""
    began = time.monotonic()

    def one(place: Place, job: Job) -> Result:
        done = place.trial(*job)
        where = f"{done.mutant.path}:{done.mutant.line}"
        console.print(f"mutants: {time.monotonic() - began:6.1f} s {done.outcome:8} {where}", highlight=False)
        return done

    return spread(places, work, one)


def spread(places: Sequence[Place], work: Sequence[J], do: Callable[[Place, J], R]) -> list[R]:
    """Do each job in a place that is free, as many at a time as there are places."""
    free: queue.SimpleQueue[Place] = queue.SimpleQueue()
    for place in places:
        free.put(place)

    def one(job: J) -> R:
        place = free.get()
        try:
            return do(place, job)
        finally:
            free.put(place)

    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(one, work))


def document(
    results: Mapping[str, Sequence[Result]], seed: int, seconds: float, left_out: Mapping[str, Sequence[str]]
) -> Document:
    """report.json."""
    every = [r for of in results.values() for r in of]
    counts = Counter(r.outcome for r in every)
    caught = counts["killed"] + counts["timeout"]
    share = round(caught / len(every), 4) if every else None
    return goals.result(
        {
            "mutants": len(every),
            "killed": counts["killed"],
            "survived": counts["survived"],
            "timeout": counts["timeout"],
            "seed": seed,
            "seconds": round(seconds),
            "by_room": {
                name: {"mutants": len(of)} | dict(Counter(r.outcome for r in of)) for name, of in results.items()
            },
            # Tests that failed or were skipped without a mutant: nobody can be caught by them.
            "tests_left_out": {name: list(tests) for name, tests in left_out.items()},
            "survivors": [
                {"path": r.mutant.path, "line": r.mutant.line, "tests": r.tests, "diff": r.mutant.diff}
                for r in every
                if r.outcome == "survived"
            ],
        },
        [goals.bound("killed_or_timed_out", ">=", GOAL, share)],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: every mutant was tried."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=180, help="mutants in all, as many from each room")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rooms", nargs="+", choices=sorted(ROOMS), default=list(ROOMS))
    parser.add_argument("--only", help="only files whose path has this in it")
    parser.add_argument("--out", type=Path, default=Path("out/mutants/report.json"))
    wanted = parser.parse_args(arguments)
    console = Console(stderr=True, width=200)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tgw-mutants-") as work:
        places = [Place(ROOT, Path(work) / str(n)) for n in range(wanted.jobs)]
        jobs: dict[str, list[Job]] = {}
        left_out: dict[str, list[str]] = {}
        each = -(-wanted.count // len(wanted.rooms))
        chosen = {name: drawn(ROOMS[name], each, wanted.seed, wanted.only) for name in wanted.rooms}
        chosen = {name: some for name, some in chosen.items() if some}
        seen = spread(places, list(chosen), lambda place, name: watch(place, ROOMS[name], name))
        for (name, some), watched in zip(chosen.items(), seen, strict=True):
            left_out[name] = sorted(watched.failed)
            jobs[name] = [(mutant, watched, ROOMS[name].process) for mutant in some]
            told = f"{len(watched.seconds)} tests, {len(watched.failed)} of them left out"
            console.print(f"mutants: {time.monotonic() - began:6.1f} s {name}: {len(some)} mutants, {told}")
        results = {name: trials(of, places, console) for name, of in jobs.items()}
    report = document(results, wanted.seed, time.monotonic() - began, left_out)
    goals.write(wanted.out, report)
    for survivor in report["survivors"]:
        console.print(survivor["diff"], highlight=False, markup=False)
    Console().print(goals.table([goals.Goal(**g) for g in report["goals"]], f"mutants, seed {wanted.seed}"))
    console.print(f"mutants: {wanted.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
