"""The `tgw` command: the lab, questions to a running region, checks of documents, and each process by name."""

from __future__ import annotations

import runpy
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import alerts, ask, boards, region
from cli.output import FAILED, Json, console, guarded, say_json, table
from contract.documents import parse
from contract.fleet import Fleet
from lab.state import BadInput
from service.settings import read_text

app = typer.Typer(
    name="tgw",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="A cloud gateway that watches itself, finds its own faults and heals them within a minute.",
)
app.add_typer(region.app, name="lab")
app.add_typer(ask.probe, name="probe")
app.add_typer(boards.app, name="dashboards")
app.add_typer(alerts.app, name="alerts")
app.command()(ask.incidents)
app.command()(ask.migrations)
fleet_app = typer.Typer(no_args_is_help=True, help="The fleet document.")
app.add_typer(fleet_app, name="fleet")


class Room(StrEnum):
    """The processes that `tgw run` starts."""

    node = "node"
    speaker = "speaker"
    control = "control"
    warehouse = "warehouse"
    collector = "collector"
    prober = "prober"
    analyzer = "analyzer"


MODULES = {Room.node: "gateway.node", Room.speaker: "gateway.speaker", Room.control: "gateway.control"}


@app.command()
def run(
    room: Annotated[Room, typer.Argument(help="Which process.")],
    config: Annotated[Path, typer.Argument(help="Its settings file (TOML).")],
) -> None:
    """Run one process in the foreground, until SIGTERM."""
    module = MODULES.get(room, room.value)
    sys.argv = [module, str(config)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


@fleet_app.command("check")
@guarded
def fleet_check(
    file: Annotated[Path, typer.Argument(help="Fleet document, JSON or TOML.")], json_: Json = False
) -> None:
    """Check a fleet document as a whole; every fault is named with its path."""
    fleet = parse(read_text(file), Fleet, str(file))
    counts = {
        "clusters": len(fleet.clusters),
        "nodes": len(fleet.nodes),
        "real_servers": len(fleet.real_servers),
        "vips": len(fleet.vips),
    }
    if json_:
        say_json({"file": str(file), "valid": True, "region": fleet.region, **counts})
    else:
        console().print(f"{file}: valid, region {fleet.region}: {', '.join(f'{n} {k}' for k, n in counts.items())}")


@app.command()
@guarded
def demo(
    json_: Json = False,
    keep: Annotated[bool, typer.Option("--keep", envvar="KEEP", help="Leave the region running.")] = False,
    fabric: Annotated[
        bool, typer.Option("--fabric", help="Over the in-process fabric, even where namespaces would do.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where report.json and timeline.svg go.")] = Path("out/demo"),
    directory: region.Directory = None,
) -> None:
    """The whole story on this machine: a cluster dies, the system names it, moves its traffic, tells people."""
    from lab import demo as story

    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: expected a directory")
    held = story.run(region.run_at(directory), out, keep=keep, as_json=json_, fabric=fabric)
    raise typer.Exit(0 if held else FAILED)


@app.command()
@guarded
def doctor(json_: Json = False) -> None:
    """What this machine can do: one line each."""
    from lab.doctor import examine

    findings = examine()
    if json_:
        say_json([{"what": f.what, "ok": f.ok, "detail": f.detail} for f in findings])
    else:
        rows = [["yes" if f.ok else "NO", f.what, f.detail] for f in findings]
        console().print(table(["", "what", "detail"], rows))
    raise typer.Exit(0 if all(f.ok for f in findings) else FAILED)


def main() -> None:
    """Entry point of the `tgw` script."""
    app()


if __name__ == "__main__":
    main()
