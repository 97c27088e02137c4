"""The process: what it refuses at its start, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.warehouse.conftest import PASSWORDS, ROOT, Warehouse


def run(*arguments: str, module: str = "warehouse") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_it_needs_a_file() -> None:
    assert run().returncode == 2
    done = run("/no/such/file.toml")
    assert done.returncode == 2
    assert "/no/such/file.toml" in done.stderr


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("state_dir =", "state_dri ="), "state_dir"),
        (('host = "127.0.0.1"', "host = 5"), "listen.host"),
        (('name = "reader"', "name = 5"), "reader.name"),
        (("listen =", "reader_seconds = -1\nlisten ="), "reader_seconds"),
        (("listen =", 'database = "a b"\nlisten ='), "database"),
    ],
)
def test_a_wrong_configuration_names_file_and_path(tmp_path: Path, change: tuple[str, str], path: str) -> None:
    config = Warehouse(tmp_path).write_config()
    text = config.read_text()
    assert change[0] in text
    config.write_text(text.replace(*change))
    done = run(str(config))
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert path in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("name", ["writer", "reader"])
def test_off_loopback_a_short_password_is_refused_and_not_shown(tmp_path: Path, name: str) -> None:
    config = Warehouse(tmp_path).write_config()
    config.write_text(config.read_text().replace('host = "127.0.0.1"', 'host = "0.0.0.0"'))
    for each in ("writer", "reader"):
        (tmp_path / f"{each}.password").write_text("long-enough-for-the-open\n")
    (tmp_path / f"{name}.password").write_text("too-short\n")
    done = run(str(config))
    assert done.returncode == 2
    assert f"{name}.password" in done.stderr
    assert "at least 16 characters" in done.stderr
    assert "too-short" not in done.stderr


def test_an_empty_password_file_is_refused(tmp_path: Path) -> None:
    config = Warehouse(tmp_path).write_config()
    (tmp_path / "reader.password").write_text("\n")
    done = run(str(config))
    assert done.returncode == 2
    assert "reader.password" in done.stderr
    assert "expected a password" in done.stderr


def test_two_processes_cannot_have_one_path(warehouse: Any) -> None:
    done = run(str(warehouse.folder / "warehouse.toml"))
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert warehouse.rows("SELECT 1") == [(1,)]


def test_sigterm_ends_it_soon_and_cleanly(own_warehouse: Any) -> None:
    assert own_warehouse.rows("SELECT 1") == [(1,)]
    started = time.monotonic()
    assert own_warehouse.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < 10
    assert not list((own_warehouse.folder / "state").glob("insert-*"))


def test_a_slow_dashboard_does_not_keep_it_from_ending(own_warehouse: Any) -> None:
    slow = "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = cityHash64(number) % 5"
    threads = [threading.Thread(target=own_warehouse.post, args=(slow, "reader"), daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 15
    while own_warehouse.rows("SELECT count() FROM system.processes WHERE query LIKE '%cityHash64(number)%'")[0][0] < 3:
        assert time.monotonic() < deadline
    started = time.monotonic()
    assert own_warehouse.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < 10  # the queries alone would take twice as long
    for thread in threads:
        thread.join(10)


def test_a_server_is_migrated_by_command(warehouse: Any, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORDS["writer"])
    config = tmp_path / "migrate.toml"
    config.write_text(
        f'[warehouse]\nurl = "{warehouse.url}"\nuser = "writer"\npassword_file = "{tmp_path}/password"\n'
        'database = "by_command"\n'
    )
    up = run(str(config), module="warehouse.migrate")
    assert (up.returncode, up.stderr) == (0, "")
    assert up.stdout.splitlines()[0] == "0001 records up"
    assert run(str(config), module="warehouse.migrate").stdout == "nothing to do\n"
    down = run(str(config), "0", module="warehouse.migrate")
    assert down.stdout.splitlines()[-1] == "0001 records down"
    assert run(str(config), "99", module="warehouse.migrate").returncode == 1
    assert run(str(config), "up", module="warehouse.migrate").returncode == 2
    warehouse.post("DROP DATABASE by_command SYNC")
