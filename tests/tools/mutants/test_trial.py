"""A mutant is killed by a test that fails, and by nothing else; the tree is never touched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.mutants.mutate import Mutant, candidates
from tools.mutants.trial import Place, Watched, culprit, within

CODE = """def grow(a):
    while a < 3:
        a += 1
    return a


def spare(a):
    return a * 2
"""
TESTS = """from room.code import grow, spare


def test_grow():
    assert grow(1) == 3


def test_spare():
    assert spare(2) == 4
"""
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for name, text in {
        "analyzer/__init__.py": "",
        "room/code.py": CODE,
        "room/__init__.py": "",
        "tests/test_code.py": TESTS,
        "tools/__init__.py": "",
    }.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    (source / "gateway").mkdir()
    for command in (["git", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, cwd=source, check=True)
    (source / "not-known.txt").write_text("x")
    return source


WATCHED = Watched(
    {"room/code.py": {3: ["tests/test_code.py::test_grow"], 4: ["tests/test_code.py::test_grow"]}},
    {"tests/test_code.py::test_grow": 0.01, "tests/test_code.py::test_spare": 0.02},
)


def one(what: str) -> Mutant:
    made = [m for c in candidates("room/code.py", CODE) if (m := c.make()) is not None]
    (found,) = [m for m in made if f"+{what}\n" in m.diff + "\n"]
    return found


def test_killed_survived_and_timed_out(tree: Path, tmp_path: Path) -> None:
    place = Place(tree, tmp_path / "place", slack_s=60)
    assert not (place.root / "not-known.txt").exists()
    done = place.trial(one("        a += 2"), WATCHED, ())
    # 1 + 2 is 3: the test that runs the line does not see it.
    assert (done.outcome, done.tests, done.by) == ("survived", 1, None)
    done = Place(tree, tmp_path / "short", slack_s=5).trial(one("        a = 1"), WATCHED, ())
    assert done.outcome == "timeout"
    done = place.trial(one("    return a * 3"), WATCHED, ("tests/none", "tests/test_code.py::test_sp"))
    assert (done.outcome, done.by) == ("killed", "tests/test_code.py::test_spare")
    done = place.trial(one("    return a * 3"), WATCHED, ("tests/none",))
    assert (done.outcome, done.tests) == ("survived", 0)
    assert (place.root / "room/code.py").read_text() == CODE == (tree / "room/code.py").read_text()


def test_its_own_tests_come_first_then_the_quick_ones_and_none_that_fails_anyway() -> None:
    lines = {
        "a/judge.py": {7: ["t/test_x.py::slow", "t/test_x.py::fast", "t/test_judge.py::own", "t/test_x.py::broken"]}
    }
    seconds = {
        "t/test_x.py::slow": 3.0,
        "t/test_x.py::fast": 0.1,
        "t/test_judge.py::own": 1.0,
        "t/test_x.py::broken": 0.0,
    }
    watched = Watched(lines, seconds, frozenset({"t/test_x.py::broken"}))
    tests = watched.tests(Mutant("a/judge.py", 7, "", ""), ())
    assert tests == ["t/test_judge.py::own", "t/test_x.py::fast", "t/test_x.py::slow"]
    assert within(tests, seconds, 1.2) == tests[:2]
    assert within(tests, seconds, 0.5) == tests[:1], "one at least"


def test_the_culprit_is_the_first_that_failed() -> None:
    assert culprit("...\nFAILED tests/a.py::b - assert\nERROR x\n") == "tests/a.py::b"
    assert culprit("5 passed") is None
