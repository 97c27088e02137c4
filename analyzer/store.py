"""What must survive a restart of the analyzer: incidents, their timelines, actions, decisions, silences, the outbox."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS incidents (
  id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, state TEXT NOT NULL, opened_ns INTEGER NOT NULL,
  revision INTEGER NOT NULL, document TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS incidents_by_revision ON incidents (revision);
CREATE TABLE IF NOT EXISTS events (
  number INTEGER PRIMARY KEY AUTOINCREMENT, incident_id TEXT NOT NULL, ts_ns INTEGER NOT NULL, kind TEXT NOT NULL,
  text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_by_incident ON events (incident_id, number);
CREATE TABLE IF NOT EXISTS actions (
  id TEXT PRIMARY KEY, incident_id TEXT NOT NULL, ts_ns INTEGER NOT NULL, revision INTEGER NOT NULL,
  document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS decisions (
  number INTEGER PRIMARY KEY AUTOINCREMENT, ts_ns INTEGER NOT NULL, about TEXT NOT NULL, subject TEXT NOT NULL,
  decision TEXT NOT NULL, reason TEXT NOT NULL, incident_id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS silences (id TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, receiver TEXT NOT NULL, group_key TEXT NOT NULL,
  incident_ids TEXT NOT NULL, body TEXT NOT NULL, created_ns INTEGER NOT NULL, next_ns INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'pending', done_ns INTEGER, error TEXT);
CREATE INDEX IF NOT EXISTS outbox_by_state ON outbox (state, number);
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
KEEP_DECISIONS = 20_000


class Store:
    """The analyzer's SQLite file. Nothing is durable before `commit`; one process owns it."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the file; sqlite3.Error when it cannot be used."""
        # The API's threads never touch it: the event loop's thread reads and writes alone.
        self._db = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(SCHEMA)
        self._open = False
        found = self._db.execute(
            "SELECT max(r) FROM (SELECT max(revision) AS r FROM incidents UNION ALL SELECT max(revision) FROM actions)"
        ).fetchone()
        self._revision = int(found[0] or 0)

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self._db.close()

    def _write(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if not self._open:
            self._db.execute("BEGIN")
            self._open = True
        return self._db.execute(sql, values)

    def commit(self) -> None:
        """Make everything written so far durable, together."""
        if self._open:
            self._db.execute("COMMIT")
            self._open = False

    # incidents

    def save_incident(
        self, identity: str, fingerprint: str, state: str, opened_ns: int, document: dict[str, Any]
    ) -> None:
        """Insert or replace one incident."""
        self._revision += 1
        self._write(
            "INSERT OR REPLACE INTO incidents VALUES (?, ?, ?, ?, ?, ?)",
            identity, fingerprint, state, opened_ns, self._revision, json.dumps(document),
        )  # fmt: skip

    def incidents(self) -> list[dict[str, Any]]:
        """Every incident document, oldest first."""
        rows = self._db.execute("SELECT document FROM incidents ORDER BY opened_ns, id")
        return [json.loads(r["document"]) for r in rows]

    def incidents_after(self, revision: int, limit: int = 500) -> list[tuple[int, dict[str, Any]]]:
        """Incidents that changed after a revision, with theirs."""
        rows = self._db.execute(
            "SELECT revision, document FROM incidents WHERE revision > ? ORDER BY revision LIMIT ?", (revision, limit)
        )
        return [(r["revision"], json.loads(r["document"])) for r in rows]

    def add_event(self, incident_id: str, ts_ns: int, kind: str, text: str) -> None:
        """One line of an incident's timeline."""
        self._write(
            "INSERT INTO events (incident_id, ts_ns, kind, text) VALUES (?, ?, ?, ?)", incident_id, ts_ns, kind, text
        )

    def events(self, incident_id: str) -> list[dict[str, Any]]:
        """The timeline of an incident, oldest first."""
        rows = self._db.execute(
            "SELECT number, ts_ns, kind, text FROM events WHERE incident_id = ? ORDER BY number", (incident_id,)
        )
        return [dict(r) for r in rows]

    def events_after(self, number: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Events of all incidents after a number."""
        rows = self._db.execute("SELECT * FROM events WHERE number > ? ORDER BY number LIMIT ?", (number, limit))
        return [dict(r) for r in rows]

    # actions and decisions

    def save_action(self, identity: str, incident_id: str, ts_ns: int, document: dict[str, Any]) -> None:
        """Insert or replace one action."""
        self._revision += 1
        self._write(
            "INSERT OR REPLACE INTO actions VALUES (?, ?, ?, ?, ?)",
            identity, incident_id, ts_ns, self._revision, json.dumps(document),
        )  # fmt: skip

    def actions(self, incident_id: str) -> list[dict[str, Any]]:
        """The actions of an incident, oldest first."""
        rows = self._db.execute("SELECT document FROM actions WHERE incident_id = ? ORDER BY ts_ns, id", (incident_id,))
        return [json.loads(r["document"]) for r in rows]

    def actions_after(self, revision: int, limit: int = 500) -> list[tuple[int, dict[str, Any]]]:
        """Actions that changed after a revision, with theirs."""
        rows = self._db.execute(
            "SELECT revision, document FROM actions WHERE revision > ? ORDER BY revision LIMIT ?", (revision, limit)
        )
        return [(r["revision"], json.loads(r["document"])) for r in rows]

    def add_decision(self, ts_ns: int, about: str, subject: str, decision: str, reason: str, incident_id: str) -> None:
        """What was decided, and why. `about`: remedy, alert, incident, detect."""
        cursor = self._write(
            "INSERT INTO decisions (ts_ns, about, subject, decision, reason, incident_id) VALUES (?, ?, ?, ?, ?, ?)",
            ts_ns, about, subject, decision, reason, incident_id,
        )  # fmt: skip
        if (number := cursor.lastrowid or 0) % 1000 == 0:
            self._write("DELETE FROM decisions WHERE number < ?", number - KEEP_DECISIONS)

    def decisions(self, limit: int, incident_id: str | None = None, about: str | None = None) -> list[dict[str, Any]]:
        """The last decisions, newest first."""
        rows = self._db.execute(
            "SELECT * FROM decisions WHERE (?1 IS NULL OR incident_id = ?1) AND (?2 IS NULL OR about = ?2) "
            "ORDER BY number DESC LIMIT ?3",
            (incident_id, about, limit),
        )
        return [dict(r) for r in rows]

    # silences

    def save_silence(self, identity: str, document: dict[str, Any]) -> None:
        """Insert or replace one silence."""
        self._write("INSERT OR REPLACE INTO silences VALUES (?, ?)", identity, json.dumps(document))

    def silences(self) -> list[dict[str, Any]]:
        """Every silence, expired ones too."""
        return [json.loads(r["document"]) for r in self._db.execute("SELECT document FROM silences ORDER BY id")]

    # outbox

    def enqueue(
        self, identity: str, receiver: str, group_key: str, incident_ids: list[str], body: str, now_ns: int
    ) -> bool:
        """Put a notification into the outbox; False when one with this id is there already."""
        cursor = self._write(
            "INSERT OR IGNORE INTO outbox (id, receiver, group_key, incident_ids, body, created_ns, next_ns) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            identity, receiver, group_key, json.dumps(incident_ids), body, now_ns, now_ns,
        )  # fmt: skip
        return cursor.rowcount == 1

    def pending(self) -> list[dict[str, Any]]:
        """Undelivered notifications, oldest first."""
        return [dict(r) for r in self._db.execute("SELECT * FROM outbox WHERE state = 'pending' ORDER BY number")]

    def mark_delivery(
        self, identity: str, state: str, attempts: int, next_ns: int, done_ns: int | None, error: str | None
    ) -> None:
        """What became of an attempt. `state`: pending, delivered, given_up."""
        self._write(
            "UPDATE outbox SET state = ?, attempts = ?, next_ns = ?, done_ns = ?, error = ? WHERE id = ?",
            state, attempts, next_ns, done_ns, error, identity,
        )  # fmt: skip

    def deliveries(self, incident_id: str) -> list[dict[str, Any]]:
        """Every notification that named an incident, oldest first, without its body."""
        rows = self._db.execute(
            "SELECT id, receiver, group_key, created_ns, next_ns, attempts, state, done_ns, error FROM outbox "
            "WHERE EXISTS (SELECT 1 FROM json_each(incident_ids) WHERE value = ?) ORDER BY number",
            (incident_id,),
        )
        return [dict(r) for r in rows]

    def delivery_counts(self) -> dict[str, int]:
        """Notifications by state."""
        return {r[0]: r[1] for r in self._db.execute("SELECT state, count(*) FROM outbox GROUP BY state")}

    # anything small

    def put(self, key: str, value: Any) -> None:
        """Keep a JSON value."""
        self._write("INSERT OR REPLACE INTO kept VALUES (?, ?)", key, json.dumps(value))

    def get(self, key: str, default: Any = None) -> Any:
        """A kept value."""
        row = self._db.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()
        return json.loads(row["value"]) if row else default
