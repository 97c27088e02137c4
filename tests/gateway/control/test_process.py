"""The control process itself, over fake nodes on real Unix sockets: killed in the middle, it goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.gateway.control.fakes import KEY, FakeServers, document, fleet

ROOT = Path(__file__).resolve().parents[3]


def until(what: Callable[[], bool], timeout_s: float, why: str) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, f"not within {timeout_s} s: {why}"
        time.sleep(0.02)


class Control:
    def __init__(self, place: Path) -> None:
        self.place = place
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.template = str(place / "nodes" / "{node}" / "api.sock")
        (place / "probe.key").write_text(KEY + "\n")
        (place / "fleet.json").write_text(json.dumps(document()))
        self.config = place / "control.toml"
        self.config.write_text(
            f'state_dir = "{place}"\nnode_socket = "{self.template}"\nprobe_key_file = "{place / "probe.key"}"\n'
            f'fleet = "{place / "fleet.json"}"\npoll_s = 0.2\nurgent_poll_s = 0.05\n[api]\nport = {port}\n'
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=5)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.place / "control.log").open("ab") as out:
            command = [sys.executable, "-m", "gateway.control", str(self.config)]
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, env=os.environ)
        until(self.answers, 30, f"control answers: {(self.place / 'control.log').read_text()[-500:]}")

    def answers(self) -> bool:
        try:
            return self.http.get("/v1/health").is_success
        except httpx.HTTPError:
            return False

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def state(self, migration: str) -> str:
        return str(self.http.get(f"/v1/migrations/{migration}").json()["state"])


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait(5)
    made.http.close()


def test_killed_in_the_middle_of_a_migration_it_finishes_after_a_restart(control: Control) -> None:
    with FakeServers(control.template, [n.name for n in fleet().nodes]) as fakes:
        control.start()
        until(lambda: control.http.get("/v1/health").json()["nodes_up"] == 10, 10, "all nodes are up")
        until(lambda: control.http.get("/v1/health").json()["nodes_behind"] == 0, 10, "all nodes are told")
        for name in ("ld-a1", "ld-a2"):
            fakes.nodes[name].alive = False
        until(
            lambda: (
                {n["name"] for n in control.http.get("/v1/nodes").json() if n["state"] == "unreachable"}
                == {"ld-a1", "ld-a2"}
            ),
            10,
            "the dead are noticed",
        )
        fakes.nodes["bl-2"].refuses = True
        body = {"cluster": "clb-a", "reason": "crash", "requested_by": "test", "evidence": {"probers": 2, "vips": 5}}
        answer = control.http.post("/v1/migrations", json=body)
        assert answer.status_code == 202, answer.text
        migration = answer.json()["id"]
        assert control.state(migration) == "configuring"
        until(lambda: bool(fakes.nodes["bl-1"].vips), 5, "one buffer has its tables")
        epochs = {n: x.epoch for n, x in fakes.nodes.items()}

        control.end(signal.SIGKILL)
        fakes.nodes["bl-2"].refuses = False
        control.start()
        until(lambda: control.state(migration) == "verifying", 15, "it goes on by itself")
        assert fakes.nodes["eip-1"].epoch == epochs["eip-1"], "whoever is not concerned is told nothing"
        verdict = {"clean": True, "checked": 5, "silent": 0}
        assert control.http.post(f"/v1/migrations/{migration}/verdict", json=verdict).json()["state"] == "done"
        moved = [p for p in control.http.get("/v1/placement").json() if p["home"] == "clb-a"]
        assert len(moved) == 5
        assert all(p["current"].startswith("buf-") for p in moved)

        fakes.nodes["bl-1"].restart()
        until(lambda: bool(fakes.nodes["bl-1"].vips), 5, "a restarted node is told everything again")

        began = time.monotonic()
        assert control.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 2.5
        control.start()
        assert control.state(migration) == "done"
    said = (control.place / "control.log").read_text()
    assert KEY not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key": "short"}, ["probe.key", "32 hex digits"]),
        ({"config": 'node_socket = "/x"\n'}, ["control.toml", "probe_key_file", "state_dir"]),
        ({"config": "= 1"}, ["control.toml", "TOML"]),
        ({"fleet": '{"region": 7}'}, ["fleet.json", "region", "nodes"]),
        ({"store": "this is no database at all, but text of some length" * 40}, ["store", "control.db"]),
    ],
)
def test_what_is_wrong_is_named_and_it_does_not_start(
    control: Control, change: dict[str, str], words: list[str]
) -> None:
    names = {"key": "probe.key", "config": "control.toml", "fleet": "fleet.json", "store": "control.db"}
    for what, text in change.items():
        (control.place / names[what]).write_text(text)
    command = [sys.executable, "-m", "gateway.control", str(control.config)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert all(w in done.stderr for w in words), done.stderr
    assert "Traceback" not in done.stderr
    assert "short" not in done.stderr


def test_an_upgrade_whose_rules_its_documents_break_does_not_keep_control_down(control: Control) -> None:
    """Its own file and the stored document are refused: it starts, says so by path, and tells nodes nothing."""
    with FakeServers(control.template, [n.name for n in fleet().nodes]) as fakes:
        control.start()
        until(lambda: control.http.get("/v1/health").json()["nodes_behind"] == 0, 20, "all nodes are told")
        control.end(signal.SIGTERM)
        told = {n: len(x.taken) for n, x in fakes.nodes.items()}
        bad = document()
        bad["vips"][1]["name"] = ""
        (control.place / "fleet.json").write_text(json.dumps(bad))
        control.start()
        assert control.http.get("/v1/health").json()["status"] == "ok", "the stored one is right"
        control.end(signal.SIGTERM)
        with sqlite3.connect(control.place / "control.db") as db:
            db.execute("UPDATE fleet SET document = json_set(document, '$.vips[2].name', '')")
        db.close()
        control.start()
        health = control.http.get("/v1/health").json()
        assert health["status"] == "degraded"
        assert "vips[2].name" in health["problems"][0]
        time.sleep(1)
        assert {n: len(x.taken) for n, x in fakes.nodes.items()} == told
        assert control.http.put("/v1/fleet", json=document()).is_success
        assert control.http.get("/v1/health").json()["status"] == "ok"
    log = (control.place / "control.log").read_text()
    assert "vips[1].name" in log


def test_an_unreadable_migration_is_a_persons_to_settle_not_the_files(control: Control) -> None:
    with FakeServers(control.template, [n.name for n in fleet().nodes]):
        control.start()
        control.end(signal.SIGTERM)
        with sqlite3.connect(control.place / "control.db") as db:
            db.execute("INSERT INTO migration (id, document, state) VALUES ('mig-x', '{', 'announcing')")
        db.close()
        for _ in range(2):
            control.start()
            assert control.http.get("/v1/health").json()["problems"] == ["migration mig-x (announcing) cannot be read"]
            control.end(signal.SIGTERM)
