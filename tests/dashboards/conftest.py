"""Warehouses in processes of their own: one seeded with a region that something happened to, one with nothing in it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.dashboards import story
from warehouse.client import Connection, Unavailable, connect
from warehouse.migrate import Remote
from warehouse.rollups import roll
from warehouse.settings import WarehouseSettings


@dataclass(frozen=True, slots=True)
class Seeded:
    """A warehouse: connections as its writer and as its reader, the time that its seed took as now [ns], its reader."""

    writer: Connection
    reader: Connection
    now_ns: int
    as_reader: WarehouseSettings


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """The story of `story.py`; tests only read it."""
    with warehouse(tmp_path_factory.mktemp("seeded"), story.tell) as found:
        yield found


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeded]:
    """A warehouse that nobody wrote to."""
    with warehouse(tmp_path_factory.mktemp("empty"), lambda *_: None) as found:
        yield found


@contextlib.contextmanager
def warehouse(home: Path, seed: Callable[[Connection, int], None]) -> Iterator[Seeded]:
    """Start one in `home`, seed it, and end it afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    for name in ("writer", "reader"):
        (home / f"{name}.password").write_text(f"{name}-password-of-the-test")
    (home / "warehouse.toml").write_text(
        f'state_dir = "{home / "state"}"\n[listen]\nport = {port}\n'
        f'[writer]\nname = "tgw"\npassword_file = "{home / "writer.password"}"\n'
        f'[reader]\nname = "reader"\npassword_file = "{home / "reader.password"}"\n'
    )
    as_writer, as_reader = (
        WarehouseSettings(
            url=f"http://127.0.0.1:{port}", user=user, password_file=home / f"{file}.password", timeout_s=60
        )
        for user, file in (("tgw", "writer"), ("reader", "reader"))
    )
    writer, reader = Connection(as_writer), Connection(as_reader)
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "warehouse", str(home / "warehouse.toml")], stdout=log, stderr=log
        )
    try:
        wait_for(writer, process, home / "log")
        now_ns = time.time_ns()
        seed(writer, now_ns)
        # The process does it every half minute; nobody waits here.
        client = connect(as_writer)
        roll(Remote(client), as_writer.database)
        client.close()
        yield Seeded(writer, reader, now_ns, as_reader)
        writer.close()
        reader.close()
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_for(connection: Connection, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            connection.query("SELECT 1")
            return
        except Unavailable:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the warehouse did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
