"""Bring the region up, say how it is, take it down."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from lab import documents, namespaces, processes, supervisor
from lab.fabric import launch
from lab.state import (
    DEFAULT_RUN,
    FABRIC_MODE,
    NAMESPACES,
    BadInput,
    LabError,
    Recorded,
    Run,
    State,
    alive,
    held,
    locked,
    machine_boot,
    marked,
    read_state,
    recorded,
    stop,
    write_atomically,
)
from lab.topology import EDGE, FABRIC, SIZES, Size, Topology

# The addresses stay the same from run to run; labs in other run directories have others, so that two can start at
# once. A port that is taken is replaced by a free one.
FIRST_PORT = 7401
ALL_PARTS = ("routers", "servers", "nodes", "control", "telemetry", "probers", "analyzer", "traffic")

Report = Callable[[str, int, int], None]


def quiet(step: str, done: int, total: int) -> None:
    """Reports progress to nobody."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A region that is up: where it is and what it is made of."""

    run: Run
    topology: Topology
    addresses: dict[str, str]
    mode: str = NAMESPACES

    @property
    def simulated(self) -> bool:
        """Whether nodes, routers, links, hosts and probers live in the fabric's process."""
        return self.mode == FABRIC_MODE


def topology_of(state: State) -> Topology:
    """The topology that a state file describes."""
    return Topology(Size(**state.size), state.prefix, state.probe_period_s, state.probe_timeout_s)


def find(run: Run) -> Lab | None:
    """The lab that is up in `run`, or None (nothing there, half made, or left over from an earlier boot)."""
    state = read_state(run)
    if state is None or state.phase != "up" or state.machine_boot != machine_boot():
        return None
    return Lab(run, topology_of(state), state.addresses, state.mode)


def need(run: Run) -> Lab:
    """The lab that is up; LabError that says how to start one."""
    found = find(run)
    if found is None:
        raise LabError(f"no lab is up in {run.root}: start one with `tgw lab up`")
    return found


def up(
    run: Run,
    topology: Topology,
    report: Report = quiet,
    parts: Sequence[str] = ALL_PARTS,
    fresh: bool = False,
    mode: str = NAMESPACES,
) -> tuple[Lab, bool]:
    """Bring the region up; the lab, and whether it was made now (False: it was up already).

    `mode`: real namespaces (needs root) or the in-process fabric.

    Leftovers of an earlier run that is not wholly up are removed first; so is a whole one with `fresh`.
    LabError when something does not start; what was made until then is taken down again.
    """
    why_not = namespaces.supported() if mode == NAMESPACES else None
    if why_not:
        raise LabError(why_not)
    with locked(run):
        found = None if fresh else find(run)
        if found is not None:
            dead = [p.name for p in recorded(run).values() if not alive(p)]
            if found.simulated or len(namespaces.existing(topology.prefix)) >= len(found.topology.namespaces):
                report(f"up already{f', but not running: {chr(44).join(dead)}' if dead else ''}", 1, 1)
                return found, False
        own = topology.prefix if mode == NAMESPACES else None
        _clear(run, own or _earlier_prefix(run), report)
        run.make()
        state = State(
            "starting",
            asdict(topology.size),
            topology.prefix,
            time.time_ns(),
            machine_boot(),
            os.getpid(),
            {},
            topology.probe_period_s,
            topology.probe_timeout_s,
            mode,
        )
        state.write(run)
        try:
            addresses = _make(run, topology, report, parts, mode)
        except BaseException:
            _clear(run, own, quiet, keep_logs=True)
            raise
        State(**(asdict(state) | {"phase": "up", "addresses": addresses})).write(run)
        return Lab(run, topology, addresses, mode), True


def down(run: Run, report: Report = quiet, prefix: str | None = None) -> dict[str, Any]:
    """End every process and namespace of the run, and its directory; what was found. Works on any leftovers."""
    with locked(run):
        return _clear(run, prefix or _earlier_prefix(run, "tgw-"), report)


def _earlier_prefix(run: Run, unknown: str | None = None) -> str | None:
    """The prefix of the namespaces of what was up in the run; None when it had none, `unknown` when nobody knows."""
    try:
        state = read_state(run)
    except LabError:
        state = None
    if state is None:
        return unknown
    return state.prefix if state.mode == NAMESPACES else None


def _clear(run: Run, prefix: str | None, report: Report, keep_logs: bool = False) -> dict[str, Any]:
    report("ending processes", 0, 1)
    watching = recorded(run).get(supervisor.NAME)
    # First: it would start the others again.
    killed = stop([watching.pid], 3.0) if watching is not None and alive(watching) else []
    ended = int(watching is not None and not alive(watching))
    pids = {p.pid for p in recorded(run).values() if alive(p)} | set(marked(run))
    # Speakers first would withdraw routes in good order; the whole region goes, so all at once.
    killed += stop(sorted(pids), 8.0)
    later = stop(marked(run), 1.0)
    report("ending processes", 1, 1)
    # Without root none can be ours.
    names = namespaces.destroy(prefix) if prefix is not None and os.geteuid() == 0 else []
    left = marked(run)
    if left:
        raise LabError(f"processes {left} could not be ended")
    if keep_logs:
        run.state.unlink(missing_ok=True)
        run.processes.unlink(missing_ok=True)
    else:
        run.remove()
    return {"processes": len(pids) + ended, "killed": len(killed) + len(later), "namespaces": len(names)}


def _make(run: Run, topology: Topology, report: Report, parts: Sequence[str], mode: str) -> dict[str, str]:
    places = documents.Places(_ports(run))
    keys = documents.Secrets(secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16))
    if mode == NAMESPACES:
        report("namespaces", 0, len(topology.namespaces))
        namespaces.create(topology)
        report("namespaces", len(topology.namespaces), len(topology.namespaces))
    files = documents.files(topology, run, places, keys)
    if mode == FABRIC_MODE:
        simulated = launch.settings(topology, run, documents.TAP_CAPACITY)
        files[run.part(launch.NAME) / "fabric.toml"] = documents.toml(simulated)
    for path, text in files.items():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, text)
    steps: dict[str, Callable[[], None]] = {
        "routers": lambda: _routers(run, topology, report),
        "servers": lambda: _servers(run, topology, report),
        "nodes": lambda: start_nodes(run, topology, topology.nodes, report),
        "control": lambda: _control(Lab(run, topology, {}, mode), places, report),
        "telemetry": lambda: _telemetry(run, places, report),
        "probers": lambda: _probers(run, topology, report),
        "analyzer": lambda: _analyzer(run, places, report),
        "traffic": lambda: start_traffic(run, topology, report),
    }
    if mode == FABRIC_MODE:
        # One process holds the nodes, and the routers, real servers, probers and clients.
        steps |= dict.fromkeys(("routers", "servers"), lambda: None)
        steps["probers"] = lambda: launch.probe(run)
        steps["nodes"] = lambda: _fabric(run, topology, report)
        steps["traffic"] = lambda: start_simulated_traffic(run)
    for name in ALL_PARTS:
        if name in parts:
            steps[name]()
    # Last: what ends while the region comes up is a fault to be told, not one to be mended.
    supervisor.start(run)
    return {name: places.url(name) for name in documents.SERVICES} | {
        "run": str(run.root),
        "nodes": str(run.root / "nodes" / "NODE" / "api.sock"),
    }


def _ports(run: Run) -> dict[str, int]:
    first = FIRST_PORT if run.root == DEFAULT_RUN else 20_000 + zlib.crc32(bytes(run.root)) % 1000 * 10
    out = {}
    held = []
    for port, name in enumerate(documents.SERVICES, start=first):
        probe = socket.socket()
        held.append(probe)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        out[name] = int(probe.getsockname()[1])
    for probe in held:
        probe.close()
    return out


def _routers(run: Run, topology: Topology, report: Report) -> None:
    conditions = {}
    for side in (EDGE, FABRIC):
        place = run.part(side)
        control = place / "bird.ctl"
        command = ["bird", "-f", "-c", str(place / "bird.conf"), "-s", str(control), "-P", str(place / "bird.pid")]
        processes.start(run, f"router-{side}", "router", command, topology.namespace(side))
        conditions[f"router-{side}"] = control.exists
    processes.wait_all(conditions, run, 15, lambda done, total: report("routers", done, total))


def _servers(run: Run, topology: Topology, report: Report) -> None:
    conditions = {}
    for name in topology.servers:
        command = processes.python("lab.httpd", name, *map(str, topology.ports))
        process = processes.start(run, name, "server", command, topology.namespace(name))
        conditions[name] = _says(Path(process.log), "ready")
    processes.wait_all(conditions, run, 30, lambda done, total: report("real servers", done, total))


def _says(log: Path, word: str) -> Callable[[], bool]:
    return lambda: log.exists() and word in log.read_text(errors="replace")


def start_nodes(run: Run, topology: Topology, names: Sequence[str], report: Report = quiet) -> None:
    """Start nodes and their speakers (a speaker that still runs is left alone) and wait until both answer."""
    conditions: dict[str, Callable[[], bool]] = {}
    for name in names:
        place, namespace = run.node(name), topology.namespace(name)
        speaker = f"speaker-{name}"
        with processes.starting(run):
            living = processes.living(run)
            if name not in living:
                run.socket(name).unlink(missing_ok=True)
                command = processes.python("gateway.node", str(place / "node.toml"))
                processes.start(run, name, "node", command, namespace)
            if speaker not in living:
                command = processes.python("gateway.speaker", str(place / "speaker.toml"))
                processes.start(run, speaker, "speaker", command, namespace)
        conditions[name] = _answers("http://node/v1/status", run.socket(name))
        conditions[speaker] = (place / "speaker.json").exists
    processes.wait_all(conditions, run, 90, lambda done, total: report("nodes and speakers", done, total), 0.25)


def _fabric(run: Run, topology: Topology, report: Report) -> None:
    launch.start(run)
    conditions = launch.ready(run, topology.nodes)
    processes.wait_all(conditions, run, 60, lambda done, total: report("simulated nodes", done, total))


def _answers(url: str, uds: Path | None = None) -> Callable[[], bool]:
    """Whether a GET is answered with 2xx."""

    def ask() -> bool:
        if uds is not None and not uds.exists():
            return False
        transport = httpx.HTTPTransport(uds=str(uds)) if uds is not None else None
        try:
            with httpx.Client(transport=transport, timeout=2, trust_env=False) as client:
                return client.get(url).is_success
        except httpx.HTTPError:
            return False

    return ask


def _control(lab: Lab, places: documents.Places, report: Report) -> None:
    run = lab.run
    command = processes.python("gateway.control", str(run.part("control") / "control.toml"))
    processes.start(run, "control", "control", command)
    url = places.url("control")
    processes.wait_all({"control": _answers(f"{url}/v1/health")}, run, 60, lambda d, t: report("control", d, t))
    answer = httpx.put(
        f"{url}/v1/fleet", content=run.fleet.read_bytes(), headers={"content-type": "application/json"}, timeout=30
    )
    if not answer.is_success:
        raise LabError(f"control refused the fleet document: {answer.status_code} {answer.text[:400]}")
    fleet = lab.topology.fleet
    # Every node's tunnel address, every VIP's service address, the anycast address; every VIP's public address.
    wanted = {"fabric": len(fleet.nodes) + len(fleet.vips) + 1, "edge": len(fleet.vips)}
    conditions: dict[str, Callable[[], bool]] = {
        f"routes of the {side} router": lambda side=side, count=count: router_routes(lab, side) >= count  # type: ignore[misc]
        for side, count in wanted.items()
    }
    processes.wait_all(conditions, run, 40, lambda d, t: report("routes announced", d, t))


def _telemetry(run: Run, places: documents.Places, report: Report) -> None:
    command = processes.python("warehouse", str(run.part("warehouse") / "warehouse.toml"))
    processes.start(run, "warehouse", "warehouse", command)
    ready = {"warehouse": _answers(f"{places.url('warehouse')}/ping")}
    processes.wait_all(ready, run, 90, lambda d, t: report("warehouse", d, t))
    command = processes.python("collector", str(run.part("collector") / "collector.toml"))
    processes.start(run, "collector", "collector", command)
    command = processes.python("lab.receiver", str(places.ports["receiver"]), str(run.webhooks))
    processes.start(run, "receiver", "receiver", command)
    ready = {"receiver": _answers(places.url("receiver"))}
    processes.wait_all(ready, run, 30, lambda d, t: report("webhook receiver", d, t))


def _probers(run: Run, topology: Topology, report: Report) -> None:
    conditions: dict[str, Callable[[], bool]] = {}
    for name in topology.probers:
        command = processes.python("prober", str(run.part(name) / "prober.toml"))
        processes.start(run, name, "prober", command, topology.namespace(name))
        conditions[name] = lambda name=name: any(run.taps.glob(f"{name}.*"))  # type: ignore[misc]
    processes.wait_all(conditions, run, 60, lambda d, t: report("probers", d, t))


def _analyzer(run: Run, places: documents.Places, report: Report) -> None:
    command = processes.python("analyzer", str(run.part("analyzer") / "analyzer.toml"))
    processes.start(run, "analyzer", "analyzer", command)
    ready = {"analyzer": _answers(f"{places.url('analyzer')}/v1/health")}
    processes.wait_all(ready, run, 60, lambda d, t: report("analyzer", d, t))


def start_traffic(run: Run, topology: Topology, report: Report = quiet, rate: float = 10.0, kept: int = 20) -> None:
    """Start the HTTP clients that do not run yet."""
    living = processes.living(run)
    conditions: dict[str, Callable[[], bool]] = {}
    for number, name in enumerate(topology.clients, start=1):
        log = run.traffic(name)
        if name not in living:
            arguments = [str(run.fleet), str(log), "--rate", str(rate), "--kept", str(kept), "--seed", str(number)]
            command = processes.python("lab.traffic", *arguments)
            processes.start(run, name, "client", command, topology.namespace(name))
        conditions[name] = lambda log=log: log.exists() and log.stat().st_size > 0  # type: ignore[misc]
    processes.wait_all(conditions, run, 20, lambda d, t: report("traffic", d, t))


def start_simulated_traffic(run: Run, rate: float = 10.0, kept: int = 20) -> None:
    """Let the fabric's HTTP clients begin; those that have begun go on."""
    launch.ask(run, rate, kept)


def named_size(name: str) -> Size:
    """A size by name; LabError naming the ones there are."""
    if name not in SIZES:
        raise BadInput(f"size: expected one of {', '.join(SIZES)}, got {name!r}")
    return SIZES[name]


def router_routes(lab: Lab, side: str) -> int:
    """How many announced prefixes stand in a router's kernel (the fabric's: in the simulated router)."""
    topology = lab.topology
    if lab.simulated:
        return int(launch.state(lab.run)["routes"][side])
    count = 0
    for family in ("-4", "-6"):
        command = ["ip", "-n", topology.namespace(side), family, "-j", "route", "show", "proto", "bird"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
        count += len(json.loads(done.stdout or "[]"))
    return count


def process_list(run: Run) -> list[dict[str, Any]]:
    """Every recorded process, whether it runs, how often it was started again, and why it is to be dead, if it is."""
    said, dead = supervisor.read(run), held(run)

    def line(process: Recorded) -> dict[str, Any]:
        restarts = said.get(process.name, {}).get("restarts", 0)
        known = {"name": process.name, "kind": process.kind, "pid": process.pid, "running": alive(process)}
        return known | {"restarts": restarts, "held": dead.get(process.name)}

    return [line(p) for p in recorded(run).values()]
