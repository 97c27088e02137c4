"""A disk that takes no writes for a while: nothing is lost, what was written can be read, and it is said once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.sqlite import Database, Kind, StoreError, WriteFailed
from service.write_behind import LONGEST_WAIT_S, WriteBehind
from tests.service.test_sqlite import Failing, fail, failing

KIND = Kind(
    "test",
    0x7E57,
    ("CREATE TABLE log (n INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT); CREATE TABLE kept (k PRIMARY KEY, v);",),
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    yield
    Failing.fails = staticmethod(lambda sql: None)


def made(path: Path) -> tuple[WriteBehind, Clock]:
    clock = Clock()
    return WriteBehind(Database(path, KIND, failing), clock), clock


def texts(store: WriteBehind) -> list[str]:
    return [r["t"] for r in store.read("SELECT t FROM log ORDER BY n")]


def on_disk(path: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(path) as db:
        return list(db.execute("SELECT n, t FROM log ORDER BY n"))


@pytest.mark.parametrize("word", ["COMMIT", "INSERT", "BEGIN"])
def test_a_disk_that_fails_and_works_again(tmp_path: Path, word: str) -> None:
    store, clock = made(tmp_path / "s")
    store.write("INSERT INTO log (t) VALUES ('before')")
    assert store.commit()
    fail(word, sqlite3.SQLITE_FULL)
    store.write("INSERT INTO log (t) VALUES ('one')")
    assert not store.commit()
    assert "disk I/O error" in store.problem
    cursor = store.write("INSERT INTO log (t) VALUES ('two')")
    assert (cursor.lastrowid, texts(store)) == (3, ["before", "one", "two"])
    assert [t for _, t in on_disk(tmp_path / "s")] == ["before"]
    clock.now += 1
    assert not store.commit(), "still broken"
    Failing.fails = staticmethod(lambda sql: None)
    assert not store.commit(), "it waits before it tries again"
    clock.now += LONGEST_WAIT_S
    assert store.commit()
    assert store.problem == ""
    assert on_disk(tmp_path / "s") == [(1, "before"), (2, "one"), (3, "two")]
    store.write("INSERT INTO log (t) VALUES ('after')")
    assert store.commit()
    assert store.close()
    assert on_disk(tmp_path / "s")[-1] == (4, "after")


def test_a_lock_that_somebody_holds_is_a_failure_that_passes(tmp_path: Path) -> None:
    store, clock = made(tmp_path / "s")
    other = sqlite3.connect(tmp_path / "s", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.write("INSERT INTO log (t) VALUES ('x')")
    assert not store.commit()
    assert "locked" in store.problem
    other.execute("ROLLBACK")
    clock.now += 60
    assert store.commit()
    assert [t for _, t in on_disk(tmp_path / "s")] == ["x"]


def test_keyed_writes_do_not_pile_up_while_the_disk_fails(tmp_path: Path) -> None:
    store, clock = made(tmp_path / "s")
    fail("COMMIT")
    for number in range(10_000):
        store.write("INSERT OR REPLACE INTO kept VALUES ('a', ?)", number, key="a")
        store.commit()
    assert len(store._waiting) == 1
    Failing.fails = staticmethod(lambda sql: None)
    clock.now += 60
    assert store.commit()
    assert [r["v"] for r in store.read("SELECT v FROM kept")] == [9999]


def test_a_statement_that_is_wrong_is_raised_and_not_tried_again(tmp_path: Path) -> None:
    store, _ = made(tmp_path / "s")
    store.write("INSERT INTO log (n, t) VALUES (1, 'a')")
    with pytest.raises(sqlite3.IntegrityError):
        store.write("INSERT INTO log (n, t) VALUES (1, 'b')")
    with pytest.raises(sqlite3.OperationalError):
        store.write("INSERT INTO none VALUES (1)")
    assert store.commit()
    assert texts(store) == ["a"]


def test_a_disk_that_can_not_even_be_read_is_said(tmp_path: Path) -> None:
    store, _ = made(tmp_path / "s")
    fail("SELECT")
    with pytest.raises(StoreError, match="disk I/O error"):
        store.read("SELECT * FROM log")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["log", "kept", "drop", "commit", "fail", "mend", "wait"]), max_size=40))
def test_whatever_fails_when_the_end_is_as_if_nothing_had(steps: list[str]) -> None:
    """Against a plain database that never fails, in the same order."""
    plain = sqlite3.connect(":memory:", isolation_level=None)
    plain.executescript(KIND.steps[0] if isinstance(KIND.steps[0], str) else "")
    clock = Clock()
    store = WriteBehind(Database(":memory:", KIND, failing), clock)
    try:
        for number, step in enumerate(steps):
            if step == "fail":
                fail("COMMIT")
            elif step == "mend":
                Failing.fails = staticmethod(lambda sql: None)
            elif step == "wait":
                clock.now += 100
            elif step == "commit":
                store.commit()
            else:
                sql, values, key = {
                    "log": ("INSERT INTO log (t) VALUES (?)", (str(number),), None),
                    "kept": ("INSERT OR REPLACE INTO kept VALUES (?, ?)", (number % 3, number), ("k", number % 3)),
                    "drop": ("DELETE FROM log WHERE n = (SELECT min(n) FROM log)", (), None),
                }[step]
                store.write(sql, *values, key=key)
                plain.execute(sql, values)
        Failing.fails = staticmethod(lambda sql: None)
        clock.now += 100
        assert store.commit()
        for table in ("log", "kept"):
            query = f"SELECT * FROM {table} ORDER BY 1"
            assert [tuple(r) for r in store.read(query)] == list(plain.execute(query))
    finally:
        Failing.fails = staticmethod(lambda sql: None)
        store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tgwt-small", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Fill a disk to its last block; the file that does."""
    filler = place / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return filler


@pytest.mark.root
def test_a_real_disk_that_is_full(small_disk: Path) -> None:
    store, clock = made(small_disk / "s")
    store.write("INSERT INTO log (t) VALUES ('before')")
    assert store.commit()
    filler = fill(small_disk)
    for number in range(50):
        store.write("INSERT INTO log (t) VALUES (?)", f"{number}" * 2000)
        store.commit()
    assert "full" in store.problem or "I/O" in store.problem
    assert len(texts(store)) == 51, "all of it can be read"
    filler.unlink()
    clock.now += 60
    assert store.commit()
    assert store.problem == ""
    assert store.close()
    assert [n for n, _ in on_disk(small_disk / "s")] == list(range(1, 52))


@pytest.mark.root
def test_a_transaction_on_a_real_disk_that_is_full_is_nothing(small_disk: Path) -> None:
    store = Database(small_disk / "s", KIND)

    def write(count: int) -> None:
        with store.transaction():
            for number in range(count):
                store.write("INSERT INTO log (t) VALUES (?)", f"{number}" * 4000)

    write(1)
    filler = fill(small_disk)
    with pytest.raises(WriteFailed, match=r"full|I/O"):
        write(100)
    assert len(store.read("SELECT * FROM log")) == 1
    filler.unlink()
    write(10)
    assert len(store.read("SELECT * FROM log")) == 11
    store.close()
    assert len(on_disk(small_disk / "s")) == 11
