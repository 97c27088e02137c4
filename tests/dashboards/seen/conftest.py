"""One browser and one warehouse per set of rows for all tests here; each dashboard is drawn once on each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.dashboards.seen import board, bundle, data
from tests.dashboards.seen.board import Seen
from tests.dashboards.seen.browser import Browser

Draw = Callable[[str, str], Seen]


@pytest.fixture(scope="session")
def page() -> Iterator[Browser]:
    if why := bundle.missing():
        pytest.skip(why)
    with Browser(bundle.made(), "index.html") as found:
        yield found


@pytest.fixture(scope="session")
def draw(page: Browser) -> Draw:
    """(name of the rows, uid) -> the dashboard as it was drawn."""
    documents = board.documents()
    seen: dict[tuple[str, str], Seen] = {}

    def give(rows: str, uid: str) -> Seen:
        if (rows, uid) not in seen:
            with data.store(rows) as store:
                asker = board.Asker(store.as_reader)
                for each, document in documents.items():
                    seen[rows, each] = board.look(page, asker, document, data.span(each, store.now_ns))
                asker.close()
        return seen[rows, uid]

    return give
