"""One browser and one warehouse per set of rows for all tests here; each dashboard is drawn once on each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from tests.dashboards.seen import board, bundle, data
from tests.dashboards.seen.board import Asker, Seen
from tests.dashboards.seen.browser import Browser


class Draw(Protocol):
    """Gives a dashboard as it was drawn on some rows (one of data.SEEDS)."""

    def __call__(self, rows: str, uid: str, mode: str = "dark") -> Seen: ...


@pytest.fixture(scope="session")
def page() -> Iterator[Browser]:
    if why := bundle.missing():
        pytest.skip(why)
    with Browser(bundle.made(), "index.html") as found:
        yield found


@dataclass(frozen=True, slots=True)
class Shown:
    """A page and the warehouse that it shows, with the time that its rows took as now [ns]."""

    page: Browser
    asker: Asker
    now_ns: int

    def look(self, uid: str, range_ms: tuple[int, int], chosen: dict[str, Any], mode: str = "dark") -> Seen:
        """A dashboard over a time range, with variables chosen."""
        return board.look(self.page, self.asker, board.documents()[uid], range_ms, chosen, mode=mode)


@pytest.fixture(scope="session")
def lab(page: Browser) -> Iterator[Shown]:
    """The recorded run."""
    with shown(page, "lab") as found:
        yield found


@contextlib.contextmanager
def shown(page: Browser, rows: str) -> Iterator[Shown]:
    with data.store(rows) as store:
        asker = Asker(store.as_reader)
        yield Shown(page, asker, store.now_ns)
        asker.close()


@pytest.fixture(scope="session")
def draw(page: Browser, lab: Shown) -> Draw:
    """Each dashboard is drawn once on each of the rows and in each of Grafana's themes."""
    seen: dict[tuple[str, str, str], Seen] = {}

    def give(rows: str, uid: str, mode: str = "dark") -> Seen:
        if (rows, uid, mode) not in seen:
            with contextlib.nullcontext(lab) if rows == "lab" else shown(page, rows) as found:
                for each in board.documents():
                    span, chosen = data.span(each, found.now_ns), data.chosen(found.asker, each)
                    for theme in ("light", "dark"):
                        seen[rows, each, theme] = found.look(each, span, chosen, theme)
        return seen[rows, uid, mode]

    return give
