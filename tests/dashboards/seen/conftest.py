"""One browser and one warehouse per set of rows for all tests here; each dashboard is drawn once on each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from tests.dashboards.seen import board, bundle, data
from tests.dashboards.seen.board import Seen
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


@pytest.fixture(scope="session")
def draw(page: Browser) -> Draw:
    """Each dashboard is drawn once on each of the rows and in each of Grafana's themes."""
    documents = board.documents()
    seen: dict[tuple[str, str, str], Seen] = {}

    def give(rows: str, uid: str, mode: str = "dark") -> Seen:
        if (rows, uid, mode) not in seen:
            with data.store(rows) as store:
                asker = board.Asker(store.as_reader)
                for each, document in documents.items():
                    span, chosen = data.span(each, store.now_ns), data.chosen(asker, each)
                    for theme in ("light", "dark"):
                        seen[rows, each, theme] = board.look(page, asker, document, span, chosen, mode=theme)
                asker.close()
        return seen[rows, uid, mode]

    return give
