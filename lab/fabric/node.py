"""A node of the fabric: the product's pipelines behind simulated ports, and the state that its API shows.

The process around the pipelines is simulated: it can be killed, frozen and started again. What it does with tables,
epochs, routes and faults follows gateway/node.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

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

    def inject(self, kind: str, probability: float, seed: int, **options: Any) -> None: ...

    def clear_faults(self) -> None: ...

    def beat(self, now_ns: int) -> None: ...

    def close(self, now_ns: int) -> None: ...


class Life(Enum):
    """Of the simulated process."""

    UP = "up"
    FROZEN = "frozen"
    DEAD = "dead"


class Refused(ValueError):
    """Tables that are not applied. `problems`: (path, expected, found)."""

    def __init__(self, problems: list[tuple[str, str, str]]) -> None:
        super().__init__("; ".join(f"{p}: expected {e}, found {f}" for p, e, f in problems))
        self.problems = problems


class Stale(ValueError):
    """Tables older than the applied ones."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What a node knows by itself. `ports`: as the native core takes them; `servers`: (port, MAC) by tunnel key."""

    ports: list[dict[str, Any]]
    servers: dict[int, tuple[int, str]] = field(default_factory=dict)


class Node:
    """One node. `boot`: makes fresh pipelines and says their boot id (32 hex digits), once per start."""

    def __init__(
        self,
        fabric: Fabric,
        name: str,
        role: str,
        ports: Ports,
        speaker: Speaker,
        boot: Callable[[], tuple[Pipeline, str]],
    ) -> None:
        self.name = name
        self.role = role
        self.speaker = speaker
        self.life = Life.DEAD
        self.boot_id = ""
        self.epoch = 0
        self.started_ns = 0
        self.faults: list[dict[str, Any]] = []
        self._fabric = fabric
        self._ports = ports
        self._boot = boot
        self._random = random.Random(fabric.random.getrandbits(64))  # noqa: S311 - a simulation, no secret
        self._pipeline: Pipeline | None = None
        # A killed process never says good-bye: its taps must not be closed in good order by a destructor.
        self._killed: list[Pipeline] = []
        self._held_ns = 0
        fabric.after(int(self._random.random() * BEAT_NS), self._beat)

    def start(self) -> None:
        """Start the process: no tables yet. ValueError when it runs."""
        if self.life is not Life.DEAD:
            raise ValueError(f"{self.name} runs already")
        self._pipeline, self.boot_id = self._boot()
        self.life = Life.UP
        self.epoch = 0
        self.faults = []
        self._held_ns = 0
        self.started_ns = self._fabric.now
        self._pipeline.beat(self._fabric.now)
        self.speaker.beat(self._fabric.now)

    @property
    def uptime_s(self) -> float:
        """Since the start of the process."""
        return (self._fabric.now - self.started_ns) / 1e9

    def close(self) -> None:
        """End in good order: the taps say so."""
        if self._pipeline is not None:
            self._pipeline.close(self._fabric.now)
        self._pipeline = None
        self.life = Life.DEAD
        self.speaker.gone(self._fabric.now)

    def kill(self) -> None:
        """End the process on the spot, as SIGKILL does."""
        if self._pipeline is not None:
            self._killed.append(self._pipeline)
        self._pipeline = None
        self.life = Life.DEAD
        self.speaker.gone(self._fabric.now)

    def freeze(self) -> None:
        """Hang, as SIGSTOP does. ValueError when it does not run."""
        self._expect(Life.UP)
        self.life = Life.FROZEN

    def thaw(self) -> None:
        """Go on. ValueError when it is not frozen."""
        self._expect(Life.FROZEN)
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

    def apply(self, tables: dict[str, Any]) -> int:
        """Take tables as control sends them, all or nothing; the epoch. Stale, Refused, gateway ConfigError."""
        self._expect(Life.UP)
        if self._pipeline is None:
            raise ValueError(f"{self.name} does not run")
        epoch = tables.get("epoch")
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 1:
            raise Refused([("epoch", "a number of at least 1", repr(epoch))])
        if epoch < self.epoch:
            raise Stale(f"epoch {epoch} is older than the applied {self.epoch}")
        routes = [self._prefixes(tables, key) for key in ("routes", "edge_routes")]
        self._pipeline.apply(json.dumps(self._localised(tables)))
        self.epoch = epoch
        self.speaker.want(epoch, self.boot_id, *routes)
        return epoch

    def inject(self, fault: dict[str, Any]) -> None:
        """Add a fault of the pipelines' own. `fault`: kind, probability, seed and the kind's options."""
        self._expect(Life.UP)
        options = {k: v for k, v in fault.items() if k not in ("kind", "probability", "seed") and v is not None}
        if self._pipeline is not None:
            self._pipeline.inject(fault["kind"], fault["probability"], fault["seed"], **options)
            self.faults.append(fault)
            self._held_ns = max(self._held_ns, 1000 * int(options.get("delay_us", 0)))

    def clear_faults(self) -> None:
        """Take every injected fault off."""
        self._expect(Life.UP)
        if self._pipeline is not None:
            self._pipeline.clear_faults()
            self.faults = []
            self._release(self._pipeline)
            self._held_ns = 0

    def counters(self) -> dict[str, dict[str, Any]]:
        """By worker: every counter, and the drops by reason."""
        out: dict[str, dict[str, Any]] = {}
        for worker, values in enumerate(self._pipeline.counters() if self._pipeline is not None else []):
            plain: dict[str, Any] = {k: v for k, v in values.items() if not k.startswith("drop.")}
            plain["drops"] = {k.removeprefix("drop."): v for k, v in values.items() if k.startswith("drop.") and v}
            out[str(worker)] = plain
        return out

    def drops(self) -> dict[str, int]:
        """Frames the pipelines dropped since their start, by reason, over all workers."""
        out: dict[str, int] = {}
        for values in self.counters().values():
            for reason, count in values["drops"].items():
                out[reason] = out.get(reason, 0) + count
        return out

    def _localised(self, tables: dict[str, Any]) -> dict[str, Any]:
        """The tables with what only this host knows: its ports, and the port and MAC of each real server."""
        out = tables | {"ports": self._ports.ports}
        if self.role != "vswitch" or not isinstance(tables.get("vswitch"), dict):
            return out
        servers, problems = [], []
        for i, server in enumerate(tables["vswitch"].get("servers", [])):
            local = self._ports.servers.get(server.get("key"))
            if local is None:
                known = ", ".join(map(str, self._ports.servers))
                problems.append((f"vswitch.servers[{i}].key", f"one of {known}", repr(server.get("key"))))
            else:
                servers.append(server | {"port": local[0], "mac": local[1]})
        if problems:
            raise Refused(problems)
        return out | {"vswitch": tables["vswitch"] | {"servers": servers}}

    @staticmethod
    def _prefixes(tables: dict[str, Any], key: str) -> list[str]:
        value = tables.get(key, [])
        if not isinstance(value, list) or not all(isinstance(p, str) for p in value):
            raise Refused([(key, "a list of prefixes", type(value).__name__)])
        return value

    def _expect(self, life: Life) -> None:
        if self.life is not life:
            raise ValueError(f"{self.name}: expected a process that is {life.value}, it is {self.life.value}")

    def _beat(self) -> None:
        if self.life is Life.UP and self._pipeline is not None:
            self._pipeline.beat(self._fabric.now)
            # One worker that does not turn is enough to lose the routes.
            if not any(f["kind"] == "stuck_worker" for f in self.faults):
                self.speaker.beat(self._fabric.now)
        self.speaker.look(self._fabric.now)
        self._fabric.after(BEAT_NS, self._beat)
