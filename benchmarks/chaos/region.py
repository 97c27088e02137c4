"""The region under chaos: which processes may die, how they are killed and started again, and when they work."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chaos.plan import Step
from benchmarks.chaos.witness import Witness
from lab import processes, supervisor
from lab.fabric import launch
from lab.region import Lab
from lab.state import LabError, alive, recorded, stop

SERVICES = ("collector", "warehouse", "analyzer")
# An action on a cluster is explained when one of its own nodes was killed so shortly before: detection, a burst of
# probes to confirm, and the tries that rails refuse, take that long.
EXPLAINED_S = 60.0


@dataclass(slots=True)
class Kill:
    """One kill as it was done. `recovered_s`: until the process worked again; None: it was killed again before that."""

    kind: str
    target: str
    ts_ns: int
    pid: int
    starting: bool
    recovered_s: float | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """A migration that the analyzer asked control for. `why`: the kill that explains it, None: nothing does."""

    id: str
    cluster: str
    kind: str
    state: str
    requested_ns: int
    why: str | None


class Region:
    """Kills and restarts the processes of a lab that is up. All times are monotonic but `ts_ns`."""

    def __init__(self, lab: Lab, witness: Witness) -> None:
        """Ends the lab's supervisor: it waits longer each time, and the next kill would find nobody alive."""
        self._lab = lab
        self._witness = witness
        self.kills: list[Kill] = []
        self._starting: dict[str, tuple[Kill, float, int]] = {}
        self.end([supervisor.NAME])

    def targets(self) -> dict[str, list[str]]:
        """The processes that may die, by kind. Nodes: all that carry traffic (buffer clusters stay for actions)."""
        nodes = [n.name for n in self._lab.topology.fleet.nodes if not n.name.startswith("buf-")]
        return {s: [s] for s in SERVICES} | {"node": [launch.NAME] if self._lab.simulated else nodes}

    def kill(self, step: Step) -> Kill:
        """SIGKILL the process of a step and start it again at once. LabError when it had ended by itself."""
        known = recorded(self._lab.run)[step.target]
        if not alive(known):
            last = processes.last_lines(Path(known.log), 12)
            raise LabError(f"{step.target} (pid {known.pid}) ended by itself: {last}")
        done = Kill(step.kind, step.target, time.time_ns(), known.pid, step.target in self._starting)
        os.kill(known.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(known.pid, 0)
        if known.kind == "node":
            self._lab.run.socket(step.target).unlink(missing_ok=True)
        processes.again(self._lab.run, known)
        self._starting[step.target] = done, time.monotonic(), self._witness.acknowledged()
        self.kills.append(done)
        return done

    def settle(self) -> list[str]:
        """Look who works again; the names of those that do not yet."""
        for name, (kill, began, before) in list(self._starting.items()):
            if self._works(name, before):
                kill.recovered_s = round(time.monotonic() - began, 3)
                del self._starting[name]
        return sorted(self._starting)

    def actions(self) -> list[Action]:
        """What the analyzer asked control for, refused or not."""
        out = []
        for m in _all(f"{self._lab.addresses['control']}/v1/migrations"):
            if m["requested_by"] == "analyzer":
                own = {n.name for n in self._lab.topology.fleet.nodes_of(m["cluster"])}
                why = explained(self.kills, own, int(m["requested_ns"]))
                out.append(Action(m["id"], m["cluster"], m["kind"], m["state"], int(m["requested_ns"]), why))
        return out

    def incidents(self) -> set[str]:
        """Ids of the incidents that the analyzer tells of now; none while it does not answer."""
        try:
            return {str(i["id"]) for i in _all(f"{self._lab.addresses['analyzer']}/v1/incidents")}
        except (httpx.HTTPError, ValueError):
            return set()

    def end(self, names: Sequence[str]) -> None:
        """End processes in good order."""
        known = recorded(self._lab.run)
        stop([known[n].pid for n in names if n in known and alive(known[n])], 10.0)

    def _works(self, name: str, acknowledged: int) -> bool:
        if name == "collector":
            return self._witness.acknowledged() > acknowledged
        if name in SERVICES:
            return _answers(self._lab.addresses[name] + ("/ping" if name == "warehouse" else "/v1/health"))
        if name != launch.NAME:
            return _answers("http://node/v1/status", str(self._lab.run.socket(name)))
        # A new fabric sends no probes and requests until it is told to.
        return launch.tell_again(self._lab.run)


def explained(kills: Sequence[Kill], own: Collection[str], at_ns: int) -> str | None:
    """Which kill explains an action on a cluster with the nodes `own`, asked for at `at_ns`: the latest; or None.

    Only a node of its own can: that a collector, a warehouse, an analyzer or another cluster's node died is no reason.
    """
    for kill in reversed(kills):
        if kill.target in own or kill.target == launch.NAME:
            before_s = (at_ns - kill.ts_ns) / 1e9
            if 0 <= before_s <= EXPLAINED_S:
                return f"{kill.target} was killed {before_s:.1f} s before"
    return None


def _answers(url: str, uds: str | None = None) -> bool:
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=uds), timeout=0.5, trust_env=False) as asked:
            return asked.get(url).is_success
    except httpx.HTTPError:
        return False


def _all(url: str) -> list[Any]:
    """Every item of a list that comes in pages. httpx.HTTPError."""
    out: list[Any] = []
    before: dict[str, Any] = {}
    with httpx.Client(timeout=10, trust_env=False) as asked:
        while True:
            answer = asked.get(url, params={"limit": 100} | before)
            answer.raise_for_status()
            page = answer.json()
            out += page["items"]
            if page["next"] is None:
                return out
            before = {"before": page["next"]}
