"""The alerting parts alone, with two clocks in the test's hands: what is told to receivers that answer as they like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from analyzer.alerting import answer
from analyzer.alerting.alert import Alert
from analyzer.alerting.answer import Answer
from analyzer.alerting.deliver import Delivery, Outbox
from analyzer.alerting.groups import Groups
from analyzer.alerting.moment import Moment
from analyzer.alerting.notice import Notice, word
from analyzer.alerting.notify import Notifier
from analyzer.alerting.receivers.alertmanager_webhook import AlertmanagerWebhook
from analyzer.alerting.receivers.base import Receiver
from analyzer.alerting.silence import Silence
from analyzer.region import SECOND
from analyzer.store import Store

T = 1_800_000_000 * SECOND


def alert(
    family: str,
    subject: str,
    cluster: str = "clb-a",
    ends: int = 0,
    nodes: tuple[str, ...] = (),
    state: str = "open",
    starts: int = T,
) -> Alert:
    """An alert of a fault; over when `ends` is not 0."""
    name = {"node_down": "TgwNodeDown", "cluster_down": "TgwClusterDown"}.get(family, "TgwOther")
    labels = {"alertname": name, "region": "r", "cluster": cluster, "subject": subject, "severity": "critical"}
    annotations = {"summary": f"{subject} is in trouble", "incident": f"inc-{subject}", "state": state}
    severity = "warning" if state == "mitigated" else "critical"
    return Alert(
        f"inc-{subject}", f"{family}-{subject}", family, labels, annotations, nodes, (1,), starts, ends, severity, state
    )


def over(fault: Alert, ends: int = T + 1) -> Alert:
    """The same alert, over."""
    return replace(fault, ends_ns=ends, state="closed")


def mitigated(fault: Alert) -> Alert:
    """The same alert, its traffic clean."""
    return replace(fault, state="mitigated", severity="warning")


def receiver(**options: object) -> AlertmanagerWebhook:
    """A receiver that is never sent to."""
    return AlertmanagerWebhook.model_validate({"name": "ops", "url": "http://127.0.0.1:9/x", **options})


class Desk:
    """`hook` answers each delivery; `step` shifts the wall clock; `told` is what was taken."""

    def __init__(self, *receivers: Receiver, store: Store | None = None) -> None:
        self.store = store or Store(":memory:")
        self.receivers: Sequence[Receiver] = receivers or (receiver(),)
        self.mono, self.wall = 5_000 * SECOND, T
        self.hook: Callable[[Delivery], Answer | int] = lambda _: 200
        self.silences: list[Silence] = []
        self.alerts: list[Alert] = []
        self.tries: list[tuple[float, Notice]] = []
        self.told: list[Notice] = []
        self.restart()

    def restart(self, down_s: float = 0) -> None:
        """The process ends and begins again: its monotonic clock starts anew."""
        self.wall += int(down_s * SECOND)
        self.mono = 7 * SECOND
        self.gone: dict[str, str] = {}
        groups = Groups(self.store, [r.name for r in self.receivers], self.now)
        self.notifier = Notifier(self.receivers, self.store, groups, self.gone)
        self.outbox = Outbox(self.receivers, self.store, groups, self.gone, "r", "http://u")

    @property
    def now(self) -> Moment:
        return Moment(self.wall, self.mono)

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall += int(seconds * SECOND)

    def run(self, *alerts: Alert, seconds: float = 0) -> list[str]:
        """A look at these alerts now, and one each second for so long; what was taken meanwhile, as words."""
        self.alerts = list(alerts)
        before, end = len(self.told), self.mono + int(seconds * SECOND)
        while True:
            self.notifier.step(self.alerts, self.silences, self.now)
            for delivery in self.outbox.due(self.now):
                self.tries.append(((self.mono - 7 * SECOND) / SECOND, delivery.notice))
                said = self.hook(delivery)
                if not isinstance(said, Answer):
                    said = answer.of_http(said, {}, "", 0.0)
                if said.outcome == "taken":
                    self.told.append(delivery.notice)
                self.outbox.done(delivery, said, self.now)
            if self.mono >= end:
                return [words(n) for n in self.told[before:]]
            self.mono += SECOND
            self.wall += SECOND

    def rows(self) -> list[dict[str, Any]]:
        """The outbox, newest first."""
        return self.store.notifications(100)

    def decisions(self) -> list[str]:
        """What was decided, newest first."""
        return [d["decision"] for d in self.store.decisions(100, about="alert")]


def words(notice: Notice) -> str:
    """What a notice says, as "firing ld-a1, resolved ld-a2"."""
    return ", ".join(f"{word(a)} {a.labels['subject']}" for a in notice.alerts)
