"""An answer on its way to the client: held until its status is known, then streamed; a failure in its midst is told.

As on a server, nothing goes before HOLD bytes are there or the answer is whole, so that most failures still have a
status of their own. One that comes later ends the body with ClickHouse's exception block (its tag stands in the header
X-ClickHouse-Exception-Tag, as since 25.11) and the connection is cut before the body's end: no client can take such an
answer for a whole one.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio
from starlette.types import Receive, Send

from warehouse.engine import EngineError

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


class Body:
    """The bytes of an answer of which the beginning is there; made by `begun`."""

    def __init__(self, first: list[bytes], rest: AsyncIterator[bytes] | None, tag: str) -> None:
        self._first, self._rest, self._tag = first, rest, tag
        # Whether the answer failed after its beginning; known at the end of `chunks`.
        self.failed = False

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self._rest is None

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of it; after a failure, its exception block last."""
        for chunk in self._first:
            yield chunk
        self._first.clear()
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
    first: list[bytes] = []
    size = 0
    async for chunk in chunks:
        first.append(chunk)
        size += len(chunk)
        if size >= hold:
            return Body(first, chunks, tag)
    return Body(first, None, tag)


async def send_body(
    send: Send, status: int, headers: Mapping[str, str], body: Body, chunks: AsyncIterator[bytes]
) -> None:
    """Send `chunks`, which are those of `body` as the client wants them (packed, framed)."""
    fields = dict(headers)
    if body.whole:
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
