"""`make demo`: a real region, a real fault, and what the system does about it, told live and written down."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import faults, namespaces, observe, region, story
from lab.fabric import launch
from lab.region import Lab
from lab.screen import Screen
from lab.state import FABRIC_MODE, NAMESPACES, LabError, Run, marked
from lab.topology import DEMO, Topology

# The whole story ends within 240 s: what is not there by these times is reported as missing.
UP_S, HEALTHY_S, QUIET_S, TRAFFIC_S, ACT_S, SETTLE_S = 60.0, 40.0, 5.0, 12.0, 55.0, 3.0
LIMIT_S = 225.0
REPEATED = ("incident opened", "incident mitigated", "incident closed", "webhook received")
STORIES = {
    NAMESPACES: "network namespaces, real packets",
    FABRIC_MODE: "in-process fabric: links, routers, BGP, hosts and clients are simulated; pipelines, probers, "
    "control, collector, warehouse and analyzer are the product's own",
}


class Deadline:
    """The end of the whole story."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, at_most: float) -> float:
        """Seconds that a step may take [s]: its own bound, or what is left of the story."""
        return max(0.0, min(at_most, self._end - time.monotonic()))


def run(place: Run, out: Path, keep: bool = False, as_json: bool = False, fabric: bool = False) -> bool:
    """Tell the story; whether everything held. Writes report.json and timeline.svg into `out`.

    Without root or namespaces (or with `fabric`) the same story is told over the in-process fabric, after one line that
    says so.
    """
    why_not = "as asked for" if fabric else namespaces.supported()
    if why_not:
        Screen(as_json).note(
            f"{why_not}; the story runs over the in-process fabric: links, routers and hosts are simulated."
        )
        return tell(place, out, keep, as_json, FABRIC_MODE)
    return tell(place, out, keep, as_json, NAMESPACES)


def tell(place: Run, out: Path, keep: bool, as_json: bool, mode: str) -> bool:
    """The story over namespaces or over the in-process fabric: the same acts, observers and bounds."""
    if region.find(place) is not None:
        raise LabError(f"a region is up already in {place.root}: take it down with `tgw lab down` first")
    screen = Screen(as_json)
    deadline = Deadline(LIMIT_S)
    began = time.monotonic()
    topology = Topology(DEMO)
    report: dict[str, Any] = _head(mode)
    events: list[story.Event] = []
    for old in ("report.json", "timeline.svg"):
        (out / old).unlink(missing_ok=True)
    # Asked to end, the story still takes its region down.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with screen:
            parts = [p for p in region.ALL_PARTS if p != "traffic"]
            lab, _ = region.up(place, topology, screen.step, parts, mode=mode)
            report["up_after_s"] = round(time.monotonic() - began, 1)
            _tell(lab, screen, deadline, report, events)
    finally:
        _save_logs(place, out)
        if not keep:
            with suppress(LabError):
                found = region.down(place, screen.step)
                report["processes_ended"] = found["processes"]
            report["processes_left"] = marked(place)
            report["namespaces_left"] = namespaces.existing(topology.prefix) if mode == NAMESPACES else []
    report["duration_s"] = round(time.monotonic() - began, 1)
    held = finish(report, events, out, screen)
    if keep:
        _show_addresses(screen, lab)
    if held:
        shutil.rmtree(out / "logs", ignore_errors=True)
    return held


def _save_logs(place: Run, out: Path) -> None:
    """Keep the processes' logs of a story that may not hold: the run directory goes with the region."""
    shutil.rmtree(out / "logs", ignore_errors=True)
    if place.logs.is_dir():
        shutil.copytree(place.logs, out / "logs")


def finish(report: dict[str, Any], events: list[story.Event], out: Path, screen: Screen) -> bool:
    """Judge the report, write it and the picture, say how it went; whether everything held."""
    zero = min((e.ts_ns for e in events), default=0)
    report["events"] = [
        {"at_s": round((e.ts_ns - zero) / 1e9, 3), "act": e.act, "what": e.what, "detail": e.detail} for e in events
    ]
    report["did_not_hold"] = story.verdict(report)
    report["held"] = not report["did_not_hold"]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    screen.summary(report, events, out / "timeline.svg")
    return bool(report["held"])


def _head(mode: str) -> dict[str, Any]:
    root = Path(__file__).resolve().parent.parent
    try:
        commit = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
        ).stdout.strip()
    except OSError:  # a machine without git, or a copy without history
        commit = ""
    return {
        "mode": mode,
        "story": STORIES[mode],
        "commit": commit or None,
        "machine": {
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        },
        "started_ns": time.time_ns(),
        "acts": [],
    }


def _tell(lab: Lab, screen: Screen, deadline: Deadline, report: dict[str, Any], events: list[story.Event]) -> None:
    with observe.Observer(lab) as observer:
        _wait_probes(lab, observer, screen, deadline.left(HEALTHY_S))
        before, at = observe.cpu_ticks(lab), time.monotonic()
        screen.note(f"quiet: measuring the idle nodes for {QUIET_S:.0f} s")
        time.sleep(QUIET_S)
        seconds = time.monotonic() - at
        report["idle_cpu_percent"] = round(observe.cpu_share(before, observe.cpu_ticks(lab), seconds), 1)
        # The fabric's one process is all nodes, and their routers, hosts and probers.
        report["idle_nodes"] = len(lab.topology.nodes) if lab.simulated else len(before)
        tail = observe.Tail([lab.run.traffic(c) for c in lab.topology.clients])
        if lab.simulated:
            region.start_simulated_traffic(lab.run)
        else:
            region.start_traffic(lab.run, lab.topology, screen.step)
        _wait_traffic(lab, tail, screen, deadline.left(TRAFFIC_S))
        acts = []
        for name, kind, cluster in (("act 1", "kill-cluster", "clb-a"), ("act 2", "jitter", "clb-b")):
            act = _act(lab, observer, tail, screen, deadline, (name, kind, cluster))
            acts.append(act)
            report["acts"].append(story.report_of_act(act))
            events += story.timeline(act)
            if not act.finished():
                screen.note(f"{name} did not come to its end in time")
        report |= observer.totals()
        if lab.simulated:
            report["fabric"] = launch.state(lab.run)


def _wait_probes(lab: Lab, observer: observe.Observer, screen: Screen, seconds: float) -> None:
    """Until the latest probe of each prober to each target is answered and no incident is open."""
    fleet = lab.topology.fleet
    targets = {(p, v.id, x.port) for p in lab.topology.probers for v in fleet.vips for x in v.listeners if x.probe}
    end = time.monotonic() + seconds
    since = time.time_ns() - 10 * 10**9
    while True:
        rows = observer.probes(since)
        latest: dict[tuple[str, int, int], bool] = {}
        for probe in story.probes_of(rows or []):
            latest[probe.prober, probe.vip_id, probe.port] = probe.answered
        clean = sum(1 for t in targets if latest.get(t))
        incidents = observer.incidents()
        still_open = [i for i in incidents or [] if i.get("state") != "closed"]
        screen.step("healthy: probes answered", clean, len(targets))
        if clean == len(targets) and incidents is not None and not still_open:
            return
        if time.monotonic() > end:
            raise LabError(
                f"not healthy after {seconds:.0f} s: {clean} of {len(targets)} probe targets answered, "
                f"open incidents: {'the analyzer does not answer' if incidents is None else len(still_open)}"
            )
        time.sleep(0.5)


def _wait_traffic(lab: Lab, tail: observe.Tail, screen: Screen, seconds: float) -> None:
    """Until every VIP has answered a request, and nothing failed for a while."""
    wanted = {v.id for v in lab.topology.fleet.vips}
    seen: set[int] = set()
    end = time.monotonic() + seconds
    while True:
        seen |= {r.vip_id for r in story.requests_of(tail.new()) if r.ok}
        screen.step("traffic: VIPs answering", len(seen), len(wanted))
        if seen >= wanted:
            return
        if time.monotonic() > end:
            raise LabError(f"traffic does not flow after {seconds:.0f} s: {len(seen)} of {len(wanted)} VIPs answer")
        time.sleep(0.25)


def _act(
    lab: Lab,
    observer: observe.Observer,
    tail: observe.Tail,
    screen: Screen,
    deadline: Deadline,
    what: tuple[str, str, str],
) -> story.Act:
    name, kind, cluster = what
    affected = [v["vip_id"] for v in observer.get("control", "/v1/placement") or [] if v["current"] == cluster]
    target = cluster if kind == "kill-cluster" else lab.topology.fleet.nodes_of(cluster)[0].name
    fault = faults.make(lab, kind, target)
    act = story.Act(name, fault.name, target, fault.nodes, affected, fault.ts_ns, len(lab.topology.probers))
    shown: set[tuple[str, str]] = set()
    end = time.monotonic() + deadline.left(ACT_S)
    finished_at: float | None = None
    while time.monotonic() < end:
        _look(act, observer, tail)
        for event in story.timeline(act):
            # Later rows may say that something happened a little earlier: the summary has the final word.
            key = (event.what, event.detail if event.what in REPEATED else "")
            if key not in shown and event.what != "requests recovered":
                shown.add(key)
                screen.event(event, act.after_s(event.ts_ns))
        screen.counters(act)
        if finished_at is None and act.finished():
            # A little longer, to see that nothing fails any more.
            finished_at = time.monotonic()
            end = min(end, finished_at + SETTLE_S)
        time.sleep(0.5)
    # A request that began before the end is waited for: it ends within its own time limits.
    act.end_ns = time.time_ns()
    time.sleep(min(2.5, deadline.left(2.5)))
    _look(act, observer, tail)
    return act


def _look(act: story.Act, observer: observe.Observer, tail: observe.Tail) -> None:
    """Refresh an act's observations; a service that does not answer leaves what was known."""

    def keep(found: list[Any] | None, old: list[Any], make: Callable[[list[Any]], list[Any]]) -> list[Any]:
        return old if found is None else make(found)

    act.requests += story.requests_of(tail.new())
    act.probes = keep(observer.probes(act.fault_ns - 10**9), act.probes, story.probes_of)
    act.incidents = keep(observer.incidents(), act.incidents, lambda x: [observe.incident(i) for i in x])
    own = [i.id for i in act.own_incidents()]
    act.migrations = keep(
        observer.migrations(),
        act.migrations,
        lambda x: [m for m in x if m.get("incident_id") in own or m.get("cluster") == act.target],
    )
    act.webhooks = [w for entry in observer.webhooks() for w in observe.webhook(entry)]


def _show_addresses(screen: Screen, lab: Lab) -> None:
    for name, address in lab.addresses.items():
        screen.note(f"{name}: {address}")
    screen.note("`tgw lab down` ends it")
