"""`tgw alerts`: through a real analyzer that wants a token, and straight from its settings file."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from tests.analyzer.model import fleet
from tests.analyzer.receivers import Server, secret, serving

TOKEN = "a-token-of-some-length"


@dataclass
class Place:
    """An analyzer that runs, and the server of its receivers."""

    url: str
    settings: Path
    receiver: Server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("alerts")
    (folder / "fleet.json").write_text(fleet().model_dump_json())
    secret(folder, "password", "writer-password-0123456789")
    with serving() as server, socket.socket() as silent, socket.socket() as probe:
        silent.bind(("127.0.0.1", 0))  # a warehouse and a control that never answer: telling people needs neither
        silent.listen(64)
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}"
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        hook = secret(folder, "slack.url", f"{server.url}/services/T0/B0/very-s3cret")
        settings = folder / "analyzer.toml"
        settings.write_text(
            f'fleet = "{folder}/fleet.json"\nstate_dir = "{folder}/state"\n'
            f'listen = {{ port = {port}, token = "{TOKEN}" }}\n[control]\nurl = "{nowhere}"\n'
            f'[warehouse]\nurl = "{nowhere}"\nuser = "w"\npassword_file = "{folder}/password"\n'
            f'[[receivers]]\nname = "ops"\nurl = "{server.url}/ops"\n'
            f'[[receivers]]\nname = "channel"\nkind = "slack"\nurl_file = "{hook}"\n'
        )
        with (folder / "log").open("w") as log:
            process = subprocess.Popen([sys.executable, "-m", "analyzer", str(settings)], stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while True:
                assert time.monotonic() < deadline, (folder / "log").read_text()
                try:
                    httpx.get(f"{url}/v1/health", timeout=2, trust_env=False)
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield Place(url, settings, server)
        finally:
            process.terminate()
            process.wait(20)
        assert "very-s3cret" not in (folder / "log").read_text()


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TGW_TOKEN", TOKEN)
    place.receiver.status, place.receiver.said = 200, b"ok"
    place.receiver.got.clear()


def tgw(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["alerts", *arguments])


@pytest.mark.parametrize("way", ["analyzer", "settings"])
def test_a_test_notice_reaches_its_receiver(place: Place, way: str) -> None:
    where = ["--analyzer", place.url] if way == "analyzer" else ["--settings", str(place.settings)]
    done = tgw("test", "ops", *where)
    assert (done.exit_code, done.stdout) == (0, "ops: firing: taken 200: ok\nops: resolved: taken 200: ok\n")
    got = [(path, body["status"]) for _, path, _, body in place.receiver.got]
    assert got == [("/ops", "firing"), ("/ops", "resolved")]
    place.receiver.status, place.receiver.said = 404, b"no_service for /services/T0/B0/very-s3cret"
    refused = tgw("test", "channel", *where)
    assert (refused.exit_code, refused.stdout) == (
        1, "channel: firing: refused 404: HTTP 404; no_service for ***\n",
    )  # fmt: skip
    found = json.loads(tgw("test", "channel", "--json", *where).stdout)
    assert (found["taken"], found["tries"][0]["outcome"], found["tries"][0]["status"]) == (False, "refused", 404)
    nobody = tgw("test", "nobody", *where)
    assert nobody.exit_code == 2
    assert "ops, channel" in nobody.stderr


def test_without_the_token_nothing_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TGW_TOKEN")
    refused = tgw("test", "ops", "--analyzer", place.url)
    assert (refused.exit_code, "401" in refused.stderr) == (1, True)
    assert not place.receiver.got


def test_receivers_are_listed_without_their_secrets(place: Place) -> None:
    shown = tgw("--analyzer", place.url)
    assert shown.exit_code == 0
    assert "alertmanager-webhook" in shown.stdout
    assert "the URL in" in shown.stdout
    found = json.loads(tgw("--json", "--analyzer", place.url).stdout)
    assert [(r["name"], r["kind"], r["last"], r["gone"]) for r in found] == [
        ("ops", "alertmanager-webhook", None, None), ("channel", "slack", None, None),
    ]  # fmt: skip
    assert "very-s3cret" not in shown.stdout + json.dumps(found)
