"""The states of an incident: one table, for everything that lists, shows or counts them."""

from __future__ import annotations

from dataclasses import dataclass

OPEN, ACTING, VERIFYING, MITIGATED, CLOSED = "open", "acting", "verifying", "mitigated", "closed"


@dataclass(frozen=True, slots=True)
class State:
    """`hurts`: clients may still feel it. `over`: nothing is left of it; until then it is an open incident."""

    text: str
    hurts: bool
    over: bool


STATES = {
    OPEN: State("found; nothing has been done about it yet", hurts=True, over=False),
    ACTING: State("control is carrying out a migration", hurts=True, over=False),
    VERIFYING: State("what could be done is done; fresh probes decide", hurts=True, over=False),
    MITIGATED: State("traffic is clean, but the faulty part is still as it was", hurts=False, over=False),
    CLOSED: State("over: traffic is clean and the part is back, drained or removed", hurts=False, over=True),
}
