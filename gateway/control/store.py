"""What control must not lose, in SQLite: written through before anything acts on it.

One process owns the file. Every method is one transaction unless it runs inside `with store.transaction()`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contract.fleet import Fleet, Policy
from gateway.control.models import AuditEntry, Maintenance, Migration

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE fleet (epoch INTEGER PRIMARY KEY, document TEXT NOT NULL, applied_ns INTEGER NOT NULL,
                    applied_by TEXT NOT NULL) STRICT;
CREATE TABLE placement (vip_id INTEGER PRIMARY KEY, current TEXT NOT NULL, since_ns INTEGER NOT NULL,
                        migration TEXT) STRICT;
CREATE TABLE migration (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;
CREATE TABLE audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts_ns INTEGER NOT NULL, who TEXT NOT NULL,
                    what TEXT NOT NULL, subject TEXT NOT NULL, why TEXT NOT NULL, result TEXT NOT NULL) STRICT;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TABLE rails (one INTEGER PRIMARY KEY CHECK (one = 1), document TEXT NOT NULL) STRICT;
CREATE TABLE node_epoch (node TEXT PRIMARY KEY, epoch INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE maintenance (node TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
"""


class StoreError(RuntimeError):
    """The store cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a VIP is, as stored."""

    current: str
    since_ns: int
    migration: str | None


class Store:
    """The durable state of control. StoreError when the file is not ours or of a later version."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            # One event loop uses it, in whichever thread that loop runs.
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            # An answer is given after the write is on the disk, not before.
            self._db.execute("PRAGMA synchronous = FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                with self.transaction():
                    for statement in _statements(_SCHEMA):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise StoreError(f"{path}: expected a store of version {SCHEMA_VERSION}, found version {version}")
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}") from None

    def close(self) -> None:
        """Close the file; everything acknowledged is in it already."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing. Nested blocks belong to the outermost."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # The fleet document.

    def fleet(self) -> tuple[int, Fleet] | None:
        """The latest epoch and document; None before the first."""
        row = self._db.execute("SELECT epoch, document FROM fleet ORDER BY epoch DESC LIMIT 1").fetchone()
        return None if row is None else (row[0], Fleet.model_validate_json(row[1]))

    def add_fleet(self, fleet: Fleet, by: str, now_ns: int) -> int:
        """Keep a document; its epoch."""
        cursor = self._db.execute(
            "INSERT INTO fleet (document, applied_ns, applied_by) VALUES (?, ?, ?)",
            (fleet.model_dump_json(), now_ns, by),
        )
        return int(cursor.lastrowid or 0)

    # Where VIPs are.

    def placement(self) -> dict[int, Spot]:
        rows = self._db.execute("SELECT vip_id, current, since_ns, migration FROM placement")
        return {row[0]: Spot(*row[1:]) for row in rows}

    def place(self, vip_id: int, spot: Spot) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO placement VALUES (?, ?, ?, ?)",
            (vip_id, spot.current, spot.since_ns, spot.migration),
        )

    def displace(self, vip_id: int) -> None:
        """Forget a VIP that is no more."""
        self._db.execute("DELETE FROM placement WHERE vip_id = ?", (vip_id,))

    # Migrations.

    def migrations(self) -> list[Migration]:
        """Every migration, oldest first."""
        rows = self._db.execute("SELECT document FROM migration ORDER BY seq")
        return [Migration.model_validate_json(row[0]) for row in rows]

    def next_migration_id(self) -> str:
        """An id that no migration has had."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'migration'").fetchone()
        return f"mig-{(row[0] if row else 0) + 1}"

    def save_migration(self, migration: Migration) -> None:
        """Insert or replace by id."""
        text = migration.model_dump_json(by_alias=True)
        changed = self._db.execute("UPDATE migration SET document = ? WHERE id = ?", (text, migration.id)).rowcount
        if changed == 0:
            self._db.execute("INSERT INTO migration (id, document) VALUES (?, ?)", (migration.id, text))

    # The audit.

    def audit(self, ts_ns: int, who: str, what: str, subject: str, why: str, result: str) -> None:
        """Append one entry."""
        self._db.execute(
            "INSERT INTO audit (ts_ns, who, what, subject, why, result) VALUES (?, ?, ?, ?, ?, ?)",
            (ts_ns, who, what, subject, why, result),
        )

    def audit_entries(self, limit: int) -> list[AuditEntry]:
        """The latest entries, newest first."""
        rows = self._db.execute(
            "SELECT seq, ts_ns, who, what, subject, why, result FROM audit ORDER BY seq DESC LIMIT ?", (limit,)
        )
        names = list(AuditEntry.model_fields)
        return [AuditEntry(**dict(zip(names, row, strict=True))) for row in rows]

    # Rails, epochs, maintenance.

    def rails(self) -> Policy | None:
        row = self._db.execute("SELECT document FROM rails").fetchone()
        return None if row is None else Policy.model_validate_json(row[0])

    def set_rails(self, policy: Policy) -> None:
        self._db.execute("INSERT OR REPLACE INTO rails VALUES (1, ?)", (policy.model_dump_json(),))

    def node_epochs(self) -> dict[str, tuple[int, str]]:
        """By node: the epoch of its desired state and the digest of what it holds."""
        return {row[0]: (row[1], row[2]) for row in self._db.execute("SELECT node, epoch, digest FROM node_epoch")}

    def set_node_epoch(self, node: str, epoch: int, digest: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO node_epoch VALUES (?, ?, ?)", (node, epoch, digest))

    def maintenance(self) -> dict[str, Maintenance]:
        rows = self._db.execute("SELECT node, document FROM maintenance")
        return {row[0]: Maintenance.model_validate_json(row[1]) for row in rows}

    def set_maintenance(self, entry: Maintenance) -> None:
        self._db.execute("INSERT OR REPLACE INTO maintenance VALUES (?, ?)", (entry.node, entry.model_dump_json()))

    def drop_maintenance(self, node: str) -> None:
        """The fleet document's own word counts again."""
        self._db.execute("DELETE FROM maintenance WHERE node = ?", (node,))


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
