"""The small region in real namespaces: real HTTP through real packets, a kill, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import faults, namespaces, processes, region
from lab.region import Lab
from lab.state import Run, alive, marked, recorded
from lab.topology import SMALL, Topology

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PREFIX = f"tgwt{os.getpid() % 10000:04}-"
PARTS = ("routers", "servers", "nodes", "control")
ASK = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=3)
for _ in range(2):
    connection.request("GET", "/" + sys.argv[3])
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().strip())
"""


def eventually(condition: Callable[[], bool], seconds: float, what: str) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def ask(lab: Lab, vip_index: int, port: int = 80) -> list[list[str]]:
    """Two requests on one connection from the client's namespace; the words of the answers, [] when it fails."""
    vip = lab.topology.fleet.vips[vip_index]
    namespace = lab.topology.namespace(lab.topology.clients[0])
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", ASK, str(vip.public), str(port), vip.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=15)
    return [line.split() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def nothing_left(run: Run) -> None:
    assert namespaces.existing(PREFIX) == []
    assert marked(run) == []


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    run = Run(tmp_path_factory.mktemp("lab") / "run")
    made, fresh = region.up(run, Topology(SMALL, PREFIX), parts=PARTS)
    assert fresh
    yield made
    region.down(run, prefix=PREFIX)
    nothing_left(run)


@pytest.mark.parametrize("vip_index", [0, 3], ids=["ipv4", "ipv6"])
def test_http_goes_through_the_gateway_and_back(lab: Lab, vip_index: int) -> None:
    vip = lab.topology.fleet.vips[vip_index]
    eventually(lambda: len(ask(lab, vip_index)) == 2, 20, f"{vip.public} answers")
    for status, server, path, client in ask(lab, vip_index):
        assert (status, path) == ("200", f"/{vip.name}")
        assert server in vip.listeners[0].real_servers
        link = lab.topology.link("client-1", "edge")
        # The real server sees the client itself: addresses are translated for the VIP alone.
        assert client in (f"::ffff:{link.address4}", link.address6)


def test_a_second_up_changes_nothing(lab: Lab) -> None:
    pids = {p.pid for p in processes.living(lab.run).values()}
    again, fresh = region.up(lab.run, lab.topology, parts=PARTS)
    assert not fresh
    assert again.addresses == lab.addresses
    assert {p.pid for p in processes.living(lab.run).values()} == pids


def test_a_killed_ld_loses_its_routes_and_the_other_carries_on(lab: Lab) -> None:
    eventually(lambda: len(ask(lab, 0)) == 2, 20, "the VIP answers")
    before = region.router_routes(lab, "fabric")
    fault = faults.make(lab, "kill", "ld-a1")
    assert fault.nodes == ["ld-a1"]
    # Its tunnel address is announced by itself alone; the services by its sibling too.
    took = eventually(lambda: region.router_routes(lab, "fabric") == before - 1, 3, "routes withdrawn")
    assert took < 3
    assert all(len(ask(lab, 0)) == 2 for _ in range(3))
    time.sleep(2.5)  # the supervisor would have started it by now
    assert not alive(recorded(lab.run)["ld-a1"])
    faults.make(lab, "restart", "ld-a1")
    eventually(lambda: region.router_routes(lab, "fabric") == before, 15, "routes announced again")
    assert [f.name for f in faults.made(lab)] == ["kill", "restart"]


def test_what_dies_by_itself_is_started_again_and_serves(lab: Lab) -> None:
    """An LD and control, killed by nobody the lab knows of: routes, tables and the API come back without a person."""
    before = region.router_routes(lab, "fabric")
    killed = {name: recorded(lab.run)[name] for name in ("ld-a1", "control")}
    for process in killed.values():
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: region.router_routes(lab, "fabric") < before, 5, "routes withdrawn")
    eventually(lambda: region.router_routes(lab, "fabric") == before, 40, "routes announced again")
    eventually(lambda: all(alive(recorded(lab.run)[n]) for n in killed), 20, "both run again")
    assert all(recorded(lab.run)[n].pid != p.pid for n, p in killed.items())
    eventually(lambda: len(ask(lab, 0)) == 2, 20, "the VIP answers")
    shown = {p["name"]: p["restarts"] for p in region.process_list(lab.run)}
    assert shown["ld-a1"] >= 1
    assert shown["control"] >= 1


def test_down_cleans_up_after_the_lab_itself_was_killed(tmp_path: Path) -> None:
    """`up` is killed in its middle: processes and namespaces stand, no state says that the region is up."""
    run = Run(tmp_path / "run")
    prefix = f"tgwk{os.getpid() % 10000:04}-"
    command = [sys.executable, "-m", "cli.main", "lab", "up", "--size", "small", "--prefix", prefix]
    victim = subprocess.Popen(
        command, env=os.environ | {"TGW_RUN": str(run.root)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(lambda: len(marked(run)) >= 4, 20, "some processes started")
        victim.send_signal(signal.SIGKILL)
        victim.wait(5)
        assert namespaces.existing(prefix)
        assert region.find(run) is None
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "lab", "down", "--json"],
            env=os.environ | {"TGW_RUN": str(run.root)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        found = json.loads(done.stdout)
        assert done.returncode == 0
        assert found["processes"] >= 4
        assert found["namespaces"] == len(Topology(SMALL, prefix).namespaces)
    finally:
        victim.kill()
        victim.wait()
        region.down(run, prefix=prefix)
    assert namespaces.existing(prefix) == []
    assert marked(run) == []
