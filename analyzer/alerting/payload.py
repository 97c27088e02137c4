"""The bodies that receivers understand: Alertmanager's webhook, version 4."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from analyzer.alerting.alert import Alert

NEVER = "0001-01-01T00:00:00Z"


def rfc3339(ts_ns: int) -> str:
    """A time as RFC 3339 with milliseconds; Alertmanager's zero time for 0."""
    if ts_ns == 0:
        return NEVER
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def group_key(labels: Mapping[str, str]) -> str:
    """The name of a group, as Alertmanager writes it."""
    inner = ", ".join(f"{k}={json.dumps(v)}" for k, v in sorted(labels.items()))
    return f"{{}}:{{{inner}}}"


def alertmanager(receiver: str, group: Mapping[str, str], alerts: Sequence[Alert], url: str) -> dict[str, Any]:
    """The webhook body of one group."""
    return {
        "version": "4",
        "groupKey": group_key(group),
        "truncatedAlerts": 0,
        "status": "firing" if any(a.firing for a in alerts) else "resolved",
        "receiver": receiver,
        "groupLabels": dict(group),
        "commonLabels": _common([a.labels for a in alerts]),
        "commonAnnotations": _common([a.annotations for a in alerts]),
        "externalURL": url,
        "alerts": [
            {
                "status": "firing" if a.firing else "resolved",
                "labels": a.labels,
                "annotations": a.annotations,
                "startsAt": rfc3339(a.starts_ns),
                "endsAt": rfc3339(a.ends_ns),
                "generatorURL": f"{url}/v1/incidents/{a.incident_id}",
                "fingerprint": a.fingerprint,
            }
            for a in alerts
        ],
    }


def _common(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    if not maps:
        return {}
    return {k: v for k, v in maps[0].items() if all(m.get(k) == v for m in maps[1:])}
