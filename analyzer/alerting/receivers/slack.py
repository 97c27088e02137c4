"""Slack, through an incoming webhook. Its URL is the secret."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from analyzer.alerting.alert import Alert
from analyzer.alerting.notice import Notice, cut, headline, one_line, word
from analyzer.alerting.receivers.base import JSON, Message, Post, SecretUrl

# Of one text in a section 3,000 characters; of a header 150; 50 blocks; and all blocks together some 13,000.
HEADER, SECTION, SHOWN = 150, 900, 10
MARKS = {"firing": ":red_circle:", "mitigated": ":large_purple_circle:", "resolved": ":white_check_mark:"}


class Slack(SecretUrl):
    """Slack, incoming webhook."""

    EXAMPLE: ClassVar[str] = """\
[[receivers]]
name = "channel"
kind = "slack"
url_file = "/etc/tgw/slack.url"     # holds https://hooks.slack.com/services/...
"""

    kind: Literal["slack"] = "slack"

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        return [Post(secrets["url_file"], json.dumps(body(notice)).encode(), JSON)]


def body(notice: Notice) -> dict[str, Any]:
    """The message: a header, a section for each alert; `text` is what a phone shows."""
    title = cut(one_line(headline(notice)), HEADER)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": title}}]
    texts = [_section(notice, alert) for alert in notice.alerts[:SHOWN]]
    more = len(notice.alerts) - SHOWN + notice.more
    if more > 0:
        texts.append(f"and {more} more")
    blocks += [{"type": "section", "text": {"type": "mrkdwn", "text": text}} for text in texts]
    return {"text": escape(title), "blocks": blocks}


def _section(notice: Notice, alert: Alert) -> str:
    # Cut before it is escaped: half an entity would be shown as it stands.
    summary = escape(cut(one_line(alert.annotations["summary"]), SECTION // 2))
    name = escape(cut(one_line(f"{alert.labels['alertname']} {alert.labels.get('subject', '')}"), 120))
    link = f" <{escape(notice.link(alert))}|evidence>" if not notice.test else ""
    return f"{MARKS[word(alert)]} *{word(alert)}*, {alert.severity}: {name}\n{summary}{link}"


def escape(text: str) -> str:
    """Slack's three control characters, and what would be formatted."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, entity)
    return text
