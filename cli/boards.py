"""`tgw dashboards ...`: Grafana dashboards as code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.output import FAILED, Json, console, fail, guarded, say_json
from lab.state import BadInput
from service.settings import read_text

app = typer.Typer(no_args_is_help=True, help="Grafana dashboards as code.")


@app.command()
@guarded
def build(json_: Json = False) -> None:
    """Write the JSON under dashboards/provisioning anew, from the code."""
    from dashboards.build import build as write

    changed = [str(path) for path in write()]
    if json_:
        say_json({"changed": changed})
    else:
        console().print("\n".join(changed) or "nothing changed")


@app.command()
@guarded
def check(json_: Json = False) -> None:
    """Is the committed JSON what the code builds? Exit code 1 when not."""
    from dashboards.build import stale

    found = [str(path) for path in stale()]
    if json_:
        say_json({"stale": found})
    else:
        console().print("\n".join(f"stale: {path}" for path in found) or "all as built")
    if found:
        raise typer.Exit(FAILED)


@app.command()
@guarded
def publish(
    url: Annotated[str, typer.Option(help="Grafana's address.")] = "http://127.0.0.1:3000",
    token_file: Annotated[
        Path | None, typer.Option(help="File with a service account token; else the variable TGW_GRAFANA_TOKEN.")
    ] = None,
    warehouse_host: Annotated[str, typer.Option(help="The warehouse, as Grafana reaches it.")] = "127.0.0.1",
    warehouse_port: Annotated[int, typer.Option(min=1, max=65535)] = 8123,
    reader: Annotated[str, typer.Option(help="The warehouse's reader.")] = "reader",
    reader_password_file: Annotated[
        Path | None, typer.Option(help="Its password; else the variable TGW_WAREHOUSE_READER_PASSWORD.")
    ] = None,
    json_: Json = False,
) -> None:
    """Put folder, data source and dashboards into a Grafana, through its API."""
    from dashboards import publish as publisher

    token = _secret(token_file, "TGW_GRAFANA_TOKEN", "--token-file")
    password = _secret(reader_password_file, "TGW_WAREHOUSE_READER_PASSWORD", "--reader-password-file")
    warehouse = publisher.Warehouse(warehouse_host, warehouse_port, password, reader)
    try:
        done = publisher.publish(publisher.Grafana(url, token), warehouse)
    except publisher.PublishError as error:
        fail(str(error), json_, FAILED)
    if json_:
        say_json({"folder": done.folder, "source": done.source, "dashboards": done.dashboards})
    else:
        console().print("\n".join(f"{uid}: {url.rstrip('/')}{path}" for uid, path in done.dashboards.items()))


def _secret(file: Path | None, variable: str, option: str) -> str:
    value = read_text(file).strip() if file is not None else os.environ.get(variable, "").strip()
    if not value:
        raise BadInput(f"{option}: expected a file with the secret in it, or the variable {variable}")
    return value
