"""The tables of the analyzer's store, step by step. A step that has been applied somewhere is never edited."""

from __future__ import annotations

from service.sqlite import Kind

_FIRST = """
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

# `held`: memory must know the incident (it is open, or its node has not come back), so it is never removed.
_BOUNDED = """
ALTER TABLE incidents ADD COLUMN closed_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE incidents ADD COLUMN held INTEGER NOT NULL DEFAULT 1;
UPDATE incidents SET closed_ns = coalesce(json_extract(document, '$.closed_ns'), 0),
  held = state != 'closed' OR NOT coalesce(json_extract(document, '$.cleared'), 1) WHERE json_valid(document);
CREATE INDEX incidents_by_time ON incidents (opened_ns, id);
CREATE INDEX incidents_held ON incidents (held, closed_ns);
CREATE INDEX actions_by_incident ON actions (incident_id, ts_ns);
CREATE INDEX actions_by_revision ON actions (revision);
CREATE INDEX decisions_by_incident ON decisions (incident_id, number);
CREATE TABLE unreadable (
  number INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, key TEXT NOT NULL, text TEXT, why TEXT NOT NULL,
  ts_ns INTEGER NOT NULL);
"""

# What a receiver said last, and when. Bodies are made anew at each try, so none is kept.
_SAID = """
ALTER TABLE outbox ADD COLUMN status INTEGER;
ALTER TABLE outbox ADD COLUMN said TEXT;
ALTER TABLE outbox ADD COLUMN tried_ns INTEGER;
CREATE INDEX outbox_by_receiver ON outbox (receiver, tried_ns);
"""

KIND = Kind("analyzer", 0x7467_7701, (_FIRST, _BOUNDED, _SAID))
