"""The fabric driven by the wall clock: native pipelines, taps, APIs and logs around a simulated region."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import secrets
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import Field

from contract.documents import Strict
from lab.fabric.api import Load, Order, Servers, lab_api, quiet_server
from lab.fabric.engine import Fabric
from lab.fabric.identity import Identity, publish
from lab.fabric.node import Booted, Life
from lab.fabric.region import Region
from lab.state import Run
from lab.topology import Size, Topology
from lab.traffic import Log, Request
from prober.judge import Closed
from prober.record import Tap
from prober.settings import read_key

ENVIRONMENT_PREFIX = "TGW_FABRIC_"
# Sleep at least so long: simulated times are exact all the same, an event is only worked off a little later.
REST_S = 0.003
# Events between two looks at the APIs, when far behind.
BURST = 2000
CHORE_S = 0.25
PROBER_BEAT_NS = 100_000_000

log = structlog.get_logger()


class Settings(Strict):
    """fabric.toml. `run`: the run directory of the lab; `size`: fields of lab.topology.Size."""

    run: Path
    socket: Path
    key_file: Path
    size: dict[str, int] = Field(default_factory=dict)
    probe_period_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    probe_timeout_s: Annotated[float, Field(gt=0, le=30)] = 2.0
    tap_capacity: Annotated[int, Field(ge=64, le=2**22)] = 16_384
    flow_capacity: Annotated[int, Field(ge=64, le=2**22)] = 16_384
    seed: int = 1
    log_level: str = "INFO"


class Clock:
    """Wall time that never jumps: anchored once, moved by the monotonic clock."""

    def __init__(self) -> None:
        self._base = time.time_ns() - time.monotonic_ns()

    def now(self) -> int:
        """ns since 1970."""
        return self._base + time.monotonic_ns()


class Process:
    """Everything that `python -m lab.fabric` holds. DocumentError, OSError and ValueError on wrong settings."""

    def __init__(self, settings: Settings) -> None:
        from gateway import _dataplane

        self._native = _dataplane
        self._settings = settings
        self._run = Run(settings.run)
        # Taps are made beside the directory that the collector looks into, on the same file system.
        self._making = self._run.taps / ".making"
        self._making.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clock = Clock()
        self._topology = Topology(
            Size(**settings.size),
            probe_period_s=settings.probe_period_s,
            probe_timeout_s=settings.probe_timeout_s,
        )
        self._fabric = Fabric(self._clock.now(), settings.seed)
        self._logs = {name: Log(self._run.traffic(name)) for name in self._topology.clients}
        self._taps = {
            name: Tap(self._run.taps, name, secrets.token_bytes(16), settings.tap_capacity, self._fabric.now)
            for name in self._topology.probers
        }
        self._region = Region(
            self._topology,
            self._run,
            self._fabric,
            settings.seed,
            read_key(settings.key_file),
            boot=self._boot,
            record=lambda name, closed: self._record(name, closed),
            note=lambda name, request: self._note(name, request),
        )
        self._servers = Servers(self._run.socket)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._probing = False
        self._asking = False
        self._worst_lag_ns = 0

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        self._region.start()
        for node in self._region.nodes.values():
            self._servers.open(node)
        await self._servers.ready(30)
        handle = quiet_server(lab_api(self._order, self._probe, self._ask, self._state), self._settings.socket)
        serving = asyncio.create_task(handle.serve())
        self._beat_probers()
        # What is built now stays: the collector of garbage need not look at it again and again.
        gc.freeze()
        chores = asyncio.create_task(self._chores())
        log.info("fabric", nodes=len(self._region.nodes), simulated=True, pid=os.getpid())
        try:
            await self._drive()
        finally:
            chores.cancel()
            handle.should_exit = True
            await self._servers.close()
            await asyncio.wait([serving, chores], timeout=2)
            self._finish()

    async def _drive(self) -> None:
        while not self._stop.is_set():
            now = self._clock.now()
            due = self._fabric.next_event
            if due is not None:
                self._worst_lag_ns = max(self._worst_lag_ns, now - due)
            if self._fabric.advance(now, BURST) == BURST:
                await asyncio.sleep(0)
                continue
            due = self._fabric.next_event
            rest = REST_S if due is None else max(REST_S, (due - self._clock.now()) / 1e9)
            self._wake.clear()
            try:
                async with asyncio.timeout(rest):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _chores(self) -> None:
        while True:
            await asyncio.sleep(CHORE_S)
            for one in self._logs.values():
                one.flush()

    def _beat_probers(self) -> None:
        for tap in self._taps.values():
            tap.beat(self._fabric.now)
        self._fabric.after(PROBER_BEAT_NS, self._beat_probers)

    def _boot(self, name: str, role: str) -> Booted:
        identity = Identity()
        boot_id = secrets.token_hex(16)
        pipeline = self._native.Pipeline(
            role,
            workers=1,
            tap_dir=str(self._making),
            node=name,
            tap_capacity=self._settings.tap_capacity,
            flow_capacity=self._settings.flow_capacity,
            # The same on every LD: Maglev must choose alike.
            seed=0,
            boot_id=boot_id,
        )
        publish(map(Path, pipeline.tap_paths()), self._run.taps, identity.pid)
        return Booted(pipeline, boot_id, identity.pid, identity.end)

    def _record(self, name: str, closed: Closed) -> bool:
        return self._taps[name].write(closed)

    def _note(self, name: str, request: Request) -> None:
        self._logs[name].add(request)

    def _order(self, order: Order) -> None:
        nodes = [self._region.nodes[name] for name in order.nodes if name in self._region.nodes]
        if len(nodes) != len(order.nodes):
            raise KeyError(f"nodes: expected names of {', '.join(self._region.nodes)}, got {', '.join(order.nodes)}")
        self._fabric.advance(self._clock.now())
        for node in nodes:
            if order.kind == "kill":
                node.kill()
                self._servers.shut(node.name)
            elif order.kind == "freeze":
                node.freeze()
            elif order.kind == "thaw":
                node.thaw()
            else:
                node.start()
                self._servers.open(node)
        self._wake.set()

    def _probe(self) -> None:
        if not self._probing:
            self._probing = True
            self._region.probe()
            self._wake.set()

    def _ask(self, load: Load) -> None:
        if self._asking:
            raise ValueError("the clients ask already")
        self._asking = True
        self._region.ask(load.rate, load.kept)
        self._wake.set()

    def _state(self) -> dict[str, Any]:
        account = self._fabric.account
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "simulated": True,
            "now_ns": self._fabric.now,
            "nodes": {name: node.life.value for name, node in self._region.nodes.items()},
            "routes": {"edge": len(self._region.edge), "fabric": len(self._region.fabric_router)},
            "probing": self._probing,
            "asking": self._asking,
            "frames": {
                "originated": account.originated,
                "delivered": account.delivered,
                "in_flight": account.in_flight,
                "inside": account.inside,
                "dropped_by_pipelines": self._region.pipeline_drops(),
                "dropped": dict(account.dropped),
                "unaccounted": account.balance,
            },
            "probers": {name: dict(p.engine.counts) for name, p in self._region.probers.items()},
            "worst_lag_s": round(self._worst_lag_ns / 1e9, 3),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        }

    def _end(self) -> None:
        self._stop.set()
        self._wake.set()

    def _finish(self) -> None:
        for name, prober in self._region.probers.items():
            prober.engine.close()
            self._taps[name].close()
        for one in self._logs.values():
            one.flush()
        for node in self._region.nodes.values():
            if node.life is Life.UP:
                node.close()
        log.info("fabric ended", **self._state())
