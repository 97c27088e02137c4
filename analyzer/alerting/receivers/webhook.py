"""A plain webhook, signed as Standard Webhooks describes it (standardwebhooks.com)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from analyzer.alerting.notice import Notice, rfc3339, word
from analyzer.alerting.receivers.base import JSON, Authorized, Message, Post
from analyzer.alerting.sign import headers, key_of


class Webhook(Authorized):
    """A plain webhook, signed as Standard Webhooks does; its `webhook-id` is the same only for the same content."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "automation"
kind = "webhook"
url = "https://automation.example.net/tgw"
secret_file = "/etc/tgw/automation.secret"      # whsec_ and base64
"""
    KEEPS_STATE: ClassVar[bool] = True

    kind: Literal["webhook"] = "webhook"
    secret_file: Path

    def secret_files(self) -> dict[str, Path]:
        return super().secret_files() | {"secret_file": self.secret_file}

    def secrets(self) -> dict[str, str]:
        found = super().secrets()
        key_of(found["secret_file"])
        return found

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        data = json.dumps(body(notice)).encode()
        signed = headers(secrets["secret_file"], notice.id, notice.now_ns // 10**9, data)
        return [Post(str(self.url), data, {**JSON, **signed, **self.authorization(secrets)})]


def body(notice: Notice) -> dict[str, Any]:
    """`type`, `timestamp` and `data`, as the specification wants it."""
    return {
        "type": f"tgw.alerts.{'test' if notice.test else notice.status}",
        "timestamp": rfc3339(notice.now_ns),
        "data": {
            "receiver": notice.receiver,
            "region": notice.region,
            "group": dict(notice.group),
            "more": notice.more,
            "alerts": [
                {
                    "fingerprint": a.fingerprint,
                    "state": word(a),
                    "severity": a.severity,
                    "news": a.fingerprint in notice.fresh,
                    "labels": a.labels,
                    "annotations": a.annotations,
                    "starts_at": rfc3339(a.starts_ns),
                    "ends_at": rfc3339(a.ends_ns) if a.ends_ns else None,
                    "link": notice.link(a),
                }
                for a in notice.alerts
            ],
        },
    }
