"""Real faults for a running region, each written down with the time it was made: the ground truth of every story."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx

from lab import processes, region
from lab.fabric import launch
from lab.region import Lab
from lab.state import BadInput, LabError, Recorded, append_line, held, hold, read_lines, release


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault as it was made. `nodes`: whom it truly hit; `ts_ns`: when it began."""

    name: str
    target: str
    nodes: list[str]
    ts_ns: int
    detail: dict[str, Any] = field(default_factory=dict)


def kill(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """SIGKILL the node's process; its speaker lives and must notice."""
    if lab.simulated:
        return _order(lab, "kill", [node])
    _kill(lab, [node], "kill")
    return [node]


def kill_cluster(lab: Lab, cluster: str, options: dict[str, Any]) -> list[str]:
    """SIGKILL the process of every node of a cluster, at once."""
    nodes = [n.name for n in lab.topology.fleet.nodes_of(cluster)]
    if not nodes:
        names = ", ".join(c.name for c in lab.topology.fleet.clusters)
        raise BadInput(f"cluster: expected one of {names}, got {cluster!r}")
    if lab.simulated:
        return _order(lab, "kill", nodes)
    _kill(lab, nodes, "kill-cluster")
    return nodes


def _kill(lab: Lab, nodes: list[str], fault: str) -> None:
    pids = [_process(lab, n).pid for n in nodes]
    # Before they die: the supervisor starts again whatever dies by itself.
    hold(lab.run, nodes, f"fault {fault}")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def freeze(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """SIGSTOP the node's process: it hangs, its sockets stay open."""
    if lab.simulated:
        return _order(lab, "freeze", [node])
    os.kill(_process(lab, node).pid, signal.SIGSTOP)
    return [node]


def thaw(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """SIGCONT the node's process."""
    if lab.simulated:
        return _order(lab, "thaw", [node])
    os.kill(_process(lab, node).pid, signal.SIGCONT)
    return [node]


def restart(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """Start the process of a dead node again."""
    if lab.simulated:
        return _order(lab, "restart", [node])
    release(lab.run, [_known(lab, node)])
    region.start_nodes(lab.run, lab.topology, [node])
    return [node]


def clear(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """Take every injected fault off a node; one that a fault has killed is started again."""
    if not lab.simulated and node in held(lab.run):
        return restart(lab, node, options)
    _node_api(lab, node, "DELETE", "/v1/faults", None)
    return [node]


def drain(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """Maintenance on, in good order, through the control plane."""
    return _maintenance(lab, node, on=True)


def undrain(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
    """Maintenance off."""
    return _maintenance(lab, node, on=False)


def _injected(kind: str, probability: float) -> Callable[[Lab, str, dict[str, Any]], list[str]]:
    def inject(lab: Lab, node: str, options: dict[str, Any]) -> list[str]:
        share = options.get("probability")
        body = {"kind": kind, "probability": probability if share is None else share, "seed": options.get("seed", 1)}
        body |= {k: options[k] for k in ("worker", "delay_us", "vip_id") if options.get(k) is not None}
        _node_api(lab, node, "POST", "/v1/faults", body)
        return [node]

    inject.__doc__ = f"The node's own fault injection, {kind}; default probability {probability}."
    return inject


FAULTS: dict[str, Callable[[Lab, str, dict[str, Any]], list[str]]] = {
    "kill": kill,
    "kill-cluster": kill_cluster,
    "freeze": freeze,
    "thaw": thaw,
    "restart": restart,
    "drain": drain,
    "undrain": undrain,
    "jitter": _injected("encap_fail", 0.5),
    "loss": _injected("loss_silent", 0.01),
    "loss-visible": _injected("loss_visible", 0.01),
    "reply-loss": _injected("reply_loss", 0.05),
    "delay": _injected("delay", 1.0),
    "stuck-worker": _injected("stuck_worker", 1.0),
    "vip-missing": _injected("vip_missing", 1.0),
    "clear": clear,
}


def make(lab: Lab, name: str, target: str, **options: Any) -> Fault:
    """Make a fault and write it down. LabError naming what was expected when the name or the target is wrong."""
    if name not in FAULTS:
        raise BadInput(f"fault: expected one of {', '.join(FAULTS)}, got {name!r}")
    if name != "kill-cluster":
        _known(lab, target)
    began = time.time_ns()
    nodes = FAULTS[name](lab, target, options)
    kept = {k: v for k, v in options.items() if v is not None}
    fault = Fault(name, target, nodes, began, kept)
    append_line(lab.run.faults, asdict(fault))
    return fault


def made(lab: Lab) -> list[Fault]:
    """Every fault of this run, oldest first."""
    return [Fault(**entry) for entry in read_lines(lab.run.faults)]


def _order(lab: Lab, kind: str, nodes: list[str]) -> list[str]:
    launch.order(lab.run, kind, nodes)
    return nodes


def _known(lab: Lab, node: str) -> str:
    if node not in lab.topology.nodes:
        raise BadInput(f"node: expected one of {', '.join(lab.topology.nodes)}, got {node!r}")
    return node


def _process(lab: Lab, node: str) -> Recorded:
    found = processes.living(lab.run).get(_known(lab, node))
    if found is None:
        raise LabError(f"{node} does not run; `tgw lab fault restart {node}` starts it")
    return found


def _node_api(lab: Lab, node: str, method: str, path: str, body: dict[str, Any] | None) -> None:
    transport = httpx.HTTPTransport(uds=str(lab.run.socket(_known(lab, node))))
    try:
        with httpx.Client(transport=transport, timeout=5, trust_env=False) as client:
            answer = client.request(method, f"http://node{path}", json=body)
    except httpx.HTTPError as error:
        raise LabError(f"{node} does not answer: {error}") from None
    _check(answer, node)


def _maintenance(lab: Lab, node: str, on: bool) -> list[str]:
    body = {"on": on, "by": "tgw lab", "reason": "lab fault"}
    try:
        answer = httpx.post(
            f"{lab.addresses['control']}/v1/nodes/{_known(lab, node)}/maintenance", json=body, timeout=5
        )
    except httpx.HTTPError as error:
        raise LabError(f"control does not answer: {error}") from None
    _check(answer, "control")
    return [node]


def _check(answer: httpx.Response, who: str) -> None:
    if not answer.is_success:
        raise LabError(f"{who} refused: {answer.status_code} {answer.text[:300]}")
