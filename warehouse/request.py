"""What an HTTP request asks, apart from its statement: its parameters and headers, each honoured or refused."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from warehouse import encoding, framing
from warehouse.refusals import Refusal

# What a server takes for itself of a URL; everything else is a setting.
_OWN = frozenset(
    {
        "query", "database", "user", "password", "default_format", "query_id", "session_id", "session_timeout",
        "session_check", "close_session", "compress", "decompress", "wait_end_of_query", "buffer_size", "quota_key",
        "role", "client_protocol_version", "stacktrace",
    }
)  # fmt: skip
# Settings of the transport: done here, or of no consequence here.
_TRANSPORT = frozenset(
    {
        "enable_http_compression", "http_zlib_compression_level", "network_compression_method",
        "network_zstd_compression_level", "http_wait_end_of_query", "http_response_buffer_size",
        # A query always ends when its client goes.
        "cancel_http_readonly_queries_on_client_close",
        # Progress is in the summary when the answer begins, and in no header before.
        "send_progress_in_http_headers", "http_headers_progress_interval_ms",
        "connect_timeout", "send_timeout", "receive_timeout", "http_connection_timeout", "http_send_timeout",
        "http_receive_timeout",
    }
)  # fmt: skip
# Those that ask for what is not done: harmless where they ask for nothing.
_NOT_DONE = {
    "add_http_cors_header": "headers for pages of another origin",
    "http_write_exception_in_output_format": "an exception in the format of the answer",
    "http_response_headers": "headers of one's own in the answer",
    "stacktrace": "stack traces",
}
_NOTHING = ("", "0", "false", "{}")
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False, "": False}
_FORM = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_QUERY_ID = re.compile(r"[\x20-\x7e]{1,256}")
MAX_SESSION_S = 3600


@dataclass(frozen=True, slots=True)
class Ask:
    """A request without its statement.

    `settings`: as asked, not yet allowed; `readonly`: it asks to be treated as a reader; `wait`: nothing of the answer
    may go before all of it is there; `buffer`: nor before so much of it is [bytes].
    """

    query_id: str
    database: str
    form: str
    revision: int
    settings: dict[str, str]
    parameters: dict[str, str]
    by_get: bool
    readonly: bool
    wait: bool
    buffer: int
    blocks_in: bool
    method_out: int | None
    encoding_in: str
    encoding_out: str | None
    level: int

    def unpackers(self, limit: int) -> list[encoding.Unpacker]:
        """What the body goes through. PackedDataError."""
        return encoding.unpackers(self.encoding_in, self.blocks_in, limit)

    def packers(self) -> list[encoding.Packer]:
        """What the answer goes through."""
        found: list[encoding.Packer] = []
        if self.method_out is not None:
            found.append(framing.BlockPacker(self.method_out))
        if self.encoding_out is not None:
            found.append(encoding.EncodingPacker(self.encoding_out, self.level))
        return found


def ask(method: str, params: Iterable[tuple[str, str]], headers: Mapping[str, str]) -> Ask:
    """What a request asks. `headers`: with names in lower case. Refusal."""
    found = {name: value for name, value in params if name}
    if headers.get("content-type", "").lower().startswith("multipart/"):
        raise Refusal(
            48, "external data and parameters as a form are not taken: put them into the URL and the statement"
        )
    if headers.get("x-clickhouse-ssl-certificate-auth", "").lower() == "on":
        raise Refusal(48, "certificates are not taken in place of a password")
    _session(found)
    if role := found.get("role"):
        raise Refusal(511, f"There is no role {role!r}: a user has one role, by its configuration")
    for name, what in _NOT_DONE.items():
        if found.get(name, "") not in _NOTHING:
            raise Refusal(48, f"{name}: {what} are not done")
    settings = {
        name: value
        for name, value in found.items()
        if name not in _OWN and name not in _NOT_DONE and not name.startswith("param_")
    }
    by_get = method == "GET"
    readonly = settings.pop("readonly", "0")
    if readonly not in ("0", "1", "2", ""):
        raise Refusal(36, f"Setting readonly: expected 0, 1 or 2, got {readonly!r}")
    query_id = found.get("query_id") or headers.get("x-clickhouse-query-id") or str(uuid.uuid4())
    if not _QUERY_ID.fullmatch(query_id):
        raise Refusal(36, "query_id: expected at most 256 printable characters of ASCII")
    form = headers.get("x-clickhouse-format") or found.get("default_format") or "TabSeparated"
    # It becomes part of the statement.
    if not _FORM.fullmatch(form):
        raise Refusal(73, f"Unknown format {form!r}")
    accepts = headers.get("accept-encoding", "") if _flag(settings, "enable_http_compression", True) else ""
    return Ask(
        query_id=query_id,
        database=found.get("database") or headers.get("x-clickhouse-database", ""),
        form=form,
        revision=_number(found, "client_protocol_version", 0),
        settings=settings,
        parameters={name[6:]: value for name, value in found.items() if name.startswith("param_")},
        by_get=by_get,
        readonly=readonly in ("1", "2"),
        wait=_flag(found, "wait_end_of_query", False) or _flag(settings, "http_wait_end_of_query", False),
        buffer=max(_number(found, "buffer_size", 0), _number(settings, "http_response_buffer_size", 0)),
        blocks_in=_flag(found, "decompress", False),
        method_out=_method(settings) if _flag(found, "compress", False) else None,
        encoding_in=headers.get("content-encoding", ""),
        encoding_out=encoding.chosen(accepts),
        level=min(max(_number(settings, "http_zlib_compression_level", 3), 1), 9),
    )


def for_the_engine(settings: Mapping[str, str]) -> dict[str, str]:
    """The settings that are the engine's to apply: all but the transport's."""
    return {name: value for name, value in settings.items() if name not in _TRANSPORT}


def _session(found: Mapping[str, str]) -> None:
    """A session is taken for what it is without state: nothing. Whoever relies on its state is told."""
    timeout = _number(found, "session_timeout", 60, code=374)
    if timeout > MAX_SESSION_S:
        raise Refusal(374, f"Session timeout '{timeout}' is larger than max_session_timeout: {MAX_SESSION_S}")
    if _flag(found, "session_check", False):
        raise Refusal(372, f"Session {found.get('session_id', '')!r} not found: sessions keep nothing here")


def _flag(found: Mapping[str, str], name: str, default: bool) -> bool:
    value = found.get(name)
    if value is None:
        return default
    if value.lower() not in _BOOLEANS:
        raise Refusal(36, f"{name}: expected 0 or 1, got {value!r}")
    return _BOOLEANS[value.lower()]


def _number(found: Mapping[str, str], name: str, default: int, code: int = 36) -> int:
    value = found.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) <= 18):
        raise Refusal(code, f"{name}: expected a number, got {value!r}")
    return int(value)


def _method(settings: Mapping[str, str]) -> int:
    """LZ4, as a server answers over HTTP; another method where the request names it."""
    name = settings.get("network_compression_method", "LZ4").upper()
    methods = {"LZ4": framing.LZ4, "LZ4HC": framing.LZ4, "ZSTD": framing.ZSTD, "NONE": framing.NONE}
    if name not in methods:
        raise Refusal(36, f"network_compression_method: expected LZ4, ZSTD or NONE, got {name!r}")
    return methods[name]
