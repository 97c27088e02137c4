"""Alertmanager itself, through its own API: POST /api/v2/alerts, as Prometheus does.

It forgets what it does not hear of: what fires is posted again every `keep_alive_s`, each time with an `endsAt` four
such times ahead. So it does not depend on `resolve_timeout`, and when the analyzer is away for longer, Alertmanager
calls its alerts resolved, as it does with those of a Prometheus that is away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from analyzer.alerting.notice import Notice, rfc3339
from analyzer.alerting.receivers.base import JSON, Authorized, Message, Post

AHEAD = 4


class Alertmanager(Authorized):
    """Alertmanager's own API (`POST /api/v2/alerts`), with keep-alives; of a cluster, name each member."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "alertmanager-1"
kind = "alertmanager"
url = "https://alertmanager-1.example.net:9093"
user = "tgw"                                    # optional, or token_file
password_file = "/etc/tgw/alertmanager.password"
keep_alive_s = 60
"""
    MOST_ALERTS: ClassVar[int] = 2000
    KEEPS_STATE: ClassVar[bool] = True

    kind: Literal["alertmanager"] = "alertmanager"
    # It groups and waits by itself.
    group_by: tuple[str, ...] = ("region",)
    group_interval_s: float = Field(default=1.0, ge=0)
    keep_alive_s: float = Field(default=60.0, ge=1, le=3600)

    @property
    def keep_alive(self) -> float | None:
        return self.keep_alive_s

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        ahead = notice.now_ns + int(AHEAD * self.keep_alive_s * 10**9)
        alerts = [
            {
                "labels": a.labels,
                "annotations": a.annotations,
                "startsAt": rfc3339(a.starts_ns),
                # An end in the past is an end; one before the start is refused.
                "endsAt": rfc3339(ahead if a.firing else max(a.ends_ns, a.starts_ns + 10**6)),
                "generatorURL": notice.link(a),
            }
            for a in notice.alerts
        ]
        where = f"{str(self.url).rstrip('/')}/api/v2/alerts"
        return [Post(where, json.dumps(alerts).encode(), {**JSON, **self.authorization(secrets)})]
