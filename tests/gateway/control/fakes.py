"""Stand-ins for nodes, named as such, and a fleet document for them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from contract.documents import check
from contract.fleet import Fleet
from gateway.control.node_client import NodeError
from gateway.control.orchestrator import Orchestrator, Timing
from gateway.control.store import Store
from service.sqlite import Connect

KEY = "00112233445566778899aabbccddeeff"
S = 1_000_000_000


def document(buffers: int = 3, vips: int = 6, **policy: Any) -> dict[str, Any]:
    """Two serving clusters of two LDs (`clb-a` holds every VIP but one), `buffers` buffer clusters of one LD each."""
    clusters = [{"name": f"clb-{x}", "role": "clb", "az": "az1"} for x in "ab"]
    nodes = [
        {"name": f"ld-{x}{j}", "cluster": f"clb-{x}", "tunnel_address": f"10.3.{i}.{j}", "capacity": 30.0}
        for i, x in enumerate("ab", start=1)
        for j in (1, 2)
    ]
    for i in range(1, buffers + 1):
        clusters.append({"name": f"buf-{i}", "role": "clb", "az": "az1", "purpose": "buffer"})
        nodes.append({"name": f"bl-{i}", "cluster": f"buf-{i}", "tunnel_address": f"10.3.10.{i}", "capacity": 10.0})
    clusters += [{"name": "eips", "role": "eip", "az": "az1"}, {"name": "hosts", "role": "vswitch", "az": "az1"}]
    nodes.append({"name": "eip-1", "cluster": "eips", "tunnel_address": "10.3.0.1"})
    for i in (1, 2):
        encap = "vxlan" if i == 2 else "gre"
        nodes.append({"name": f"host-{i}", "cluster": "hosts", "tunnel_address": f"10.3.20.{i}", "encap": encap})
    servers = [
        {"id": i, "name": f"rs-{i}", "host": f"host-{i}", "key": 100 + i, "address": f"10.5.0.{i}"} for i in (1, 2)
    ]
    six = {"public": "2001:db8:100::1", "private": "fd00:100::1"}
    all_vips = []
    for i in range(1, vips + 1):
        addresses = six if i == 1 else {"public": f"203.0.113.{i}", "private": f"10.100.0.{i}"}
        listeners = [{"port": 80, "real_servers": ["rs-1", "rs-2"] if i % 2 else ["rs-2"]}]
        cluster = "clb-b" if i == vips else "clb-a"
        vip = {"id": i, "name": f"vip-{i}", "service": f"10.4.0.{i}", "cluster": cluster, "listeners": listeners}
        all_vips.append(vip | addresses)
    return {
        "region": "test",
        "tunnel": {"encap": "gre", "eip_anycast": "10.3.255.1"},
        "probing": {
            "reserved": ["198.18.0.0/16"],
            "probers": [{"name": f"p{i}", "sources": [f"198.18.{i}.0/24"]} for i in (1, 2)],
        },
        "policy": {"max_nodes_out_share": 0.3} | policy,
        "azs": [{"name": "az1"}],
        "clusters": clusters,
        "nodes": nodes,
        "real_servers": servers,
        "vips": all_vips,
    }


def fleet(**over: Any) -> Fleet:
    return check(document(**over), Fleet, "test fleet")


class FakeNode:
    """Takes desired states as a node does; its speaker announces at once what it was told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boots = 0
        self.alive = True
        self.refuses = False
        self.announces = True
        self.taken: list[dict[str, Any]] = []
        self.restart()

    def restart(self) -> None:
        self.boots += 1
        self.epoch = 0
        self.tables: dict[str, Any] = {}
        self.alive = True

    def status(self) -> dict[str, Any]:
        speaker = {
            "forwarding_alive": True,
            "epoch": self.epoch,
            "announced": self.tables.get("routes", []) if self.announces else [],
            "edge_announced": self.tables.get("edge_routes", []) if self.announces else [],
        }
        return {"node": self.name, "boot_id": f"boot-{self.boots}", "epoch": self.epoch, "speaker": speaker}

    def take(self, tables: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status code and answer of a PUT."""
        if self.refuses:
            return 422, {"detail": "refused", "problems": [{"path": "clb", "expected": "x", "found": "y"}]}
        if tables["epoch"] < self.epoch:
            return 409, {"detail": f"epoch {tables['epoch']} is older than {self.epoch}"}
        self.epoch, self.tables = tables["epoch"], copy.deepcopy(tables)
        self.taken.append(self.tables)
        return 200, {"epoch": self.epoch}

    @property
    def vips(self) -> set[int]:
        return {v["id"] for v in self.tables.get("clb", {}).get("vips", [])}

    @property
    def services(self) -> set[int]:
        """Ids of the VIPs whose service address it was told to announce."""
        return {int(r.split("/")[0].split(".")[3]) for r in self.tables.get("routes", []) if r.startswith("10.4.")}


class FakeClient:
    """NodeClient over fake nodes, without a network."""

    def __init__(self, names: list[str]) -> None:
        self.nodes = {n: FakeNode(n) for n in names}

    async def status(self, node: str) -> Any:
        fake = self.nodes[node]
        if not fake.alive:
            raise NodeError("ConnectError: gone")
        return fake.status()

    async def push(self, node: str, tables: dict[str, Any]) -> None:
        fake = self.nodes[node]
        if not fake.alive:
            raise NodeError("ConnectError: gone")
        code, answer = fake.take(tables)
        if code != 200:
            raise NodeError(f"{code} {answer['detail']}", refused=True)

    async def forget(self, node: str) -> None:
        return


class Region:
    """An orchestrator over fake nodes at virtual time."""

    def __init__(
        self, store: Path, nodes: FakeClient | None = None, connect: Connect = sqlite3.connect, **over: Any
    ) -> None:
        self.now = 1_700_000_000 * S
        self.fleet = fleet(**over)
        self.client = nodes or FakeClient([n.name for n in self.fleet.nodes])
        self.store = Store(store, lambda: self.now, connect)
        self.control = Orchestrator(self.store, self.client, KEY, Timing(), lambda: self.now)

    def up(self) -> Region:
        self.control.apply_fleet(self.fleet, "test")
        self.run(2)
        return self

    def run(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass: every operator has a round, then the orchestrator a turn, each step."""

        async def turns() -> None:
            for _ in range(round(seconds / step_s)):
                self.now += round(step_s * S)
                for operator in list(self.control.operators.values()):
                    await operator.reconcile()
                self.control.tick()

        asyncio.run(turns())

    def apply(self, document: Fleet) -> int:
        """Put a document in force, and wait until the nodes that it drops have had their last word."""

        async def change() -> int:
            before = asyncio.all_tasks()
            epoch = self.control.apply_fleet(document, "test")
            await asyncio.gather(*(asyncio.all_tasks() - before))
            return epoch

        return asyncio.run(change())

    def node(self, name: str) -> FakeNode:
        return self.client.nodes[name]

    def kill(self, *names: str) -> None:
        for name in names:
            self.node(name).alive = False

    def announcing(self, vip: int) -> set[str]:
        """The fake nodes that live and were told to announce a VIP."""
        return {n.name for n in self.client.nodes.values() if n.alive and vip in n.services}


class FakeServers:
    """Fake nodes behind real Unix sockets, as control reaches nodes. Runs in a thread of its own."""

    def __init__(self, template: str, names: list[str]) -> None:
        self.nodes = {n: FakeNode(n) for n in names}
        self._template = template
        self._servers: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()

    def __enter__(self) -> FakeServers:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        for fake in self.nodes.values():
            path = Path(self._template.replace("{node}", fake.name))
            path.parent.mkdir(parents=True, exist_ok=True)
            config = uvicorn.Config(_app(fake), uds=str(path), log_level="error", access_log=False, lifespan="off")
            server = _Server(config)
            self._servers.append(server)
        work = asyncio.gather(*(s.serve() for s in self._servers))
        while not all(s.started for s in self._servers):  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # uvicorn has no event for it
        self._started.set()
        await work


class _Server(uvicorn.Server):
    """Leaves the signals to the test: it runs in a thread."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _app(fake: FakeNode) -> FastAPI:
    app = FastAPI()

    @app.get("/v1/status")
    async def status() -> Any:
        return fake.status() if fake.alive else JSONResponse({"detail": "the fake is dead"}, 503)

    @app.put("/v1/desired")
    async def take(request: Request) -> Any:
        if not fake.alive:
            return JSONResponse({"detail": "the fake is dead"}, 503)
        code, answer = fake.take(await request.json())
        return JSONResponse(answer, code)

    return app
