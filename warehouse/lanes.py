"""How many statements run at once and with how much memory, and who is next: a budget, cut into lanes.

The engine can bound what one statement holds, not what all of a kind hold together, so the budget is cut into places of
a fixed size beforehand. A reader's statement begins in the first lane, of many small places; one that needs more than
its place and has sent nothing yet is run again in the next lane, of fewer and larger ones. In line for a lane the
clients take turns, so that one who asks for much does not keep the others waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


class LineFullError(Exception):
    """Too many wait already."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a lane gives to each of its statements. `memory`: 0 for no limit of its own [bytes]."""

    slots: int
    memory: int = 0


def reader_places(budget: int) -> list[Place]:
    """The readers' lanes. `budget`: by how much readers may let the process grow [bytes].

    Half of it is given out: the allocator keeps pages for a while, and what some formats hold is counted by nobody.
    """
    return [Place(12, budget // 64), Place(2, budget // 16), Place(1, budget * 3 // 16)]


# A client's share of the readers' first lane: what is left is for others.
_EACH = 10


class Lane:
    """The places of one size and the line before them. `each`: how many of them one client may have at once.

    `waiting`: how many may stand in line, all together; a client's share of these is half.
    """

    def __init__(self, place: Place, *, each: int | None = None, waiting: int = 256) -> None:
        self.place = place
        self._free = place.slots
        self._each = each or place.slots
        self._waiting, self._share = waiting, max(1, waiting // 2)
        self._running: Counter[str] = Counter()
        # Client -> those of its statements that wait; the client whose turn is next stands first.
        self._line: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def running(self) -> int:
        """How many of its places are taken."""
        return self.place.slots - self._free

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(waiting) for waiting in self._line.values())

    @asynccontextmanager
    async def held(self, client: str) -> AsyncIterator[Place]:
        """A place for one statement of this client, when its turn has come. LineFullError at once."""
        await self._take(client)
        try:
            yield self.place
        finally:
            self._give_back(client)

    async def _take(self, client: str) -> None:
        own = self._line.get(client)
        if own is None and self._free and self._running[client] < self._each:
            self._count(client, 1)
            return
        if len(self) >= self._waiting or (own is not None and len(own) >= self._share):
            raise LineFullError
        turn = asyncio.get_running_loop().create_future()
        self._line.setdefault(client, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # Its turn came at the moment at which it left.
                self._give_back(client)
            else:
                self._left(client)
            raise

    def _left(self, client: str) -> None:
        """Forget those of a client that wait no more."""
        staying = deque(turn for turn in self._line.get(client, ()) if not turn.cancelled())
        if staying:
            self._line[client] = staying
        else:
            self._line.pop(client, None)

    def _count(self, client: str, change: int) -> None:
        self._free -= change
        self._running[client] += change
        if not self._running[client]:
            del self._running[client]

    def _give_back(self, client: str) -> None:
        self._count(client, -1)
        self._next()

    def _next(self) -> None:
        for client in list(self._line):
            if not self._free:
                return
            # One that was cancelled may not know it yet.
            self._left(client)
            if self._running[client] >= self._each or client not in self._line:
                continue
            turn = self._line[client].popleft()
            if self._line[client]:
                self._line.move_to_end(client)
            else:
                del self._line[client]
            self._count(client, 1)
            turn.set_result(None)


def lanes_of(budget: int) -> dict[str, list[Lane]]:
    """All lanes, by the kind of what goes there. `budget`: of the readers, see `reader_places`."""
    return {
        "reader": [Lane(place, each=min(_EACH, place.slots)) for place in reader_places(budget)],
        "writer": [Lane(Place(4))],
        "inserter": [Lane(Place(2))],
        "house": [Lane(Place(2))],
    }
