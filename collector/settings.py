"""What a collector is told at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from contract.documents import Strict
from contract.fleet import Name
from warehouse.settings import WarehouseSettings

ENVIRONMENT_PREFIX = "TGW_COLLECTOR_"
Seconds = Annotated[float, Field(gt=0, le=3600)]


class Intervals(Strict):
    """How often things are done."""

    # A record waits for half of this on average; each reading costs an insert for every table that has something new.
    poll_s: Seconds = 1.0
    feeds_s: Seconds = 1.0
    counters_s: Seconds = 10.0
    # While shipping lags, taps are read less often, so that the backlog is few large batches and not many small ones.
    poll_behind_s: Seconds = 2.0
    # A tap whose writer is gone is reported for this long before it is deleted.
    retire_after_s: Annotated[float, Field(ge=0, le=86400)] = 30.0


class Settings(Strict):
    """The collector's configuration file."""

    name: Name = "collector"
    taps_dir: Path
    spool_dir: Path
    spool_max_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    warehouse: WarehouseSettings
    intervals: Intervals = Intervals()
    log_level: str = "INFO"
