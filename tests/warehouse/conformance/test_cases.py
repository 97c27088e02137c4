"""Every case of cases.toml against the embedded endpoint, and against a real server where one is given.

A real server: TGW_CLICKHOUSE_URL; for a writer TGW_CLICKHOUSE_USER and TGW_CLICKHOUSE_PASSWORD_FILE, for one that may
only read TGW_CLICKHOUSE_READER and TGW_CLICKHOUSE_READER_PASSWORD_FILE; TGW_CLICKHOUSE_DATABASE (`default`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.warehouse.conformance.cases import DOCUMENT, Case, Endpoint, cases, faults, published
from warehouse.client import connect
from warehouse.settings import WarehouseSettings

TABLE = "conformance_cases"


def prepared(settings: WarehouseSettings, database: str) -> None:
    client = connect(settings.model_copy(update={"database": database}))
    client.command(f"DROP TABLE IF EXISTS {TABLE} SYNC")
    client.command(f"CREATE TABLE {TABLE} (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    client.insert(TABLE, [[1, "one"], [2, "two"], [3, "three"]], column_names=["a", "b"])
    client.close()


@pytest.fixture(scope="module")
def embedded(warehouse: Any) -> Endpoint:
    prepared(warehouse.settings(), "tgw")
    users = {name: (name, (warehouse.folder / f"{name}.password").read_text().strip()) for name in ("reader", "writer")}
    return Endpoint(warehouse.url, "tgw", TABLE, users, real=False)


@pytest.fixture(scope="module")
def server() -> Endpoint:
    if "TGW_CLICKHOUSE_URL" not in os.environ:
        pytest.skip("no ClickHouse server is given: TGW_CLICKHOUSE_URL is not set")
    url = os.environ["TGW_CLICKHOUSE_URL"].rstrip("/")
    database = os.environ.get("TGW_CLICKHOUSE_DATABASE", "default")
    writer, reader = os.environ["TGW_CLICKHOUSE_USER"], os.environ["TGW_CLICKHOUSE_READER"]
    file = Path(os.environ["TGW_CLICKHOUSE_PASSWORD_FILE"])
    read_file = Path(os.environ["TGW_CLICKHOUSE_READER_PASSWORD_FILE"])
    prepared(WarehouseSettings(url=url, user=writer, password_file=file), database)
    users = {"writer": (writer, file.read_text().strip()), "reader": (reader, read_file.read_text().strip())}
    return Endpoint(url, database, TABLE, users, real=True)


def each() -> list[Any]:
    return [pytest.param(case, id=case.name.replace(" ", "-")) for case in cases()]


@pytest.mark.parametrize("case", each())
def test_embedded(embedded: Endpoint, case: Case) -> None:
    assert faults(embedded, case) == []


@pytest.mark.parametrize("case", each())
def test_server(server: Endpoint, case: Case) -> None:
    assert faults(server, case) == []


def test_names_are_given_once_and_whatever_is_not_the_same_says_why() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) >= 60
    for case in cases():
        assert not (case.differs and case.refused), case.name
        assert case.text is not None or case.like or case.code, case.name
        assert not case.server or case.differs or case.refused, case.name


def test_what_was_inserted_is_there(embedded: Endpoint) -> None:
    """Runs last: the answer of an insert says nothing of its rows."""
    count = Case("rows", "", body=f"SELECT arraySort(groupArray(a)) FROM {TABLE}", text=None)
    rows = set(map(int, embedded.request(count).text.strip().strip("[]").split(",")))
    assert rows >= {1, 2, 3, 11, 12, 13, 14, 15, 16, 21, 22, 23, 24}


def test_the_document_shows_these_cases() -> None:
    text = DOCUMENT.read_text()
    assert published(text) == text, "run: python -m tests.warehouse.conformance.cases"
