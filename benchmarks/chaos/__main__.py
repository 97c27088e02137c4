"""`python -m benchmarks.chaos`: the whole story, and out/chaos/report.json. Status 0 also where a goal is missed."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks import goals
from benchmarks.chaos import accounts, plan
from benchmarks.chaos.region import Action, Kill, Region
from benchmarks.chaos.stored import Stored
from benchmarks.chaos.witness import Witness
from benchmarks.report import Document
from lab import documents, namespaces, region
from lab.region import Lab
from lab.state import FABRIC_MODE, NAMESPACES, LabError, Run
from lab.topology import SMALL, Size, Topology
from warehouse.settings import WarehouseSettings

GOAL_KILLS = 200
# Two of everything that carries traffic, so that one that is killed leaves another: then no migration is called for.
SIZE = Size(eips=2, clusters=2, lds=2, buffers=2, hosts=2, servers=4, probers=2, clients=1, vips=8, vips6=1)
POLL_S = 0.1
RECOVER_S, DRAIN_S, MIRROR_S = 90.0, 60.0, 30.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """What a run of chaos found, before it is held against the goals. Seconds and counts."""

    seed: int
    mode: str
    kills: list[Kill]
    actions: list[Action]
    account: accounts.Account
    side_duplicates: dict[str, int]
    rollups_off: dict[str, int]
    feeds_wrong: int
    incidents: int
    incidents_forgotten: list[str]
    seconds: dict[str, float] = field(default_factory=dict)


def kill_all(found: Region, steps: Sequence[plan.Step], say: Say) -> set[str]:
    """Do the steps in their time; ids of the incidents that were told of meanwhile. LabError: see Region.kill."""
    told: set[str] = set()
    begin = time.monotonic()
    for number, step in enumerate(steps, start=1):
        while (left := begin + step.at_s - time.monotonic()) > 0:
            found.settle()
            time.sleep(min(POLL_S, left))
        if "analyzer" not in found.settle():
            told |= found.incidents()
        found.kill(step)
        say(f"{number}/{len(steps)} {step.target}")
    return told


def wait(what: str, holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; LabError when it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise LabError(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL_S)


def chaos(lab: Lab, seed: int, kills: int, mean_s: float, say: Say) -> Outcome:
    """Kill, let it drain, and compare. The lab is up before and nearly at rest afterwards."""
    run = lab.run
    seconds: dict[str, float] = {}
    with Witness(run.taps) as witness:
        found = Region(lab, witness)
        began = time.monotonic()
        told = kill_all(found, plan.steps(seed, kills, found.targets(), mean_s), say)
        seconds["killing"] = time.monotonic() - began
        wait("every process works again", lambda: not found.settle(), RECOVER_S)
        stored = Stored(_client(lab))
        try:
            say("waiting for the analyzer's mirror")
            told |= found.incidents()
            wait("the analyzer mirrored its incidents", lambda: found.incidents() <= stored.incidents(), MIRROR_S)
            now, actions = found.incidents(), found.actions()
            found.end(["analyzer"])
            say("ending the writers")
            # In good order, and nobody is left who would take their silence for a fault.
            topology = lab.topology
            found.end([*topology.clients, *topology.probers])
            time.sleep(1.0)
            found.end(["fabric", *topology.nodes])
            wait("the collector took everything", witness.drained, DRAIN_S)
            wait("the collector shipped everything", lambda: not any(_spool(run).glob("*.batch")), DRAIN_S)
            time.sleep(2.5)  # a last word on every feed
            found.end(["collector"])
            if witness.error is not None:
                raise LabError(f"the witness failed: {witness.error!r}")
            say("comparing")
            lives = witness.lives()
            names = [*topology.nodes, *topology.probers]
            side = stored.side_duplicates()
            account = accounts.compare(lives, stored.records(names), stored.losses(), sum(side.values()))
            rollups, feeds = stored.rollups(), stored.feeds()
        finally:
            stored.close()
        wrong = [x.key for x in lives if feeds.get(x.key) != (x.count, x.lost)]
    seconds["all"] = time.monotonic() - began
    forgotten = sorted(told - now)
    return Outcome(
        seed, lab.mode, found.kills, actions, account, side, rollups, len(wrong), len(now), forgotten, seconds
    )


def document(done: Outcome) -> Document:
    """report.json."""
    found, false = done.account, [a for a in done.actions if a.why is None]
    doubled = found.duplicated + sum(abs(n) for n in done.rollups_off.values())
    figures: Document = {
        "kills": len(done.kills),
        "acknowledged_rows_lost": found.acknowledged_lost,
        "rows_duplicated": doubled,
        "gaps_unstated": found.gaps_unstated,
        "false_actions": len(false),
    }
    more: Document = {
        "rows_not_as_written": found.wrong + found.invented,
        "feeds_wrong": done.feeds_wrong,
        "incidents_forgotten": len(done.incidents_forgotten),
        "rows_unseen": found.unseen,
    }
    asked = [
        goals.bound("kills", ">=", GOAL_KILLS, figures["kills"]),
        *(goals.bound(name, "==", 0, value) for name, value in (figures | more).items() if name != "kills"),
    ]
    kinds = sorted({k.kind for k in done.kills})
    return goals.result(
        figures
        | more
        | {
            "seed": done.seed,
            "mode": done.mode,
            "seconds": {name: round(value, 1) for name, value in done.seconds.items()},
            "seconds_per_kill": round(done.seconds["killing"] / max(len(done.kills), 1), 2),
            "by_kind": {kind: _kind([k for k in done.kills if k.kind == kind]) for kind in kinds},
            "account": asdict(found),
            "rollups_off": done.rollups_off,
            "side_duplicates": done.side_duplicates,
            "incidents": done.incidents,
            "actions": [asdict(a) for a in done.actions],
            "each_kill": [asdict(k) for k in done.kills],
        },
        asked,
    )


def _kind(kills: Sequence[Kill]) -> Document:
    took = [k.recovered_s for k in kills if k.recovered_s is not None]
    return {
        "kills": len(kills),
        "killed_while_starting": sum(k.starting for k in kills),
        "recovered_s_median": round(statistics.median(took), 2) if took else None,
        "recovered_s_max": max(took, default=None),
    }


def _client(lab: Lab) -> WarehouseSettings:
    known = {"url": lab.addresses["warehouse"], "user": documents.WRITER, "timeout_s": 60.0}
    return WarehouseSettings.model_validate(known | {"password_file": documents.password(lab.run, documents.WRITER)})


def _spool(run: Run) -> Path:
    return run.part("collector") / "spool"


def main(arguments: Sequence[str] | None = None) -> int:
    """Status 0: it ran to its end; 1: it could not, the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=GOAL_KILLS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mean", type=float, default=plan.MEAN_S, help="mean seconds between two kills")
    parser.add_argument("--run", type=Path, default=Path("/tmp/tgw-chaos"), help="run directory of the region")
    parser.add_argument("--out", type=Path, default=Path("out/chaos/report.json"))
    parser.add_argument("--fabric", action="store_true", help="the in-process fabric, also where namespaces work")
    parser.add_argument("--small", action="store_true", help="the smallest region")
    wanted = parser.parse_args(arguments)
    console = Console(stderr=True)
    why_not = "asked for" if wanted.fabric else namespaces.supported()
    mode = FABRIC_MODE if why_not else NAMESPACES
    if why_not:
        console.print(f"chaos: in the in-process fabric ({why_not}): a kill of a node is a kill of all nodes")
    run = Run(wanted.run)
    topology = Topology(SMALL if wanted.small else SIZE, "tgwx-", probe_period_s=0.5, probe_timeout_s=0.5)
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"chaos: {time.monotonic() - began:6.1f} s {text}", highlight=False)

    try:
        lab, _ = region.up(run, topology, fresh=True, mode=mode)
        say("the region is up")
        done = chaos(lab, wanted.seed, wanted.kills, wanted.mean, say)
    except LabError as error:
        console.print(f"chaos: {error}", style="red")
        return 1
    finally:
        region.down(run, prefix=topology.prefix if mode == NAMESPACES else None)
    report = document(done)
    goals.write(wanted.out, report)
    Console().print(goals.table([goals.Goal(**g) for g in report["goals"]], f"chaos, seed {done.seed}, {done.mode}"))
    for example in done.account.examples:
        console.print(f"chaos: {example}", highlight=False)
    console.print(f"chaos: {wanted.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
