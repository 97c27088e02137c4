"""The schema as numbered revisions. Each module has UP and DOWN: lists of statements with the fields of `Variant`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema, both ways."""

    number: int
    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variant:
    """How the statements are rendered: one engine alone, or a cluster with replicated tables."""

    database: str = "tgw"
    cluster: str | None = None
    retention_days: int = 30

    def render(self, statement: str) -> str:
        """The statement for this variant."""
        on_cluster = f"ON CLUSTER {self.cluster}" if self.cluster else ""
        # Replicated engines deduplicate by themselves; a plain MergeTree must be told how far back to look.
        window = "" if self.cluster else ", non_replicated_deduplication_window = 10000"
        return statement.format(
            db=self.database,
            on_cluster=on_cluster,
            merge_tree=self._engine("MergeTree"),
            replacing=self._engine("ReplacingMergeTree", "revision"),
            aggregating=self._engine("AggregatingMergeTree"),
            window=window,
            days=self.retention_days,
        )

    def _engine(self, name: str, argument: str | None = None) -> str:
        if self.cluster is None:
            return f"{name}({argument or ''})"
        path = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
        return f"Replicated{name}({path}{', ' + argument if argument else ''})"


def all_revisions() -> list[Revision]:
    """Every revision, by number; ValueError when a number is missing."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        if match := re.fullmatch(r"r(\d{4})_(\w+)", module.name):
            loaded = importlib.import_module(f"{__name__}.{module.name}")
            found.append(Revision(int(match[1]), match[2], tuple(loaded.UP), tuple(loaded.DOWN)))
    found.sort(key=lambda revision: revision.number)
    if [revision.number for revision in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"revisions are not numbered 1, 2, 3, ...: {[r.number for r in found]}")
    return found
