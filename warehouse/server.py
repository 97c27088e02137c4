"""ClickHouse's HTTP protocol over the embedded engine, as far as clickhouse-connect and Grafana's plugin speak it.

Not as on a server: there are no sessions (a session_id is ignored, and SET is refused); answers are never packed; of a
reader's settings only those that shape the answer count, the others are left out in silence, because
clients send limits of their own. INTO OUTFILE, files and other servers are nobody's.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import gzip
import hmac
import json
import re
import sys
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import anyio
import lz4.frame
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from warehouse import native, outfile, replies
from warehouse.engine import Answer, Engine, EngineError
from warehouse.guard import insert_statement, reader_setting, refusal, writer_refusal
from warehouse.running import started

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

log = structlog.get_logger()

# URL parameters that belong to the transport and are no settings of a statement.
_TRANSPORT = {
    "query",
    "database",
    "user",
    "password",
    "default_format",
    "query_id",
    "session_id",
    "session_timeout",
    "session_check",
    "compress",
    "decompress",
    "wait_end_of_query",
    "buffer_size",
    "quota_key",
    "role",
    "client_protocol_version",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "enable_http_compression",
    "cancel_http_readonly_queries_on_client_close",
    "stacktrace",
    "add_http_cors_header",
}
# ClickHouse's own choice of statuses, as far as it is not 500.
_STATUS = {
    516: 403, 164: 403, 497: 403,
    60: 404, 81: 404, 46: 404, 47: 404, 115: 404,
    62: 400, 36: 400, 27: 400, 6: 400, 26: 400, 72: 400, 117: 400, 53: 400, 386: 400,
    159: 408, 202: 503,
}  # fmt: skip
_SELECT = re.compile(r"^[\s(]*(SELECT|WITH)\b", re.IGNORECASE)
# How many statements of each kind run at once; each kind waits in a line of its own, so that slow dashboards hold up no
# insert.
RUNNING = {"reader": 4, "writer": 2, "inserter": 2}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the server."""

    name: str
    password: str
    reader: bool


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks of the engine. `kind`: the line it waits in; `form`: the format of the answer.

    `run`: given a pipe and a mark; what it does not write into the pipe is in the answer that it returns. `revision`:
    of the client, where the answer is to be framed for it.
    """

    kind: str
    form: str
    run: Callable[[int, str], Answer]
    revision: int = 0


@dataclass(slots=True)
class Line:
    """Those who wait for one kind of handle, or have one."""

    limiter: anyio.CapacityLimiter
    waiting: int = 0


class ProtocolError(Exception):
    """A request that is refused before the engine sees it. `code`: ClickHouse's number."""

    def __init__(self, status: int, code: int, text: str) -> None:
        self.status, self.code = status, code
        super().__init__(f"Code: {code}. DB::Exception: {text}")


class Server:
    """The ASGI application over one engine. `max_body`: largest request body, as sent and unpacked [bytes].

    Readers, other statements and inserts each wait in a line of their own; `max_waiting`: its greatest length;
    `running`: how many of each kind run at once.
    """

    def __init__(
        self,
        engine: Engine,
        accounts: list[Account],
        max_body: int,
        max_waiting: int = 64,
        running: Mapping[str, int] = RUNNING,
    ) -> None:
        self._engine = engine
        self._accounts = {account.name: account for account in accounts}
        self._max_body = max_body
        self._max_waiting = max_waiting
        self._lines = {kind: Line(anyio.CapacityLimiter(count)) for kind, count in running.items()}
        # A thread for each statement that runs; those that judge, unpack and frame; one that ends what nobody awaits.
        self._running = ThreadPoolExecutor(sum(running.values()), "statement")
        self._judging = ThreadPoolExecutor(2, "judge")
        self._killing = ThreadPoolExecutor(1, "kill")
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
        query_id = request.query_params.get("query_id") or str(uuid.uuid4())
        try:
            account = self._authenticate(request)
            body = await self._body(request)
            async with replies.while_there(receive):
                await self._answer(request, account, body, query_id, send)
            return
        except ProtocolError as error:
            refused = _refused(error.status, error.code, str(error), query_id)
        except native.UnsupportedType as error:
            refused = _refused(501, 48, f"Code: 48. DB::Exception: {error} (NOT_IMPLEMENTED)", query_id)
        except EngineError as error:
            refused = _refused(_STATUS.get(error.code, 500), error.code, error.message, query_id)
        await refused(scope, receive, send)

    async def _answer(self, request: Request, account: Account, body: bytes, query_id: str, send: Send) -> None:
        """Judge, run and answer; nothing has been sent when this raises."""
        began = time.monotonic()
        # Neither is done on the event loop: both take as long as whoever asks likes.
        job = await self._judged(self._job, request, account, body)
        line = self._lines[job.kind]
        if line.waiting >= self._max_waiting:
            raise ProtocolError(503, 202, f"Too many simultaneous queries: {line.waiting} wait for a {job.kind}")
        mark = str(uuid.uuid4())
        line.waiting += 1
        try:
            async with (
                line.limiter,
                started(
                    lambda sink: job.run(sink, mark), partial(self._engine.kill, mark), self._running, self._killing
                ) as run,
            ):
                tag = replies.new_tag()
                chunks = run.chunks()
                if job.form == "Native" and job.revision:
                    chunks = self._framed(chunks, job.revision)
                reply = await replies.begun(chunks, tag)
                answer = run.answer if reply.whole else Answer(b"", 0, 0, 0.0)
                headers = _headers(job, answer, query_id, time.monotonic() - began)
                headers["X-ClickHouse-Exception-Tag"] = tag
                await replies.send_body(send, 200, headers, reply, reply.chunks())
        finally:
            line.waiting -= 1

    async def _judged(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._judging, function, *arguments)

    async def _framed(self, chunks: AsyncIterator[bytes], revision: int) -> AsyncIterator[bytes]:
        framer = native.Framer(revision)
        async for chunk in chunks:
            if framed := await self._judged(framer.feed, chunk):
                yield framed
        if framed := await self._judged(framer.finish):
            yield framed

    def _authenticate(self, request: Request) -> Account:
        user = request.headers.get("x-clickhouse-user") or request.query_params.get("user") or ""
        key = request.headers.get("x-clickhouse-key") or request.query_params.get("password") or ""
        authorization = request.headers.get("authorization", "")
        if authorization.lower().startswith("basic "):
            try:
                user, _, key = base64.b64decode(authorization[6:], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise ProtocolError(401, 194, "the Authorization header is no Basic credential") from None
        account = self._accounts.get(user)
        expected = account.password if account else "no such user, and no such password either"
        if not hmac.compare_digest(key.encode(), expected.encode()) or account is None:
            raise ProtocolError(403, 516, f"{user or '(no user)'}: Authentication failed: no such user or password")
        return account

    async def _body(self, request: Request) -> bytes:
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self._max_body:
                raise ProtocolError(413, 241, f"the body is larger than {self._max_body} bytes")
            chunks.append(chunk)
        return unpacked(b"".join(chunks), request.headers.get("content-encoding", ""), self._max_body)

    def _job(self, request: Request, account: Account, body: bytes) -> Job:
        params = request.query_params
        query = params.get("query", "")
        # The body continues the query, as on a ClickHouse server; for an INSERT it is the data.
        statement, data = (query, body) if query else (_text(body), b"")
        if not statement.strip():
            raise ProtocolError(400, 62, "expected a query, in the body or in the URL's parameter `query`")
        settings = {name: value for name, value in params.items() if _is_setting(name)}
        # Handles are shared: a setting that forbids its own change would stay.
        reading = account.reader or settings.pop("readonly", "0") not in ("", "0")
        if "allow_ddl" in settings:
            raise ProtocolError(400, 115, "allow_ddl cannot be set here: ask with readonly=1, or as a reader")
        form = request.headers.get("x-clickhouse-format") or params.get("default_format") or "TabSeparated"
        insert = insert_statement(statement)
        if insert is not None:
            if reading:
                raise ProtocolError(403, 164, f"{account.name}: a reader may only read, got INSERT (READONLY)")
            if (why := writer_refusal(insert.target)) is not None:
                raise ProtocolError(403, 497, f"{account.name}: {why} (ACCESS_DENIED)")
            if not query:
                data = body[len(statement[: insert.data].encode()) :]
            elif insert.data < len(statement):
                data = statement[insert.data :].encode() + data
            every = settings | insert.settings
            return Job(
                "inserter", form, lambda _sink, _mark: self._engine.insert(insert.target, insert.form, data, every)
            )
        if query and data:
            statement = f"{query}\n{_text(data)}"
        if reading:
            if (why := refusal(statement)) is not None:
                raise ProtocolError(403, 164, f"{account.name}: {why} (READONLY)")
            settings = {name: value for name, value in settings.items() if reader_setting(name)}
        elif (why := writer_refusal(statement)) is not None:
            raise ProtocolError(403, 497, f"{account.name}: {why} (ACCESS_DENIED)")
        parameters = {name[6:]: value for name, value in params.items() if name.startswith("param_")}
        form = outfile.named_format(statement) or form
        revision = _number(params.get("client_protocol_version", "0"))
        streams = outfile.reads(outfile.cut(statement))

        def run(sink: int, mark: str) -> Answer:
            if not streams:
                return self._engine.execute(statement, form, settings, parameters, reader=reading, mark=mark)
            answer = self._engine.stream(statement, form, sink, settings, parameters, reader=reading, mark=mark)
            if form == "Native" and not answer.rows and _SELECT.match(statement):
                # The engine writes nothing at all for no rows; clients want to know the columns.
                described = self._engine.execute(
                    f"DESCRIBE TABLE ({outfile.without_format(statement)}\n)",
                    "JSONCompactEachRow",
                    {},
                    parameters,
                    reader=reading,
                    mark=mark,
                )
                header = native.header([tuple(json.loads(line)[:2]) for line in described.data.splitlines()])
                return replace(answer, data=header)
            return answer

        # Those that know less of the Native format read it as it is.
        framed = revision if revision >= native.CUSTOM_SERIALIZATION_REVISION else 0
        return Job("reader" if reading else "writer", form, run, framed)


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


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ProtocolError(400, 27, f"client_protocol_version: expected a number, got {text!r}")
    return int(text)


def _is_setting(name: str) -> bool:
    return name not in _TRANSPORT and not name.startswith("param_")


def _text(data: bytes) -> str:
    """The statement's text; data of an INSERT may follow it that is none, and is cut off at its first line."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        head, newline, _ = data[: error.start].rpartition(b"\n")
        if not newline:
            raise ProtocolError(400, 62, f"the query is not UTF-8 (byte {error.start})") from None
        return (head + newline).decode()


def unpacked(data: bytes, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding; ProtocolError when it is broken, unknown or larger than `limit`."""
    try:
        match encoding.lower():
            case "" | "identity":
                return data
            case "gzip":
                out = zlib.decompressobj(wbits=31).decompress(data, limit + 1)
            case "deflate":
                out = zlib.decompressobj().decompress(data, limit + 1)
            case "lz4":
                out = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit + 1)
            case "zstd":
                out = zstd.ZstdDecompressor().decompress(data, max_length=limit + 1)
            case other:
                raise ProtocolError(400, 36, f"Unknown compression method: {other}")
    except (OSError, RuntimeError, ValueError, zlib.error, gzip.BadGzipFile, zstd.ZstdError) as error:
        raise ProtocolError(400, 271, f"the body is no valid {encoding}: {error}") from None
    if len(out) > limit:
        raise ProtocolError(413, 241, f"the unpacked body is larger than {limit} bytes")
    return out
