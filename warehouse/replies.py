"""An answer on its way to the client: held until its status is known, then streamed; a failure in its midst is told.

As on a server, nothing goes before HOLD bytes are there or the answer is whole, so that most failures still have a
status of their own. One that comes later ends the body with ClickHouse's exception block (its tag stands in the header
X-ClickHouse-Exception-Tag, as since 25.11) and the connection is cut before the body's end: no client can take such an
answer for a whole one.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
from starlette.types import Receive, Send

from warehouse.engine import EngineError
from warehouse.running import CHUNK

# What is held before the first byte goes [bytes].
HOLD = 1 << 20


@asynccontextmanager
async def while_there(receive: Receive) -> AsyncIterator[anyio.CancelScope]:
    """What stands under it is cancelled when the client goes. For a request whose body has been read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with anyio.CancelScope() as scope:
        watcher = asyncio.create_task(watch())
        try:
            yield scope
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


class Held:
    """The beginning of an answer: in memory up to HOLD bytes, beyond that in a file without a name."""

    def __init__(self) -> None:
        self.size = 0
        self._file = tempfile.SpooledTemporaryFile(max_size=HOLD)  # noqa: SIM115 (closed by `taken`, or with this)

    def add(self, chunk: bytes) -> None:
        """Hold this too."""
        self.size += len(chunk)
        self._file.write(chunk)

    def taken(self) -> Iterator[bytes]:
        """All of it, once."""
        self._file.seek(0)
        with self._file:
            while chunk := self._file.read(CHUNK):
                yield chunk


class Body:
    """The bytes of an answer of which the beginning is there; made by `begun`."""

    def __init__(self, first: Held, rest: AsyncIterator[bytes] | None, tag: str) -> None:
        self._first, self._rest, self._tag = first, rest, tag
        # Whether the answer failed after its beginning; known at the end of `chunks`.
        self.failed = False

    @property
    def small(self) -> bool:
        """Whether all of it is there, in memory."""
        return self.whole and self._first.size <= HOLD

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self._rest is None

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it; after a failure, its exception block last."""
        for chunk in self._first.taken():
            yield chunk
        if self._rest is None:
            return
        try:
            async for chunk in self._rest:
                yield chunk
        except EngineError as error:
            self.failed = True
            yield exception_block(error.message, self._tag)


def new_tag() -> str:
    """A text that no answer contains: what an exception block is known by."""
    return secrets.token_hex(8)


def exception_block(message: str, tag: str) -> bytes:
    """How an exception ends a body that has begun."""
    text = message.rstrip().encode() + b"\n"
    return b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (tag.encode(), text, len(text), tag.encode())


async def begun(chunks: AsyncIterator[bytes], tag: str, hold: int = HOLD) -> Body:
    """Read until `hold` bytes are there, or all. EngineError when the statement fails before."""
    first = Held()
    async for chunk in chunks:
        first.add(chunk)
        if first.size >= hold:
            return Body(first, chunks, tag)
    return Body(first, None, tag)


async def send_body(
    send: Send, status: int, headers: Mapping[str, str], body: Body, chunks: AsyncIterator[bytes]
) -> None:
    """Send `chunks`, which are those of `body` as the client wants them (packed, framed)."""
    fields = dict(headers)
    if body.small:
        data = b"".join([chunk async for chunk in chunks])
        fields["Content-Length"] = str(len(data))
        await _start(send, status, fields)
        await send({"type": "http.response.body", "body": data})
        return
    await _start(send, status, fields)
    async for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    if not body.failed:
        await send({"type": "http.response.body", "body": b""})
    # Otherwise the body never ends: the server cuts the connection.


async def _start(send: Send, status: int, fields: Mapping[str, str]) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
