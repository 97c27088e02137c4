"""The shell around the engine against others that misbehave: a warehouse that hangs, receivers that never end."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from analyzer.alerting.deliver import Delivery
from analyzer.alerting.receivers import Receiver
from analyzer.settings import ENVIRONMENT_PREFIX, Settings
from analyzer.shell import Shell
from contract.documents import DocumentError
from service.settings import load
from tests.analyzer.model import fleet


@pytest.fixture
def hung() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        yield int(server.getsockname()[1])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(directory: Path, warehouse: int, port: int = 0) -> Path:
    (directory / "fleet.json").write_text(fleet().model_dump_json())
    (directory / "password").write_text("writer-password-0123456789\n")
    path = directory / "analyzer.toml"
    path.write_text(
        f'fleet = "{directory}/fleet.json"\nstate_dir = "{directory}/state"\nlisten = {{ port = {port} }}\n'
        f'[control]\nurl = "http://127.0.0.1:{free_port()}"\n'
        f'[warehouse]\nurl = "http://127.0.0.1:{warehouse}"\nuser = "w"\npassword_file = "{directory}/password"\n'
    )
    return path


def test_a_warehouse_that_hangs_does_not_hold_up_the_end(tmp_path: Path, hung: int) -> None:
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "analyzer", str(settings(tmp_path, hung, port))], stderr=log)
    try:
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            try:
                httpx.get(f"http://127.0.0.1:{port}/v1/health", timeout=2, trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        time.sleep(0.5)  # it is asking by now
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - began < 4
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_missing_password_file_is_refused_at_the_start(tmp_path: Path, hung: int) -> None:
    config = load(settings(tmp_path, hung), Settings, ENVIRONMENT_PREFIX)
    (tmp_path / "password").unlink()
    with pytest.raises(DocumentError, match="password"):
        Shell(config)


@pytest.mark.parametrize(
    ("answer", "status"),
    [(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200), (b"HTTP/1.1 200 OK\r\nx-a: 1", 0)],
)
def test_a_receiver_that_never_ends_is_not_waited_for(tmp_path: Path, hung: int, answer: bytes, status: int) -> None:
    """A notification that is under way for ever would never be tried again, and would hold up those after it."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        while not writer.is_closing():
            writer.write(b"1\r\nx\r\n" if status else b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def story() -> tuple[int, str]:
        shell = Shell(load(settings(tmp_path, hung), Settings, ENVIRONMENT_PREFIX))
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        receiver = Receiver.model_validate({"name": "ops", "url": f"http://127.0.0.1:{port}/", "timeout_s": 0.5})
        try:
            async with asyncio.timeout(5):
                return await shell._post(receiver, Delivery("msg_1", "ops", b"{}", 0))
        finally:
            server.close()

    found, error = asyncio.run(story())
    assert found == status
    assert bool(error) is (status == 0)
