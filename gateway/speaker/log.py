"""One line of JSON an event on standard error. A speaker stands beside every node: it loads no logging library."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

_ORDER = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_state: dict[str, Any] = {"least": 1, "common": {}}


def configure(level: str, **common: Any) -> None:
    """The least level that is written, and what stands in every line."""
    _state["least"], _state["common"] = _ORDER[level.lower()], common


def say(level: str, event: str, **values: Any) -> None:
    """Write one event. `level`: debug, info, warning or error."""
    if _ORDER[level] >= _state["least"]:
        line = _state["common"] | values | {"event": event, "level": level}
        line["timestamp"] = datetime.now(UTC).isoformat()
        print(json.dumps(line, default=str), file=sys.stderr, flush=True)
