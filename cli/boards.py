"""`tgw dashboards ...`: Grafana dashboards as code."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from cli.output import FAILED, Json, console, guarded, say_json, table
from cli.region import Directory, run_at
from lab import documents, region
from lab.state import BadInput, LabError
from service.settings import read_text

app = typer.Typer(no_args_is_help=True, help="Grafana dashboards as code.")


@app.command()
@guarded
def build(json_: Json = False) -> None:
    """Write the committed JSON and provisioning files anew."""
    from dashboards import build as boards

    changed = [str(p) for p in boards.build()]
    if json_:
        say_json({"changed": changed})
    else:
        console().print("\n".join(changed) or "nothing changed")


@app.command()
@guarded
def check(json_: Json = False) -> None:
    """Whether the committed files are what the code builds; 1 when one is stale."""
    from dashboards import build as boards

    stale = [str(p) for p in boards.stale()]
    if json_:
        say_json({"stale": stale})
    else:
        console().print("\n".join(f"stale: {p}" for p in stale) or "every file is as the code builds it")
    raise typer.Exit(FAILED if stale else 0)


@app.command()
@guarded
def publish(
    grafana: Annotated[str, typer.Option(envvar="TGW_GRAFANA", help="Grafana's URL.")],
    token_file: Annotated[Path, typer.Option(envvar="TGW_GRAFANA_TOKEN_FILE", help="A service account token alone.")],
    json_: Json = False,
    warehouse: Annotated[
        str | None, typer.Option(help="The warehouse's URL as Grafana reaches it; default: the lab's.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="Password of the warehouse's reader; default: the lab's.")
    ] = None,
    analyzer: Annotated[str | None, typer.Option(help="The analyzer's URL as a browser reaches it, for links.")] = None,
    control: Annotated[str | None, typer.Option(help="Control's URL as a browser reaches it, for links.")] = None,
    directory: Directory = None,
) -> None:
    """Put folder, data source and dashboards into a Grafana; once more changes nothing but what is different.

    What Grafana has from provisioning files stays as it is; 1 when that is not what would have been published.
    """
    from dashboards import publish as publisher
    from dashboards import source

    if (warehouse is None) != (password_file is None):
        raise BadInput("expected --warehouse and --password-file together, or neither for the lab's")
    if warehouse is None or password_file is None:
        lab = region.need(run_at(directory))
        warehouse, password_file = lab.addresses["warehouse"], documents.password(lab.run, documents.READER)
        analyzer, control = analyzer or lab.addresses["analyzer"], control or lab.addresses["control"]
    place = urlsplit(warehouse)
    if place.scheme != "http" or not place.hostname or place.port is None:
        raise BadInput(f"--warehouse: expected http://host:port, got {warehouse!r}")
    reader = publisher.Warehouse(place.hostname, place.port, read_text(password_file).strip(), documents.READER)
    links = source.Places()
    links = source.Places(
        _browsed("--analyzer", analyzer, links.analyzer), _browsed("--control", control, links.control)
    )
    try:
        done = publisher.publish(publisher.Grafana(grafana, read_text(token_file).strip()), reader, links)
    except publisher.PublishError as error:
        raise LabError(str(error)) from None
    if json_:
        say_json(asdict(done))
    else:
        console().print(table(["dashboard", "path"], done.dashboards.items()))
        if done.provisioned and done.right:
            console().print("Grafana was provisioned with these dashboards from files; nothing was to be changed")
        for note in done.notes:
            console().print(note, style="bold")
    raise typer.Exit(0 if done.right else FAILED)


def _browsed(option: str, url: str | None, default: str) -> str:
    """A URL that a browser may follow."""
    if url is None:
        return default
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise BadInput(f"{option}: expected http(s)://host[:port][/prefix], got {url!r}")
    return url.rstrip("/")
