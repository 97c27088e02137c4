"""The analyzer's API. Everything it says of the present comes from the engine; old journeys come from the warehouse."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, Protocol

from fastapi import FastAPI, HTTPException, Path, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from analyzer import journey
from analyzer.alerting.answer import Answer
from analyzer.alerting.silence import NewSilence, Silence
from analyzer.api import documents, receivers
from analyzer.api.metrics import EngineMetrics
from analyzer.engine import Engine
from analyzer.feeds import Feeds
from analyzer.ledger import KINDS, Ledger, judge
from analyzer.rows import Rows
from contract.incidents import STATES
from service.sqlite import StoreError
from warehouse.client import Refused, Unavailable

Limit = Annotated[int, Query(ge=1, le=5000)]
PageLimit = Annotated[int, Query(ge=1, le=1000)]
Number = Annotated[int, Query(ge=0, lt=2**63)]
# The last one of the page before: when it began [ns since 1970] and its id.
Place = Annotated[str, Query(pattern=r"^[0-9]{1,19}:[a-z0-9-]{1,100}$")]
Nanoseconds = Annotated[int, Query(ge=0, lt=2**63)]
State = Literal["open", "acting", "verifying", "mitigated", "closed", "active"]
Outcome = Literal["answered", "refused", "dropped", "silent", "unexplained", "unknown_feed", "unsent"]
_NUMBER = r"^(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})$"


class Shell(Protocol):
    """What the API needs of the shell."""

    errors: dict[str, str]
    last_look_s: float

    async def journey(self, probe_id: int) -> Rows: ...

    async def send_test(self, name: str) -> list[tuple[str, Answer]]: ...


def probe_number(text: str) -> int:
    """A probe id from its decimal or 0x form; HTTPException 422 or 404."""
    if not re.match(_NUMBER, text) or not text.isascii():
        raise HTTPException(422, f"probe_id: expected a 64-bit number, decimal or 0x hexadecimal, got {text[:40]!r}")
    number = int(text, 16 if text[:2] in ("0x", "0X") else 10)
    if number >= 1 << 64:
        raise HTTPException(404, f"no probe {number}: probe ids have 64 bits")
    return number


def build(engine: Engine, shell: Shell) -> FastAPI:
    """The ASGI application."""
    app = FastAPI(
        title="tgw analyzer",
        version="1",
        summary="Incidents, nodes, probes and why",
        redoc_url=None,
        responses={422: {"description": "the request is not understood", "model": documents.Problem}},
    )
    registry = CollectorRegistry()
    registry.register(EngineMetrics(engine))
    problem: dict[int | str, dict[str, Any]] = {
        404: {"description": "not known", "model": documents.Problem},
        503: {"description": "the warehouse does not answer", "model": documents.Problem},
    }

    @app.get("/v1/health")
    async def health() -> documents.Health:
        """Whether the analyzer sees, and what keeps it from seeing."""
        failing = {k: v for k, v in shell.errors.items() if v}
        return documents.Health(
            status="degraded" if failing or engine.frozen else "ok",
            failing=failing,
            frozen=engine.frozen or None,
            started_ns=engine.started_ns,
            looked_ns=engine.now_ns,
            look_s=round(shell.last_look_s, 4),
            feed_lag_s=round(engine.lag_s, 3),
            open_incidents=len(engine.book.open_ones()),
        )

    @app.get("/v1/incidents")
    async def incidents(
        state: State | None = None, limit: PageLimit = 100, before: Place | None = None
    ) -> documents.Page:
        """Incidents, newest first, a page at a time; `active` means every state but closed."""
        wanted: set[str] | None = None if state is None else {state}
        if state == "active":
            wanted = {name for name, known in STATES.items() if not known.over}
        return documents.incidents(engine, limit, before, wanted)

    @app.get("/v1/incidents/{incident_id}", responses=problem)
    async def incident(incident_id: str) -> dict[str, Any]:
        """One incident: evidence, sample journeys, the end of its timeline, actions, alerts, decisions."""
        found = documents.document_of(engine, incident_id)
        if found is None:
            raise HTTPException(404, f"no incident {incident_id[:80]!r}")
        return documents.whole(found, engine.store)

    @app.get("/v1/incidents/{incident_id}/timeline", responses=problem)
    async def timeline(incident_id: str, limit: PageLimit = 100, before: Number | None = None) -> documents.Page:
        """The timeline of one incident, newest first, a page at a time."""
        if documents.document_of(engine, incident_id) is None:
            raise HTTPException(404, f"no incident {incident_id[:80]!r}")
        return documents.by_number(engine.store.events(incident_id, limit, before)[::-1], limit)

    @app.get("/v1/nodes")
    async def nodes() -> list[dict[str, Any]]:
        """Every node of the fleet, with the verdict on it and the numbers behind it."""
        return documents.nodes(engine)

    @app.get("/v1/vips")
    async def vips() -> list[dict[str, Any]]:
        """Every VIP, where it is served, and how its probes of the last minute ended."""
        return documents.vips(engine)

    @app.get("/v1/probes")
    async def probes(
        vip: Annotated[int | None, Query(ge=1, lt=2**32)] = None,
        outcome: Outcome | None = None,
        since: Nanoseconds | None = None,
        limit: Limit = 100,
    ) -> list[dict[str, Any]]:
        """Probes of the last ten minutes, newest first. `since`: ns since 1970, when they were sent."""
        return documents.probes(engine, vip, outcome, since, limit)

    @app.get("/v1/probes/{probe_id}", responses=problem)
    async def probe(
        probe_id: Annotated[str, Path(description="decimal, or hexadecimal with 0x", max_length=32, pattern=_NUMBER)],
    ) -> dict[str, Any]:
        """The journey of one probe, hop by hop, and the ledger's verdict."""
        number = probe_number(probe_id)
        entry = engine.ledger.get(number)
        if entry is None:
            try:
                rows = await shell.journey(number)
            except (Unavailable, Refused) as error:
                raise HTTPException(
                    503, f"not among the last probes, and the warehouse does not answer: {error}"
                ) from None
            ledger = Ledger(engine.region, Feeds())
            for point in rows.points:
                ledger.add_point(point, engine.now_ns)
            for row in rows.probes:
                ledger.add_probe(row, engine.now_ns)
            entry = ledger.get(number)
            if entry is not None and entry.probe is not None:
                entry.verdict = judge(entry, engine.region, engine.feeds, complete=True)
        if entry is None:
            raise HTTPException(404, f"no probe {number} (0x{number:016x}): the warehouse has no record of it")
        return journey.of(entry) | {"vip": documents.vip_name(engine, entry.vip_id)}

    @app.get("/v1/ledger")
    async def ledger() -> documents.Totals:
        """How all probes ended, since the analyzer's state began."""
        totals = engine.ledger.totals
        return documents.Totals(
            since_ns=engine.ledger.since_ns,
            probes_total=sum(totals[k] for k in KINDS),
            **{k: totals[k] for k in KINDS},
            waiting=engine.ledger.pending(),
            without_probe_record=engine.ledger.orphans,
            records_lost=engine.feeds.lost_total(),
        )

    @app.get("/v1/decisions")
    async def decisions(
        limit: PageLimit = 100,
        before: Number | None = None,
        incident: str | None = None,
        about: Literal["remedy", "alert", "incident"] | None = None,
    ) -> documents.Page:
        """What was decided and why, newest first: why there was an action or an alert, and why there was none."""
        return documents.by_number(engine.store.decisions(limit, incident, about, before), limit)

    @app.get("/v1/silences")
    async def silences(active: bool = False, limit: PageLimit = 100, before: Place | None = None) -> documents.Silences:
        """Every silence, or those that hold now, newest first, a page at a time."""
        found = [s for s in engine.silences.values() if not active or s.active(engine.now_ns)]
        return documents.silences(found, limit, before)

    @app.post("/v1/silences", status_code=201)
    async def add_silence(wanted: NewSilence) -> Silence:
        """Hold back the notifications of alerts whose labels match."""
        try:
            return engine.add_silence(wanted, engine.now_ns)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None

    @app.delete("/v1/silences/{silence_id}", responses=problem)
    async def end_silence(silence_id: str) -> Silence:
        """End a silence now."""
        try:
            return engine.end_silence(silence_id, engine.now_ns)
        except KeyError:
            raise HTTPException(404, f"no silence {silence_id[:80]!r}") from None

    @app.get("/v1/events", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
    async def events(after: Annotated[int, Query(ge=0, lt=2**63)] = 0, once: bool = False) -> StreamingResponse:
        """Timeline events of all incidents as server-sent events, from a number on. `once`: those that are there."""
        return StreamingResponse(_events(engine, after, once), media_type="text/event-stream")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    receivers.add(app, engine, shell)

    @app.exception_handler(StoreError)
    async def unreadable(_: object, error: StoreError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

    @app.exception_handler(RequestValidationError)
    async def not_understood(_: object, error: RequestValidationError) -> JSONResponse:
        lines = [f"{'.'.join(str(x) for x in e['loc'][1:]) or e['loc'][0]}: {e['msg']}" for e in error.errors()]
        return JSONResponse({"detail": "; ".join(lines)}, 422)

    return app


async def _events(engine: Engine, after: int, once: bool) -> AsyncIterator[str]:
    while True:
        lines = engine.store.events_after(after)
        for line in lines:
            after = int(line["number"])
            yield f"id: {after}\nevent: {line['kind']}\ndata: {json.dumps(line)}\n\n"
        if once and not lines:
            return
        if not lines:
            yield ": still here\n\n"
        await asyncio.sleep(1.0 if not once else 0)
