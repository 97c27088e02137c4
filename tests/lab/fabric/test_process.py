"""The fabric as a process: real time, real taps and sockets, no root right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from collector.taps import process_alive
from contract.tap import read_header, read_state
from lab import documents
from lab.fabric import launch
from lab.state import LabError, Run
from lab.topology import SMALL, Topology
from tests.lab.fabric.tables import tables

KEY = "00112233445566778899aabbccddeeff"
TOPOLOGY = Topology(SMALL, probe_period_s=0.5, probe_timeout_s=0.5)


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


class World:
    def __init__(self, run: Run) -> None:
        pytest.importorskip("gateway._dataplane")
        self.run = run
        run.make()
        (run.root / "probe.key").write_text(KEY + "\n")
        run.part("fabric").mkdir()
        config = run.part("fabric") / "fabric.toml"
        config.write_text(documents.toml(launch.settings(TOPOLOGY, run, 1024)))
        self.log = (run.root / "log").open("wb")
        self.process = subprocess.Popen([sys.executable, "-m", "lab.fabric", str(config)], stderr=self.log)
        until(lambda: all(ready() for ready in launch.ready(run, TOPOLOGY.nodes).values()), 30)

    def call(self, node: str, method: str, path: str, body: Any = None) -> httpx.Response:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.run.socket(node))), timeout=2) as client:
            return client.request(method, f"http://node{path}", json=body)

    def place(self, epoch: int, cluster: str, *without: str) -> None:
        placement = {v.name: cluster for v in TOPOLOGY.fleet.vips}
        for name, wanted in tables(TOPOLOGY, epoch, placement, KEY).items():
            if name not in without:
                answer = self.call(name, "PUT", "/v1/desired", wanted)
                assert (answer.status_code, answer.json()) == (200, {"epoch": epoch})

    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(line) for c in TOPOLOGY.clients for line in self.run.traffic(c).read_text().splitlines()]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(Run(tmp_path / "run"))
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait(5)
    made.log.close()


def test_a_story_in_real_time(world: World) -> None:
    run = world.run
    world.place(1, "clb-a")
    launch.probe(run)
    launch.ask(run, rate=20, kept=4)
    until(lambda: launch.state(run)["probers"]["prober-1"].get("answered", 0) >= 10)
    until(lambda: len(world.requests()) >= 20)
    assert {r["outcome"] for r in world.requests()} == {"ok"}
    assert world.call("eip-1", "GET", "/v1/status").json()["speaker"]["forwarding_alive"] is True
    assert world.call("eip-1", "GET", "/metrics").status_code == 200
    points = [read_state(p.read_bytes()).write_cursor for p in run.taps.glob("*.tap")]
    assert sum(1 for written in points if written) >= 4  # prober, EIP, an LD, the host

    taps = {read_header(p.read_bytes()).node: read_header(p.read_bytes()) for p in run.taps.glob("ld-a1.1.*")}
    header = taps["ld-a1"]
    assert process_alive(header.pid, header.created_ns)
    assert header.pid == world.call("ld-a1", "GET", "/v1/status").json()["pid"] != world.process.pid
    killed = time.time_ns()
    launch.order(run, "kill", ["ld-a1"])
    assert not process_alive(header.pid, header.created_ns)
    with pytest.raises(httpx.TransportError):
        world.call("ld-a1", "GET", "/v1/status")
    until(lambda: len([r for r in world.requests() if r["start_ns"] > killed + 10**9]) >= 20)
    assert {r["outcome"] for r in world.requests() if r["start_ns"] > killed + 10**9} == {"ok"}

    launch.order(run, "restart", ["ld-a1"])
    until(lambda: world.run.socket("ld-a1").exists())
    status = world.call("ld-a1", "GET", "/v1/status").json()
    assert status["epoch"] == 0
    assert status["boot_id"] != header.boot_id.hex()

    frames = launch.state(run)["frames"]
    assert frames["unaccounted"] == 0
    began = time.monotonic()
    world.process.terminate()
    assert world.process.wait(5) == 0
    assert time.monotonic() - began < 2
    assert all(read_state(p.read_bytes()).closed for p in run.taps.glob("prober-*.tap"))


def test_the_api_refuses_with_reasons(world: World) -> None:
    run = world.run
    answer = world.call("ld-a1", "PUT", "/v1/desired", {"epoch": 1, "node": "ld-a2", "role": "clb"})
    assert answer.status_code == 422
    assert "ld-a1" in answer.json()["detail"]
    assert world.call("ld-a1", "POST", "/v1/faults", {"kind": "lightning"}).status_code == 422
    with pytest.raises(LabError, match="409"):
        launch.order(run, "kill", ["ld-z9"])
    with pytest.raises(LabError, match="409"):
        launch.order(run, "thaw", ["ld-a1"])
    with pytest.raises(LabError, match="422"):
        launch.order(run, "burn", ["ld-a1"])
    launch.order(run, "freeze", ["ld-a1"])
    with pytest.raises(httpx.ReadTimeout):
        world.call("ld-a1", "GET", "/v1/status")
    launch.order(run, "thaw", ["ld-a1"])
    assert world.call("ld-a1", "GET", "/v1/status").status_code == 200
    children = [
        int(p) for p in Path(f"/proc/{world.process.pid}/task/{world.process.pid}/children").read_text().split()
    ]
    assert len(children) == len(TOPOLOGY.nodes)
    world.process.kill()
    world.process.wait(5)
    until(lambda: not any(_runs(child) for child in children), 5)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    config = tmp_path / "fabric.toml"
    config.write_text('run = "/tmp/x"\nsocket = "/tmp/x/s"\nkey_file = "/tmp/x/k"\ntap_capacity = -1\n')
    done = subprocess.run(
        [sys.executable, "-m", "lab.fabric", str(config)], capture_output=True, text=True, env=os.environ, check=False
    )
    assert done.returncode == 2
    assert "tap_capacity" in done.stderr
    assert str(config) in done.stderr
