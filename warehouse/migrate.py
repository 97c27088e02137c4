"""Apply revisions up and down. Works on anything that executes a statement and answers a query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from warehouse.revisions import Revision, Variant, all_revisions


class Executor(Protocol):
    """What a runner needs of a connection."""

    def command(self, statement: str) -> None:
        """Execute a statement."""

    def rows(self, query: str) -> list[Sequence[Any]]:
        """The rows of a query."""


_LEDGER = """CREATE TABLE IF NOT EXISTS {db}.schema_revisions {on_cluster} (
    number UInt32, name String, applied UInt8, at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = {merge_tree} ORDER BY (number, at)"""


def applied(executor: Executor, variant: Variant) -> set[int]:
    """The numbers of the revisions that are in force; empty on a fresh engine."""
    present = executor.rows(
        f"SELECT count() FROM system.tables WHERE database = '{variant.database}' AND name = 'schema_revisions'"
    )
    if not int(present[0][0]):
        return set()
    found = executor.rows(
        f"SELECT number FROM {variant.database}.schema_revisions GROUP BY number HAVING argMax(applied, at) = 1"
    )
    return {int(row[0]) for row in found}


def up(executor: Executor, variant: Variant, target: int | None = None) -> list[Revision]:
    """Apply what is missing, up to and with `target`; what was applied."""
    executor.command(variant.render("CREATE DATABASE IF NOT EXISTS {db} {on_cluster}"))
    executor.command(variant.render(_LEDGER))
    done, present = [], applied(executor, variant)
    for revision in all_revisions():
        if revision.number in present or (target is not None and revision.number > target):
            continue
        # Each statement is idempotent, so that a run that was cut off is repeated from its start.
        for statement in revision.up:
            executor.command(variant.render(statement))
        _note(executor, variant, revision, True)
        done.append(revision)
    return done


def down(executor: Executor, variant: Variant, target: int = 0) -> list[Revision]:
    """Take back every revision above `target`; what was taken back."""
    done, present = [], applied(executor, variant)
    for revision in reversed(all_revisions()):
        if revision.number not in present or revision.number <= target:
            continue
        for statement in revision.down:
            executor.command(variant.render(statement))
        _note(executor, variant, revision, False)
        done.append(revision)
    return done


def _note(executor: Executor, variant: Variant, revision: Revision, is_applied: bool) -> None:
    executor.command(
        f"INSERT INTO {variant.database}.schema_revisions (number, name, applied) "
        f"VALUES ({revision.number}, '{revision.name}', {int(is_applied)})"
    )
