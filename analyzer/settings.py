"""What an analyzer is told at its start: one TOML file, checked whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, HttpUrl, model_validator

from analyzer.alerting.receivers import AnyReceiver
from analyzer.keep import Keep
from contract.documents import Strict
from service.listen import Listen
from warehouse.settings import WarehouseSettings

ENVIRONMENT_PREFIX = "TGW_ANALYZER_"
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Control(Strict):
    """Where control's API is. `token_file`: holds its bearer token, where it wants one."""

    url: HttpUrl
    token_file: Path | None = None
    timeout_s: Seconds = 3.0


class Intervals(Strict):
    """How often things are done."""

    look_s: Seconds = 1.0
    fleet_s: Seconds = 5.0


class Settings(Strict):
    """The analyzer's configuration file. `fleet`: the fleet document, until control gives a newer one."""

    listen: Listen
    # Where people reach the API, for links in notifications; the listening address by default.
    external_url: str | None = None
    # Where people reach the Grafana that has the dashboards: alerts then lead to the incident's, with its time range.
    grafana_url: HttpUrl | None = None
    fleet: Path
    state_dir: Path
    control: Control
    warehouse: WarehouseSettings
    receivers: list[AnyReceiver] = Field(default_factory=list)
    intervals: Intervals = Intervals()
    keep: Keep = Keep()
    log_level: str = "INFO"

    @model_validator(mode="after")
    def _receivers_once(self) -> Self:
        names = [r.name for r in self.receivers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"receivers: expected a name used once, {name!r} stands {names.count(name)} times")
        return self
