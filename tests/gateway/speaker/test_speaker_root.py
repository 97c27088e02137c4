"""The speaker against a real router: BIRD in a namespace of its own, whose kernel does ECMP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[3]
SHARED = "10.4.0.1"
TAG = f"tgwc{os.getpid()}"

ROUTER = """
log stderr {{ warning, error, fatal }};
router id 10.2.0.1;
protocol device {{ scan time 10; }}
protocol kernel k4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; merge paths yes limit 64; }}
protocol kernel k6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; merge paths yes limit 64; }}
protocol bfd {{ interface "*" {{ interval 200 ms; multiplier 5; }}; }}
{sessions}
"""
SESSION = """
protocol bgp n{i}_{family} {{
  local {local} as 64513;
  neighbor {neighbor} as {asn};
  interface "r{i}"; direct; bfd on; hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2;
  ipv{family} {{ import all; export none; }};
}}
"""


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout


def until(what: Callable[[], bool], timeout_s: float, why: str) -> None:
    """Wait until `what` holds."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < timeout_s, f"not within {timeout_s} s: {why}"
        time.sleep(0.02)


class Rig:
    """A router and two nodes, each with a speaker and a node process that forwards nothing."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.namespaces = [f"{TAG}-r", f"{TAG}-n1", f"{TAG}-n2"]

    def make(self) -> None:
        for name in self.namespaces:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            command = ["ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0"]
            subprocess.run(command, check=True, timeout=10)
        router, sessions = self.namespaces[0], ""
        for i in (1, 2):
            node = self.namespaces[i]
            ip("link", "add", f"r{i}", "netns", router, "type", "veth", "peer", "name", "fabric0", "netns", node)
            for space, device, last in ((router, f"r{i}", 1), (node, "fabric0", 2)):
                ip("-n", space, "addr", "add", f"10.2.{i}.{last}/30", "dev", device)
                ip("-n", space, "addr", "add", f"fd02:0:0:{i}::{last}/64", "dev", device, "nodad")
                ip("-n", space, "link", "set", device, "up")
            for family, net in ((4, "10.2.{}.{}"), (6, "fd02:0:0:{}::{}")):
                ends = {"local": net.format(i, 1), "neighbor": net.format(i, 2)}
                sessions += SESSION.format(i=i, family=family, asn=65000 + i, **ends)
        conf = self.place / "router.conf"
        conf.write_text(ROUTER.format(sessions=sessions))
        files = ["-c", str(conf), "-s", str(self.place / "router.ctl"), "-P", str(self.place / "router.pid")]
        self.start("router", router, "bird", "-f", *files)

    def start(self, name: str, space: str, *command: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with (self.place / f"{name}.log").open("ab") as log:
            full = ["ip", "netns", "exec", space, *command]
            self.started[name] = subprocess.Popen(full, cwd=ROOT, env=environment, stdout=log, stderr=log)
        return self.started[name]

    def node(self, i: int, routes: str, epoch: int = 1) -> subprocess.Popen[bytes]:
        state = self.place / f"n{i}"
        state.mkdir(exist_ok=True)
        script = str(Path(__file__).with_name("dummy_node.py"))
        return self.start(
            f"node{i}", self.namespaces[i], sys.executable, script, str(state), str(epoch), routes, f"2001:db8::{i}/128"
        )

    def speaker(self, i: int) -> subprocess.Popen[bytes]:
        config = self.place / f"speaker{i}.toml"
        sessions = ""
        for family, net, side in ((4, "10.2.{}.{}", "fabric"), (6, "fd02:0:0:{}::{}", "edge")):
            sessions += (
                f'[[session]]\nname = "{side}"\ninterface = "fabric0"\nneighbor = "{net.format(i, 1)}"\n'
                f'neighbor_asn = 64513\nlocal = "{net.format(i, 2)}"\nfamily = {family}\nside = "{side}"\n'
            )
        config.write_text(
            f'node = "n{i}"\nstate_dir = "{self.place / f"n{i}"}"\nrouter_id = "10.2.{i}.2"\n'
            f"asn = {65000 + i}\n{sessions}"
        )
        return self.start(f"speaker{i}", self.namespaces[i], sys.executable, "-m", "gateway.speaker", str(config))

    def status(self, i: int) -> dict[str, Any]:
        try:
            status: dict[str, Any] = json.loads((self.place / f"n{i}" / "speaker.json").read_text())
            return status
        except FileNotFoundError:
            return {}

    def next_hops(self, prefix: str) -> set[str]:
        """Where the router's kernel sends a prefix."""
        family = "-6" if ":" in prefix else "-4"
        out = set()
        for route in json.loads(ip("-n", self.namespaces[0], family, "-j", "route", "show", prefix) or "[]"):
            out |= {hop["gateway"] for hop in route.get("nexthops", [route]) if "gateway" in hop}
        return out

    def close(self) -> None:
        for process in self.started.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(5)
        for name in self.namespaces:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=10)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.close()


def test_routes_live_and_die_with_the_forwarding_of_their_node(rig: Rig) -> None:
    one, both = {"10.2.1.2"}, {"10.2.1.2", "10.2.2.2"}
    nodes = {i: rig.node(i, f"10.3.0.{i}/32,{SHARED}/32") for i in (1, 2)}
    speakers = {i: rig.speaker(i) for i in (1, 2)}

    until(lambda: rig.next_hops(SHARED) == both, 20, "announced by both, ECMP in the router's kernel")
    until(lambda: rig.next_hops("10.3.0.2") == {"10.2.2.2"}, 5, "its own address leads to the node alone")
    until(lambda: rig.next_hops("2001:db8::2") != set(), 5, "the IPv6 session carries the edge's set")
    until(lambda: rig.status(2).get("announced") == ["10.3.0.2/32", f"{SHARED}/32"], 5, "the speaker says so")
    until(lambda: rig.status(2)["edge_announced"] == ["2001:db8::2/128"], 5, "and of the edge as well")
    assert rig.status(2)["forwarding_alive"] is True
    kernel = ip("-n", rig.namespaces[2], "-j", "route", "show")
    assert all(r["dst"].startswith("10.2.2.") for r in json.loads(kernel)), "a node's kernel gets no routes"

    nodes[2].kill()
    until(lambda: rig.next_hops(SHARED) == one, 3, "SIGKILL of the node withdraws, long before the hold time")
    until(lambda: rig.status(2)["forwarding_alive"] is False and rig.status(2)["announced"] == [], 2, "and is told")
    assert "gone" in rig.status(2)["reason"]
    nodes[2].wait()
    time.sleep(0.5)
    assert rig.next_hops(SHARED) == one, "the routes of the dead life do not come back"
    nodes[2] = rig.node(2, f"10.3.0.2/32,{SHARED}/32", epoch=2)
    until(lambda: rig.next_hops(SHARED) == both, 5, "the next life announces its own")
    until(lambda: rig.status(2)["epoch"] == 2, 2, "with its own epoch")

    nodes[2].send_signal(signal.SIGSTOP)
    until(lambda: rig.next_hops(SHARED) == one, 3, "a stalled heartbeat withdraws, with the process alive")
    until(lambda: "not beaten" in rig.status(2)["reason"], 2, "and that is the reason")
    nodes[2].send_signal(signal.SIGCONT)
    until(lambda: rig.next_hops(SHARED) == both, 3, "and it is announced again when it beats")

    bird = int((rig.place / "n2" / "bird.pid").read_text())
    speakers[2].kill()
    until(lambda: rig.next_hops(SHARED) == one, 5, "SIGKILL of the speaker ends the session, long before the hold time")
    speakers[2].wait()
    until(lambda: not Path(f"/proc/{bird}").exists(), 2, "and BIRD goes with it")
    rig.speaker(2)
    until(lambda: rig.next_hops(SHARED) == both, 15, "a new speaker needs no history")

    os.kill(int((rig.place / "n2" / "bird.pid").read_text()), signal.SIGKILL)
    until(lambda: rig.next_hops(SHARED) == one, 3, "no BIRD, no session")
    until(lambda: rig.next_hops(SHARED) == both, 15, "the speaker starts BIRD again")

    rig.started["speaker2"].terminate()
    until(lambda: rig.next_hops(SHARED) == one, 3, "asked to stop, it withdraws")
    assert rig.started["speaker2"].wait(3) == 0
    assert rig.status(2)["announced"] == []


def test_an_idle_speaker_costs_next_to_nothing(rig: Rig) -> None:
    rig.node(1, f"10.3.0.1/32,{SHARED}/32")
    speaker = rig.speaker(1)
    until(lambda: rig.next_hops(SHARED) == {"10.2.1.2"}, 20, "announced")
    bird = int((rig.place / "n1" / "bird.pid").read_text())

    def ticks(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before, began = ticks(speaker.pid) + ticks(bird), time.monotonic()
    time.sleep(8)
    used = (ticks(speaker.pid) + ticks(bird) - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - began)
    print(f"speaker and BIRD: {used:.2%} of a core")
    assert used < 0.02, f"{used:.2%} of a core"
