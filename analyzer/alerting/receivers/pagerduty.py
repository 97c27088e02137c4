"""PagerDuty, through its Events API v2: one event for each alert that is news.

The dedup_key is the fault, so that what is sent twice is one alert there, and its end finds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import HttpUrl

from analyzer.alerting.alert import Alert
from analyzer.alerting.notice import Notice, cut, one_line, rfc3339, word
from analyzer.alerting.receivers.base import JSON, Message, Post, Receiver, host_of

SEVERITY = {"critical": "critical", "warning": "warning", "info": "info"}
SUMMARY, DEDUP_KEY = 1024, 255


class PagerDuty(Receiver):
    """PagerDuty, Events API v2."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "on-call"
kind = "pagerduty"
routing_key_file = "/etc/tgw/pagerduty.key"     # the integration key
url = "https://events.eu.pagerduty.com/v2/enqueue"  # optional: the EU's
"""
    KEEPS_STATE: ClassVar[bool] = True
    MOST_ALERTS: ClassVar[int] = 40

    kind: Literal["pagerduty"] = "pagerduty"
    routing_key_file: Path
    url: HttpUrl = HttpUrl("https://events.pagerduty.com/v2/enqueue")

    @property
    def target(self) -> str:
        return host_of(str(self.url))

    def secret_files(self) -> dict[str, Path]:
        return {"routing_key_file": self.routing_key_file}

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        key = secrets["routing_key_file"]
        return [Post(str(self.url), json.dumps(event(notice, a, key)).encode(), JSON) for a in notice.news]


def event(notice: Notice, alert: Alert, routing_key: str) -> dict[str, Any]:
    """One event."""
    head = {
        "routing_key": routing_key,
        "event_action": "trigger" if alert.firing else "resolve",
        "dedup_key": cut(f"tgw/{notice.region}/{alert.fingerprint}", DEDUP_KEY),
    }
    if not alert.firing:
        return head
    return head | {
        "client": "tgw",
        "client_url": notice.url,
        "links": [{"href": notice.link(alert), "text": "evidence and timeline"}],
        "payload": {
            "summary": cut(one_line(alert.annotations["summary"]), SUMMARY),
            "severity": SEVERITY[alert.severity],
            "source": alert.labels.get("subject", notice.region),
            "timestamp": rfc3339(alert.starts_ns),
            "component": alert.labels.get("cluster", notice.region),
            "group": notice.region,
            "class": alert.labels["alertname"],
            "custom_details": {"state": word(alert), **alert.labels, **alert.annotations},
        },
    }
