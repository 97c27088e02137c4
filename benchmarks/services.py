"""What each process of a region costs, idle and under its clients' traffic: `python -m benchmarks.services`.

Brings up the lab's region (network namespaces where this machine has them, else the in-process fabric), lets it settle,
and measures for each process the time of a core and the memory it takes; for the warehouse what was inserted, merged
and asked meanwhile; and how long it takes until a record can be queried. Writes out/bench/services.json. Exit status 0
also where a goal is missed, 1 when the region did not come up or the warehouse did not answer.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import goals, report, usage
from benchmarks.report import ROOT, Document
from benchmarks.usage import Process, Usage
from lab import namespaces, region
from lab.observe import Observer
from lab.region import Lab
from lab.state import FABRIC_MODE, NAMESPACES, LabError, Run, alive, marked, recorded
from lab.topology import SIZES, Topology
from prober.settings import Limits

OUT = ROOT / "out" / "bench" / "services.json"
CPU_PERCENT, QUERYABLE_S = 8.0, 2.0
# What the engine counts, and the name under which it is told, per second.
EVENTS = {
    "InsertQuery": "inserts",
    "InsertedRows": "rows",
    "MergeTreeDataWriterBlocks": "parts_made",
    "Merge": "merges",
    "MergeSourceParts": "parts_merged",
    "MergedRows": "rows_merged",
    "SelectQuery": "selects",
}
# The poll that sees records appear: often enough to tell, and not while CPU time is measured.
LOOK_S = 0.05


class Unanswered(Exception):
    """The warehouse did not answer; the message is the question."""


def ask(observer: Observer, sql: str) -> list[dict[str, Any]]:
    """The rows of a query; Unanswered."""
    found = observer.query(sql)
    if found is None:
        raise Unanswered(sql)
    return found


def processes_of(lab: Lab) -> list[Process]:
    """Every process of the region, those that its processes started too (each speaker's BIRD)."""
    known = {p.pid: Process(p.name, p.kind, p.pid) for p in recorded(lab.run).values() if alive(p)}
    return [*known.values(), *usage.children(known, sorted({*marked(lab.run), *known}))]


def counts(observer: Observer) -> dict[str, int]:
    """What the engine has counted so far, by EVENTS, and the parts that stand now; Unanswered."""
    names = ", ".join(f"'{name}'" for name in EVENTS)
    found = ask(observer, f"SELECT event, value FROM system.events WHERE event IN ({names})")
    seen = {str(row["event"]): int(row["value"]) for row in found}
    (parts,) = ask(observer, "SELECT count() AS parts FROM system.parts WHERE active")
    return {name: seen.get(event, 0) for event, name in EVENTS.items()} | {"parts": int(parts["parts"])}


def measure(lab: Lab, observer: Observer, seconds: float) -> Document:
    """The region over so many seconds; Unanswered."""
    before = counts(observer)
    found, gone, passed = usage.over(processes_of(lab), seconds)
    after = counts(observer)
    return {
        "seconds": round(passed, 1),
        "kinds": kinds(found),
        "warehouse": {f"{n}_per_s": round((after[n] - before[n]) / passed, 2) for n in EVENTS.values()}
        | {"parts": after["parts"]},
        "processes": [line(u) for u in found],
        "ended_meanwhile": gone,
    }


def line(one: Usage) -> Document:
    """A process as it stands in the document."""
    return {
        **one.process._asdict(),
        "cpu_percent": round(one.cpu_percent, 2),
        "rss_mib": round(one.resident / 2**20, 1),
        "peak_mib": round(one.peak / 2**20, 1),
    }


def kinds(found: Sequence[Usage]) -> list[Document]:
    """All processes of each kind together, the greatest first: how many, share of a core [%], memory."""
    out: dict[str, Document] = {}
    for one in found:
        kind = out.setdefault(
            one.process.kind,
            {"kind": one.process.kind, "processes": 0, "cpu_percent": 0.0, "rss_mib": 0.0, "peak_mib": 0.0},
        )
        kind["processes"] += 1
        kind["cpu_percent"] = round(kind["cpu_percent"] + one.cpu_percent, 2)
        kind["rss_mib"] = round(kind["rss_mib"] + one.resident / 2**20, 1)
        kind["peak_mib"] = round(kind["peak_mib"] + one.peak / 2**20, 1)
    return sorted(out.values(), key=lambda kind: -kind["cpu_percent"])


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that `share` of them do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


# Each table's records, the time at which one was written, and what names it. A prober writes its record when it has
# waited for what may still come of a closed probe.
RECORDS = {
    "probes": (f"closed + toIntervalMillisecond({round(Limits().settle_s * 1000)})", "prober, boot_id, seq"),
    "trace_points": ("ts", "node, worker, boot_id, seq"),
}


def appearing(observer: Observer, seconds: float) -> Document:
    """How long after it was written a record is first seen by a query [s], by RECORDS. Unanswered.

    Each is seen up to LOOK_S late, and later by what the queries take.
    """
    (now,) = ask(observer, "SELECT toUnixTimestamp64Micro(now64(6)) AS us")
    waits: dict[str, list[float]] = {name: [] for name in RECORDS}
    seen: dict[str, set[tuple[Any, ...]]] = {name: set() for name in RECORDS}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for table, (written, name) in RECORDS.items():
            found = ask(
                observer,
                f"SELECT {name}, toUnixTimestamp64Nano({written}) AS written_ns FROM tgw.{table} "
                f"WHERE landed >= fromUnixTimestamp64Micro({now['us']}) AND ts > now64(9) - toIntervalMinute(1)",
            )
            at = time.time_ns()
            for row in found:
                written_ns = int(row.pop("written_ns"))
                key = tuple(row.values())
                if key not in seen[table]:
                    seen[table].add(key)
                    waits[table].append((at - written_ns) / 1e9)
        time.sleep(LOOK_S)
    return {
        name: {
            "records": len(values),
            "p50_s": rounded(quantile(values, 0.5)),
            "p99_s": rounded(quantile(values, 0.99)),
            "max_s": rounded(max(values, default=None)),
        }
        for name, values in waits.items()
    }


def rounded(value: float | None) -> float | None:
    """For people; None stays."""
    return None if value is None else round(value, 3)


def goals_of(data: Document) -> list[goals.Goal]:
    """What was asked for."""
    (warehouse,) = [k for k in data["idle"]["kinds"] if k["kind"] == "warehouse"] or [{"cpu_percent": None}]
    waits = [w["p99_s"] for w in data["queryable"].values()]
    worst = None if None in waits else max(waits)
    return [
        goals.bound("warehouse, idle region", "<=", CPU_PERCENT, warehouse["cpu_percent"], "% of a core"),
        goals.bound("a record can be queried, 99 %", "<=", QUERYABLE_S, worst, "s"),
    ]


@contextlib.contextmanager
def up(size: str, mode: str) -> Iterator[Lab]:
    """A region of its own, without its clients; gone at the end. LabError."""
    with tempfile.TemporaryDirectory(prefix="tgw-services-") as folder:
        run = Run(Path(folder) / "run")
        topology = Topology(SIZES[size], "tgwsv-")
        parts = [p for p in region.ALL_PARTS if p != "traffic"]
        try:
            lab, _ = region.up(run, topology, parts=parts, mode=mode)
            yield lab
        finally:
            region.down(run, prefix=topology.prefix)  # its own, so that no other region's namespaces are found


def run(size: str, mode: str, settle_s: float, seconds: float) -> Document:
    """Everything that is measured; LabError, Unanswered."""

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", file=sys.stderr, flush=True)

    began = time.monotonic()
    say(f"a region of size {size} ({mode})")
    with up(size, mode) as lab, Observer(lab) as observer:
        say(f"up; {settle_s:.0f} s to settle")
        time.sleep(settle_s)
        say(f"idle, {seconds:.0f} s")
        idle = measure(lab, observer, seconds)
        say("until a record can be queried")
        queryable = appearing(observer, seconds / 2)
        if lab.simulated:
            region.start_simulated_traffic(lab.run)
        else:
            region.start_traffic(lab.run, lab.topology)
        time.sleep(min(10.0, settle_s))
        say(f"under traffic, {seconds:.0f} s")
        traffic = measure(lab, observer, seconds)
        fleet = lab.topology.fleet
        return {
            "mode": mode,
            "region": asdict(lab.topology.size) | {"nodes": len(fleet.nodes), "vips": len(fleet.vips)},
            "settled_s": settle_s,
            "idle": idle,
            "queryable": queryable,
            "traffic": traffic,
        }


def main(arguments: list[str]) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.services", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="demo")
    parser.add_argument(
        "--fabric", action="store_true", help="over the in-process fabric, even where namespaces would do"
    )
    parser.add_argument("--settle", type=float, default=120.0, help="seconds before measuring: merges begin late")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds of each measurement")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    why_not = "as asked for" if chosen.fabric else namespaces.supported()
    if why_not:
        print(f"{why_not}: over the in-process fabric, whose one process is all nodes and probers", file=sys.stderr)
    try:
        data = run(chosen.size, FABRIC_MODE if why_not else NAMESPACES, chosen.settle, chosen.seconds)
    except (LabError, Unanswered) as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    found = goals_of(data)
    goals.write(chosen.out, goals.result(data, found))
    console = Console()
    for name in ("idle", "traffic"):
        console.print(report.rows(f"{name}: all processes of a kind", data[name]["kinds"]))
    for name in ("idle", "traffic"):
        console.print(report.figures(f"{name}: the warehouse", data[name]["warehouse"]))
    waits = [{"record": name} | wait for name, wait in data["queryable"].items()]
    console.print(report.rows("Until a record can be queried, idle region", waits))
    console.print(goals.table(found, "bench-services"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
