"""Brings a database to a revision of the schema, up or down, and records what was applied.

`python -m warehouse.migrate CONFIG.toml [NUMBER]` does it on a ClickHouse server or cluster (without NUMBER: to the
newest revision); the owner of the embedded engine (`python -m warehouse`) does it by itself at its start.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from contract.documents import DocumentError, Strict
from service.settings import load, refuse
from warehouse.client import Refused, Unavailable, connect
from warehouse.revisions import Retention, Revision, Variant, all_revisions, render
from warehouse.settings import WarehouseSettings

LEDGER = "schema_revisions"


class Database(Protocol):
    """Who runs the statements: the embedded engine, or a client of a server."""

    def command(self, statement: str) -> None:
        """Run a statement; errors as the database has them."""

    def rows(self, query: str) -> Sequence[Sequence[Any]]:
        """The rows of a query; errors as the database has them."""


class Remote:
    """A ClickHouse server behind a clickhouse-connect client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def command(self, statement: str) -> None:
        """Run a statement; the driver's errors."""
        self._client.command(statement)

    def rows(self, query: str) -> Sequence[Sequence[Any]]:
        """The rows of a query; the driver's errors."""
        rows: Sequence[Sequence[Any]] = self._client.query(query).result_rows
        return rows


class MigrateSettings(Strict):
    """The configuration file of `python -m warehouse.migrate`. `cluster`: as in Variant."""

    warehouse: WarehouseSettings
    cluster: str | None = None
    retention: Retention = Retention()


class SchemaError(Exception):
    """The database holds a schema that this program cannot bring to the wanted revision."""


# What the ledger says of a revision.
ABSENT, PRESENT, UNDER_WAY = 0, 1, 2


def recorded(database: Database, variant: Variant) -> dict[int, tuple[str, int]]:
    """Number -> name and state (PRESENT, UNDER_WAY) of the revisions that the database holds, whole or in part."""
    cluster = f" ON CLUSTER '{variant.cluster}'" if variant.cluster else ""
    engine = render("@replacing(at)", variant)[0]
    database.command(f"CREATE DATABASE IF NOT EXISTS {variant.database}{cluster} ENGINE = Atomic")
    database.command(
        f"CREATE TABLE IF NOT EXISTS {variant.database}.{LEDGER}{cluster} "
        "(number UInt32, name String, state UInt8, at DateTime64(6, 'UTC') DEFAULT now64(6)) "
        f"ENGINE = {engine} ORDER BY number"
    )
    rows = database.rows(
        f"SELECT number, argMax(name, at), argMax(state, at) AS now FROM {variant.database}.{LEDGER} "
        f"GROUP BY number HAVING now != {ABSENT} ORDER BY number"
    )
    return {int(number): (str(name), int(state)) for number, name, state in rows}


def migrate(database: Database, variant: Variant, to: int | None = None) -> list[str]:
    """Apply revisions up or down until `to` is the last one applied (None: the newest). What was done, in words.

    SchemaError when the database holds revisions that this program does not know.
    """
    known = {r.number: r for r in all_revisions()}
    target = max(known) if to is None else to
    if target not in known and target != 0:
        raise SchemaError(f"revision {target} does not exist: expected 0..{max(known)}")
    present = recorded(database, variant)
    for number, (name, _) in present.items():
        if number not in known or known[number].name != name:
            raise SchemaError(
                f"database {variant.database} holds revision {number:04} {name}, which this version of tgw does not "
                "know: run the version that made it, or a newer one"
            )
    # A revision that was interrupted is taken back first: every way down tolerates what is not there.
    gone = {n for n, (_, state) in present.items() if n > target or state == UNDER_WAY}
    done = [_apply(database, variant, known[number], up=False) for number in sorted(gone, reverse=True)]
    missing = [n for n in sorted(known) if n <= target and (n in gone or n not in present)]
    return done + [_apply(database, variant, known[number], up=True) for number in missing]


def _apply(database: Database, variant: Variant, revision: Revision, *, up: bool) -> str:
    _record(database, variant, revision, UNDER_WAY)
    for statement in render(revision.up if up else revision.down, variant):
        database.command(statement)
    _record(database, variant, revision, PRESENT if up else ABSENT)
    return f"{revision.number:04} {revision.name} {'up' if up else 'down'}"


def _record(database: Database, variant: Variant, revision: Revision, state: int) -> None:
    database.command(
        f"INSERT INTO {variant.database}.{LEDGER} (number, name, state) "
        f"VALUES ({revision.number}, '{revision.name}', {state})"
    )


def main(arguments: list[str]) -> int:
    """Migrate the server that a configuration file names. 2 for a bad configuration, 1 when the server refuses."""
    if len(arguments) not in (1, 2) or not all(a.isdecimal() for a in arguments[1:]):
        print("usage: python -m warehouse.migrate CONFIG.toml [NUMBER]", file=sys.stderr)
        return 2
    try:
        settings = load(arguments[0], MigrateSettings, "TGW_MIGRATE_")
        variant = Variant(database=settings.warehouse.database, cluster=settings.cluster, retention=settings.retention)
    except DocumentError as error:
        refuse(error)
    from clickhouse_connect.driver.exceptions import Error

    try:
        client = connect(settings.warehouse.model_copy(update={"database": "default"}))
        done = migrate(Remote(client), variant, int(arguments[1]) if len(arguments) > 1 else None)
    except (SchemaError, Unavailable, Refused, Error) as error:
        print(f"{settings.warehouse.url}: {error}", file=sys.stderr)
        return 1
    print("\n".join(done) or "nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
