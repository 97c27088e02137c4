"""Writes that outlive a disk which takes none: they go to a copy in memory until the disk takes them all again.

For a process that must go on seeing, healing and telling people while its disk is full. Its reads show what it wrote;
that it is not durable is said (`problem`). Who may act only on what is durable takes `Database.transaction`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import structlog

from service.sqlite import BUSY_S, Database, StoreError, is_ours

log = structlog.get_logger()

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
MOST_WAITING = 200_000

_Statement = tuple[str, tuple[Any, ...]]


class WriteBehind:
    """A database whose writes are one open transaction until `commit`. `clock`: monotonic seconds."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic) -> None:
        self.database = database
        self.problem = ""
        self._disk = database.connection
        self._copy: sqlite3.Connection | None = None
        self._clock = clock
        # Every statement since the last commit that the disk took, in order; those of one key replace each other.
        self._waiting: dict[object, _Statement] = {}
        self._number = 0
        self._next_try = 0.0
        self._wait_s = FIRST_WAIT_S

    @property
    def live(self) -> sqlite3.Connection:
        """Where to read: the file, or the copy while the disk takes no writes."""
        return self._copy if self._copy is not None else self._disk

    def read(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query, with everything written so far; StoreError when they cannot be read at all."""
        try:
            return self.live.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self.database.path}: {error}") from None

    def write(self, sql: str, *values: Any, key: object = None) -> sqlite3.Cursor:
        """One statement. `key`: a later one of the same key makes this one needless. StoreError: it cannot be kept."""
        self._number += 1
        place = self._number if key is None else key
        before = self._waiting.pop(place, None)  # a later one goes to the end
        self._waiting[place] = (sql, values)
        if len(self._waiting) > MOST_WAITING:
            raise StoreError(f"{self.database.path}: {MOST_WAITING} writes wait for the disk: {self.problem}")
        try:
            if self._copy is None and not self._disk.in_transaction:
                # IMMEDIATE: who else holds the lock shows now, not in mid-transaction.
                self._disk.execute("BEGIN IMMEDIATE")
            return self.live.execute(sql, values)
        except sqlite3.OperationalError as error:
            if self._copy is not None or is_ours(error):
                self._forget(place, before)
                raise
            return self._leave(error)
        except sqlite3.Error:
            self._forget(place, before)
            raise

    def commit(self) -> bool:
        """Make everything written so far durable, together; False while the disk does not take it."""
        if self._copy is not None:
            return self._return()
        if not self._disk.in_transaction:
            return True
        try:
            self._disk.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._leave(error)
            return False
        self._waiting.clear()
        return True

    def close(self) -> bool:
        """Try once more, and close; whether everything is durable."""
        self._next_try = 0.0
        done = self.commit()
        if not done:
            log.error("the store is closed without its last writes", path=self.database.path, writes=len(self._waiting))
        self._drop_copy()
        self.database.close()
        return done

    def _forget(self, place: object, before: _Statement | None) -> None:
        if before is None:
            self._waiting.pop(place, None)
        else:
            self._waiting[place] = before

    def _leave(self, error: sqlite3.OperationalError) -> sqlite3.Cursor:
        """Go on in memory; the cursor of the last statement that waits."""
        self.problem = f"{self.database.path}: {error}"
        log.error("the store takes no writes; they are kept in memory and tried again", problem=self.problem)
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        copy.row_factory = sqlite3.Row
        try:
            self._roll_back()
            self._disk.backup(copy)
            cursor = copy.cursor()
            for sql, values in self._waiting.values():
                cursor = copy.execute(sql, values)
        except sqlite3.Error as second:
            copy.close()
            raise StoreError(f"{self.problem}; and it cannot be read either: {second}") from None
        self._copy = copy
        self._wait_s = FIRST_WAIT_S
        self._next_try = self._clock() + self._wait_s
        return cursor

    def _return(self) -> bool:
        now = self._clock()
        if now < self._next_try:
            return False
        try:
            self._disk.execute("PRAGMA busy_timeout = 0")  # nobody waits for a lock again and again
            self._disk.execute("BEGIN IMMEDIATE")
            for sql, values in self._waiting.values():
                self._disk.execute(sql, values)
            self._disk.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._roll_back()
            self.problem = f"{self.database.path}: {error}"
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
            self._next_try = now + self._wait_s
            return False
        finally:
            with contextlib.suppress(sqlite3.Error):
                self._disk.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")
        log.info("the store takes writes again", path=self.database.path, writes=len(self._waiting))
        self._waiting.clear()
        self._drop_copy()
        self.problem = ""
        return True

    def _roll_back(self) -> None:
        if self._disk.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._disk.execute("ROLLBACK")

    def _drop_copy(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None
