"""When a statement runs, with how much, for how long, and what ends it before: its client, a KILL QUERY, its time."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import anyio

from warehouse.engine import Answer, EngineError
from warehouse.lanes import Lane, LineFullError, Place
from warehouse.outfile import cut
from warehouse.registry import Entry, Registry, TakenError
from warehouse.replies import Body
from warehouse.running import Run, started

# What a statement's answer may take beyond its time, for a client that reads it slowly [s].
_GRACE_S = 1.0
_MEMORY = 241
# How long KILL QUERY ... SYNC waits [s].
_SYNC_S = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks of the engine. `kind`: the lanes it goes by; `form`: the format of its answer.

    `run`: given a pipe, a mark and the engine's limits for it; what it does not write into the pipe is in the answer
    that it returns. `revision`: of the client, where the answer is to be framed for it. `asked`: limits of its own.
    """

    kind: str
    form: str
    statement: str
    run: Callable[[int, str, Mapping[str, str]], Answer]
    revision: int = 0
    asked: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks. `client`: whose turn it is in line; `query_id`: what KILL QUERY finds it by."""

    user: str
    client: str
    query_id: str


def memory_asked(statement: str) -> int:
    """The largest max_memory_usage of a statement's own SETTINGS; 0 for none [bytes].

    It takes the place of what a lane gives, so such a statement begins in a lane that gives as much.
    """
    found, largest = cut(statement), 0
    for name, sign, value in zip(found, found[1:], found[2:], strict=False):
        if name.text.lower() == "max_memory_usage" and sign.text == "=":
            largest = max(largest, int(value.text) if value.text.isdecimal() else 1 << 62)
    return largest


class Schedule:
    """Runs jobs in lanes. `kill(mark)`: ends what the engine runs under a mark; `seconds`: a reader's time [s].

    `lanes`: kind -> its lanes, the one of the smallest places first. A job goes on to the next lane when its memory
    does not suffice and nothing of its answer has gone.
    """

    def __init__(
        self, lanes: Mapping[str, Sequence[Lane]], kill: Callable[[str], None], seconds: Mapping[str, float]
    ) -> None:
        self._lanes = lanes
        self._kill = kill
        self._seconds = seconds
        places = sum(lane.place.slots for kind in lanes.values() for lane in kind)
        self._threads = ThreadPoolExecutor(places, "statement")
        self._killers = ThreadPoolExecutor(2, "kill")
        self.registry = Registry()

    async def run(
        self,
        job: Job,
        asker: Asker,
        begin: Callable[[Run], Awaitable[Body]],
        reply: Callable[[Run, Body], Awaitable[None]],
    ) -> None:
        """Run a job to the end of its reply.

        `begin` reads until the reply's status is known, `reply` sends it. EngineError when it failed before anything
        was sent; what fails later `reply` tells. Cancelled (the client went), the statement is ended, and its end
        waited for.
        """
        waiting = anyio.CancelScope()
        entry = Entry(asker.query_id, asker.user, job.statement, waiting.cancel)
        lanes = list(self._lanes[job.kind])
        asked = memory_asked(job.statement) if lanes[0].place.memory else 0
        while len(lanes) > 1 and lanes[0].place.memory < asked:
            lanes.pop(0)
        try:
            with self.registry.entered(entry), waiting:
                for lane in lanes:
                    entry.end = waiting.cancel
                    async with lane.held(asker.client) as place:
                        if await self._attempt(job, entry, lane, place, begin, reply, last=lane is lanes[-1]):
                            return
        except LineFullError:
            text = f"Too many simultaneous queries: {self._in_line(job.kind)} wait for a {job.kind}"
            raise EngineError(f"Code: 202. DB::Exception: {text}. (TOO_MANY_SIMULTANEOUS_QUERIES)") from None
        except TakenError:
            text = f"Query with id = {asker.query_id} is already running"
            raise EngineError(f"Code: 216. DB::Exception: {text}. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)") from None
        if entry.killed:
            raise EngineError("Code: 394. DB::Exception: Query was cancelled. (QUERY_WAS_CANCELLED)")

    def _in_line(self, kind: str) -> int:
        return sum(len(lane) for lane in self._lanes[kind])

    async def _attempt(
        self,
        job: Job,
        entry: Entry,
        lane: Lane,
        place: Place,
        begin: Callable[[Run], Awaitable[Body]],
        reply: Callable[[Run, Body], Awaitable[None]],
        *,
        last: bool,
    ) -> bool:
        """Whether it was answered here; otherwise it needs more memory than this place has."""
        seconds = self._seconds.get(job.kind)
        limits = limits_of(place, seconds, alone=lane.running < 2)
        mark = str(uuid.uuid4())
        body: Body | None = None
        with anyio.move_on_after(seconds + _GRACE_S if seconds else None) as time_up:
            async with started(
                lambda sink: job.run(sink, mark, limits), partial(self._kill, mark), self._threads, self._killers
            ) as run:
                entry.end = run.end
                if entry.killed:
                    run.end()
                try:
                    body = await begin(run)
                except EngineError as error:
                    if error.code == _MEMORY and not last and not _own_memory(job, place):
                        return False
                    raise
                await reply(run, body)
        if time_up.cancelled_caught and body is None:
            text = f"Timeout exceeded: maximum: {seconds} s"
            raise EngineError(f"Code: 159. DB::Exception: {text}. (TIMEOUT_EXCEEDED)")
        # An answer whose client did not take it in time ends without its end.
        return True

    async def kill(self, entry: Entry, *, wait: bool) -> None:
        """End a statement under way; with `wait`, return when it is gone."""
        entry.killed = True
        entry.end()
        if wait:
            with anyio.move_on_after(_SYNC_S):
                await entry.gone.wait()


def limits_of(place: Place, seconds: float | None, *, alone: bool) -> dict[str, str]:
    """The engine's limits for a statement in this place. `alone`: few others run, so it may use the machine's cores."""
    if not place.memory:
        return {}
    limits = {"max_memory_usage": str(place.memory), "max_threads": "2" if alone else "1"}
    if seconds is not None:
        limits["max_execution_time"] = str(seconds)
    return limits


def _own_memory(job: Job, place: Place) -> bool:
    """Whether it asked for less memory than the place has."""
    asked = (job.asked or {}).get("max_memory_usage", "0")
    return asked.isdecimal() and 0 < int(asked) < place.memory
