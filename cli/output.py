"""How the command line speaks: tables for people, JSON for programs, errors in one line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from contract.documents import DocumentError
from lab.state import BadInput, LabError

BAD_INPUT, FAILED = 2, 1
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]

P = ParamSpec("P")
R = TypeVar("R")


def console() -> Console:
    """Standard output for people."""
    return Console(highlight=False)


def say_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, indent=1, default=str) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Table:
    """A table; None is shown as a dash, never as a zero."""
    out = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        out.add_row(*("-" if cell is None else str(cell) for cell in row))
    return out


def fail(message: str, as_json: bool, code: int) -> NoReturn:
    """End with `code` and the message: on standard error, or as {"error": ...} on standard output."""
    if as_json:
        say_json({"error": message})
    else:
        print(f"error: {message}", file=sys.stderr)
    raise typer.Exit(code)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turns what a command may raise into one message and an exit code: 2 for bad input, 1 for a failure."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        as_json = bool(kwargs.get("json_", False))
        try:
            return command(*args, **kwargs)
        except (DocumentError, BadInput) as error:
            fail(str(error), as_json, BAD_INPUT)
        except LabError as error:
            fail(str(error), as_json, FAILED)

    return run


class Steps:
    """Progress of a long command: a bar per step on a terminal, one line per finished step elsewhere (stderr)."""

    def __init__(self, shown: bool = True) -> None:
        self._shown = shown
        self._console = Console(stderr=True, highlight=False)
        self._tasks: dict[str, Any] = {}
        self._finished: set[str] = set()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            console=self._console,
        )

    def __enter__(self) -> Steps:
        if self._shown and self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown and self._console.is_terminal:
            self._progress.stop()

    def __call__(self, step: str, done: int, total: int) -> None:
        if not self._shown:
            return
        if self._console.is_terminal:
            if step not in self._tasks:
                self._tasks[step] = self._progress.add_task(step, total=total)
            self._progress.update(self._tasks[step], completed=done, total=total)
        elif done >= total and step not in self._finished:
            self._finished.add(step)
            print(f"{step}: {done}/{total}", file=sys.stderr)
