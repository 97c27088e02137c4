"""The APIs of the fabric: each simulated node's own (gateway.node_api), and the lab's handle on it all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.documents import Strict
from gateway import node_api
from lab.fabric.node import Life, Node
from service.listen import Listen, server

FROZEN_LIMIT_S, FROZEN_POLL_S = 120.0, 0.1


class Door:
    """Leads requests of one socket to one node, as that node's process would: a frozen one does not answer."""

    def __init__(self, app: ASGIApp, node: Node) -> None:
        self._app = app
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            waited = 0.0
            while self._node.life is Life.FROZEN and waited < FROZEN_LIMIT_S:
                await asyncio.sleep(FROZEN_POLL_S)
                waited += FROZEN_POLL_S
            if self._node.life is not Life.UP:
                # A dead process says nothing: no answer is what the other end would see.
                return
        await self._app(scope, receive, send)


class _Quiet(uvicorn.Server):
    """One of many servers in this process: it leaves signals to the process and wakes up once a second only."""

    async def main_loop(self) -> None:
        counter = 0
        while not self.should_exit:
            await self.on_tick(counter)
            counter = (counter + 10) % 864_000
            for _ in range(4):
                await asyncio.sleep(0.25)
                if self.should_exit:
                    return

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def quiet_server(app: ASGIApp, socket: Path) -> uvicorn.Server:
    """A server on a Unix socket that shares its process with others."""
    return _Quiet(server(app, Listen(socket=socket)).config)


class Servers:
    """One API server per living node, on its socket; gone while the node is dead."""

    def __init__(self, socket_of: Callable[[str], Path]) -> None:
        self._socket_of = socket_of
        self._running: dict[str, tuple[uvicorn.Server, asyncio.Task[None]]] = {}

    def open(self, node: Node) -> None:
        """Begin to serve a node."""
        quiet = quiet_server(Door(node_api.create(node.name, node), node), self._socket_of(node.name))
        self._running[node.name] = quiet, asyncio.create_task(quiet.serve())

    def shut(self, node: str) -> None:
        """Stop at once, as a killed process does: connections break, the socket refuses."""
        if node in self._running:
            running, _ = self._running.pop(node)
            running.should_exit = True
            for listener in running.servers if hasattr(running, "servers") else []:
                listener.close()
            for connection in list(running.server_state.connections):
                transport = getattr(connection, "transport", None)
                if transport is not None:
                    transport.abort()

    async def ready(self, seconds: float) -> None:
        """Until every opened server listens. TimeoutError."""
        end = asyncio.get_running_loop().time() + seconds
        while not all(s.started for s, _ in self._running.values()):
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError("the node APIs do not listen")
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Stop all, in good order within 2 s."""
        tasks = []
        for running, task in self._running.values():
            running.should_exit = True
            tasks.append(task)
        if tasks:
            await asyncio.wait(tasks, timeout=2)


class Order(Strict):
    """What the lab may do to a node's simulated process."""

    kind: Literal["kill", "freeze", "thaw", "restart"]
    nodes: Annotated[list[str], Field(min_length=1, max_length=1000)]


class Load(Strict):
    """How much the clients ask: new connections a second, and connections kept open, per client."""

    rate: Annotated[float, Field(ge=0.1, le=1000)]
    kept: Annotated[int, Field(ge=0, le=1000)]


def lab_api(
    order: Callable[[Order], None],
    probe: Callable[[], None],
    ask: Callable[[Load], None],
    state: Callable[[], dict[str, Any]],
) -> FastAPI:
    """The lab's handle: faults of processes, the start of probes and traffic, the account of frames."""
    app = FastAPI(title="tgw fabric (simulated)")

    @app.get("/v1/state")
    async def get_state() -> dict[str, Any]:
        return state()

    @app.post("/v1/orders")
    async def post_order(wanted: Order) -> dict[str, Any]:
        try:
            order(wanted)
        except (KeyError, ValueError) as error:
            raise HTTPException(409, str(error).strip("'")) from None
        return state()

    @app.post("/v1/probing")
    async def post_probing() -> dict[str, Any]:
        probe()
        return state()

    @app.post("/v1/traffic")
    async def post_traffic(load: Load) -> dict[str, Any]:
        try:
            ask(load)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        return state()

    return app
