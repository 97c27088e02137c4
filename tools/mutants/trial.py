"""Tests against one mutant: which tests, where they run, and what became of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tools.mutants.mutate import Mutant

Outcome = Literal["killed", "survived", "timeout"]
# Seconds of tests (as they took without a mutant): in the first go, and for one that survived it.
FIRST_S, MORE_S = 8.0, 45.0


@dataclass(frozen=True, slots=True)
class Watched:
    """What watch.py has noted. `lines`: path -> line -> tests."""

    lines: dict[str, dict[int, list[str]]]
    seconds: dict[str, float]
    failed: frozenset[str] = field(default=frozenset())

    @classmethod
    def read(cls, path: Path) -> Watched:
        data = json.loads(path.read_text())
        lines = {p: {int(n): tests for n, tests in of.items()} for p, of in data["lines"].items()}
        return cls(lines, data["seconds"], frozenset(data["failed"]))

    def tests(self, mutant: Mutant, otherwise: tuple[str, ...]) -> list[str]:
        """Tests that run the mutant's line: those of its own test file first, the quick ones first.

        Where none does, those whose name begins with one of `otherwise`: they start processes that nobody looks into.
        """
        found = set(self.lines.get(mutant.path, {}).get(mutant.line, ())) - self.failed
        if not found:
            found = {test for test in self.seconds if test.startswith(otherwise)} - self.failed
        own = f"test_{Path(mutant.path).stem}.py"
        return sorted(found, key=lambda test: (own not in test, self.seconds[test], test))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant. `tests`: how many were given; `by`: the test that failed, if one did."""

    mutant: Mutant
    outcome: Outcome
    tests: int
    by: str | None = None


def within(tests: Sequence[str], seconds: dict[str, float], most_s: float) -> list[str]:
    """As many of the tests, from the first, as take so long; one at least."""
    out: list[str] = []
    total = 0.0
    for test in tests:
        total += seconds[test]
        if out and total > most_s:
            break
        out.append(test)
    return out


class Place:
    """A copy of the tree (what git knows, and the built native module) in which one mutant at a time lives."""

    def __init__(self, source: Path, place: Path, slack_s: float = 30.0) -> None:
        """`slack_s`: how long tests may take beyond five times their time, pytest's own start included."""
        self.root = place
        self._slack_s = slack_s
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=source, capture_output=True, check=True).stdout
        built = [str(p.relative_to(source)) for p in (source / "gateway").glob("_dataplane*.so")]
        for name in [*listed.decode().split("\0"), *built]:
            if name and (source / name).is_file():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, place / name)

    def run(
        self, tests: Sequence[str], limit_s: float, more: Sequence[str] = (), **environment: str
    ) -> tuple[int, str]:
        """Status and output of pytest; status 124 when it was ended after `limit_s`."""
        listed = self.root / ".tests"
        listed.write_text("\n".join(tests))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *more, f"@{listed}"]
        # No bytecode: a mutant may have the size and the second of the file that it stands for.
        known = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment
        with subprocess.Popen(
            command,
            cwd=self.root,
            env=known,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                said, _ = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return 124, ""
            return process.returncode, said

    def trial(self, mutant: Mutant, watched: Watched, otherwise: tuple[str, ...]) -> Result:
        """Put the mutant in, run its tests until one fails, take it out."""
        tests = watched.tests(mutant, otherwise)
        if not tests:
            return Result(mutant, "survived", 0)
        first = within(tests, watched.seconds, FIRST_S)
        rest = tests[len(first) :]
        goes = [first, *([within(rest, watched.seconds, MORE_S)] if rest else [])]
        path = self.root / mutant.path
        before = path.read_text()
        given = 0
        try:
            path.write_text(mutant.code)
            for go in goes:
                given += len(go)
                status, said = self.run(go, self._slack_s + 5 * sum(watched.seconds[t] for t in go))
                if status == 124:
                    return Result(mutant, "timeout", given)
                if status:
                    return Result(mutant, "killed", given, culprit(said))
        finally:
            path.write_text(before)
        return Result(mutant, "survived", given)


def culprit(said: str) -> str | None:
    """The test that failed, in pytest's words."""
    for line in said.splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            return line.split()[1]
    return None
