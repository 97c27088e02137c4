"""What control must not lose, in SQLite: written through before anything acts on it.

One process owns the file. Every method is one transaction unless it runs inside `with store.transaction()`; WriteFailed
when the disk does not take it, and then nothing was kept. Documents that an earlier or later control wrote are read as
far as they can be: fields that this one does not know are left out, and said; a row that cannot be read at all goes
into the table `unreadable`. The fleet document is never moved: the caller is told what is wrong with it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel

from contract.documents import DocumentError, Problem, stored
from contract.fleet import Fleet, Policy
from gateway.control.models import AuditEntry, Maintenance, Migration
from gateway.control.settings import Keep
from gateway.control.store_schema import KIND
from service.sqlite import Connect, Damaged, Database, StoreError, WriteFailed

__all__ = ["Spot", "Store", "StoreError", "StoredFleet", "WriteFailed"]

log = structlog.get_logger()

Model = TypeVar("Model", bound=BaseModel)
KEEP_UNREADABLE = 1000
DAY_NS = 24 * 3600 * 1_000_000_000
# Of these a migration is over: nothing that nodes are told depends on it.
OVER = ("done", "failed", "rolled_back", "refused", "dry_run")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a VIP is, as stored."""

    current: str
    since_ns: int
    migration: str | None


@dataclass(frozen=True, slots=True)
class StoredFleet:
    """The latest document. `fleet` None: it breaks a rule of this program (`problems`); `raw` is what stands there."""

    epoch: int
    fleet: Fleet | None
    raw: dict[str, Any]
    problems: list[Problem]


class Store:
    """The durable state of control. StoreError when the file is not ours, damaged, in use or of a later version.

    `clock`: ns since 1970. `open_faults`: by id, migrations that cannot be read and may not be over.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time.time_ns, connect: Connect = sqlite3.connect) -> None:
        try:
            self._db = Database(path, KIND, connect)
        except Damaged as error:
            raise StoreError(
                f"{error}: it is left as it is; put a copy back, or move it away: then control begins anew from the "
                f"fleet document, with every VIP at its home"
            ) from None
        self.id = self._db.id
        self._clock = clock
        self.open_faults: dict[str, str] = {}
        self.set_aside = int(self._db.read("SELECT count(*) FROM unreadable")[0][0])
        found = self._db.read("SELECT max(change) FROM migration")[0][0]
        self._change = int(found or 0)

    def close(self) -> None:
        """Close the file; everything acknowledged is in it already."""
        self._db.close()

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """All of the block or nothing. Nested blocks belong to the outermost. WriteFailed: nothing was kept."""
        return self._db.transaction()

    def _read(self, model: type[Model], text: str, place: str, key: str, leave: bool = False) -> Model | None:
        """A stored document; None when it cannot be read: it is set aside then, unless it is to be left."""
        try:
            found, unknown = stored(text, model, f"{place} {key} of the store")
        except DocumentError as error:
            log.error("a row of the store cannot be read", place=place, key=key, left=leave, problem=str(error))
            if not leave:
                self._set_aside(place, key, text, str(error))
            return None
        if unknown:
            log.warning("fields of a stored row are not known here", place=place, key=key, fields=unknown[:20])
        return found

    def _set_aside(self, place: str, key: str, text: str, why: str) -> None:
        column = {"migration": "id", "maintenance": "node", "rails": "one"}[place]
        self.set_aside += 1
        try:
            with self.transaction():
                self._db.write(
                    "INSERT INTO unreadable (place, key, document, why, ts_ns) VALUES (?, ?, ?, ?, ?)",
                    place, key, text, why[:1000], self._clock(),
                )  # fmt: skip
                self._db.write(f"DELETE FROM {place} WHERE {column} = ?", key)
                self._db.write(
                    "DELETE FROM unreadable WHERE seq <= (SELECT max(seq) FROM unreadable) - ?", KEEP_UNREADABLE
                )
        except WriteFailed as error:
            log.error("the row stays where it is", problem=str(error))

    # The fleet document.

    def fleet(self) -> StoredFleet | None:
        """The latest document; None before the first."""
        rows = self._db.read("SELECT epoch, document FROM fleet ORDER BY epoch DESC LIMIT 1")
        if not rows:
            return None
        epoch, text = int(rows[0]["epoch"]), rows[0]["document"]
        source = f"fleet document {epoch} of the store"
        try:
            raw = json.loads(text)
            raw = raw if isinstance(raw, dict) else {}
        except (ValueError, RecursionError):
            raw = {}
        try:
            fleet, unknown = stored(text, Fleet, source)
        except DocumentError as error:
            return StoredFleet(epoch, None, raw, error.problems)
        if unknown:
            log.warning("fields of the stored fleet document are not known here", epoch=epoch, fields=unknown[:20])
        return StoredFleet(epoch, fleet, raw, [])

    def add_fleet(self, fleet: Fleet, by: str, now_ns: int) -> int:
        """Keep a document; its epoch."""
        cursor = self._db.write(
            "INSERT INTO fleet (document, applied_ns, applied_by) VALUES (?, ?, ?)", fleet.model_dump_json(), now_ns, by
        )
        return int(cursor.lastrowid or 0)

    # Where VIPs are.

    def placement(self) -> dict[int, Spot]:
        rows = self._db.read("SELECT vip_id, current, since_ns, migration FROM placement")
        return {row[0]: Spot(*row[1:]) for row in map(tuple, rows)}

    def place(self, vip_id: int, spot: Spot) -> None:
        self._db.write(
            "INSERT OR REPLACE INTO placement VALUES (?, ?, ?, ?)", vip_id, spot.current, spot.since_ns, spot.migration
        )

    def displace(self, vip_id: int) -> None:
        """Forget a VIP that is no more."""
        self._db.write("DELETE FROM placement WHERE vip_id = ?", vip_id)

    # Migrations.

    def migrations(self) -> list[Migration]:
        """Every migration that can be read, oldest first; see `open_faults`."""
        out = []
        for row in self._db.read("SELECT id, state, document FROM migration ORDER BY seq"):
            # One that may not be over says where VIPs are held: it stays until a person has looked.
            found = self._read(Migration, row["document"], "migration", row["id"], row["state"] not in OVER)
            if found is not None:
                out.append(found)
            elif row["state"] not in OVER:
                self.open_faults[row["id"]] = f"migration {row['id']} ({row['state'] or 'no state'}) cannot be read"
        return out

    def let_go_of_faults(self) -> None:
        """A person has said what holds now: what could not be read is set aside. The caller clears `open_faults`."""
        for identity, why in self.open_faults.items():
            for row in self._db.read("SELECT document FROM migration WHERE id = ?", identity):
                self._set_aside("migration", identity, row["document"], why)

    def migration_states(self) -> dict[str, int]:
        """Migrations that are kept, by state."""
        return {
            r[0]: r[1] for r in self._db.read("SELECT state, count(*) FROM migration GROUP BY state ORDER BY state")
        }

    def migration(self, identity: str) -> Migration | None:
        """One migration, also of those that memory does not hold."""
        rows = self._db.read("SELECT document FROM migration WHERE id = ?", identity)
        return self._read(Migration, rows[0]["document"], "migration", identity, True) if rows else None

    def migrations_before(self, seq: int | None, limit: int) -> list[tuple[int, Migration]]:
        """The latest migrations before a number, newest first, with theirs."""
        sql = (
            "SELECT seq AS number, id, document FROM migration WHERE ?1 IS NULL OR seq < ?1 ORDER BY seq DESC LIMIT ?2"
        )
        return self._numbered(sql, seq, limit)

    def migrations_changed(self, since: int, limit: int) -> list[tuple[int, Migration]]:
        """Migrations that changed after a change, in that order, with theirs."""
        sql = "SELECT change AS number, id, document FROM migration WHERE change > ? ORDER BY change LIMIT ?"
        return self._numbered(sql, since, limit)

    def _numbered(self, sql: str, *values: Any) -> list[tuple[int, Migration]]:
        rows = self._db.read(sql, *values)
        found = ((r["number"], self._read(Migration, r["document"], "migration", r["id"], True)) for r in rows)
        return [(number, m) for number, m in found if m is not None]

    def next_migration_id(self) -> str:
        """An id that no migration has had, also of a store that was lost before this one was made."""
        rows = self._db.read("SELECT seq FROM sqlite_sequence WHERE name = 'migration'")
        return f"mig-{self.id[:4]}-{(rows[0]['seq'] if rows else 0) + 1}"

    def save_migration(self, migration: Migration) -> None:
        """Insert or replace by id."""
        self._change = max(self._change + 1, self._clock() // 1000)
        values = (
            migration.model_dump_json(by_alias=True), self._change, migration.state, int(migration.active),
            migration.requested_ns, migration.id,
        )  # fmt: skip
        changed = self._db.write(
            "UPDATE migration SET document = ?, change = ?, state = ?, active = ?, requested_ns = ? WHERE id = ?",
            *values,
        ).rowcount
        if changed == 0:
            self._db.write(
                "INSERT INTO migration (document, change, state, active, requested_ns, id) VALUES (?, ?, ?, ?, ?, ?)",
                *values,
            )

    # The audit.

    def audit(self, ts_ns: int, who: str, what: str, subject: str, why: str, result: str) -> None:
        """Append one entry."""
        self._db.write(
            "INSERT INTO audit (ts_ns, who, what, subject, why, result) VALUES (?, ?, ?, ?, ?, ?)",
            ts_ns, who, what, subject, why, result,
        )  # fmt: skip

    def audit_entries(self, limit: int, before: int | None = None) -> list[AuditEntry]:
        """The latest entries (before a number), newest first."""
        rows = self._db.read(
            "SELECT seq, ts_ns, who, what, subject, why, result FROM audit WHERE ?1 IS NULL OR seq < ?1 "
            "ORDER BY seq DESC LIMIT ?2",
            before, limit,
        )  # fmt: skip
        return [AuditEntry(**dict(row)) for row in rows]

    # Rails, epochs, maintenance.

    def rails(self) -> Policy | None:
        rows = self._db.read("SELECT document FROM rails")
        return self._read(Policy, rows[0]["document"], "rails", "1") if rows else None

    def set_rails(self, policy: Policy) -> None:
        self._db.write("INSERT OR REPLACE INTO rails VALUES (1, ?)", policy.model_dump_json())

    def node_epochs(self) -> dict[str, tuple[int, str]]:
        """By node: the epoch of its desired state and the digest of what it holds."""
        return {r["node"]: (r["epoch"], r["digest"]) for r in self._db.read("SELECT * FROM node_epoch")}

    def set_node_epoch(self, node: str, epoch: int, digest: str) -> None:
        self._db.write("INSERT OR REPLACE INTO node_epoch VALUES (?, ?, ?)", node, epoch, digest)

    def maintenance(self) -> dict[str, Maintenance]:
        rows = self._db.read("SELECT node, document FROM maintenance")
        found = {r["node"]: self._read(Maintenance, r["document"], "maintenance", r["node"]) for r in rows}
        return {node: entry for node, entry in found.items() if entry is not None}

    def set_maintenance(self, entry: Maintenance) -> None:
        self._db.write("INSERT OR REPLACE INTO maintenance VALUES (?, ?)", entry.node, entry.model_dump_json())

    def drop_maintenance(self, node: str) -> None:
        """The fleet document's own word counts again."""
        self._db.write("DELETE FROM maintenance WHERE node = ?", node)

    # What is old.

    def prune(self, keep: Keep, needed: Collection[str], now_ns: int) -> None:
        """Remove what is beyond the bounds in count or age; never the document in force or a needed migration."""
        old = now_ns - round(keep.days * DAY_NS)
        with self.transaction():
            self._db.write(
                "DELETE FROM fleet WHERE epoch < (SELECT max(epoch) FROM fleet) AND "
                "(applied_ns < ? OR epoch <= (SELECT max(epoch) FROM fleet) - ?)",
                old, keep.documents,
            )  # fmt: skip
            self._db.write(
                "DELETE FROM migration WHERE NOT active AND id NOT IN (SELECT value FROM json_each(?)) AND "
                "(requested_ns < ? OR seq <= (SELECT max(seq) FROM migration) - ?)",
                json.dumps(sorted(needed)), old, keep.migrations,
            )  # fmt: skip
            self._db.write(
                "UPDATE audit_floor SET seq = max(seq, coalesce((SELECT max(seq) FROM audit) - ?, 0), "
                "coalesce((SELECT max(seq) FROM audit WHERE ts_ns < ?), 0))",
                keep.audit, old,
            )  # fmt: skip
            self._db.write("DELETE FROM audit WHERE seq <= (SELECT seq FROM audit_floor)")
        self._db.shrink()
