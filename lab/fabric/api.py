"""The APIs of the fabric: each simulated node's own (that of gateway/node.py), and the lab's handle on it all."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.documents import Strict
from lab.fabric.node import Life, Node, Refused, Stale
from service.listen import Listen, server

BODY_LIMIT = 4 << 20
FROZEN_LIMIT_S, FROZEN_POLL_S = 120.0, 0.1


class Injected(Strict):
    """A fault of the pipelines' own, as the node API takes it."""

    kind: Literal["encap_fail", "loss_silent", "loss_visible", "delay", "stuck_worker", "vip_missing", "reply_loss"]
    probability: Annotated[float, Field(ge=0, le=1)] = 1.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    worker: Annotated[int, Field(ge=0, le=64)] | None = None
    delay_us: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    vip_id: Annotated[int, Field(ge=1)] | None = None


def node_api(config_error: type[Exception]) -> FastAPI:
    """The node API. `Door` puts the node into the scope. `config_error`: what wrong tables raise."""
    app = FastAPI(title="tgw node (simulated)")

    def node_of(request: Request) -> Node:
        node: Node = request.scope["tgw_node"]
        return node

    @app.get("/v1/status")
    async def status(request: Request) -> dict[str, Any]:
        node = node_of(request)
        return {
            "node": node.name,
            "role": node.role,
            "boot_id": node.boot_id,
            "pid": os.getpid(),
            "epoch": node.epoch,
            "started_ns": node.started_ns,
            "workers": len(node.counters()),
            "uptime_s": round(node.uptime_s, 3),
            "faults": node.faults,
            "speaker": node.speaker.status(),
            "simulated": True,
        }

    @app.get("/v1/counters")
    async def counters(request: Request) -> dict[str, dict[str, Any]]:
        return node_of(request).counters()

    @app.put("/v1/desired")
    async def desired(request: Request) -> JSONResponse:
        node = node_of(request)
        body = await _body(request)
        try:
            tables = json.loads(body)
        except ValueError as error:
            return _problems([("", "JSON", str(error))])
        if not isinstance(tables, dict):
            return _problems([("", "an object", type(tables).__name__)])
        try:
            return JSONResponse({"epoch": node.apply(tables)})
        except Stale as error:
            return JSONResponse({"detail": str(error)}, 409)
        except Refused as error:
            return _problems(error.problems)
        except config_error as error:
            return _problems(getattr(error, "problems", [("", "tables", str(error))]))

    @app.get("/v1/faults")
    async def faults(request: Request) -> list[dict[str, Any]]:
        return node_of(request).faults

    @app.post("/v1/faults")
    async def inject(request: Request, fault: Injected) -> list[dict[str, Any]]:
        node = node_of(request)
        try:
            node.inject(fault.model_dump(exclude_none=True))
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return node.faults

    @app.delete("/v1/faults")
    async def clear(request: Request) -> list[dict[str, Any]]:
        node_of(request).clear_faults()
        return []

    return app


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise HTTPException(413, f"expected at most {BODY_LIMIT} bytes")
    return body


def _problems(problems: list[tuple[str, str, str]]) -> JSONResponse:
    listed = [{"path": p, "expected": e, "found": f} for p, e, f in problems]
    text = "; ".join(f"{p or '(whole document)'}: expected {e}, found {f}" for p, e, f in problems)
    return JSONResponse({"detail": text, "problems": listed}, 422)


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
            scope["tgw_node"] = self._node
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

    def __init__(self, app: ASGIApp, socket_of: Callable[[str], Path]) -> None:
        self._app = app
        self._socket_of = socket_of
        self._running: dict[str, tuple[uvicorn.Server, asyncio.Task[None]]] = {}

    def open(self, node: Node) -> None:
        """Begin to serve a node."""
        quiet = quiet_server(Door(self._app, node), self._socket_of(node.name))
        self._running[node.name] = quiet, asyncio.create_task(quiet.serve())

    def shut(self, node: str) -> None:
        """Stop at once, as a killed process does: connections break, the socket refuses."""
        if node in self._running:
            running, _ = self._running.pop(node)
            running.should_exit = running.force_exit = True
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
    order: Callable[[Order], None], ask: Callable[[Load], None], state: Callable[[], dict[str, Any]]
) -> FastAPI:
    """The lab's handle: faults of processes, the start of the traffic, the account of frames."""
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

    @app.post("/v1/traffic")
    async def post_traffic(load: Load) -> dict[str, Any]:
        try:
            ask(load)
        except ValueError as error:
            raise HTTPException(409, str(error)) from None
        return state()

    return app
