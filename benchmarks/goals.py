"""What every result file carries beside its data: machine, commit, and each goal with what was reached."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table

from benchmarks.report import Document, commit, machine


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure that was asked for. `goal`: the bound in words, `reached`: what was measured (None: it was not)."""

    name: str
    goal: str
    reached: float | int | str | None
    holds: bool


def bound(name: str, kind: Literal["<=", ">=", "=="], limit: float, reached: float | None, unit: str = "") -> Goal:
    """A numeric goal. What was not measured does not hold."""
    holds = reached is not None and (
        reached <= limit if kind == "<=" else reached >= limit if kind == ">=" else reached == limit
    )
    return Goal(name, f"{kind} {limit:g}{' ' + unit if unit else ''}", reached, holds)


def result(data: Document, goals: Sequence[Goal]) -> Document:
    """A result file's document; ValueError when the data would hide what every file has."""
    taken = data.keys() & {"machine", "commit", "goals"}
    if taken:
        raise ValueError(f"data may not have the names {sorted(taken)}: every result file gives them their meaning")
    return {"machine": machine(), "commit": commit(), "goals": [asdict(goal) for goal in goals], **data}


def write(path: Path, document: Document) -> None:
    """Write a result file whole; its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)


def table(goals: Sequence[Goal], title: str) -> Table:
    """The goals, a row each. A missed one is said in words, not by colour alone."""
    shown = Table(title=title)
    for name in ("goal", "asked", "reached", "holds"):
        shown.add_column(name, justify="right" if name == "reached" else "left")
    for one in goals:
        reached = f"{one.reached:,.4g}" if isinstance(one.reached, float) else str(one.reached)
        shown.add_row(
            one.name, one.goal, "not measured" if one.reached is None else reached, "yes" if one.holds else "NO"
        )
    return shown
