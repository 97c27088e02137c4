"""From alerts to notifications: inhibit, silence, group, compare with what was said last, put into the outbox."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from analyzer.alerting.alert import Alert
from analyzer.alerting.inhibit import inhibited
from analyzer.alerting.payload import alertmanager, group_key
from analyzer.alerting.receivers import Receiver
from analyzer.alerting.silence import Silence, silenced
from analyzer.region import SECOND
from analyzer.store import Store


class Notifier:
    """Decides what each receiver is told and when. What was said is kept in the store."""

    def __init__(self, receivers: Sequence[Receiver], store: Store, url: str) -> None:
        self._receivers = receivers
        self._store = store
        self._url = url
        self._said: dict[str, str] = {}
        # (receiver, group key) -> {"firing": {fingerprint: mark}, "at": ns, "count": n}
        self._told: dict[str, dict[str, object]] = store.get("told", {})

    def _say(self, now_ns: int, receiver: str, alert: Alert, decision: str, reason: str) -> None:
        key = f"{receiver}/{alert.fingerprint}"
        if self._said.get(key) != decision + reason:
            self._said[key] = decision + reason
            self._store.add_decision(
                now_ns, "alert", f"{alert.labels['alertname']} {alert.labels['subject']}", decision,
                f"{receiver}: {reason}", alert.incident_id,
            )  # fmt: skip

    def step(self, alerts: Iterable[Alert], silences: Sequence[Silence], now_ns: int) -> list[str]:
        """Enqueue what is to be said now; the ids of the notifications. `alerts`: one for each incident, closed too."""
        alerts = list(alerts)
        firing = [a for a in alerts if a.firing]
        heard: list[tuple[Alert, str, str]] = []
        for alert in alerts:
            why = inhibited(alert, firing) if alert.firing else None
            word = "inhibited"
            if why is None:
                why, word = silenced(alert, silences, now_ns), "silenced"
            heard.append((alert, word, why or ""))
        out: list[str] = []
        for receiver in self._receivers:
            out += self._receiver(receiver, heard, now_ns)
        return out

    def _receiver(self, receiver: Receiver, heard: list[tuple[Alert, str, str]], now_ns: int) -> list[str]:
        groups: dict[str, tuple[dict[str, str], list[Alert]]] = {}
        for alert, word, why in heard:
            labels = {k: alert.labels[k] for k in receiver.group_by if k in alert.labels}
            key = group_key(labels)
            told = self._firing(receiver.name, key)
            if why and (alert.firing or alert.fingerprint not in told):
                if alert.firing:
                    self._say(now_ns, receiver.name, alert, word, why)
                    if alert.fingerprint in told:  # what people were told stays true until it ends
                        groups.setdefault(key, (labels, []))[1].append(alert)
                continue
            if not alert.firing and told.get(alert.fingerprint, "").split(" ")[0] != str(alert.starts_ns):
                continue  # nobody was told of it
            groups.setdefault(key, (labels, []))[1].append(alert)
        out = []
        for key, (labels, alerts) in groups.items():
            identity = self._group(receiver, key, labels, alerts, now_ns)
            if identity is not None:
                out.append(identity)
        return out

    def _firing(self, receiver: str, key: str) -> dict[str, str]:
        told = self._told.get(f"{receiver} {key}", {}).get("firing", {})
        return {k: str(v) for k, v in told.items()} if isinstance(told, dict) else {}

    def _group(
        self, receiver: Receiver, key: str, labels: dict[str, str], alerts: list[Alert], now_ns: int
    ) -> str | None:
        place = f"{receiver.name} {key}"
        told = self._told.get(place, {})
        before = self._firing(receiver.name, key)
        now_firing = {a.fingerprint: a.mark for a in alerts if a.firing}
        resolved = [a for a in alerts if not a.firing and a.fingerprint not in now_firing]
        at, count = int(str(told.get("at", 0))), int(str(told.get("count", 0)))
        changed = now_firing != before
        if not changed and not (now_firing and now_ns - at >= receiver.repeat_interval_s * SECOND):
            return None
        if not now_firing and not receiver.send_resolved:
            for alert in resolved:
                self._say(now_ns, receiver.name, alert, "not sent", "the receiver wants no resolved notifications")
            self._remember(place, {}, at, count)
            return None
        if at and now_ns - at < receiver.group_interval_s * SECOND:
            for alert in alerts:
                self._say(now_ns, receiver.name, alert, "held", "the group was notified a moment ago")
            return None
        said = [a for a in alerts if a.firing] + (resolved if receiver.send_resolved else [])
        body = json.dumps(alertmanager(receiver.name, labels, said, self._url))
        # The same decision taken again after a crash gives the same id, and the outbox keeps one of each.
        parts = [place, str(count), *(f"{a.fingerprint} {a.mark} {a.ends_ns}" for a in said)]
        identity = "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        incidents = sorted({a.incident_id for a in said})
        self._store.enqueue(identity, receiver.name, key, incidents, body, now_ns)
        for alert in said:
            what = ("mitigated" if alert.mitigated else "firing") if alert.firing else "resolved"
            self._say(now_ns, receiver.name, alert, "notified", f"{what}, as {identity}")
        self._remember(place, now_firing, now_ns, count + 1)
        return identity

    def _remember(self, place: str, firing: dict[str, str], at: int, count: int) -> None:
        self._told[place] = {"firing": firing, "at": at, "count": count}
        self._store.put("told", self._told)
