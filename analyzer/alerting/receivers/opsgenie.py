"""Opsgenie, through its Alert API: an alert for each fault, by its alias; closed with it.

A second alert of the same alias is only counted there, so a priority that changed is set by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import HttpUrl

from analyzer.alerting.alert import Alert
from analyzer.alerting.notice import Notice, cut, one_line, word
from analyzer.alerting.receivers.base import JSON, Message, Post, Receiver, host_of

PRIORITY = {"critical": "P1", "warning": "P3", "info": "P5"}
MESSAGE, ALIAS, DESCRIPTION, ENTITY, DETAILS, TAG, NOTE = 130, 512, 15_000, 512, 8_000, 50, 25_000


class Opsgenie(Receiver):
    """Opsgenie, Alert API v2."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "opsgenie"
kind = "opsgenie"
api_key_file = "/etc/tgw/opsgenie.key"
url = "https://api.eu.opsgenie.com"     # optional: the EU's
tags = ["tgw"]
"""
    KEEPS_STATE: ClassVar[bool] = True
    MOST_ALERTS: ClassVar[int] = 20

    kind: Literal["opsgenie"] = "opsgenie"
    api_key_file: Path
    url: HttpUrl = HttpUrl("https://api.opsgenie.com")
    tags: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        return host_of(str(self.url))

    def secret_files(self) -> dict[str, Path]:
        return {"api_key_file": self.api_key_file}

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        base = f"{str(self.url).rstrip('/')}/v2/alerts"
        headers = {**JSON, "authorization": f"GenieKey {secrets['api_key_file']}"}
        out: list[Message] = []
        for alert in notice.news:
            alias = cut(f"tgw/{notice.region}/{alert.fingerprint}", ALIAS)
            there = f"{base}/{quote(alias, safe='')}"
            summary = alert.annotations["summary"]
            if not alert.firing:
                data = {"source": "tgw", "note": cut(summary, NOTE)}
                out.append(Post(f"{there}/close?identifierType=alias", json.dumps(data).encode(), headers))
                continue
            out.append(Post(base, json.dumps(self._alert(notice, alert, alias)).encode(), headers))
            priority = json.dumps({"priority": PRIORITY[alert.severity]}).encode()
            out.append(Post(f"{there}/priority?identifierType=alias", priority, headers, "PUT"))
            if alert.mitigated:
                note = json.dumps({"source": "tgw", "note": cut(summary, NOTE)}).encode()
                out.append(Post(f"{there}/notes?identifierType=alias", note, headers))
        return out

    def _alert(self, notice: Notice, alert: Alert, alias: str) -> dict[str, Any]:
        details = {"state": word(alert), "link": notice.link(alert), **alert.labels}
        while len(json.dumps(details)) > DETAILS:
            details.popitem()
        description = f"{alert.annotations.get('description', '')}\n{notice.link(alert)}"
        return {
            "message": cut(one_line(alert.annotations["summary"]), MESSAGE),
            "alias": alias,
            "description": cut(f"{alert.annotations['summary']}\n{description}", DESCRIPTION),
            "entity": cut(alert.labels.get("subject", ""), ENTITY),
            "source": "tgw",
            "priority": PRIORITY[alert.severity],
            "tags": [cut(t, TAG) for t in (*self.tags, notice.region)][:20],
            "details": details,
        }
