"""Receivers of notifications: what they said last, and a test notice to one of them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.ask import AnalyzerUrl, Api, _time
from cli.output import FAILED, Json, console, guarded, say_json, table
from cli.region import Directory
from lab.state import BadInput

app = typer.Typer(invoke_without_command=True, help="Receivers of alerts: what each said last; a test notice.")

Settings = Annotated[
    Path | None, typer.Option("--settings", help="Send straight from this settings file, without an analyzer.")
]


@app.callback()
@guarded
def receivers(
    context: typer.Context, json_: Json = False, analyzer: AnalyzerUrl = None, directory: Directory = None
) -> None:
    """Every receiver, where it sends, and what it said last."""
    if context.invoked_subcommand is not None:
        return
    found = Api("analyzer", analyzer, directory).get("/v1/receivers")
    if json_:
        say_json(found)
        return
    columns = ["receiver", "kind", "to", "owed", "last", "status", "at", "what it said"]
    console().print(table(columns, [_row(r) for r in found]) if found else "no receivers")


def _row(receiver: dict[str, Any]) -> list[Any]:
    last = receiver["last"] or {}
    state = "gone" if receiver["gone"] else last.get("state")
    said = receiver["gone"] or last.get("said") or last.get("error")
    return [
        receiver["name"], receiver["kind"], receiver["target"], receiver["owed"], state, last.get("status"),
        _time(last.get("tried_ns")), said[:80] if said else None,
    ]  # fmt: skip


@app.command("test")
@guarded
def send_test(
    receiver: Annotated[str, typer.Argument(metavar="RECEIVER", help="Its name in the analyzer's settings.")],
    json_: Json = False,
    settings: Settings = None,
    analyzer: AnalyzerUrl = None,
    directory: Directory = None,
) -> None:
    """Send a test notice and print what the receiver said. The exit status is 0 only when it took it."""
    if settings is not None:
        found = _straight(settings, receiver)
    else:
        found = Api("analyzer", analyzer, directory).post(f"/v1/receivers/{quote(receiver, safe='')}/test")
    if json_:
        say_json(found)
    else:
        for item in found["tries"]:
            status = f" {item['status']}" if item["status"] else ""
            line = f"{receiver}: {item['notice']}: {item['outcome']}{status}"
            detail = "; ".join(x for x in (item["error"], item["said"]) if x)
            console().print(f"{line}: {detail}" if detail else line, markup=False, soft_wrap=True)
    raise typer.Exit(0 if found["taken"] else FAILED)


def _straight(path: Path, name: str) -> dict[str, Any]:
    from analyzer.alerting.send import Sender
    from analyzer.alerting.send import send_test as send_notice
    from analyzer.settings import ENVIRONMENT_PREFIX
    from analyzer.settings import Settings as Analyzer
    from contract.fleet import Fleet
    from service.settings import load

    config = load(path, Analyzer, ENVIRONMENT_PREFIX)
    known = {r.name: r for r in config.receivers}
    if name not in known:
        raise BadInput(f"RECEIVER: expected one of {', '.join(known) or 'none: the file has no receivers'}")
    region = load(config.fleet, Fleet, "TGW_FLEET_").region
    url = config.external_url or f"http://{config.listen.host}:{config.listen.port}"

    async def run() -> list[dict[str, Any]]:
        sender = Sender()
        try:
            tries = await send_notice(sender, known[name], region, url, time.time_ns())
        finally:
            await sender.aclose()
        return [
            {"notice": word, "outcome": a.outcome, "status": a.status, "said": a.said, "error": a.error}
            for word, a in tries
        ]

    tries = asyncio.run(run())
    return {"receiver": name, "taken": all(t["outcome"] == "taken" for t in tries), "tries": tries}
