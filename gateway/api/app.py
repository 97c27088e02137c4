"""The routes of the control API. Every handler runs in the orchestrator's event loop and answers from its memory."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from contract.documents import DocumentError, Problem, parse
from contract.fleet import Fleet, Policy
from gateway.api import metrics
from gateway.api.models import (
    AuditPage,
    ClusterAnswer,
    Cursor,
    Epoch,
    Health,
    MaintenanceChange,
    MigrationPage,
    NodeAnswer,
    PageLimit,
    RailsChange,
    Refused,
    RefusedByRail,
)
from gateway.control.models import Maintenance, Migration, Placement, Verdict
from gateway.control.models import Request as MigrationRequest
from gateway.control.orchestrator import Conflict, Degraded, Orchestrator, Unknown
from gateway.control.store import StoreError, WriteFailed

LARGEST_DOCUMENT = 32 * 1024 * 1024

_FLEET_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Fleet"}}},
    }
}


def create(orchestrator: Orchestrator) -> FastAPI:
    """The application over one orchestrator."""
    app = FastAPI(
        title="tgw control plane",
        version="1",
        description="The fleet document, the nodes, placement, migrations and the rails that guard them.",
        docs_url="/docs",
        redoc_url=None,
    )
    _errors(app)
    _fleet_routes(app, orchestrator)
    _node_routes(app, orchestrator)
    _migration_routes(app, orchestrator)
    _rail_routes(app, orchestrator)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _fleet_routes(app: FastAPI, o: Orchestrator) -> None:
    @app.get("/v1/health", summary="Whether control works")
    async def health() -> Health:
        nodes = o.fleet.nodes if o.fleet is not None else []
        links = [link for op in o.operators.values() for link in op.links.values()]
        up = sum(o.node_state(n) == "up" for n in nodes)
        behind = sum(link.reach == "up" and not link.acked for link in links)
        problems = o.problems()
        return Health(
            status="degraded" if problems else "ok",
            problems=problems,
            fleet_epoch=o.epoch,
            nodes=len(nodes),
            nodes_up=up,
            nodes_behind=behind,
        )

    @app.get(
        "/v1/fleet",
        summary="The fleet document in force",
        responses={404: {"model": Refused}, 503: {"model": Refused}},
    )
    async def get_fleet() -> Fleet:
        o.usable()
        if o.fleet is None:
            raise Unknown("no fleet document has been applied yet: PUT one to /v1/fleet")
        return o.fleet

    @app.put(
        "/v1/fleet",
        summary="Put a whole fleet document in force",
        openapi_extra=_FLEET_BODY,
        responses={s: {"model": Refused} for s in (409, 413, 422, 503)},
    )
    async def put_fleet(request: Request) -> Epoch:
        """The document is checked as a whole; nothing of a wrong one is applied."""
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_DOCUMENT:
                raise _TooLarge(f"expected a document of at most {LARGEST_DOCUMENT} bytes")
        fleet = parse(bytes(body), Fleet, "fleet.json")
        client = request.client.host if request.client else "a local socket"
        return Epoch(epoch=o.apply_fleet(fleet, f"API from {client}"))

    @app.get("/v1/placement", summary="Where each VIP is", responses={503: {"model": Refused}})
    async def placement() -> list[Placement]:
        o.usable()
        return o.placement()

    @app.get("/v1/clusters", summary="What each cluster can carry and carries", responses={503: {"model": Refused}})
    async def clusters() -> list[ClusterAnswer]:
        o.usable()
        if o.fleet is None:
            return []
        live, capacity, load, current = o.live(), o.capacity_live(), o.load(), o.current()
        return [
            ClusterAnswer(
                name=c.name,
                role=c.role,
                az=c.az,
                purpose=c.purpose,
                nodes=[n.name for n in o.fleet.nodes_of(c.name)],
                nodes_live=live.get(c.name, []),
                capacity_total=sum(n.capacity for n in o.fleet.nodes_of(c.name)),
                capacity_live=capacity.get(c.name, 0.0),
                demand=load.get(c.name, 0.0),
                vips=[v for v, where in current.items() if where == c.name],
            )
            for c in o.fleet.clusters
        ]

    @app.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        return Response(metrics.render(o), media_type="text/plain; version=0.0.4; charset=utf-8")


def _node_routes(app: FastAPI, o: Orchestrator) -> None:
    @app.get("/v1/nodes", summary="Every node as control sees it", responses={503: {"model": Refused}})
    async def nodes() -> list[NodeAnswer]:
        o.usable()
        if o.fleet is None:
            return []
        clusters = {c.name: c for c in o.fleet.clusters}
        out, now = [], time.time_ns()
        for node in o.fleet.nodes:
            link, cluster = o.link(node.name), clusters[node.cluster]
            speaker = link.speaker(now) if link is not None else None
            out.append(
                NodeAnswer(
                    name=node.name,
                    cluster=node.cluster,
                    role=cluster.role,
                    az=cluster.az,
                    state=o.node_state(node),
                    reachable=link is not None and link.reach == "up",
                    epoch_wanted=link.wanted.epoch if link is not None and link.wanted is not None else None,
                    epoch_acked=link.epoch_acked if link is not None else None,
                    boot_id=link.boot_id if link is not None else None,
                    last_seen_ns=link.last_seen_ns if link is not None else None,
                    forwarding_alive=speaker.forwarding_alive if speaker is not None else None,
                    announced=list(speaker.announced) if speaker is not None else [],
                    edge_announced=list(speaker.edge_announced) if speaker is not None else [],
                    error=link.error if link is not None else None,
                )
            )
        return out

    @app.post(
        "/v1/nodes/{name}/maintenance",
        summary="Take a node out of the routes, or back in",
        responses={404: {"model": Refused}, 422: {"model": Refused}, 503: {"model": Refused}},
    )
    async def maintenance(name: str, change: Annotated[MaintenanceChange, Body()]) -> Maintenance:
        """The node keeps its tables: packets on their way to it are still forwarded."""
        return o.maintain(name, change.on, change.by, change.reason)


def _migration_routes(app: FastAPI, o: Orchestrator) -> None:
    @app.post(
        "/v1/migrations",
        summary="Ask for a migration",
        status_code=202,
        response_model=Migration,
        responses={409: {"model": RefusedByRail}, 422: {"model": Refused}, 503: {"model": Refused}},
    )
    async def request_migration(request: Annotated[MigrationRequest, Body()]) -> Any:
        """Accepted, or refused by a rail with its reason. A dry run is accepted, planned, and not carried out."""
        found = o.request(request)
        if found.state == "refused":
            return JSONResponse({"detail": found.detail, "rail": found.refused_by, "id": found.id}, 409)
        return found

    @app.get(
        "/v1/migrations", summary="Migrations, latest first, a page at a time", responses={422: {"model": Refused}}
    )
    async def migrations(
        limit: Annotated[PageLimit, Query()] = 100,
        before: Annotated[Cursor | None, Query()] = None,
        since: Annotated[Cursor | None, Query()] = None,
        active: bool = False,
    ) -> MigrationPage:
        """`since`: those that changed after that change, in the order of change; a time in microseconds will do too.

        `active`: all that are under way, and no others; there is but one page of them.
        """
        if active:
            return MigrationPage(items=o.active(), next=None, store=o.store.id)
        if since is not None:
            found = o.store.migrations_changed(since, limit)
            return MigrationPage(items=[m for _, m in found], next=found[-1][0] if found else since, store=o.store.id)
        found = o.store.migrations_before(before, limit)
        last = found[-1][0] if len(found) == limit else None
        return MigrationPage(items=[m for _, m in found], next=last, store=o.store.id)

    @app.get("/v1/migrations/{migration_id}", summary="One migration", responses={404: {"model": Refused}})
    async def one_migration(migration_id: str) -> Migration:
        return o.migration(migration_id)

    @app.post(
        "/v1/migrations/{migration_id}/verdict",
        summary="What fresh probes of the moved VIPs say",
        responses={s: {"model": Refused} for s in (404, 409, 422, 503)},
    )
    async def verdict(migration_id: str, verdict: Annotated[Verdict, Body()]) -> Migration:
        """Counts while the migration is verifying: clean ends it, anything else takes it back if it can be."""
        return o.verdict(migration_id, verdict)


def _rail_routes(app: FastAPI, o: Orchestrator) -> None:
    @app.get("/v1/rails", summary="What the system may do by itself")
    async def rails() -> Policy:
        return o.rails

    @app.put("/v1/rails", summary="Change some of the rails", responses={422: {"model": Refused}})
    async def set_rails(change: Annotated[RailsChange, Body()]) -> Policy:
        """Fields that are not given stay as they are."""
        fields = change.model_dump(exclude_unset=True, exclude={"by", "reason"})
        return o.set_rails(fields, change.by, change.reason)

    @app.get("/v1/audit", summary="Who did what, and why, latest first", responses={422: {"model": Refused}})
    async def audit(
        limit: Annotated[PageLimit, Query()] = 100, before: Annotated[Cursor | None, Query()] = None
    ) -> AuditPage:
        found = o.store.audit_entries(limit, before)
        return AuditPage(items=found, next=found[-1].seq if len(found) == limit else None)


class _TooLarge(Exception):
    pass


def _errors(app: FastAPI) -> None:
    """Every refusal is a 4xx that says why, in one form."""

    def document(_: Request, error: Exception) -> JSONResponse:
        problems = error.problems if isinstance(error, DocumentError) else []
        return _refusal(422, f"{len(problems)} problems; nothing was applied", problems)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        problems = []
        for item in error.errors() if isinstance(error, RequestValidationError) else []:
            path = ".".join(str(part) for part in item["loc"])
            problems.append(Problem(path, str(item["msg"]), repr(item.get("input"))[:80]))
        detail = "; ".join(f"{p.path}: {p.expected}" for p in problems[:3])
        return _refusal(422, detail, problems)

    app.add_exception_handler(DocumentError, document)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Degraded, lambda _, error: _refusal(503, f"control holds still: {error}", []))
    app.add_exception_handler(StoreError, lambda _, error: _refusal(503, str(error), []))
    app.add_exception_handler(WriteFailed, lambda _, error: _refusal(503, f"nothing was done: {error}", []))
    for kind, status in ((Conflict, 409), (Unknown, 404), (_TooLarge, 413)):
        app.add_exception_handler(kind, lambda _, error, status=status: _refusal(status, str(error), []))


def _refusal(status: int, detail: str, problems: list[Problem]) -> JSONResponse:
    def plain(text: str) -> str:
        # What came in may hold half a surrogate pair, which no UTF-8 answer can.
        return text.encode("utf-8", "backslashreplace").decode()

    shown = [{"path": plain(p.path), "expected": plain(p.expected), "found": plain(p.found)} for p in problems[:200]]
    return JSONResponse({"detail": plain(detail), "problems": shown}, status)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """With the fleet document's own schema: its route reads the body itself, to name each fault by its path."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = Fleet.model_json_schema(ref_template="#/components/schemas/{model}")
        components = schema.setdefault("components", {}).setdefault("schemas", {})
        for name, part in {**parts.pop("$defs", {}), "Fleet": parts}.items():
            components.setdefault(name, part)
        app.openapi_schema = schema
    return app.openapi_schema
