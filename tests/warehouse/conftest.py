"""A real warehouse process for the tests: its own state, a free port, two users."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from warehouse.client import Connection
from warehouse.settings import WarehouseSettings

ROOT = Path(__file__).parents[2]
PASSWORDS = {"writer": "w-4b1c9f02d7aa41e8", "reader": "r-0d5be8c37f614c2a"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Warehouse:
    """A warehouse process under test, over the state in `folder`."""

    folder: Path
    port: int = field(default_factory=free_port)
    more: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def write_config(self) -> Path:
        for user, password in PASSWORDS.items():
            (self.folder / f"{user}.password").write_text(password + "\n")
        config = self.folder / "warehouse.toml"
        config.write_text(
            f'state_dir = "{self.folder}/state"\n'
            f'writer = {{ name = "writer", password_file = "{self.folder}/writer.password" }}\n'
            f'reader = {{ name = "reader", password_file = "{self.folder}/reader.password" }}\n'
            f'{self.more}\nlisten = {{ host = "127.0.0.1", port = {self.port} }}\n'
        )
        return config

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "warehouse", str(self.write_config())], cwd=ROOT, stderr=log, stdout=log
            )
        deadline = time.monotonic() + 90
        while True:
            try:
                if httpx.get(f"{self.url}/ping", trust_env=False).text == "Ok.\n":
                    return
            except httpx.HTTPError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the warehouse did not come up: {self.log[-2000:]}")
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def settings(self, user: str = "writer", **more: Any) -> WarehouseSettings:
        known = {"url": self.url, "user": user, "password_file": self.folder / f"{user}.password", "timeout_s": 60}
        return WarehouseSettings.model_validate(known | more)

    def connection(self, user: str = "writer") -> Connection:
        return Connection(self.settings(user))

    def post(self, query: str, user: str = "writer", body: bytes | None = None, **params: str) -> httpx.Response:
        """A raw request: the query in the URL when there is a body beside it."""
        headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": PASSWORDS.get(user, "")}
        if body is not None:
            params["query"] = query
        return httpx.post(
            self.url + "/",
            params={"database": "tgw"} | params,
            content=query.encode() if body is None else body,
            headers=headers,
            timeout=60,
            trust_env=False,
        )

    def rows(self, query: str, user: str = "writer") -> list[tuple[Any, ...]]:
        connection = self.connection(user)
        try:
            return connection.query(query)
        finally:
            connection.close()


def run_in(folder: Path, more: str = "") -> Iterator[Warehouse]:
    """A warehouse that runs for as long as the caller's fixture."""
    warehouse = Warehouse(folder, more=more)
    warehouse.start()
    try:
        yield warehouse
    finally:
        if warehouse.process is not None and warehouse.process.poll() is None:
            warehouse.end(signal.SIGKILL)


@pytest.fixture(scope="session")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """One warehouse for all tests that leave it running. Tests use rows and tables of their own."""
    yield from run_in(tmp_path_factory.mktemp("warehouse"))


@pytest.fixture
def own_warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    """A warehouse for one test, which may kill and start it again."""
    yield from run_in(tmp_path)


@pytest.fixture
def own_warehouse_with_short_limit(tmp_path: Path) -> Iterator[Warehouse]:
    """A warehouse that ends a reader's query after half a second."""
    yield from run_in(tmp_path, "reader_seconds = 0.5")


@pytest.fixture
def warehouse_of_two_seconds(tmp_path: Path) -> Iterator[Warehouse]:
    """A warehouse that ends a reader's query after two seconds."""
    yield from run_in(tmp_path, "reader_seconds = 2")


@pytest.fixture
def small_warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    """A warehouse that takes bodies of 64 KiB at most."""
    yield from run_in(tmp_path, "max_body_bytes = 65536")
