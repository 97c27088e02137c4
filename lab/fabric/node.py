"""A node of the fabric: the product's pipelines behind simulated ports, and the state that its API shows.

The process around the pipelines is simulated: it can be killed, frozen and started again. What it does with tables,
epochs, routes and faults follows gateway/node.py, by the same code as far as that has no process in it; it is the
`Service` behind gateway.node_api.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from contract.documents import Problem
from gateway.node_api import DROP
from gateway.node_state import Desired, NodeSettings, Refused
from gateway.node_traffic import Native as Traffic
from gateway.node_traffic import Times
from gateway.speaker.liveness import Routes, Sight
from lab.fabric.engine import Fabric
from lab.fabric.speaker import Speaker

BEAT_NS = 100_000_000
# What a frame spends inside a node, besides the pipeline's own work: the device and the driver of a real one.
SERVICE_NS, SERVICE_JITTER_NS = 15_000, 10_000


class Pipeline(Protocol):
    """What a node needs of gateway._dataplane.Pipeline."""

    def apply(self, tables_json: str) -> None: ...

    def process(self, frames: Sequence[tuple[int, bytes]], now_ns: int) -> list[tuple[int, bytes]]: ...

    def counters(self) -> list[dict[str, int]]: ...

    def traffic(self) -> Traffic: ...

    def residence(self) -> Times: ...

    def health(self) -> Sequence[Mapping[str, Any]]: ...

    # Any: the native core names the kinds one by one, and says itself what is wrong with another.
    def inject(
        self,
        kind: Any,
        probability: float,
        seed: int,
        *,
        worker: int | None = None,
        delay_us: int | None = None,
        vip_id: int | None = None,
    ) -> None: ...

    def clear_faults(self) -> None: ...

    def beat(self, now_ns: int) -> None: ...

    def close(self, now_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Booted:
    """A fresh process: its pipelines, their boot id (32 hex digits), its id, and how it is ended."""

    pipeline: Pipeline
    boot_id: str
    pid: int
    end: Callable[[], None] = lambda: None


class Life(Enum):
    """Of the simulated process."""

    UP = "up"
    FROZEN = "frozen"
    DEAD = "dead"


class Node:
    """One node. `ports`: as the native core takes them. `boot`: makes a fresh process, once per start."""

    allow_faults = True

    def __init__(
        self,
        fabric: Fabric,
        settings: NodeSettings,
        ports: list[dict[str, Any]],
        speaker: Speaker,
        boot: Callable[[], Booted],
    ) -> None:
        self.name = settings.name
        self.role: str = settings.role
        self.speaker = speaker
        self.life = Life.DEAD
        self.started_ns = 0
        self._fabric = fabric
        self._settings = settings
        self._desired = Desired(settings)
        self._ports = ports
        self._boot = boot
        self._random = random.Random(fabric.random.getrandbits(64))  # noqa: S311 - a simulation, no secret
        self._booted: Booted | None = None
        self._pipeline: Pipeline | None = None
        self._faults: list[dict[str, Any]] = []
        self._held_ns = 0
        self._routes: Routes | None = None
        self._beats: list[int] = []
        # A killed process never says good-bye: its taps must not be closed in good order by a destructor.
        self._killed: list[Pipeline] = []
        fabric.after(int(self._random.random() * BEAT_NS), self._beat)

    @property
    def boot_id(self) -> str:
        """Of the latest start; empty before the first."""
        return self._booted.boot_id if self._booted is not None else ""

    @property
    def pid(self) -> int:
        """Of the latest start; 0 before the first."""
        return self._booted.pid if self._booted is not None else 0

    @property
    def epoch(self) -> int:
        """Of the applied tables, 0 without any."""
        return self._desired.epoch or 0

    def start(self) -> None:
        """Start the process: no tables yet. ValueError when it runs."""
        if self.life is not Life.DEAD:
            raise ValueError(f"{self.name} runs already")
        self._booted = self._boot()
        self._pipeline = self._booted.pipeline
        self.life = Life.UP
        self._desired = Desired(self._settings)
        self._faults = []
        self._held_ns = 0
        self.started_ns = self._fabric.now
        self._beats = [0] * len(self._pipeline.counters())
        self._write_routes()
        self._turn(self._pipeline)

    def close(self) -> None:
        """End in good order: the taps say so."""
        if self._pipeline is not None:
            self._pipeline.close(self._fabric.now)
        self._end()

    def kill(self) -> None:
        """End the process on the spot, as SIGKILL does."""
        if self._pipeline is not None:
            self._killed.append(self._pipeline)
        self._end()

    def _end(self) -> None:
        if self._booted is not None and self.life is not Life.DEAD:
            self._booted.end()
        self._pipeline = None
        self.life = Life.DEAD
        self.speaker.look(self._sight())

    def freeze(self) -> None:
        """Hang, as SIGSTOP does. ValueError when it does not run."""
        self._up()
        self.life = Life.FROZEN

    def thaw(self) -> None:
        """Go on. ValueError when it is not frozen."""
        if self.life is not Life.FROZEN:
            raise ValueError(f"{self.name}: expected a frozen process, it is {self.life.value}")
        self.life = Life.UP

    def receive(self, port: int, frame: bytes) -> None:
        """Run one frame through the pipelines."""
        pipeline = self._pipeline
        if pipeline is None or self.life is not Life.UP:
            return self._fabric.drop(f"node_{self.life.value}")
        self._run(pipeline, [(port, frame)])
        if self._held_ns:
            self._fabric.after(self._held_ns, self._release, pipeline)
        return None

    async def apply(self, document: Any) -> int:
        """Take a desired state as control sends it, whole or not at all; its epoch. Refused, Stale."""
        return self.take(document)

    def take(self, document: Any) -> int:
        """`apply`, at once: nothing here has to be waited for."""
        pipeline, desired = self._up()
        merged = desired.check(document)
        try:
            pipeline.apply(desired.tables(merged, self._ports))
        except ValueError as error:
            problems = getattr(error, "problems", None)
            if problems is None:
                raise
            raise Refused([Problem(*problem) for problem in problems]) from None
        desired.took(merged, self._ports)
        # Only now: routes follow tables.
        self._write_routes()
        return int(merged["epoch"])

    def faults(self) -> list[dict[str, Any]]:
        """Those that are injected."""
        return self._faults

    def inject(self, fault: dict[str, Any]) -> None:
        """Add a fault of the pipelines' own: kind, probability, seed and the kind's options. ValueError."""
        pipeline, _ = self._up()
        pipeline.inject(**fault)
        self._faults.append(fault)
        self._held_ns = max(self._held_ns, 1000 * int(fault.get("delay_us", 0)))

    def clear_faults(self) -> None:
        """Take every injected fault off."""
        pipeline, _ = self._up()
        pipeline.clear_faults()
        self._faults = []
        self._held_ns = 0
        self._run(pipeline, [])

    def status(self) -> dict[str, Any]:
        """As gateway.node tells it, and that it is simulated."""
        _, desired = self._up()
        return {
            "node": self.name,
            "role": self.role,
            "boot_id": self.boot_id,
            "pid": self.pid,
            "epoch": desired.epoch or 0,
            "started_ns": self.started_ns,
            "workers": len(self.counters()),
            "running": True,
            "uptime_s": (self._fabric.now - self.started_ns) / 1e9,
            "faults": self._faults,
            "speaker": self.speaker.status(),
            "simulated": True,
        }

    def health(self) -> list[dict[str, Any]]:
        """What health checks have found; empty for a dead process."""
        return [{**one} for one in self._pipeline.health()] if self._pipeline is not None else []

    def counters(self) -> list[dict[str, int]]:
        """By tap, as the native core gives them; none of a dead node."""
        return self._pipeline.counters() if self._pipeline is not None else []

    def traffic(self) -> Traffic:
        """By worker, as the native core gives it; none of a dead node."""
        return self._pipeline.traffic() if self._pipeline is not None else {}

    def residence(self) -> Times:
        """Likewise."""
        return self._pipeline.residence() if self._pipeline is not None else ([], {})

    def drops(self) -> dict[str, int]:
        """Frames the pipelines dropped since their start, by reason, over all taps."""
        out: dict[str, int] = {}
        for values in self.counters():
            for name, count in values.items():
                if name.startswith(DROP) and count:
                    reason = name.removeprefix(DROP)
                    out[reason] = out.get(reason, 0) + count
        return out

    def _up(self) -> tuple[Pipeline, Desired]:
        if self.life is not Life.UP or self._pipeline is None:
            raise ValueError(f"{self.name}: expected a process that runs, it is {self.life.value}")
        return self._pipeline, self._desired

    def _release(self, pipeline: Pipeline) -> None:
        """Let out what a delay held back until now."""
        if pipeline is self._pipeline and self.life is Life.UP:
            self._run(pipeline, [])

    def _run(self, pipeline: Pipeline, frames: list[tuple[int, bytes]]) -> None:
        out = pipeline.process(frames, self._fabric.now)
        self._fabric.account.inside += len(frames) - len(out)
        for to, data in out:
            wait = SERVICE_NS + int(self._random.random() * SERVICE_JITTER_NS)
            self._fabric.transmit(self, to, data, wait)

    def _beat(self) -> None:
        if self.life is Life.UP and self._pipeline is not None:
            self._turn(self._pipeline)
        self.speaker.look(self._sight())
        self._fabric.after(BEAT_NS, self._beat)

    def _turn(self, pipeline: Pipeline) -> None:
        """What a turning worker owes: its heartbeat. A stuck one (see the node's faults) leaves its old one."""
        pipeline.beat(self._fabric.now)
        stuck = [f.get("worker") for f in self._faults if f["kind"] == "stuck_worker"]
        for tap in range(len(self._beats)):
            if None not in stuck and tap not in stuck:
                self._beats[tap] = self._fabric.now

    def _write_routes(self) -> None:
        """What routes.json would say; like that file, it outlives the process."""
        taps = [str(tap) for tap in range(len(self._beats))]
        self._routes = Routes.parse(json.dumps(self._desired.routes(self.boot_id, self.pid, taps)))

    def _sight(self) -> Sight:
        return Sight(self._routes, self.life is not Life.DEAD, tuple(self._beats))
