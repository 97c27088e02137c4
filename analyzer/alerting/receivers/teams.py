"""Microsoft Teams, through a Workflows webhook that posts an Adaptive Card. Its URL is the secret."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from analyzer.alerting.alert import Alert
from analyzer.alerting.notice import Notice, cut, headline, one_line, word
from analyzer.alerting.receivers.base import JSON, Message, Post, SecretUrl

# A message has 28 KB at the most.
TITLE, SUMMARY, SHOWN = 200, 500, 15
COLOURS = {"firing": "attention", "mitigated": "warning", "resolved": "good"}


class Teams(SecretUrl):
    """Microsoft Teams, Workflows ("when a Teams webhook request is received")."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "teams"
kind = "teams"
url_file = "/etc/tgw/teams.url"
"""

    kind: Literal["teams"] = "teams"

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        return [Post(secrets["url_file"], json.dumps(body(notice)).encode(), JSON)]


def body(notice: Notice) -> dict[str, Any]:
    """The message with its card."""
    elements: list[dict[str, Any]] = [_run(cut(one_line(headline(notice)), TITLE), size="medium", weight="bolder")]
    for alert in notice.alerts[:SHOWN]:
        elements += _alert(alert)
    more = len(notice.alerts) - SHOWN + notice.more
    if more > 0:
        elements.append(_run(f"and {more} more"))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": elements,
    }
    if notice.alerts and not notice.test:
        link = {"type": "Action.OpenUrl", "title": "Evidence", "url": notice.link(notice.alerts[0])}
        card["actions"] = [link]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _alert(alert: Alert) -> list[dict[str, Any]]:
    state = word(alert)
    name = cut(one_line(f"{alert.labels['alertname']} {alert.labels.get('subject', '')}"), TITLE)
    return [
        _run(f"{state}, {alert.severity}: {name}", weight="bolder", color=COLOURS[state]),
        _run(cut(one_line(alert.annotations["summary"]), SUMMARY)),
    ]


def _run(text: str, **style: str) -> dict[str, Any]:
    """Text as it is: a TextBlock would read it as Markdown."""
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
