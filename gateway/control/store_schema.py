"""The tables of control's store, step by step. A step that has been applied somewhere is never edited."""

from __future__ import annotations

from service.sqlite import Kind

_FIRST = """
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

# `change` rises with every change of any migration. Retention raises the audit's floor: what lies below it may go.
_BOUNDED = """
ALTER TABLE migration ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
ALTER TABLE migration ADD COLUMN state TEXT NOT NULL DEFAULT '';
ALTER TABLE migration ADD COLUMN active INTEGER NOT NULL DEFAULT 1;
ALTER TABLE migration ADD COLUMN requested_ns INTEGER NOT NULL DEFAULT 0;
UPDATE migration SET change = seq, state = coalesce(json_extract(document, '$.state'), ''),
  requested_ns = coalesce(json_extract(document, '$.requested_ns'), 0),
  active = json_extract(document, '$.state') IN ('planned', 'configuring', 'announcing', 'verifying')
    OR coalesce(json_extract(document, '$.settling'), 0) WHERE json_valid(document);
CREATE INDEX migration_by_change ON migration (change);
CREATE INDEX migration_active ON migration (active, seq);
CREATE TABLE audit_floor (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO audit_floor VALUES (1, 0);
DROP TRIGGER audit_no_delete;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit WHEN OLD.seq > (SELECT seq FROM audit_floor)
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_floor_rises BEFORE UPDATE ON audit_floor WHEN NEW.seq < OLD.seq
  BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TABLE unreadable (seq INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, key TEXT NOT NULL, document TEXT,
                         why TEXT NOT NULL, ts_ns INTEGER NOT NULL) STRICT;
"""

KIND = Kind("control", 0x7467_7702, (_FIRST, _BOUNDED))
