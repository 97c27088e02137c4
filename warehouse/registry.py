"""The statements under way, by the `query_id` that whoever asked gave them: what KILL QUERY finds.

The engine gives its statements numbers of its own, so this is where a client's are known. A user ends its own
statements; the writer ends everybody's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from warehouse.outfile import cut, format_clause
from warehouse.tokens import Token, word

_PLAIN = re.compile(r"'([^'\\]*)'")


@dataclass(eq=False, slots=True)
class Entry:
    """A statement that waits or runs. `end`: makes it end with QUERY_WAS_CANCELLED; may be called again."""

    query_id: str
    user: str
    statement: str
    end: Callable[[], None]
    killed: bool = False
    gone: anyio.Event = field(default_factory=anyio.Event)


@dataclass(frozen=True, slots=True)
class Kill:
    """KILL QUERY WHERE query_id = '...'. `form`: the format it names; `test`: only show what would be killed."""

    query_id: str
    user: str | None
    wait: bool
    test: bool
    form: str | None


class TakenError(Exception):
    """A statement with this query_id is under way already."""


@dataclass(slots=True)
class Registry:
    """All statements under way."""

    entries: dict[str, Entry] = field(default_factory=dict)

    @contextmanager
    def entered(self, entry: Entry) -> Iterator[None]:
        """Known for as long as this stands. TakenError."""
        if entry.query_id in self.entries:
            raise TakenError(entry.query_id)
        self.entries[entry.query_id] = entry
        try:
            yield
        finally:
            del self.entries[entry.query_id]
            entry.gone.set()

    def find(self, kill: Kill) -> Entry | None:
        """What it names, if that is under way."""
        entry = self.entries.get(kill.query_id)
        return entry if entry is not None and kill.user in (None, entry.user) else None


def kill_statement(statement: str) -> Kill | None:
    """KILL QUERY WHERE query_id = '...' [AND user = '...'] [SYNC|ASYNC|TEST] [FORMAT ...]; None for all others."""
    if not statement[:4096].lstrip()[:4].upper().startswith(("KILL", "--", "/*")):
        return None
    found = cut(statement)
    if len(found) < 6 or [word(token) for token in found[:3]] != ["KILL", "QUERY", "WHERE"]:
        return None
    form = None
    if (clause := format_clause(found)) is not None:
        if clause[1] != len(found):
            return None
        form, found = found[clause[0] + 1].text, found[: clause[0]]
    how = word(found[-1])
    rest = found[3:-1] if how in ("SYNC", "ASYNC", "TEST") else found[3:]
    named = _equalities(rest)
    if named is None or "query_id" not in named or named.keys() - {"query_id", "user"}:
        return None
    return Kill(named["query_id"], named.get("user"), how == "SYNC", how == "TEST", form)


def _equalities(found: list[Token]) -> dict[str, str] | None:
    """`a = 'x' AND b = 'y'`; None for anything else."""
    out: dict[str, str] = {}
    for at in range(0, len(found), 4):
        part = found[at : at + 4]
        text = _PLAIN.fullmatch(part[2].text) if len(part) >= 3 else None
        if text is None or part[1].text != "=" or part[0].kind not in ("word", "name"):
            return None
        if len(part) == 4 and (word(part[3]) != "AND" or at + 4 == len(found)):
            return None
        out[part[0].text] = text[1]
    return out
