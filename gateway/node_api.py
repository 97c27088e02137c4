"""The node's API: desired state in, counters and status out. Its callers are operators on the management network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Protocol

from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel, ConfigDict, Field

from contract.records import COUNTER_MEANINGS
from gateway import node_traffic
from gateway.node_ports import PortError
from gateway.node_state import Refused, Stale

DROP = "drop."


class Fault(BaseModel):
    """A fault for the lab. `worker`: number of the tap it hits, all when left out."""

    model_config = ConfigDict(extra="forbid")

    kind: str
    probability: float = Field(default=1.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**64)
    worker: int | None = Field(default=None, ge=0, le=65535)
    delay_us: int | None = Field(default=None, ge=0, lt=2**32)
    vip_id: int | None = Field(default=None, ge=0, lt=2**32)


class Service(Protocol):
    """What the API needs of the process."""

    allow_faults: bool
    role: str

    def status(self) -> dict[str, Any]:
        """GET /v1/status."""

    def counters(self) -> list[dict[str, int]]:
        """By tap, as the native core gives them."""

    def traffic(self) -> node_traffic.Native:
        """By worker, as the native core gives it."""

    def residence(self) -> node_traffic.Times:
        """Likewise."""

    def health(self) -> list[dict[str, Any]]:
        """What health checks have found of the real servers, as the native core gives it."""

    async def apply(self, document: Any) -> int:
        """Take a desired state; its epoch. Refused, Stale, PortError, TimeoutError."""

    def faults(self) -> list[dict[str, Any]]:
        """Those that are injected."""

    def inject(self, fault: dict[str, Any]) -> None:
        """Add one. ValueError."""

    def clear_faults(self) -> None:
        """End all."""


def by_worker(counters: list[dict[str, int]]) -> dict[str, dict[str, Any]]:
    """{worker: {counter: value, "drops": {reason: frames}}}; only reasons that have occurred."""
    out: dict[str, dict[str, Any]] = {}
    for worker, values in enumerate(counters):
        named: dict[str, Any] = {name: value for name, value in values.items() if not name.startswith(DROP)}
        named["drops"] = {n.removeprefix(DROP): v for n, v in values.items() if n.startswith(DROP) and v}
        out[str(worker)] = named
    return out


class Metrics:
    """Prometheus collector over a snapshot of the native counters."""

    def __init__(self, node: str, service: Service) -> None:
        self._node = node
        self._service = service

    def collect(self) -> Iterator[Metric]:
        counters = self._service.counters()
        for name, (unit, meaning, is_gauge) in COUNTER_MEANINGS.items():
            family = GaugeMetricFamily if is_gauge else CounterMetricFamily
            text = f"{meaning} ({unit})" if unit else meaning
            metric = family(f"tgw_node_{name}", text, labels=["node", "worker"])
            for worker, values in enumerate(counters):
                metric.add_metric([self._node, str(worker)], values[name])
            yield metric
        drops = CounterMetricFamily("tgw_node_drops", "frames dropped, by reason", labels=["node", "worker", "reason"])
        for worker, values in enumerate(counters):
            for name, value in values.items():
                if name.startswith(DROP):
                    drops.add_metric([self._node, str(worker), name.removeprefix(DROP)], value)
        yield drops
        up = GaugeMetricFamily(
            "tgw_node_server_up",
            "whether a real server gets connections of a listener, as its health checks say",
            labels=["node", "vip", "server", "port"],
        )
        for one in self._service.health():
            labels = [self._node, str(one["vip_id"]), str(one["server_id"]), str(one["port"])]
            up.add_metric(labels, float(one["up"]))
        yield up
        yield from node_traffic.metrics(self._node, self._service.traffic())
        yield from node_traffic.histogram(self._node, self._service.role, self._service.residence())


def create(node: str, service: Service) -> FastAPI:
    """The application."""
    app = FastAPI(title=f"tgw node {node}", version="1", docs_url=None, redoc_url=None)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Metrics(node, service))

    @app.get("/v1/status")
    async def status() -> dict[str, Any]:
        return service.status()

    @app.get("/v1/counters")
    async def counters() -> dict[str, dict[str, Any]]:
        return by_worker(service.counters())

    @app.get("/v1/traffic")
    async def traffic() -> dict[str, Any]:
        return node_traffic.document(service.traffic())

    @app.get("/v1/health")
    async def health() -> list[dict[str, Any]]:
        return service.health()

    @app.put("/v1/desired", response_model=None, responses={409: {}, 422: {}, 503: {}})
    async def desired(document: Annotated[Any, Body()]) -> JSONResponse:
        try:
            return JSONResponse({"epoch": await service.apply(document)})
        except Refused as error:
            problems = [{"path": p.path, "expected": p.expected, "found": p.found} for p in error.problems]
            return JSONResponse({"detail": str(error), "problems": problems}, 422)
        except Stale as error:
            raise HTTPException(409, str(error)) from None
        except (PortError, TimeoutError) as error:
            raise HTTPException(503, str(error)) from None

    def allowed() -> None:
        if not service.allow_faults:
            raise HTTPException(404, "faults are not allowed on this node (allow_faults in its settings)")

    @app.get("/v1/faults")
    async def faults() -> list[dict[str, Any]]:
        allowed()
        return service.faults()

    @app.post("/v1/faults", status_code=201)
    async def inject(fault: Fault) -> dict[str, Any]:
        allowed()
        document = fault.model_dump(exclude_none=True)
        try:
            service.inject(document)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return document

    @app.delete("/v1/faults", status_code=204)
    async def clear() -> None:
        allowed()
        service.clear_faults()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app
