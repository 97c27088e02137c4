"""ClickHouse's HTTP protocol over the embedded engine, as far as clickhouse-connect and Grafana's plugin speak it."""

from __future__ import annotations

import base64
import binascii
import gzip
import hmac
import json
import sys
import time
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import lz4.frame
import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from warehouse.engine import Answer, Engine, EngineError
from warehouse.guard import insert_statement, refusal

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
_STATUS = {516: 403, 164: 403, 60: 404, 81: 404, 62: 400, 36: 400, 115: 400, 159: 408, 241: 500}


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the server."""

    name: str
    password: str
    reader: bool


class ProtocolError(Exception):
    """A request that is refused before the engine sees it. `code`: ClickHouse's number."""

    def __init__(self, status: int, code: int, text: str) -> None:
        self.status, self.code = status, code
        super().__init__(f"Code: {code}. DB::Exception: {text}")


class Server:
    """The ASGI application over one engine. `max_body`: largest request body, as sent and unpacked [bytes]."""

    def __init__(self, engine: Engine, accounts: list[Account], max_body: int) -> None:
        self._engine = engine
        self._accounts = {account.name: account for account in accounts}
        self._max_body = max_body
        self.app = Starlette(
            routes=[
                Route("/ping", self._ping, methods=["GET", "HEAD"]),
                Route("/replicas_status", self._ping, methods=["GET", "HEAD"]),
                Route("/", self._root, methods=["GET", "HEAD", "POST"]),
            ]
        )

    async def _ping(self, request: Request) -> Response:
        return PlainTextResponse("Ok.\n")

    async def _root(self, request: Request) -> Response:
        if request.method == "HEAD" or (request.method == "GET" and "query" not in request.query_params):
            return PlainTextResponse("Ok.\n")
        query_id = request.query_params.get("query_id") or str(uuid.uuid4())
        started = time.monotonic()
        try:
            account = self._authenticate(request)
            body = await self._body(request)
            answer, form = await run_in_threadpool(self._run, request, account, body)
        except ProtocolError as error:
            return self._refused(error.status, error.code, str(error), query_id)
        except EngineError as error:
            return self._refused(_STATUS.get(error.code, 500), error.code, error.message, query_id)
        summary = {
            "read_rows": str(answer.rows),
            "read_bytes": str(answer.bytes_read),
            "written_rows": "0",
            "written_bytes": "0",
            "elapsed_ns": str(round((time.monotonic() - started) * 1e9)),
        }
        headers = {
            "X-ClickHouse-Summary": json.dumps(summary),
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Format": form,
            "X-ClickHouse-Timezone": "UTC",
            "X-ClickHouse-Server-Display-Name": "tgw",
        }
        kind = "application/json; charset=UTF-8" if form.startswith("JSON") else "application/octet-stream"
        if form.startswith(("TabSeparated", "TSV")):
            kind = "text/tab-separated-values; charset=UTF-8"
        return Response(answer.data, headers=headers, media_type=kind)

    @staticmethod
    def _refused(status: int, code: int, text: str, query_id: str) -> Response:
        headers = {"X-ClickHouse-Exception-Code": str(code), "X-ClickHouse-Query-Id": query_id}
        return PlainTextResponse(text.rstrip() + "\n", status, headers=headers)

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

    def _run(self, request: Request, account: Account, body: bytes) -> tuple[Answer, str]:
        params = request.query_params
        query = params.get("query", "")
        # The body continues the query, as on a ClickHouse server; for an INSERT it is the data.
        statement, data = (query, body) if query else (_text(body), b"")
        if not statement.strip():
            raise ProtocolError(400, 62, "expected a query, in the body or in the URL's parameter `query`")
        settings = {name: value for name, value in params.items() if _is_setting(name)}
        form = request.headers.get("x-clickhouse-format") or params.get("default_format") or "TabSeparated"
        insert = insert_statement(statement)
        if insert is not None:
            if account.reader:
                raise ProtocolError(403, 164, f"{account.name}: a reader may only read, got INSERT (READONLY)")
            if not query:
                data = body[len(statement[: insert.data].encode()) :]
            elif insert.data < len(statement):
                data = statement[insert.data :].encode() + data
            return self._engine.insert(insert.target, insert.form, data, settings | insert.settings), form
        if query and data:
            statement = f"{query}\n{_text(data)}"
        if account.reader and (why := refusal(statement)) is not None:
            raise ProtocolError(403, 164, f"{account.name}: {why} (READONLY)")
        parameters = {name[6:]: value for name, value in params.items() if name.startswith("param_")}
        answer = self._engine.execute(statement, form, settings, parameters, reader=account.reader)
        return answer, _format_of(statement) or form


def _is_setting(name: str) -> bool:
    # A reader's readonly handle refuses what it must not change.
    return name not in _TRANSPORT and not name.startswith("param_")


def _format_of(statement: str) -> str | None:
    words = statement.rstrip().rstrip(";").split()
    return words[-1] if len(words) > 2 and words[-2].upper() == "FORMAT" else None


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


def accounts_of(passwords: Mapping[str, tuple[str, bool]]) -> list[Account]:
    """Accounts from name -> (password, is a reader)."""
    return [Account(name, password, reader) for name, (password, reader) in passwords.items()]
