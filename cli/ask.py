"""Questions to a running region: incidents, migrations, the journey of a probe. They need URLs, not the lab."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import quote

import httpx
import typer

from cli.output import Json, console, guarded, say_json, table
from cli.region import Directory, run_at
from contract.documents import check
from lab import region
from lab.state import BadInput, LabError

probe = typer.Typer(no_args_is_help=True, help="Probes.")

AnalyzerUrl = Annotated[
    str | None, typer.Option("--analyzer", envvar="TGW_ANALYZER", help="URL of the analyzer; default: the lab's.")
]
ControlUrl = Annotated[
    str | None, typer.Option("--control", envvar="TGW_CONTROL", help="URL of the control plane; default: the lab's.")
]
Last = Annotated[int, typer.Option(min=1, max=100_000, help="So many of the latest.")]


class Api:
    """One service by URL, with the bearer token of TGW_TOKEN when there is one."""

    def __init__(self, service: str, url: str | None, directory: Path | None) -> None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise BadInput(f"--{service}: expected a URL that starts with http:// or https://, got {url!r}")
        self.service = service
        self.url = (url or region.need(run_at(directory)).addresses[service]).rstrip("/")

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a GET; BadInput on 404 and 422, LabError when there is no answer or any other one."""
        return self._ask("GET", path, 10, parameters)

    def post(self, path: str, timeout_s: float = 130) -> Any:
        """The JSON of a POST without a body; errors as `get` has them."""
        return self._ask("POST", path, timeout_s, {})

    def _ask(self, method: str, path: str, timeout_s: float, parameters: dict[str, Any]) -> Any:
        token = os.environ.get("TGW_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        given = {k: v for k, v in parameters.items() if v is not None}
        try:
            answer = httpx.request(
                method, f"{self.url}{path}", params=given, headers=headers, timeout=timeout_s, trust_env=False
            )
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

    def pages(self, path: str, most: int) -> list[Any]:
        """The latest items of a paged answer, newest last: `most` of them, page by page."""
        found: list[Any] = []
        before: dict[str, Any] = {}
        while len(found) < most:
            page = self.get(path, limit=min(most - len(found), 1000), **before)
            found += page["items"]
            if page["next"] is None:
                break
            before = {"before": page["next"]}
        return found[::-1]


def _time(ns: Any) -> str | None:
    from datetime import UTC, datetime

    return None if not ns else datetime.fromtimestamp(int(ns) / 1e9, UTC).strftime("%H:%M:%S.%f")[:-3]


@guarded
def incidents(
    incident: Annotated[str | None, typer.Argument(metavar="[ID]", help="One incident with its timeline.")] = None,
    json_: Json = False,
    last: Last = 100,
    analyzer: AnalyzerUrl = None,
    directory: Directory = None,
) -> None:
    """Incidents, newest last, or one with its evidence and timeline."""
    api = Api("analyzer", analyzer, directory)
    if incident is None:
        found = api.pages("/v1/incidents", last)
        if json_:
            say_json(found)
            return
        columns = ["id", "state", "kind", "subject", "opened", "mitigated", "closed", "what is left"]
        rows = [
            [
                *(i[k] for k in ("id", "state", "kind", "subject")),
                *(_time(i.get(f"{k}_ns")) for k in ("opened", "mitigated", "closed")),
                i.get("standing") or None,
            ]
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
def migrations(json_: Json = False, last: Last = 100, control: ControlUrl = None, directory: Directory = None) -> None:
    """Migrations that were asked for, done or refused, newest last."""
    found = Api("control", control, directory).pages("/v1/migrations", last)
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


@probe.command("stats")
@guarded
def stats(
    by: Annotated[str, typer.Option(help="vip, prober, cluster (the VIP's home) or port (source port).")] = "vip",
    seconds: Annotated[float, typer.Option(min=1, max=86400, help="How far back.")] = 300.0,
    csv: Annotated[Path | None, typer.Option(help="Write the table here too.")] = None,
    json_: Json = False,
    warehouse: Annotated[
        str | None, typer.Option(envvar="TGW_WAREHOUSE", help="URL of the warehouse; default: the lab's.")
    ] = None,
    user: Annotated[str, typer.Option(help="Its reader.")] = "reader",
    password_file: Annotated[Path | None, typer.Option(help="The reader's password; default: the lab's.")] = None,
    directory: Directory = None,
) -> None:
    """Loss and round trips of the latest probes, worst first."""
    from lab import documents
    from warehouse import statistics
    from warehouse.client import Connection, Refused, Unavailable
    from warehouse.settings import WarehouseSettings

    if by not in get_args(statistics.By):
        raise BadInput(f"--by: expected one of {', '.join(get_args(statistics.By))}, got {by!r}")
    if warehouse is None or password_file is None:
        lab = region.need(run_at(directory))
        warehouse = warehouse or lab.addresses["warehouse"]
        password_file = password_file or documents.password(lab.run, documents.READER)
    settings = check(
        {"url": warehouse, "user": user, "password_file": password_file}, WarehouseSettings, "the command line"
    )
    connection = Connection(settings)
    try:
        found = statistics.summary(statistics.probes(connection, seconds), by)  # type: ignore[arg-type]
    except (Unavailable, Refused) as error:
        raise LabError(f"the warehouse at {warehouse}: {error}") from None
    finally:
        connection.close()
    if csv is not None:
        found.to_csv(csv)
    if json_:
        say_json(json.loads(found.reset_index().to_json(orient="records")))
        return
    columns = [by, *(name.replace("_", " ") for name in found.columns)]
    rows = [[name, *(_cell(column, value) for column, value in row.items())] for name, row in found.iterrows()]
    console().print(table(columns, rows) if rows else f"no probes in the last {seconds:g} s")


def _cell(column: Any, value: float) -> str | None:
    if value != value:  # NaN: nothing to say
        return None
    if column == "loss":
        return f"{value:.2%}"
    return f"{value:.2f}" if str(column).startswith("rtt") else f"{value:.0f}"


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
