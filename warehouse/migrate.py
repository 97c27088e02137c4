"""Brings a database to a revision of the schema, up or down, and records what was applied.

`python -m warehouse.migrate CONFIG [up|down] [NUMBER]` does it on a ClickHouse server; the embedded engine's owner
(`python -m warehouse`) does it by itself at its start.
"""

from __future__ import annotations

from typing import Any, Protocol

from warehouse.revisions import Revision, Variant, all_revisions, render

LEDGER = "schema_revisions"


class Client(Protocol):
    """The part of a clickhouse-connect client that is needed."""

    def command(self, cmd: str) -> Any:
        """Run a statement; the driver's errors."""

    def query(self, query: str) -> Any:
        """Run a SELECT; the driver's errors."""


class SchemaError(Exception):
    """The database holds a schema that this program cannot bring to the wanted revision."""


# What the ledger says of a revision.
ABSENT, PRESENT, UNDER_WAY = 0, 1, 2


def recorded(client: Client, variant: Variant) -> dict[int, tuple[str, int]]:
    """Number -> name and state (PRESENT, UNDER_WAY) of the revisions that the database holds, whole or in part."""
    cluster = f" ON CLUSTER '{variant.cluster}'" if variant.cluster else ""
    engine = render("@replacing(at)", variant)[0]
    client.command(f"CREATE DATABASE IF NOT EXISTS {variant.database}{cluster} ENGINE = Atomic")
    client.command(
        f"CREATE TABLE IF NOT EXISTS {variant.database}.{LEDGER}{cluster} "
        "(number UInt32, name String, state UInt8, at DateTime64(6, 'UTC') DEFAULT now64(6)) "
        f"ENGINE = {engine} ORDER BY number"
    )
    rows = client.query(
        f"SELECT number, argMax(name, at), argMax(state, at) AS now FROM {variant.database}.{LEDGER} "
        f"GROUP BY number HAVING now != {ABSENT} ORDER BY number"
    ).result_rows
    return {int(number): (str(name), int(state)) for number, name, state in rows}


def migrate(client: Client, variant: Variant, to: int | None = None) -> list[str]:
    """Apply revisions up or down until `to` is the last one applied (None: the newest). What was done, in words.

    SchemaError when the database holds revisions that this program does not know.
    """
    known = {r.number: r for r in all_revisions()}
    target = max(known) if to is None else to
    if target not in known and target != 0:
        raise SchemaError(f"revision {target} does not exist: expected 0..{max(known)}")
    present = recorded(client, variant)
    for number, (name, _) in present.items():
        if number not in known or known[number].name != name:
            raise SchemaError(
                f"database {variant.database} holds revision {number:04} {name}, which this version of tgw does not "
                "know: run the version that made it, or a newer one"
            )
    done = []
    # A revision that was interrupted is taken back first: every way down tolerates what is not there.
    gone = {n for n, (_, state) in present.items() if n > target or state == UNDER_WAY}
    for number in sorted(gone, reverse=True):
        done.append(_apply(client, variant, known[number], up=False))
    for number in sorted(known):
        if number <= target and (number in gone or number not in present):
            done.append(_apply(client, variant, known[number], up=True))
    return done


def _apply(client: Client, variant: Variant, revision: Revision, *, up: bool) -> str:
    _record(client, variant, revision, UNDER_WAY)
    for statement in render(revision.up if up else revision.down, variant):
        client.command(statement)
    _record(client, variant, revision, PRESENT if up else ABSENT)
    return f"{revision.number:04} {revision.name} {'up' if up else 'down'}"


def _record(client: Client, variant: Variant, revision: Revision, state: int) -> None:
    client.command(
        f"INSERT INTO {variant.database}.{LEDGER} (number, name, state) "
        f"VALUES ({revision.number}, '{revision.name}', {state})"
    )
