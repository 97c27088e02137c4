"""Questions to a running region: incidents, migrations, the journey of a probe. They need URLs, not the lab."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from cli.output import Json, console, guarded, say_json, table
from cli.region import Directory, run_at
from lab import region
from lab.state import BadInput, LabError

probe = typer.Typer(no_args_is_help=True, help="Probes.")

AnalyzerUrl = Annotated[
    str | None, typer.Option("--analyzer", envvar="TGW_ANALYZER", help="URL of the analyzer; default: the lab's.")
]
ControlUrl = Annotated[
    str | None, typer.Option("--control", envvar="TGW_CONTROL", help="URL of the control plane; default: the lab's.")
]


class Api:
    """One service by URL, with the bearer token of TGW_TOKEN when there is one."""

    def __init__(self, service: str, url: str | None, directory: Path | None) -> None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise BadInput(f"--{service}: expected a URL that starts with http:// or https://, got {url!r}")
        self.service = service
        self.url = (url or region.need(run_at(directory)).addresses[service]).rstrip("/")

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a GET; BadInput on 404 and 422, LabError when there is no answer or any other one."""
        token = os.environ.get("TGW_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        given = {k: v for k, v in parameters.items() if v is not None}
        try:
            answer = httpx.get(f"{self.url}{path}", params=given, headers=headers, timeout=10, trust_env=False)
        except httpx.HTTPError as error:
            raise LabError(f"the {self.service} at {self.url} does not answer: {error}") from None
        if answer.is_success:
            return answer.json()
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = answer.text[:200]
        kind = BadInput if answer.status_code in (404, 422) else LabError
        raise kind(f"{self.service}: {answer.status_code}: {detail}")


def _time(ns: Any) -> str | None:
    from datetime import UTC, datetime

    return None if not ns else datetime.fromtimestamp(int(ns) / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]


@guarded
def incidents(
    incident: Annotated[str | None, typer.Argument(metavar="[ID]", help="One incident with its timeline.")] = None,
    json_: Json = False,
    analyzer: AnalyzerUrl = None,
    directory: Directory = None,
) -> None:
    """Incidents, newest last, or one with its evidence and timeline."""
    api = Api("analyzer", analyzer, directory)
    if incident is None:
        found = api.get("/v1/incidents")
        if json_:
            say_json(found)
            return
        columns = ["id", "state", "kind", "subject", "opened", "closed"]
        rows = [
            [i["id"], i["state"], i["kind"], i["subject"], _time(i.get("opened_ns")), _time(i.get("closed_ns"))]
            for i in found
        ]
        console().print(table(columns, rows) if rows else "no incidents")
        return
    found = api.get(f"/v1/incidents/{quote(incident, safe='')}")
    if json_:
        say_json(found)
        return
    console().print_json(data=found)


@guarded
def migrations(json_: Json = False, control: ControlUrl = None, directory: Directory = None) -> None:
    """Migrations that were asked for, done or refused."""
    found = Api("control", control, directory).get("/v1/migrations")
    if json_:
        say_json(found)
        return
    columns = ["id", "cluster", "state", "VIPs", "incident", "requested", "announced", "finished", "refused by"]
    rows = [
        [
            m["id"],
            m["cluster"],
            m["state"],
            len(m["moves"]),
            m.get("incident_id"),
            *(_time(m.get(f"{k}_ns")) for k in ("requested", "announced", "finished")),
            m.get("refused_by"),
        ]
        for m in found
    ]
    console().print(table(columns, rows) if rows else "no migrations")


@probe.command("trace")
@guarded
def trace(
    probe_id: Annotated[str | None, typer.Argument(metavar="[PROBE_ID]", help="Decimal or 0x...")] = None,
    json_: Json = False,
    vip: Annotated[str | None, typer.Option(help="The latest probe of this VIP instead.")] = None,
    analyzer: AnalyzerUrl = None,
    directory: Directory = None,
) -> None:
    """The journey of one probe, hop by hop."""
    if (probe_id is None) == (vip is None):
        raise BadInput("expected either PROBE_ID or --vip NAME")
    asked = _number(probe_id) if probe_id is not None else None
    api = Api("analyzer", analyzer, directory)
    number = asked if asked is not None else _latest(api, str(vip))
    found = api.get(f"/v1/probes/{number}")
    if json_:
        say_json(found)
        return
    verdict = found.get("verdict") or {}
    out = console()
    out.print(f"probe {found['probe_id_hex']} from {found['prober']} to {found.get('vip')}: {found['outcome']}")
    columns = ["hop", "node", "worker", "packet", "after, ms", "verdict", "towards"]
    out.print(table(columns, [_hop(h, int(found["sent_ns"])) for h in found["hops"]]))
    out.print(f"verdict: {verdict.get('kind', 'not closed yet')}: {verdict.get('text', '')}")


def _number(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise BadInput(f"PROBE_ID: expected a number, got {text!r}") from None
    if not 0 < number < 1 << 64:
        raise BadInput(f"PROBE_ID: expected 1 to 2^64 - 1, got {text}")
    return number


def _latest(api: Api, name: str) -> int:
    """The id of the latest closed probe of a VIP."""
    vips = api.get("/v1/vips")
    ids = [v["id"] for v in vips if v["name"] == name]
    if not ids:
        known = ", ".join(v["name"] for v in vips[:3])
        raise BadInput(f"--vip: expected the name of a VIP ({known}, ...), got {name!r}")
    closed = [p for p in api.get("/v1/probes", vip=ids[0]) if p["verdict"]]
    if not closed:
        raise LabError(f"no probe of {name} has closed in the last ten minutes")
    return int(closed[0]["probe_id"])


def _hop(hop: dict[str, Any], sent_ns: int) -> list[Any]:
    after = f"{(int(hop['ts_ns']) - sent_ns) / 1e6:.3f}"
    return [
        hop["hop"],
        hop["node"],
        hop["worker"],
        hop["packet"],
        after,
        hop["reason"] or hop["verdict"],
        hop["outer_dst"],
    ]
