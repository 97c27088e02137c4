"""A statement that runs in a worker thread, as seen from the event loop: its answer in chunks, and its end."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress

import anyio

from warehouse.engine import Answer, EngineError

# What is read of a pipe at once, and what it holds where the system allows it [bytes].
CHUNK = 1 << 18
# How often a statement that nobody waits for is told to end, until it has [s].
_KILL_EVERY_S = 0.1


class Run:
    """A statement under way; made by `started`."""

    def __init__(
        self, source: int, future: asyncio.Future[Answer], kill: Callable[[], None], killers: Executor
    ) -> None:
        self._source, self._future = source, future
        self._kill, self._killers = kill, killers
        self._given = False
        self._ending: asyncio.Task[None] | None = None

    @property
    def answer(self) -> Answer:
        """What the statement gave; only after `chunk` has given b""."""
        return self._future.result()

    async def chunk(self) -> bytes:
        """The next bytes of the answer, b"" after the last. EngineError after them when the statement failed."""
        if not self._given:
            await anyio.wait_readable(self._source)
            if data := os.read(self._source, CHUNK):
                return data
            # The pipe ends when the statement has; what it did not write there, it gives here.
            self._given = True
            if data := (await asyncio.shield(self._future)).data:
                return data
        await asyncio.shield(self._future)
        return b""

    async def chunks(self) -> AsyncIterator[bytes]:
        """All of them. EngineError."""
        while data := await self.chunk():
            yield data

    def end(self) -> None:
        """Have it fail with QUERY_WAS_CANCELLED, soon."""
        if self._ending is None:
            self._ending = asyncio.create_task(self.ended())

    async def ended(self) -> None:
        """Tell it to end, until it has."""
        while not self._future.done():
            # Now and then it is told before it runs, or cannot be told.
            with suppress(EngineError):
                await asyncio.get_running_loop().run_in_executor(self._killers, self._kill)
            await asyncio.wait([self._future], timeout=_KILL_EVERY_S)


@asynccontextmanager
async def started(
    run: Callable[[int], Answer], kill: Callable[[], None], workers: Executor, killers: Executor
) -> AsyncIterator[Run]:
    """Start `run(sink)` in a thread. When the caller leaves before its end, it is killed, and its end waited for."""
    loop = asyncio.get_running_loop()
    source, sink = os.pipe()
    os.set_blocking(source, False)
    with suppress(OSError):  # beyond what the system allows one user
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, CHUNK)

    def work() -> Answer:
        try:
            return run(sink)
        finally:
            os.close(sink)

    future = loop.run_in_executor(workers, work)
    running = Run(source, future, kill, killers)
    try:
        yield running
    finally:
        # Whatever it still writes is refused by the pipe.
        os.close(source)
        with anyio.CancelScope(shield=True):
            await running.ended()
        # Seen here in any case: an error that nobody asked for is none.
        future.exception()
