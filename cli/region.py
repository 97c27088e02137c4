"""`tgw lab ...`: the region on this machine."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.output import Json, Steps, console, guarded, say_json, table
from lab import faults, observe, region
from lab.state import FABRIC_MODE, NAMESPACES, BadInput, Run
from lab.topology import Topology

app = typer.Typer(no_args_is_help=True, help="A whole region in network namespaces on this machine (needs root).")

Directory = Annotated[
    Path | None,
    typer.Option("--run", envvar="TGW_RUN", help="Run directory.", show_default="/run/tgw-lab"),
]


def run_at(directory: Path | None) -> Run:
    """The run of a command."""
    return Run(directory.absolute()) if directory else Run.default()


def _check_prefix(prefix: str) -> None:
    if not re.fullmatch(r"tgw[a-z0-9-]{0,12}", prefix):
        raise BadInput(f"--prefix: expected tgw and at most 12 of a-z, 0-9 and -, got {prefix!r}")


@app.command()
@guarded
def up(
    json_: Json = False,
    size: Annotated[str, typer.Option(help="demo or small.")] = "demo",
    prefix: Annotated[str, typer.Option(help="Prefix of the namespaces' names.")] = "tgw-",
    fresh: Annotated[bool, typer.Option("--fresh", help="Take down what is up and start anew.")] = False,
    traffic: Annotated[bool, typer.Option(help="Start HTTP clients too.")] = False,
    fabric: Annotated[
        bool, typer.Option("--fabric", help="Simulated links, routers and hosts in one process: needs no root.")
    ] = False,
    device: Annotated[str, typer.Option(help="How nodes reach the network: af_packet, af_xdp or auto.")] = "af_packet",
    directory: Directory = None,
) -> None:
    """Bring the region up; says so and changes nothing when it is up already."""
    _check_prefix(prefix)
    parts = [p for p in region.ALL_PARTS if traffic or p != "traffic"]
    if device not in ("af_packet", "af_xdp", "auto"):
        raise BadInput(f"--device: expected af_packet, af_xdp or auto, got {device!r}")
    topology = Topology(region.named_size(size), prefix, device=device)
    with Steps(not json_) as steps:
        lab, made = region.up(run_at(directory), topology, steps, parts, fresh, FABRIC_MODE if fabric else NAMESPACES)
    if json_:
        say_json({"up": True, "made": made, "mode": lab.mode, "addresses": lab.addresses, "nodes": lab.topology.nodes})
        return
    console().print("The region is up." if made else "The region is up already; nothing was changed.")
    console().print(table(["what", "where"], lab.addresses.items()))


@app.command()
@guarded
def down(
    json_: Json = False,
    prefix: Annotated[str | None, typer.Option(help="Prefix of leftover namespaces, when no state is left.")] = None,
    directory: Directory = None,
) -> None:
    """End every process and namespace of the region, also after a crash of the lab; nothing there is no error."""
    if prefix is not None:
        _check_prefix(prefix)
    with Steps(not json_) as steps:
        found = region.down(run_at(directory), steps, prefix)
    if json_:
        say_json({"up": False, **found})
    else:
        console().print(f"Down: {found['processes']} processes ended, {found['namespaces']} namespaces removed.")


@app.command()
@guarded
def status(json_: Json = False, directory: Directory = None) -> None:
    """Processes, nodes, routes, open incidents, migrations and the latest requests."""
    found = observe.status(region.need(run_at(directory)))
    if json_:
        say_json(found)
        return
    out = console()
    running = [p for p in found["processes"] if p["running"]]
    out.print(f"{len(running)} of {len(found['processes'])} processes run in {found['run']}")
    for process in found["processes"]:
        if not process["running"]:
            why = process["held"] or f"pid {process['pid']} is gone"
            out.print(f"  not running: {process['name']} ({why})")
        if process["restarts"]:
            out.print(f"  started again: {process['name']}, {process['restarts']} times (see RUN/logs/supervisor.log)")
    routes = found["routes"]
    out.print(f"routes in the kernel: edge {routes['edge']}, fabric {routes['fabric']}")
    if found["nodes"] is None:
        out.print("nodes: control does not answer")
    else:
        columns = ["name", "cluster", "role", "az", "state", "epoch_acked", "forwarding_alive"]
        out.print(table(["node", *columns[1:]], [[n.get(c) for c in columns] for n in found["nodes"]]))
    incidents = found["open_incidents"]
    out.print("incidents: the analyzer does not answer" if incidents is None else f"open incidents: {len(incidents)}")
    for migration in found["migrations"] or []:
        out.print(f"migration {migration['id']}: {migration['cluster']} {migration['state']}")
    recent = found["recent_requests"]
    out.print(f"latest requests: {recent['total']}, failed {recent['failed']}")


@app.command()
@guarded
def traffic(
    json_: Json = False,
    rate: Annotated[float, typer.Option(min=0.1, max=1000, help="New connections a second and client.")] = 10.0,
    kept: Annotated[int, typer.Option(min=0, max=1000, help="Long-lived connections per client.")] = 20,
    directory: Directory = None,
) -> None:
    """Start the real HTTP clients (those that run already go on)."""
    lab = region.need(run_at(directory))
    with Steps(not json_) as steps:
        if lab.simulated:
            region.start_simulated_traffic(lab.run, rate, kept)
        else:
            region.start_traffic(lab.run, lab.topology, steps, rate, kept)
    logs = {c: str(lab.run.traffic(c)) for c in lab.topology.clients}
    if json_:
        say_json({"clients": logs})
    else:
        console().print(table(["client", "request log"], logs.items()))


@app.command()
@guarded
def fault(
    name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(faults.FAULTS))],
    target: Annotated[str, typer.Argument(metavar="NODE", help="Node (kill-cluster: cluster).")],
    json_: Json = False,
    probability: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    worker: Annotated[int | None, typer.Option(min=0)] = None,
    delay_us: Annotated[int | None, typer.Option(min=0, max=10_000_000)] = None,
    vip_id: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    directory: Directory = None,
) -> None:
    """Make a real fault; it is written down with its time in RUN/faults.jsonl."""
    if name not in faults.FAULTS:
        raise BadInput(f"NAME: expected one of {', '.join(faults.FAULTS)}, got {name!r}")
    lab = region.need(run_at(directory))
    made = faults.make(
        lab, name, target, probability=probability, worker=worker, delay_us=delay_us, vip_id=vip_id, seed=seed
    )
    if json_:
        say_json(asdict(made))
    else:
        console().print(f"{made.name} on {', '.join(made.nodes)}")
