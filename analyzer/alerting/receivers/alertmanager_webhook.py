"""Alertmanager's webhook, version 4: for whatever understands what Alertmanager sends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import SecretStr, model_validator

from analyzer.alerting.notice import Notice, group_key, rfc3339
from analyzer.alerting.receivers.base import JSON, Authorized, Message, Post
from analyzer.alerting.sign import headers, key_of


class AlertmanagerWebhook(Authorized):
    """Alertmanager's webhook body, version 4 (the default kind); signed when it has a secret."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "ops"
url = "https://alerts.example.net/hook"
secret_file = "/etc/tgw/ops.secret"     # optional: whsec_ and base64, signs as Standard Webhooks do
token_file = "/etc/tgw/ops.token"       # optional: sent as a bearer token
"""
    KEEPS_STATE: ClassVar[bool] = True

    kind: Literal["alertmanager-webhook"] = "alertmanager-webhook"
    secret: SecretStr | None = None
    secret_file: Path | None = None

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("expected secret or secret_file, not both")
        if self.secret is not None:
            key_of(self.secret.get_secret_value())
        return self

    def secret_files(self) -> dict[str, Path]:
        more = {"secret_file": self.secret_file} if self.secret_file is not None else {}
        return super().secret_files() | more

    def secrets(self) -> dict[str, str]:
        found = super().secrets()
        if self.secret is not None:
            found["secret_file"] = self.secret.get_secret_value()
        if "secret_file" in found:
            key_of(found["secret_file"])
        return found

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        data = json.dumps(body(notice)).encode()
        signed = headers(secrets.get("secret_file"), notice.id, notice.now_ns // 10**9, data)
        return [Post(str(self.url), data, {**JSON, **signed, **self.authorization(secrets)})]


def body(notice: Notice) -> dict[str, Any]:
    """The webhook body of one group."""
    alerts = notice.alerts
    return {
        "version": "4",
        "groupKey": group_key(notice.group),
        "truncatedAlerts": notice.more,
        "status": notice.status,
        "receiver": notice.receiver,
        "groupLabels": dict(notice.group),
        "commonLabels": _common([a.labels for a in alerts]),
        "commonAnnotations": _common([a.annotations for a in alerts]),
        "externalURL": notice.url,
        "alerts": [
            {
                "status": "firing" if a.firing else "resolved",
                "labels": a.labels,
                "annotations": a.annotations,
                "startsAt": rfc3339(a.starts_ns),
                "endsAt": rfc3339(a.ends_ns),
                "generatorURL": notice.link(a),
                "fingerprint": a.fingerprint,
            }
            for a in alerts
        ],
    }


def _common(maps: Sequence[Mapping[str, str]]) -> dict[str, str]:
    if not maps:
        return {}
    return {k: v for k, v in maps[0].items() if all(m.get(k) == v for m in maps[1:])}
