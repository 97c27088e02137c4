"""The fabric's process seen from the lab: how it is started, and what may be asked of it over its socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from lab import processes
from lab.state import LabError, Recorded, Run, write_atomically
from lab.topology import Topology

NAME = "fabric"


def socket(run: Run) -> Path:
    """Where the fabric's process listens."""
    return run.part(NAME) / "fabric.sock"


def settings(topology: Topology, run: Run, tap_capacity: int) -> dict[str, Any]:
    """fabric.toml."""
    return {
        "run": str(run.root),
        "socket": str(socket(run)),
        "key_file": str(run.root / "probe.key"),
        "probe_period_s": topology.probe_period_s,
        "probe_timeout_s": topology.probe_timeout_s,
        "tap_capacity": tap_capacity,
        "size": asdict(topology.size),
    }


def start(run: Run) -> Recorded:
    """Start the process: nodes, routers, hosts and probers in one. It counts as the nodes' process."""
    command = processes.python("lab.fabric", str(run.part(NAME) / "fabric.toml"))
    return processes.start(run, NAME, "node", command)


def ready(run: Run, nodes: Sequence[str]) -> Mapping[str, Callable[[], bool]]:
    """Conditions that hold once the process and every node's API listen."""
    return {NAME: socket(run).exists} | {name: run.socket(name).exists for name in nodes}


def state(run: Run) -> dict[str, Any]:
    """The account of frames, the life of every node, the routes. LabError when it does not answer."""
    return _call(run, "GET", "/v1/state", None)


def order(run: Run, kind: str, nodes: Sequence[str]) -> None:
    """kill, freeze, thaw or restart the simulated processes of nodes, all at one moment. LabError."""
    _call(run, "POST", "/v1/orders", {"kind": kind, "nodes": list(nodes)})


def probe(run: Run) -> None:
    """Let the probers begin; those that have begun go on. LabError."""
    _call(run, "POST", "/v1/probing", None)
    _remember(run, probing=True)


def ask(run: Run, rate: float, kept: int) -> None:
    """Let the simulated clients begin; those that have begun go on. LabError."""
    if not state(run)["asking"]:
        _call(run, "POST", "/v1/traffic", {"rate": rate, "kept": kept})
    _remember(run, traffic={"rate": rate, "kept": kept})


def tell_again(run: Run) -> bool:
    """Tell a fabric that was started again what the one before had been told; False: it does not answer yet."""
    told = _told(run)
    try:
        if told.get("probing"):
            probe(run)
        if told.get("traffic"):
            ask(run, **told["traffic"])
    except LabError:
        return False
    return True


def _told(run: Run) -> dict[str, Any]:
    try:
        found = json.loads((run.part(NAME) / "told.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(run: Run, **more: Any) -> None:
    write_atomically(run.part(NAME) / "told.json", json.dumps(_told(run) | more))


def _call(run: Run, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    transport = httpx.HTTPTransport(uds=str(socket(run)))
    try:
        with httpx.Client(transport=transport, timeout=5, trust_env=False) as client:
            answer = client.request(method, f"http://fabric{path}", json=body)
    except httpx.HTTPError as error:
        raise LabError(f"the fabric does not answer: {error}") from None
    if not answer.is_success:
        raise LabError(f"the fabric refused: {answer.status_code} {answer.text[:300]}")
    found: dict[str, Any] = answer.json()
    return found
