"""A SQLite file as the durable store of one process: found whole, of a version that is understood, and nobody else's.

What is committed is on the disk (WAL, synchronous=FULL; SQLite syncs the directory of a file that it makes, and we that
of a directory that we make). A write that the disk does not take is rolled back and raised as WriteFailed: the caller's
memory must change after the transaction, not in it. Each kind of store has numbered steps up, and a mark in the file
that tells the kinds apart. Files of a later version are refused, never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import structlog

from service.files import make_directory, sync_directory

log = structlog.get_logger()

# Whoever holds the file's lock for longer (a person with a shell) makes a write fail; it is tried again.
BUSY_S = 0.5
_LARGEST_WAL = 16 * 1024 * 1024
_IDENTITY = (
    "CREATE TABLE IF NOT EXISTS store (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, made_ns INTEGER)"
)

Connect = Callable[..., sqlite3.Connection]
Step = str | Callable[[sqlite3.Connection], None]


class StoreError(RuntimeError):
    """The store cannot be used; the message names the file, and says why and what to do."""


class Damaged(StoreError):
    """The file is no database, or one whose pages contradict each other."""


class WriteFailed(RuntimeError):
    """The disk did not take a transaction (full, locked, broken). Nothing of it was kept; it may work later."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a store holds. `mark`: 32 bits in the file's header; `steps`: step n brings version n to n + 1."""

    name: str
    mark: int
    steps: Sequence[Step]


class Database:
    """One open store. `id`: random, made with the file: a store that was lost and made anew has another.

    `connect` stands in for sqlite3.connect in tests.
    """

    def __init__(self, path: Path | str, kind: Kind, connect: Connect = sqlite3.connect) -> None:
        """Open or make the file and bring it to the present version; StoreError, Damaged."""
        self.path = str(path)
        self.kind = kind
        self.version_found = 0
        self._lock = None if self.path == ":memory:" else _locked(Path(path), kind)
        try:
            self.connection = self._opened(connect)
        except BaseException:
            self._unlock()
            raise
        self.id = self.connection.execute("SELECT id FROM store").fetchone()[0]

    def _opened(self, connect: Connect) -> sqlite3.Connection:
        db: sqlite3.Connection | None = None
        try:
            # One event loop uses it, in whichever thread that loop runs.
            db = connect(self.path, isolation_level=None, timeout=BUSY_S, check_same_thread=False)
            db.row_factory = sqlite3.Row
            fresh = db.execute("PRAGMA page_count").fetchone()[0] == 0
            if fresh:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first page is written
            self._check(db)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA journal_size_limit = {_LARGEST_WAL}")
            if not fresh and db.execute("PRAGMA auto_vacuum").fetchone()[0] != 2:
                _make_shrinkable(db, self.path)
            self._step_up(db)
        except sqlite3.Error as error:
            if db is not None:
                db.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise Damaged(f"{self.path}: {error}") from None
            raise StoreError(f"{self.path}: {error}") from None
        except StoreError:
            if db is not None:
                db.close()
            raise
        return db

    def _check(self, db: sqlite3.Connection) -> None:
        mark = db.execute("PRAGMA application_id").fetchone()[0]
        if mark not in (0, self.kind.mark):
            raise StoreError(f"{self.path}: expected a store of {self.kind.name}, found a file of another program")
        self.version_found = found = db.execute("PRAGMA user_version").fetchone()[0]
        if found > len(self.kind.steps):
            raise StoreError(
                f"{self.path}: expected a store of version {len(self.kind.steps)} or earlier, found version {found}: "
                f"a later program has written it; run that one, or move the file away"
            )
        (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise Damaged(f"{self.path}: {str(said)[:300]}")

    def _step_up(self, db: sqlite3.Connection) -> None:
        for number in range(self.version_found, len(self.kind.steps)):
            step = self.kind.steps[number]
            db.execute("BEGIN IMMEDIATE")
            try:
                if callable(step):
                    step(db)
                else:
                    for statement in statements(step):
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {number + 1}")
                db.execute(f"PRAGMA application_id = {self.kind.mark}")
                db.execute("COMMIT")
            except sqlite3.Error as error:
                _roll_back(db)
                raise StoreError(f"{self.path}: step {number + 1} of the store of {self.kind.name}: {error}") from None
        if self.version_found and self.version_found < len(self.kind.steps):
            log.info("store brought up", path=self.path, version=len(self.kind.steps), found=self.version_found)
        if (
            not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'store'").fetchone()[0]
            or not (db.execute("SELECT count(*) FROM store").fetchone()[0])
        ):
            db.execute("BEGIN IMMEDIATE")
            db.execute(_IDENTITY)
            db.execute("INSERT INTO store VALUES (1, ?, ?)", (secrets.token_hex(8), time.time_ns()))
            db.execute("COMMIT")

    def close(self) -> None:
        """Close the file and let another process have it; what was committed is in it."""
        self.connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query, all of them. StoreError: the disk does not give them; sqlite3.Error: a fault of ours."""
        try:
            return self.connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if is_ours(error):
                raise
            raise StoreError(f"{self.path}: {error}") from None

    def write(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """One statement, of the transaction that is open, or by itself. WriteFailed; sqlite3.Error: a fault of ours."""
        try:
            return self.connection.execute(sql, values)
        except sqlite3.OperationalError as error:
            if self.connection.in_transaction or is_ours(error):
                raise  # `transaction` says the first
            raise WriteFailed(f"{self.path}: {error}") from None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing. Nested blocks belong to the outermost. WriteFailed: nothing was kept."""
        db = self.connection
        if db.in_transaction:
            yield
            return
        try:
            db.execute("BEGIN IMMEDIATE")
            yield
            db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            _roll_back(db)
            if is_ours(error):
                raise
            raise WriteFailed(f"{self.path}: {error}") from None
        except BaseException:
            _roll_back(db)
            raise

    def shrink(self, pages: int = 2000) -> None:
        """Give back to the disk what deleted rows held, `pages` of 4 KiB at most; what the disk refuses is left."""
        with contextlib.suppress(sqlite3.Error):
            # A row without columns for each page: `execute` would stop after the first.
            self.connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def set_aside(path: Path) -> Path:
    """Move a damaged store out of the way, for a person to look at; where it is now. OSError."""
    aside = path.with_name(
        f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    )
    for end in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    sync_directory(path.parent)
    return aside


def statements(script: str) -> Iterator[str]:
    """The statements of a script, triggers whole."""
    statement = ""
    for part in script.split(";")[:-1]:
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""


def is_ours(error: sqlite3.OperationalError) -> bool:
    """Whether a statement is wrong (no such table, bad syntax), which no disk can mend."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_ERROR


def _locked(path: Path, kind: Kind) -> TextIO:
    """The lock of a store, which ends with the process. StoreError while another process holds it."""
    try:
        make_directory(path.parent)
        lock = path.with_name(path.name + ".lock").open("a+")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        who = lock.read().strip() or "unknown"
        lock.close()
        raise StoreError(f"{path}: another {kind.name} has it open (process {who}): one process owns a store") from None
    with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
        lock.seek(0)
        lock.truncate()
        lock.write(f"{os.getpid()}\n")
        lock.flush()
    return lock


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")


def _make_shrinkable(db: sqlite3.Connection, path: str) -> None:
    """A store made before it could shrink is written anew once; without the room for that it stays as it is."""
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")
    except sqlite3.OperationalError as error:
        log.warning("a store cannot be made to shrink", path=path, problem=str(error))
