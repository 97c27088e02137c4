"""Clients that are not of Python, against the embedded endpoint (or the server that TGW_CLICKHOUSE_URL names)."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from tests.warehouse.conformance.clients import CLIENTS, HERE, Missing, checks
from warehouse.client import connect

TABLE = "conformance_clients"
NAMES = ("TGW_CLICKHOUSE_URL", "TGW_CLICKHOUSE_USER", "TGW_CLICKHOUSE_PASSWORD_FILE", "TGW_CLICKHOUSE_DATABASE")


@pytest.fixture(scope="module")
def environment(warehouse: Any) -> dict[str, str]:
    client = connect(warehouse.settings())
    client.command(f"CREATE TABLE IF NOT EXISTS {TABLE} (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    client.close()
    password = str(warehouse.folder / "writer.password")
    given = dict(zip(NAMES, (warehouse.url, "writer", password, "tgw"), strict=True))
    if NAMES[0] in os.environ:
        given = {name: os.environ.get(name, "default") for name in NAMES}
    return given | {"TGW_TABLE": TABLE}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "least"), [("go", 60), ("node", 36), ("jdbc", 28)])
def test_client(environment: dict[str, str], name: str, least: int) -> None:
    try:
        found = checks(name, environment)
    except Missing as reason:
        pytest.skip(f"the client of {name}: {reason}")
    assert [check for check in found if not check["ok"]] == []
    assert len(found) >= least


def test_pins_name_no_registry() -> None:
    files = [path for name in CLIENTS for path in (HERE / name).iterdir()]
    assert {"go.sum", "package-lock.json", "pom.xml"} <= {path.name for path in files}
    for path in files:
        if path.suffix in (".json", ".xml", ".sum", ".mod"):
            hosts = re.findall(r"https?://([^/\"\s<]+)", path.read_text())
            assert set(hosts) <= {"maven.apache.org"}, path  # the name of pom.xml's own schema
