"""What a receiver is told: a group of alerts as it is now. Everything that a `render` may look at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from analyzer.alerting.alert import Alert

NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Notice:
    """`id` is the same only for the same content. `fresh`: fingerprints of what the receiver has not heard yet.

    `alerts`: those that fire and those just over; `more`: how many did not fit. `url`: where the analyzer's API is.
    """

    id: str
    receiver: str
    region: str
    group: Mapping[str, str]
    alerts: tuple[Alert, ...]
    url: str
    now_ns: int
    fresh: frozenset[str] = field(default_factory=frozenset)
    more: int = 0
    test: bool = False

    @property
    def firing(self) -> list[Alert]:
        return [a for a in self.alerts if a.firing]

    @property
    def status(self) -> str:
        return "firing" if self.firing else "resolved"

    @property
    def news(self) -> list[Alert]:
        """The alerts that the receiver has not heard of as they are now."""
        return [a for a in self.alerts if a.fingerprint in self.fresh]

    def link(self, alert: Alert) -> str:
        """Where the evidence of an alert is: on its dashboard where there is a Grafana, else at the API."""
        return alert.annotations.get("dashboard") or f"{self.url}/v1/incidents/{alert.incident_id}"


def word(alert: Alert) -> str:
    """firing, mitigated or resolved."""
    if not alert.firing:
        return "resolved"
    return "mitigated" if alert.mitigated else "firing"


def headline(notice: Notice) -> str:
    """One line for a subject or a title."""
    group = " ".join(v for _, v in sorted(notice.group.items())) or notice.region
    if len(notice.alerts) == 1:
        alert = notice.alerts[0]
        text = f"{alert.labels['alertname']} {alert.labels.get('subject', '')}".strip()
        return f"[{word(alert).upper()}] {text} ({group})"
    counts = {w: sum(1 for a in notice.alerts if word(a) == w) for w in ("firing", "mitigated", "resolved")}
    return f"[{', '.join(f'{n} {w}' for w, n in counts.items() if n).upper()}] {group}"


def cut(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def one_line(text: str) -> str:
    """Without control characters, which a header or a title must not have."""
    return "".join(c if c.isprintable() else " " for c in text)


def rfc3339(ts_ns: int) -> str:
    """A time as RFC 3339 with milliseconds; Alertmanager's zero time for 0."""
    if ts_ns == 0:
        return NEVER
    return datetime.fromtimestamp(ts_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def group_key(labels: Mapping[str, str]) -> str:
    """The name of a group, as Alertmanager writes it."""
    inner = ", ".join(f"{k}={json.dumps(v)}" for k, v in sorted(labels.items()))
    return f"{{}}:{{{inner}}}"
