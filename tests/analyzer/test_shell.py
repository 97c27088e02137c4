"""The shell around the engine against others that misbehave: a warehouse that hangs, receivers that never end."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from analyzer.alerting.answer import Answer
from analyzer.alerting.notice import Notice
from analyzer.alerting.receivers.alertmanager_webhook import AlertmanagerWebhook
from analyzer.alerting.receivers.base import Message, Receiver
from analyzer.engine import Engine
from analyzer.settings import ENVIRONMENT_PREFIX, Settings
from analyzer.shell import Shell
from contract.documents import DocumentError
from service.settings import load
from tests.analyzer.desk import alert
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


class Broken(AlertmanagerWebhook):
    """A receiver with a fault of ours in it."""

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        raise RuntimeError("a fault of ours, about https://hooks.example.net/T0/secret")


def test_a_fault_in_sending_loses_no_notification_and_ends_no_loop(
    tmp_path: Path, hung: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception, in a receiver, in the store, or in working out what is due: there is a next try all the same."""
    config = load(settings(tmp_path, hung), Settings, ENVIRONMENT_PREFIX)
    shell = Shell(config)
    broken = Broken.model_validate({"name": "broken", "url": "http://127.0.0.1:9/"})
    fine = AlertmanagerWebhook.model_validate({"name": "fine", "url": "http://127.0.0.1:9/"})
    sent: list[str] = []
    faults = iter([OSError("disk"), ValueError("due")])

    async def post(receiver: Receiver, message: object) -> Answer:
        sent.append(receiver.name)
        return Answer("taken", 200)

    async def story() -> None:
        shell.engine = Engine(shell.engine.region, shell.store, time.time_ns(), [broken, fine])
        shell._receivers = {"broken": broken, "fine": fine}
        engine = shell.engine
        engine.notifier.step([alert("node_down", "ld-a1")], [], shell._moment())
        monkeypatch.setattr(shell.sender, "_post", post)
        commit, due = shell.store.commit, engine.outbox.due
        monkeypatch.setattr(shell.store, "commit", lambda: _raise_next(faults, commit))
        monkeypatch.setattr(engine.outbox, "due", lambda now: _raise_next(faults, lambda: due(now)))
        loop = asyncio.create_task(shell._deliver())
        group = engine.groups.by_receiver("broken")[0]
        async with asyncio.timeout(10):
            while group.attempt is None or group.attempt.tries < 2 or "fine" not in sent:
                assert not loop.done()
                await asyncio.sleep(0.02)
        loop.cancel()
        assert not group.attempt.under_way or group.attempt.tries >= 2
        assert sent.count("fine") == 1
        (row,) = shell.store.notifications(10, "broken")
        assert (row["state"], row["error"]) == ("pending", "a fault in sending: RuntimeError")
        await shell.sender.aclose()

    asyncio.run(story())


def test_what_cannot_be_written_down_is_not_sent_again_and_again(
    tmp_path: Path, hung: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(load(settings(tmp_path, hung), Settings, ENVIRONMENT_PREFIX))
    fine = AlertmanagerWebhook.model_validate({"name": "fine", "url": "http://127.0.0.1:9/"})
    sent: list[str] = []

    async def send(receiver: Receiver, notice: Notice) -> Answer:
        sent.append(notice.id)
        return Answer("taken", 200)

    def broken(*_: object, **__: object) -> None:
        raise OSError("no room")

    async def story() -> None:
        shell.engine = Engine(shell.engine.region, shell.store, time.time_ns(), [fine])
        shell._receivers = {"fine": fine}
        shell.engine.notifier.step([alert("node_down", "ld-a1")], [], shell._moment())
        monkeypatch.setattr(shell.sender, "send", send)
        monkeypatch.setattr(shell.store, "mark_delivery", broken)
        loop = asyncio.create_task(shell._deliver())
        await asyncio.sleep(1.2)  # six turns of the loop
        loop.cancel()
        (group,) = shell.engine.groups.by_receiver("fine")
        assert group.attempt is not None
        assert not group.attempt.under_way
        await shell.sender.aclose()

    asyncio.run(story())
    assert len(sent) == 1


def _raise_next(faults: Iterator[Exception], otherwise: Callable[[], Any]) -> Any:
    fault = next(faults, None)
    if fault is not None:
        raise fault
    return otherwise()
