"""When what has died is started again, as a unit's manager would. Pure: facts and a clock in, names out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

FIRST_S, LONGEST_S = 1.0, 30.0
# Who has run for so long starts with the shortest wait again.
STABLE_S = 60.0


@dataclass(slots=True)
class Watched:
    """What is known of one process. `state`: running, waiting (to be started at `due_s`) or held (meant to be dead)."""

    state: str = "running"
    since_s: float = 0.0
    due_s: float | None = None
    wait_s: float = FIRST_S
    restarts: int = 0


class Restarts:
    """Decides who is started when: after a second, then twice as long each time, at most LONGEST_S."""

    def __init__(self) -> None:
        self.watched: dict[str, Watched] = {}

    def step(self, now_s: float, alive: Mapping[str, bool], held: Collection[str]) -> list[str]:
        """Who is to be started now. `alive`: every process there should be; `held`: those that are meant to be dead."""
        out = []
        self.watched = {n: w for n, w in self.watched.items() if n in alive}
        for name, lives in alive.items():
            one = self.watched.setdefault(name, Watched(since_s=now_s))
            if lives:
                if one.state != "running":
                    one.state, one.since_s, one.due_s = "running", now_s, None
                elif now_s - one.since_s >= STABLE_S:
                    one.wait_s = FIRST_S
            elif name in held:
                one.state, one.due_s, one.wait_s = "held", None, FIRST_S
            elif one.due_s is None:
                if one.state == "running" and now_s - one.since_s >= STABLE_S:
                    one.wait_s = FIRST_S
                one.state, one.due_s = "waiting", now_s + one.wait_s
                one.wait_s = min(2 * one.wait_s, LONGEST_S)
            elif now_s >= one.due_s:
                one.state, one.since_s, one.due_s = "running", now_s, None
                one.restarts += 1
                out.append(name)
        return out
