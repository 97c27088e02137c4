"""The base of every store: opened by one, of a known version, whole, and a write that fails leaves nothing behind."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service import files
from service.sqlite import Damaged, Database, Kind, StoreError, WriteFailed, set_aside

ONE = Kind("test", 0x7E57, ("CREATE TABLE t (a INTEGER);",))
TWO = Kind("test", 0x7E57, (*ONE.steps, "ALTER TABLE t ADD COLUMN b TEXT NOT NULL DEFAULT 'old';"))


class Failing(sqlite3.Connection):
    """A real connection whose statements can be made to fail as a disk makes them fail."""

    fails: Callable[[str], int | None] = staticmethod(lambda sql: None)

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        if (code := type(self).fails(sql)) is not None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = code
            raise error
        return super().execute(sql, *more)


def failing(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    return sqlite3.connect(*args, factory=Failing, **kwargs)


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    yield
    Failing.fails = staticmethod(lambda sql: None)


def fail(word: str, code: int = sqlite3.SQLITE_IOERR) -> None:
    Failing.fails = staticmethod(lambda sql: code if sql.startswith(word) else None)


def test_one_process_owns_a_store(tmp_path: Path) -> None:
    first = Database(tmp_path / "s", ONE)
    with pytest.raises(StoreError, match=rf"s: another test has it open \(process {os.getpid()}\)"):
        Database(tmp_path / "s", ONE)
    program = (
        "import sys; from pathlib import Path; from service.sqlite import *\n"
        "try: Database(Path(sys.argv[1]), Kind('test', 0x7E57, ()))\n"
        "except StoreError as e: sys.exit(str(e))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s")], capture_output=True, text=True, timeout=30, check=False
    )
    assert "has it open" in done.stderr
    first.close()
    Database(tmp_path / "s", ONE).close()


def test_steps_go_up_and_keep_what_is_there(tmp_path: Path) -> None:
    old = Database(tmp_path / "s", ONE)
    with old.transaction():
        old.write("INSERT INTO t VALUES (7)")
    old.close()
    new = Database(tmp_path / "s", TWO)
    assert [tuple(r) for r in new.read("SELECT * FROM t")] == [(7, "old")]
    assert new.id == old.id
    new.close()
    with pytest.raises(StoreError, match="version 1 or earlier, found version 2: a later program"):
        Database(tmp_path / "s", ONE)
    assert [tuple(r) for r in Database(tmp_path / "s", TWO).read("SELECT * FROM t")] == [(7, "old")]


def test_a_step_that_fails_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    Database(tmp_path / "s", ONE).close()
    bad = Kind("test", ONE.mark, (*ONE.steps, "ALTER TABLE t ADD COLUMN c;\nALTER TABLE none ADD COLUMN c;"))
    with pytest.raises(StoreError, match="step 2 of the store of test: no such table"):
        Database(tmp_path / "s", bad)
    store = Database(tmp_path / "s", ONE)
    assert [r["name"] for r in store.read("PRAGMA table_info(t)")] == ["a"]


def test_a_store_of_another_program_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "s", ONE).close()
    with pytest.raises(StoreError, match="expected a store of control, found a file of another program"):
        Database(tmp_path / "s", Kind("control", 1, ONE.steps))


def test_a_store_made_anew_has_another_id(tmp_path: Path) -> None:
    ids = set()
    for name in "abc":
        store = Database(tmp_path / name, ONE)
        ids.add(store.id)
        store.close()
        again = Database(tmp_path / name, ONE)
        assert again.id in ids
    assert len(ids) == 3


def test_a_damaged_file_is_said_to_be_and_can_be_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = Database(path, ONE)
    with store.transaction():
        for number in range(20_000):
            store.write("INSERT INTO t VALUES (?)", number)
    store.close()
    whole = path.read_bytes()
    for bad in (b"no database, but long enough to be read as one" * 100, whole[: len(whole) // 2 // 4096 * 4096],
                whole[:8192] + os.urandom(40_000) + whole[48_192:]):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(Damaged, match=str(path)):
            Database(path, ONE)
        aside = set_aside(path)
        assert aside.read_bytes() == bad, "nothing of it is lost"
        fresh = Database(path, ONE)
        assert fresh.read("SELECT * FROM t") == []
        fresh.close()
        path.unlink()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
@pytest.mark.parametrize("word", ["COMMIT", "INSERT", "BEGIN"])
def test_a_write_that_fails_is_rolled_back_and_can_be_done_again(tmp_path: Path, word: str, code: int) -> None:
    store = Database(tmp_path / "s", ONE, failing)

    def write() -> None:
        with store.transaction():
            store.write("INSERT INTO t VALUES (1)")
            store.write("INSERT INTO t VALUES (2)")

    fail(word, code)
    with pytest.raises(WriteFailed, match="disk I/O error"):
        write()
    Failing.fails = staticmethod(lambda sql: None)
    assert store.read("SELECT * FROM t") == []
    write()
    assert len(store.read("SELECT * FROM t")) == 2


def test_a_fault_of_ours_is_not_taken_for_the_disks(tmp_path: Path) -> None:
    store = Database(tmp_path / "s", ONE)

    def wrong() -> None:
        with store.transaction():
            store.write("INSERT INTO none VALUES (1)")

    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        wrong()


def test_what_is_committed_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    store = Database(tmp_path / "a" / "b" / "s", ONE)
    assert synced == [tmp_path, tmp_path / "a"], "each directory that was made is durable in its parent"
    assert store.read("PRAGMA synchronous")[0][0] == 2
    assert store.read("PRAGMA journal_mode")[0][0] == "wal"


def test_an_older_store_is_made_to_shrink(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with sqlite3.connect(path) as db:
        db.execute(str(ONE.steps[0]))
        db.executemany("INSERT INTO t VALUES (?)", ((n,) for n in range(200_000)))
    db.close()
    store = Database(path, Kind("test", ONE.mark, ("CREATE TABLE IF NOT EXISTS t (a INTEGER);",)))
    assert len(store.read("SELECT * FROM t")) == 200_000
    with store.transaction():
        store.write("DELETE FROM t")
    before = path.stat().st_size
    store.shrink()
    store.read("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < before / 10
