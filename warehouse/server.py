"""ClickHouse's HTTP protocol over the embedded engine: docs/warehouse.md tells what is done, and what is refused.

A request's parameters and headers are read in `request.py`, its statement and its settings are judged in `judge.py`;
what neither takes is refused, never ignored. Answers stream, see `replies.py`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from warehouse import choices, native, outfile, replies
from warehouse.encoding import Packer
from warehouse.engine import Answer, Engine, EngineError, quoted
from warehouse.framing import PackedDataError
from warehouse.guard import Guard
from warehouse.judge import Judge, Plan
from warehouse.lanes import Lane
from warehouse.refusals import STATUS, Refusal
from warehouse.registry import Kill, kill_statement
from warehouse.request import Ask, ask
from warehouse.running import Run
from warehouse.schedule import Asker, Job, Schedule
from warehouse.scrub import Scrub

log = structlog.get_logger()

# What is held of an answer whose client waits for its end, and at most where it names a buffer [bytes].
WAIT_HOLD = 64 << 20
# As much of a body as may be a KILL QUERY [bytes].
_KILL = 4096
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the server."""

    name: str
    password: str
    reader: bool


class Server:
    """The ASGI application over one engine. `max_body`: largest request body, as sent and unpacked [bytes].

    Readers, other statements and inserts each go by lanes of their own, see `lanes_of`. `reader_seconds`: what a
    reader's statement may take [s].
    """

    def __init__(
        self,
        engine: Engine,
        accounts: list[Account],
        max_body: int,
        judge: Judge,
        scrub: Scrub,
        lanes: Mapping[str, Sequence[Lane]],
        reader_seconds: float,
    ) -> None:
        self._engine = engine
        self._accounts = {account.name: account for account in accounts}
        self._max_body = max_body
        self._judge = judge
        self._scrub = scrub
        self._schedule = Schedule(lanes, engine.kill, {"reader": reader_seconds})
        # Those that judge, unpack, frame and pack: what readers send keeps no insert waiting, and one thread of theirs
        # at most holds the interpreter.
        self._judging = {reader: ThreadPoolExecutor(1 if reader else 2, "judge") for reader in (False, True)}
        self.app = Starlette(
            routes=[
                Route("/ping", self._ping, methods=["GET", "HEAD"]),
                Route("/replicas_status", self._ping, methods=["GET", "HEAD"]),
                Route("/", _Endpoint(self._root), methods=["GET", "HEAD", "POST"]),
            ]
        )

    async def _ping(self, request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def _root(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method == "HEAD" or (request.method == "GET" and "query" not in request.query_params):
            await PlainTextResponse("Ok.\n")(scope, receive, send)
            return
        query_id = request.query_params.get("query_id", "")
        try:
            account = self._authenticate(request)
            asked = ask(request.method, request.query_params.multi_items(), request.headers)
            query_id = asked.query_id
            body = await self._body(request, account)
            async with replies.while_there(receive):
                await self._answer(request, asked, account, body, send)
            return
        except Refusal as error:
            refused = _refused(error.status, error.code, str(error), query_id)
        except PackedDataError as error:
            status = {241: 413, 36: 400, 271: 400}.get(error.code, 500)
            refused = _refused(status, error.code, f"Code: {error.code}. DB::Exception: {error}", query_id)
        except EngineError as error:
            refused = _refused(STATUS.get(error.code, 500), error.code, error.message, query_id)
        await refused(scope, receive, send)

    async def _answer(self, request: Request, asked: Ask, account: Account, body: list[bytes], send: Send) -> None:
        """Judge, run and answer; nothing has been sent when this raises."""
        began = time.monotonic()
        judged = partial(self._judged, account)
        # Not on the event loop: it takes as long as whoever asks likes.
        job = await judged(self._job, request, asked, account, body)
        body.clear()
        if isinstance(job, Kill):
            job = await self._killed(job, account)
        tag = replies.new_tag()

        async def begin(run: Run) -> replies.Body:
            chunks = self._told(run.chunks(), job)
            if job.form == "Native" and job.revision:
                chunks = _framed(chunks, job.revision, judged)
            hold = WAIT_HOLD if asked.wait else min(max(asked.buffer, replies.HOLD), WAIT_HOLD)
            reply = await replies.begun(chunks, tag, hold)
            if asked.wait and not reply.whole:
                raise Refusal(396, f"wait_end_of_query holds at most {WAIT_HOLD} bytes of an answer here")
            return reply

        async def reply(run: Run, body: replies.Body) -> None:
            answer = run.answer if body.whole else Answer(b"", 0, 0, 0.0)
            headers = _headers(job, answer, asked.query_id, time.monotonic() - began)
            headers["X-ClickHouse-Exception-Tag"] = tag
            if asked.encoding_out is not None:
                headers |= {"Content-Encoding": asked.encoding_out, "Vary": "Accept-Encoding"}
            await replies.send_body(send, 200, headers, body, _packed(body.chunks(), asked.packers(), judged))

        asker = Asker(account.name, f"{account.name}@{request.client.host if request.client else ''}", asked.query_id)
        await self._schedule.run(job, asker, begin, reply)

    async def _killed(self, kill: Kill, account: Account) -> Job:
        """End the statement that it names, and say so in the form of the engine's own KILL QUERY."""
        entry = self._schedule.registry.find(kill)
        if entry is not None and account.reader and entry.user != account.name:
            raise Refusal(497, f"{account.name}: Not enough privileges: a reader ends its own queries only")
        if entry is not None and not kill.test:
            await self._schedule.kill(entry, wait=kill.wait)
        values = {
            "kill_status": "finished" if kill.wait else "waiting",
            "query_id": kill.query_id,
            "user": entry.user if entry else "",
            "query": entry.statement if entry else "",
        }
        columns = ", ".join(f"{quoted(value)} AS {name}" for name, value in values.items())
        statement, form = f"SELECT {columns} WHERE {int(entry is not None)}", kill.form or "TabSeparated"
        return Job(
            "house", form, "", lambda sink, mark, _: self._engine.stream(statement, form, sink, reader=True, mark=mark)
        )

    async def _told(self, chunks: AsyncIterator[bytes], job: Job) -> AsyncIterator[bytes]:
        """The chunks; an error of the engine without the server's paths."""
        try:
            async for chunk in chunks:
                yield chunk
        except EngineError as error:
            raise EngineError(self._scrub(error.message, job.statement)) from None

    async def _judged(self, account: Account, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._judging[account.reader], function, *arguments)

    def _authenticate(self, request: Request) -> Account:
        user = request.headers.get("x-clickhouse-user") or request.query_params.get("user") or ""
        key = request.headers.get("x-clickhouse-key") or request.query_params.get("password") or ""
        authorization = request.headers.get("authorization", "")
        if authorization.lower().startswith("basic "):
            try:
                user, _, key = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise Refusal(194, "the Authorization header is no Basic credential") from None
        account = self._accounts.get(user)
        expected = account.password if account else "no such user, and no such password either"
        if not hmac.compare_digest(key.encode(), expected.encode()) or account is None:
            raise Refusal(516, f"{user or '(no user)'}: Authentication failed: no such user or password")
        return account

    async def _body(self, request: Request, account: Account) -> list[bytes]:
        chunks, size = [], 0
        # A reader sends nothing but a statement.
        limit = min(self._judge.max_statement_bytes, self._max_body) if account.reader else self._max_body
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit and account.reader:
                raise self._judge.too_long()
            if size > limit:
                raise PackedDataError(241, "MEMORY_LIMIT_EXCEEDED", f"the body is larger than {limit} bytes")
            chunks.append(chunk)
        return chunks

    def _job(self, request: Request, asked: Ask, account: Account, body: list[bytes]) -> Job | Kill:
        query = request.query_params.get("query", "")
        if (kill := kill_statement(query or b"".join(body[:1])[:_KILL].decode(errors="replace"))) is not None:
            return kill if kill.form else replace(kill, form=asked.form)
        try:
            plan = self._judge.plan(asked, account.name, query, body, reader=account.reader)
        except EngineError as error:
            raise EngineError(self._scrub(error.message, query)) from None
        insert = plan.insert
        if insert is not None:
            return Job(
                plan.kind,
                plan.form,
                plan.statement,
                lambda *_: self._engine.insert(insert.target, insert.form, plan.data, plan.settings),
            )
        # Those that know less of the Native format read it as it is.
        framed = asked.revision if asked.revision >= native.CUSTOM_SERIALIZATION_REVISION else 0
        return Job(plan.kind, plan.form, plan.statement, partial(self._run, plan), framed, plan.settings)

    def _run(self, plan: Plan, sink: int, mark: str, limits: Mapping[str, str]) -> Answer:
        options: dict[str, Any] = {"reader": plan.kind == "reader", "mark": mark, "limits": limits}
        statement, form, settings, parameters = plan.statement, plan.form, plan.settings, plan.parameters
        if not outfile.reads(outfile.cut(statement)):
            return self._engine.execute(statement, form, settings, parameters, **options)
        answer = self._engine.stream(statement, form, sink, settings, parameters, **options)
        if form == "Native" and not answer.rows and plan.selects:
            # The engine writes nothing at all for no rows; clients want to know the columns.
            described = self._engine.execute(
                f"DESCRIBE TABLE ({outfile.without_format(statement)}\n)",
                "JSONCompactEachRow",
                {},
                parameters,
                **options,
            )
            header = native.header([tuple(json.loads(line)[:2]) for line in described.data.splitlines()])
            return replace(answer, data=header)
        return answer


def judge_of(engine: Engine, database: str, max_body: int, max_statement: int, caps: Mapping[str, float]) -> Judge:
    """The judge over an engine: it asks it what functions and settings there are. `caps`: limits of readers."""

    def names(table: str) -> list[str]:
        return [str(row[0]) for row in engine.rows(f"SELECT name FROM system.{table}")]

    policy = choices.Policy(frozenset(names("settings")), dict(caps))
    guard = Guard(engine.parsed, names("functions"), names("table_functions"), policy)
    return Judge(guard, policy, database, lambda: names("databases"), max_body, max_statement)


async def _packed(
    chunks: AsyncIterator[bytes], packers: list[Packer], judged: Callable[..., Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    for packer in packers:
        chunks = _through(chunks, packer, judged)
    async for chunk in chunks:
        yield chunk


async def _through(
    chunks: AsyncIterator[bytes], packer: Packer, judged: Callable[..., Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if packed := await judged(packer.feed, chunk):
            yield packed
    if packed := await judged(packer.finish):
        yield packed


async def _framed(
    chunks: AsyncIterator[bytes], revision: int, judged: Callable[..., Awaitable[bytes]]
) -> AsyncIterator[bytes]:
    framer = native.Framer(revision)
    async for chunk in chunks:
        if framed := await judged(_supported, framer.feed, chunk):
            yield framed
    if framed := await judged(_supported, framer.finish):
        yield framed


def _supported(function: Callable[..., bytes], *arguments: bytes) -> bytes:
    try:
        return function(*arguments)
    except native.UnsupportedType as error:
        raise EngineError(f"Code: 48. DB::Exception: {error}. (NOT_IMPLEMENTED)") from None


class _Endpoint:
    """An ASGI application as Starlette's routes know one from a function of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


def _refused(status: int, code: int, text: str, query_id: str) -> Response:
    headers = {"X-ClickHouse-Exception-Code": str(code), "X-ClickHouse-Query-Id": query_id}
    return PlainTextResponse(text.rstrip() + "\n", status, headers=headers)


def _headers(job: Job, answer: Answer, query_id: str, took_s: float) -> dict[str, str]:
    summary = {
        "read_rows": str(answer.rows),
        "read_bytes": str(answer.bytes_read),
        # An insert reads exactly what it writes.
        "written_rows": str(answer.rows if job.kind == "inserter" else 0),
        "written_bytes": str(answer.bytes_read if job.kind == "inserter" else 0),
        "elapsed_ns": str(round(took_s * 1e9)),
    }
    kind = "application/json; charset=UTF-8" if job.form.startswith("JSON") else "application/octet-stream"
    if job.form.startswith(("TabSeparated", "TSV")):
        kind = "text/tab-separated-values; charset=UTF-8"
    return {
        "Content-Type": kind,
        "X-ClickHouse-Summary": json.dumps(summary),
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Format": job.form,
        "X-ClickHouse-Timezone": "UTC",
        "X-ClickHouse-Server-Display-Name": "tgw",
    }
