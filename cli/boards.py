"""`tgw dashboards ...`: Grafana dashboards as code."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Grafana dashboards as code.")
