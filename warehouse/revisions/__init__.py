"""The schema's numbered revisions (NNNN_name.up.sql, NNNN_name.down.sql) and the two variants they are rendered in.

A revision that has been applied somewhere is never edited: a change is a new number.

In the files, `$database` is the database, `$on_cluster` the cluster clause, `$days`, `$rollup_days` and `$history_days`
how long rows are kept, `$deduplication` the settings that make a repeated token insert nothing, and `@merge(...)`,
`@replacing(...)`, `@aggregating(...)` the engine.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated

from pydantic import Field

from contract.documents import Strict

FOLDER = Path(__file__).parent
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.up\.sql")
_ENGINE = re.compile(r"@(merge|replacing|aggregating)\(([^)]*)\)")
_ENGINES = {"merge": "MergeTree", "replacing": "ReplacingMergeTree", "aggregating": "AggregatingMergeTree"}

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Days = Annotated[int, Field(ge=1, le=36500)]


class Retention(Strict):
    """How many days rows are kept. `history`: incidents and actions."""

    records: Days = 30
    rollups: Days = 90
    history: Days = 400


class Variant(Strict):
    """Which ClickHouse the schema is for: the embedded engine or a single server, or a cluster of replicas.

    `cluster`: its name in the server's remote_servers; the servers must define the macros {shard} and {replica}.
    """

    database: Identifier = "tgw"
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")] | None = None
    retention: Retention = Retention()


@dataclass(frozen=True, slots=True)
class Revision:
    """One step of the schema. `up`, `down`: SQL templates."""

    number: int
    name: str
    up: str
    down: str


def all_revisions(folder: Path = FOLDER) -> list[Revision]:
    """Every revision in order. ValueError when a number is missing or used twice, or a way down is missing."""
    out = []
    for path in sorted(folder.glob("*.up.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path}: expected a name like 0001_records.up.sql")
        down = path.with_name(path.name.replace(".up.sql", ".down.sql"))
        if not down.exists():
            raise ValueError(f"{down}: expected the way down of {path.name}")
        out.append(Revision(int(match[1]), match[2], path.read_text(), down.read_text()))
    if [r.number for r in out] != list(range(1, len(out) + 1)):
        raise ValueError(f"{folder}: expected the numbers 1..{len(out)} once each, got {[r.number for r in out]}")
    return out


def render(template: str, variant: Variant) -> list[str]:
    """The statements of a revision for a variant."""
    replicated = variant.cluster is not None

    def engine(match: re.Match[str]) -> str:
        name, arguments = _ENGINES[match[1]], match[2]
        if replicated:
            path = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
            return f"Replicated{name}({path}{', ' if arguments else ''}{arguments})"
        return f"{name}({arguments})"

    window = "replicated_deduplication_window" if replicated else "non_replicated_deduplication_window"
    text = Template(_ENGINE.sub(engine, template)).substitute(
        database=variant.database,
        on_cluster=f"ON CLUSTER '{variant.cluster}'" if replicated else "",
        days=variant.retention.records,
        rollup_days=variant.retention.rollups,
        history_days=variant.retention.history,
        # The collector tries a batch again for as long as it must; the window is counted in inserts.
        deduplication=f"{window} = 10000",
    )
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [s.strip() for s in "\n".join(lines).split(";\n") if s.strip()]
