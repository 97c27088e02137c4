"""What must survive a restart of the analyzer: incidents, their timelines, actions, decisions, silences, the outbox."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import structlog

from analyzer.keep import Keep
from analyzer.store_schema import KIND
from service.sqlite import Connect, Damaged, Database, set_aside
from service.write_behind import WriteBehind

log = structlog.get_logger()

KEEP_UNREADABLE = 1000
DAY_NS = 24 * 3600 * 1_000_000_000
_NOTIFICATION = (
    "number, id, receiver, group_key, created_ns, next_ns, attempts, state, done_ns, error, status, said, tried_ns"
)


class Store:
    """The analyzer's SQLite file. Nothing is durable before `commit`; one process owns it.

    While the disk takes no writes they are kept in memory (service/write_behind.py): `problem` says so. `revision`s are
    microseconds since 1970 at the least and always rise, so that a store that was lost and made anew goes on above the
    lost one. `clock`: ns since 1970.
    """

    def __init__(
        self,
        path: Path | str,
        clock: Callable[[], int] = time.time_ns,
        connect: Connect = sqlite3.connect,
    ) -> None:
        """Open or make the file; StoreError, Damaged."""
        self._database = Database(path, KIND, connect)
        self._db = WriteBehind(self._database)
        self._clock = clock
        self.id = self._database.id
        self._unreadable = int(self._db.read("SELECT count(*) AS n FROM unreadable")[0]["n"])
        found = self._db.read(
            "SELECT max(r) AS r FROM "
            "(SELECT max(revision) AS r FROM incidents UNION ALL SELECT max(revision) FROM actions)"
        )
        self._revision = max(int(found[0]["r"] or 0), int(self.get("revision", 0)))
        self._number_from_now()

    @property
    def problem(self) -> str:
        """Why what was written last is not durable; "" when it is."""
        return self._db.problem

    def close(self) -> None:
        """Commit and close."""
        self._db.close()

    def commit(self) -> bool:
        """Make everything written so far durable, together; False while the disk takes no writes."""
        return self._db.commit()

    def next_revision(self) -> int:
        """A number above every one that was given out, also by a store of an earlier time."""
        self._revision = max(self._revision + 1, self._clock() // 1000)
        return self._revision

    def go_above(self, revision: int) -> None:
        """Give out no revision up to this one."""
        if revision > self._revision:
            self._revision = revision
            self.put("revision", revision)

    def _number_from_now(self) -> None:
        """A fresh store numbers events and decisions from the present time on, so that no number comes again."""
        for table in ("events", "decisions"):
            if not self._db.read("SELECT 1 FROM sqlite_sequence WHERE name = ?", table):
                first = self._clock() // 1000
                self._db.write("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", table, first)
        self._db.commit()

    # what cannot be read

    def _documents(self, table: str, rows: Iterable[sqlite3.Row], key: str = "id") -> list[tuple[sqlite3.Row, Any]]:
        """Rows with their documents; those that hold no JSON object are set aside."""
        out = []
        for row in rows:
            try:
                document = json.loads(row["document"])
                if not isinstance(document, dict):
                    raise ValueError("expected a JSON object")
            except (ValueError, TypeError, RecursionError) as error:
                self.set_aside(table, str(row[key]), str(error))
                continue
            out.append((row, document))
        return out

    def set_aside(self, table: str, key: str, why: str) -> None:
        """Take a row that cannot be read out of the way, into the table `unreadable`, and say so."""
        column = {"kept": "key"}.get(table, "id")
        log.error("a row of the store cannot be read; it is set aside", table=table, key=key, problem=why[:300])
        now = self._clock()
        value = {"kept": "value", "outbox": "incident_ids"}.get(table, "document")
        self._db.write(
            f"INSERT INTO unreadable (place, key, text, why, ts_ns) SELECT ?, ?, {value}, ?, ? FROM {table} "
            f"WHERE {column} = ?",
            table, key, why[:300], now, key,
        )  # fmt: skip
        self._db.write(f"DELETE FROM {table} WHERE {column} = ?", key)
        self._db.write(
            "DELETE FROM unreadable WHERE number <= (SELECT max(number) FROM unreadable) - ?", KEEP_UNREADABLE
        )
        self._db.commit()
        self._unreadable += 1

    def set_aside_words(self) -> str:
        """What to tell people of rows that were set aside; "" when there are none."""
        return f"{self._unreadable} rows could not be read and are in its table unreadable" if self._unreadable else ""

    # incidents

    def save_incident(
        self, identity: str, fingerprint: str, state: str, opened_ns: int, document: dict[str, Any]
    ) -> None:
        """Insert or replace one incident."""
        closed_ns = int(document.get("closed_ns") or 0)
        held = int(state != "closed")
        self._db.write(
            "INSERT OR REPLACE INTO incidents (id, fingerprint, state, opened_ns, revision, document, closed_ns, held) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            identity, fingerprint, state, opened_ns, self.next_revision(), json.dumps(document), closed_ns, held,
            key=("incident", identity),
        )  # fmt: skip

    def incidents(self) -> list[dict[str, Any]]:
        """Every incident document, oldest first."""
        rows = self._db.read("SELECT id, document FROM incidents ORDER BY opened_ns, id")
        return [d for _, d in self._documents("incidents", rows)]

    def hot_incidents(self, closed_after_ns: int, most: int) -> list[dict[str, Any]]:
        """What memory must hold, oldest first: what is not over, and the latest `most` of what closed after a time."""
        rows = self._db.read(
            "SELECT id, document FROM incidents WHERE state != 'closed' OR id IN (SELECT id FROM incidents "
            "WHERE state = 'closed' AND closed_ns > ? ORDER BY closed_ns DESC LIMIT ?) ORDER BY opened_ns, id",
            closed_after_ns, most,
        )  # fmt: skip
        return [d for _, d in self._documents("incidents", rows)]

    def incident(self, identity: str) -> dict[str, Any] | None:
        """One incident document."""
        found = self._documents("incidents", self._db.read("SELECT id, document FROM incidents WHERE id = ?", identity))
        return found[0][1] if found else None

    def incident_page(
        self, limit: int, before: tuple[int, str] | None = None, states: Collection[str] | None = None
    ) -> list[dict[str, Any]]:
        """Incident documents, newest first. `before`: opened_ns and id of the last one of the page before."""
        opened_ns, identity = before or (2**63 - 1, "\U0010ffff")
        rows = self._db.read(
            "SELECT id, document FROM incidents WHERE (opened_ns, id) < (?, ?) "
            "AND (?3 IS NULL OR state IN (SELECT value FROM json_each(?3))) ORDER BY opened_ns DESC, id DESC LIMIT ?4",
            opened_ns, identity, None if states is None else json.dumps(sorted(states)), limit,
        )  # fmt: skip
        return [d for _, d in self._documents("incidents", rows)]

    def incidents_after(self, revision: int, limit: int = 500) -> list[tuple[int, dict[str, Any]]]:
        """Incidents that changed after a revision, with theirs; fewer than `limit` only when there are no more."""
        return self._after("incidents", revision, limit)

    def _after(self, table: str, revision: int, limit: int) -> list[tuple[int, dict[str, Any]]]:
        while True:
            rows = self._db.read(
                f"SELECT id, revision, document FROM {table} WHERE revision > ? ORDER BY revision LIMIT ?",
                revision, limit,
            )  # fmt: skip
            found = self._documents(table, rows)
            if len(found) == len(rows):
                return [(r["revision"], d) for r, d in found]

    def add_event(self, incident_id: str, ts_ns: int, kind: str, text: str) -> None:
        """One line of an incident's timeline."""
        self._db.write(
            "INSERT INTO events (incident_id, ts_ns, kind, text) VALUES (?, ?, ?, ?)", incident_id, ts_ns, kind, text
        )

    def events(self, incident_id: str, limit: int = 10_000, before: int | None = None) -> list[dict[str, Any]]:
        """The timeline of an incident, oldest first: its last `limit` events, of those before a number."""
        rows = self._db.read(
            "SELECT number, ts_ns, kind, text FROM events WHERE incident_id = ?1 AND (?2 IS NULL OR number < ?2) "
            "ORDER BY number DESC LIMIT ?3",
            incident_id, before, limit,
        )  # fmt: skip
        return [dict(r) for r in reversed(rows)]

    def events_after(self, number: int, limit: int = 1000) -> list[dict[str, Any]]:
        """Events of all incidents after a number."""
        return [
            dict(r)
            for r in self._db.read("SELECT * FROM events WHERE number > ? ORDER BY number LIMIT ?", number, limit)
        ]

    # actions and decisions

    def save_action(self, identity: str, incident_id: str, ts_ns: int, document: dict[str, Any]) -> None:
        """Insert or replace one action."""
        self._db.write(
            "INSERT OR REPLACE INTO actions (id, incident_id, ts_ns, revision, document) VALUES (?, ?, ?, ?, ?)",
            identity, incident_id, ts_ns, self.next_revision(), json.dumps(document), key=("action", identity),
        )  # fmt: skip

    def actions(self, incident_id: str) -> list[dict[str, Any]]:
        """The actions of an incident, oldest first."""
        rows = self._db.read("SELECT id, document FROM actions WHERE incident_id = ? ORDER BY ts_ns, id", incident_id)
        return [d for _, d in self._documents("actions", rows)]

    def actions_after(self, revision: int, limit: int = 500) -> list[tuple[int, dict[str, Any]]]:
        """Actions that changed after a revision, with theirs; fewer than `limit` only when there are no more."""
        return self._after("actions", revision, limit)

    def add_decision(self, ts_ns: int, about: str, subject: str, decision: str, reason: str, incident_id: str) -> None:
        """What was decided, and why. `about`: remedy, alert, incident, detect."""
        self._db.write(
            "INSERT INTO decisions (ts_ns, about, subject, decision, reason, incident_id) VALUES (?, ?, ?, ?, ?, ?)",
            ts_ns, about, subject, decision, reason, incident_id,
        )  # fmt: skip

    def decisions(
        self, limit: int, incident_id: str | None = None, about: str | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        """The last decisions, of those before a number, newest first."""
        rows = self._db.read(
            "SELECT * FROM decisions WHERE (?1 IS NULL OR incident_id = ?1) AND (?2 IS NULL OR about = ?2) "
            "AND (?4 IS NULL OR number < ?4) ORDER BY number DESC LIMIT ?3",
            incident_id, about, limit, before,
        )  # fmt: skip
        return [dict(r) for r in rows]

    # silences

    def save_silence(self, identity: str, document: dict[str, Any]) -> None:
        """Insert or replace one silence."""
        self._db.write(
            "INSERT OR REPLACE INTO silences (id, document) VALUES (?, ?)",
            identity, json.dumps(document), key=("silence", identity),
        )  # fmt: skip

    def silences(self) -> list[dict[str, Any]]:
        """Every silence, expired ones too."""
        rows = self._db.read("SELECT id, document FROM silences ORDER BY id")
        return [d for _, d in self._documents("silences", rows)]

    # outbox

    def enqueue(
        self, identity: str, receiver: str, group_key: str, incident_ids: list[str], body: str, now_ns: int
    ) -> bool:
        """Put a notification into the outbox; False when one with this id is there already."""
        if self._db.read("SELECT 1 FROM outbox WHERE id = ?", identity):
            return False
        self._db.write(
            "INSERT INTO outbox (id, receiver, group_key, incident_ids, body, created_ns, next_ns) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            identity, receiver, group_key, json.dumps(incident_ids), body, now_ns, now_ns,
        )  # fmt: skip
        return True

    def pending(self) -> list[dict[str, Any]]:
        """Undelivered notifications, oldest first."""
        return [dict(r) for r in self._db.read("SELECT * FROM outbox WHERE state = 'pending' ORDER BY number")]

    def mark_delivery(
        self, identity: str, state: str, attempts: int, next_ns: int, done_ns: int | None, error: str | None, *,
        status: int | None = None, said: str | None = None, tried_ns: int | None = None,
        incident_ids: list[str] | None = None,
    ) -> None:  # fmt: skip
        """What became of an attempt. `state`: pending, delivered, refused, dropped. None leaves what was known."""
        ids = None if incident_ids is None else json.dumps(incident_ids)
        self._db.write(
            "UPDATE outbox SET state = ?, attempts = ?, next_ns = ?, done_ns = ?, error = ?, "
            "status = coalesce(?, status), said = coalesce(?, said), tried_ns = coalesce(?, tried_ns), "
            "incident_ids = coalesce(?, incident_ids) WHERE id = ?",
            state, attempts, next_ns, done_ns, error, status, said, tried_ns, ids, identity,
            key=("delivery", identity, status is None),
        )  # fmt: skip

    def notifications(
        self, limit: int, receiver: str | None = None, state: str | None = None, before: int | None = None
    ) -> list[dict[str, Any]]:
        """Notifications, newest first. `before`: only those with a lower number."""
        rows = self._db.read(
            f"SELECT {_NOTIFICATION} FROM outbox WHERE (?1 IS NULL OR receiver = ?1) AND (?2 IS NULL OR state = ?2) "
            "AND (?3 IS NULL OR number < ?3) ORDER BY number DESC LIMIT ?4",
            receiver, state, before, limit,
        )  # fmt: skip
        return [dict(r) for r in rows]

    def last_notification(self, receiver: str) -> dict[str, Any] | None:
        """The notification that a receiver answered last."""
        rows = self._db.read(
            f"SELECT {_NOTIFICATION} FROM outbox WHERE receiver = ? AND tried_ns IS NOT NULL "
            "ORDER BY tried_ns DESC, number DESC LIMIT 1",
            receiver,
        )
        return dict(rows[0]) if rows else None

    def deliveries(self, incident_id: str) -> list[dict[str, Any]]:
        """Every notification that named an incident, oldest first, without its body."""
        rows = self._db.read(
            f"SELECT {_NOTIFICATION} FROM outbox "
            "WHERE json_valid(incident_ids) AND EXISTS (SELECT 1 FROM json_each(incident_ids) WHERE value = ?) "
            "ORDER BY number",
            incident_id,
        )
        return [dict(r) for r in rows]

    def delivery_counts(self) -> dict[str, int]:
        """Notifications by state."""
        return {r[0]: r[1] for r in self._db.read("SELECT state, count(*) FROM outbox GROUP BY state")}

    # what is old

    def prune(self, keep: Keep, in_memory: Collection[str], now_ns: int) -> None:
        """Remove what is beyond the bounds in count or age; never what is open, in memory or still to be sent."""
        old = now_ns - round(keep.days * DAY_NS)
        self._db.write(
            "DELETE FROM incidents WHERE state = 'closed' AND id NOT IN (SELECT value FROM json_each(?1)) AND "
            "(closed_ns < ?2 OR id NOT IN (SELECT id FROM incidents ORDER BY opened_ns DESC, id DESC LIMIT ?3))",
            json.dumps(sorted(in_memory)), old, keep.incidents,
        )  # fmt: skip
        for table in ("events", "actions"):
            self._db.write(f"DELETE FROM {table} WHERE incident_id NOT IN (SELECT id FROM incidents)")
        # Of one that goes on and on, the beginning and the latest stay.
        self._db.write(
            "DELETE FROM events WHERE kind NOT IN ('first_look', 'opened') AND number IN (SELECT number FROM "
            "(SELECT number, row_number() OVER (PARTITION BY incident_id ORDER BY number DESC) AS n FROM events) "
            "WHERE n > ?)",
            keep.events_of_one,
        )
        self._db.write(
            "DELETE FROM decisions WHERE ts_ns < ? OR number <= (SELECT max(number) FROM decisions) - ?",
            old, keep.decisions,
        )  # fmt: skip
        self._db.write(
            "DELETE FROM outbox WHERE state != 'pending' AND "
            "(created_ns < ? OR number <= (SELECT max(number) FROM outbox) - ?)",
            old, keep.notifications,
        )  # fmt: skip
        self._db.write(
            "WITH ended AS (SELECT id, json_extract(document, '$.ends_ns') AS at FROM silences "
            "WHERE json_valid(document) AND json_extract(document, '$.ends_ns') < ?1) "
            "DELETE FROM silences WHERE id IN (SELECT id FROM ended WHERE at < ?2) OR (id IN (SELECT id FROM ended) "
            "AND id NOT IN (SELECT id FROM ended ORDER BY at DESC LIMIT ?3))",
            now_ns, old, keep.silences,
        )  # fmt: skip
        if self._db.commit():
            self._database.shrink()

    # anything small

    def put(self, key: str, value: Any) -> None:
        """Keep a JSON value."""
        self._db.write("INSERT OR REPLACE INTO kept VALUES (?, ?)", key, json.dumps(value), key=("kept", key))

    def get(self, key: str, default: Any = None) -> Any:
        """A kept value; the default when there is none, or when it is no JSON of the default's type (then said)."""
        rows = self._db.read("SELECT value FROM kept WHERE key = ?", key)
        if not rows:
            return default
        try:
            value = json.loads(rows[0]["value"])
            if default is not None and not isinstance(value, type(default)):
                raise ValueError(f"expected {type(default).__name__}, found {type(value).__name__}")
        except (ValueError, RecursionError) as error:
            self.set_aside("kept", key, str(error))
            return default
        return value


def open_store(path: Path) -> tuple[Store, str]:
    """The store, and what people should know of it: a damaged one is set aside, a new one made. StoreError, OSError."""
    try:
        return Store(path), ""
    except Damaged as error:
        aside = set_aside(path)
        notice = f"{error}: the store was damaged and is now {aside}; this one began empty"
        log.error("the store is damaged; it is set aside, and a new one begins", problem=str(error), aside=str(aside))
        return Store(path), notice
