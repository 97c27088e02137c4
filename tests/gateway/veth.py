"""Two namespaces joined by veths: one for a node's process, one for its neighbours, played by raw sockets."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
CLONE_NEWNET = 0x40000000
FABRIC_MTU, EDGE_MTU = 1600, 1500


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


class Wires:
    """veths `fabric0` and `edge0` in the node's namespace, `fabric1` and `edge1` at the far ends."""

    def __init__(self, tag: str) -> None:
        self.node, self.far = f"tgwt-{tag}-node", f"tgwt-{tag}-far"

    def make(self, queues: int = 1) -> None:
        """`queues`: how many each end of a veth has, either way."""
        for name in (self.node, self.far):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run(
                "ip",
                "netns",
                "exec",
                name,
                "sysctl",
                "-qw",
                "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv4.ip_forward=0",
            )
        for side, net, mtu in (("fabric", "10.2.1", FABRIC_MTU), ("edge", "10.1.1", EDGE_MTU)):
            here, there = f"{side}0", f"{side}1"
            wide = ("numrxqueues", str(queues), "numtxqueues", str(queues))
            peer = ("peer", "name", there, "netns", self.far, *wide)
            run("ip", "link", "add", here, "netns", self.node, *wide, "type", "veth", *peer)
            for name, interface, host in ((self.node, here, 2), (self.far, there, 1)):
                offloads = [word for what in ("tx", "rx", "tso", "gso", "gro") for word in (what, "off")]
                run("ip", "netns", "exec", name, "ethtool", "-K", interface, *offloads)
                run("ip", "-n", name, "addr", "add", f"{net}.{host}/30", "dev", interface)
                run("ip", "-n", name, "link", "set", interface, "mtu", str(mtu), "up")

    def remove(self) -> None:
        for name in (self.node, self.far):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=20)

    def mac(self, namespace: str, interface: str) -> bytes:
        (link,) = json.loads(run("ip", "-j", "-n", namespace, "link", "show", interface))
        return bytes.fromhex(link["address"].replace(":", ""))

    @contextmanager
    def wire(self, interface: str) -> Iterator[socket.socket]:
        """A raw socket on an interface of the far namespace."""
        with inside(self.far):
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            raw.bind((interface, 3))
        with raw:
            raw.setblocking(False)
            yield raw


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread is in another network namespace meanwhile (os.setns came with Python 3.12)."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    away = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert setns(away, CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert setns(home, CLONE_NEWNET) == 0
    finally:
        os.close(home)
        os.close(away)


def receive(raw: socket.socket, count: int, wanted: Any, limit_s: float = 5.0) -> list[bytes]:
    """The first `count` frames that come in and are `wanted`; fewer when the time is over."""
    out: list[bytes] = []
    until = time.monotonic() + limit_s
    while len(out) < count and (left := until - time.monotonic()) > 0:
        if select.select([raw], [], [], left)[0]:
            frame, address = raw.recvfrom(4096)
            if address[2] != socket.PACKET_OUTGOING and wanted(frame):
                out.append(frame)
    return out


class Process:
    """A running `python -m gateway.node` and its API."""

    def __init__(self, wires: Wires, directory: Path, settings: str) -> None:
        self.directory = directory
        self.config = directory / "node.toml"
        self.config.write_text(settings)
        self.log = (directory / "node.log").open("w")
        command = ["ip", "netns", "exec", wires.node, sys.executable, "-m", "gateway.node", str(self.config)]
        self.child = subprocess.Popen(command, cwd=ROOT, stdout=self.log, stderr=self.log)
        transport = httpx.HTTPTransport(uds=str(directory / "run" / "api.sock"))
        self.http = httpx.Client(transport=transport, base_url="http://node", timeout=10)

    def ready(self) -> dict[str, Any]:
        """Its status, once it answers."""
        until = time.monotonic() + 20
        while True:
            assert self.child.poll() is None, self.said()
            try:
                status: dict[str, Any] = self.http.get("/v1/status").json()
            except httpx.TransportError:
                assert time.monotonic() < until, self.said()
                time.sleep(0.05)
            else:
                return status

    def counters(self) -> dict[str, Any]:
        """Summed over workers, between batches: within one, a frame is in but neither out nor dropped yet."""
        total: dict[str, Any] = {"drops": {}}
        until = time.monotonic() + 2
        while True:
            workers = self.http.get("/v1/counters").json()
            if all(w["frames_in"] == w["frames_out"] + sum(w["drops"].values()) for w in workers.values()):
                break
            assert time.monotonic() < until, f"in and out differ: {workers}"
        for worker in workers.values():
            drops = worker.pop("drops")
            for name, value in worker.items():
                total[name] = total.get(name, 0) + value
            for name, value in drops.items():
                total["drops"][name] = total["drops"].get(name, 0) + value
        return total

    def until(self, what: str, done: Any) -> dict[str, Any]:
        """The counters, once they satisfy `done`."""
        until = time.monotonic() + 5
        while not done(counters := self.counters()):
            assert time.monotonic() < until, f"waited in vain for {what}: {counters}"
            time.sleep(0.02)
        return counters

    def routes(self) -> dict[str, Any]:
        routes: dict[str, Any] = json.loads((self.directory / "state" / "routes.json").read_text())
        return routes

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def said(self) -> str:
        return (self.directory / "node.log").read_text()[-2000:]

    def end(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait; the exit status."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        status = self.child.wait(10)
        self.http.close()
        self.log.close()
        return status
