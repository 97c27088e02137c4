"""Runs the analyzer against the test model at virtual time, second by second."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from analyzer.alerting import answer
from analyzer.alerting.moment import Moment
from analyzer.alerting.receivers.alertmanager_webhook import AlertmanagerWebhook, body
from analyzer.alerting.receivers.base import Receiver
from analyzer.engine import Engine
from analyzer.incident import Incident
from analyzer.region import SECOND, Region
from analyzer.remedy import Answer, PostMigration
from analyzer.store import Store
from contract.fleet import Fleet
from tests.analyzer.model import START, Model

RECEIVER = AlertmanagerWebhook.model_validate({"name": "ops", "url": "http://127.0.0.1:9/hook"})


class Story:
    """A model, an engine, and what was delivered. `hook` answers a notification, by its id, with an HTTP status."""

    def __init__(
        self,
        document: Fleet,
        *,
        seed: int = 1,
        store: Store | None = None,
        receivers: Sequence[Receiver] = (RECEIVER,),
    ) -> None:
        self.model = Model(document, seed)
        self.store = store or Store(":memory:")
        self.receivers = list(receivers)
        self.engine = Engine(Region(document), self.store, START, self.receivers, "http://analyzer")
        self.delivered: list[dict[str, Any]] = []
        self.delivered_ids: list[str] = []
        self.attempts: list[tuple[int, str]] = []
        self.hook: Callable[[str], int] = lambda _: 200
        self.blind = False  # the warehouse cannot be read

    def restart(self) -> None:
        """The analyzer's process is killed and started again on the same store."""
        self.engine = Engine(Region(self.model.fleet), self.store, self.model.now, self.receivers, "http://analyzer")

    def run(self, seconds: float, step_s: float = 1.0, until: Callable[[], bool] | None = None) -> float:
        """Go on for so long, or until a condition holds; the seconds that passed."""
        start = self.model.now
        end = start + int(seconds * SECOND)
        while self.model.now < end:
            self.step(int(step_s * SECOND))
            if until is not None and until():
                break
        return (self.model.now - start) / SECOND

    def step(self, ns: int = SECOND) -> None:
        model, engine = self.model, self.engine
        model.advance(model.now + ns)
        now = model.now
        rows = None if self.blind else model.read(now)
        look = engine.look(now, rows, model.control.view())
        for request in look.requests:
            if isinstance(request, PostMigration):
                status, document = model.control.post(request.body())
            else:
                status, document = model.control.verdict(request.migration_id, request.body())
            engine.take_answer(Answer(request, status, document), now)
        moment = Moment(now, now)
        for delivery in engine.outbox.due(moment):
            status = self.hook(delivery.id)
            self.attempts.append((now, delivery.id))
            if 200 <= status < 300:
                self.delivered.append(json.loads(json.dumps(body(delivery.notice))))
                self.delivered_ids.append(delivery.id)
            engine.outbox.done(delivery, answer.of_http(status, {}, "", 0.0), moment)
        self.store.commit()

    def told(self) -> list[str]:
        """What each delivered notification said of its alerts: firing, mitigated or resolved, in order of time."""
        out = []
        for said in self.delivered:
            words = {"mitigated" if _mitigated(a) else str(a["status"]) for a in said["alerts"]}
            out.append(", ".join(sorted(words)))
        return out

    def incidents(self, kind: str | None = None) -> list[Incident]:
        """Every incident so far, or those of a kind."""
        return [i for i in self.engine.book.incidents.values() if kind is None or i.kind == kind]

    def timeline(self, incident: Incident) -> str:
        """The events as text, for reading when a test fails."""
        events = self.store.events(incident.id)
        return "\n".join(f"{(e['ts_ns'] - START) / SECOND:8.1f} {e['kind']:<10} {e['text']}" for e in events)


def _mitigated(alert: dict[str, Any]) -> bool:
    return (alert["status"], alert["annotations"]["state"]) == ("firing", "mitigated")
