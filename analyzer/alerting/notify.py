"""From alerts to notifications: inhibit, silence, group, compare with what each receiver took, decide what is due."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from analyzer.alerting.alert import Alert
from analyzer.alerting.groups import Attempt, Because, Group, Groups
from analyzer.alerting.inhibit import Greater, inhibited
from analyzer.alerting.moment import Moment
from analyzer.alerting.notice import group_key, word
from analyzer.alerting.receivers.base import Receiver
from analyzer.alerting.silence import Silence, silenced
from analyzer.region import SECOND
from analyzer.store import Store

Heard = list[tuple[Alert, str, str]]


class Notifier:
    """Decides what each receiver is told and when. `gone`: receivers that said they are no more, and what they said."""

    def __init__(self, receivers: Sequence[Receiver], store: Store, groups: Groups, gone: Mapping[str, str]) -> None:
        self._receivers = receivers
        self._store = store
        self._groups = groups
        self._gone = gone
        self._said: dict[str, str] = {}

    def _say(self, now: Moment, receiver: str, alert: Alert, decision: str, reason: str) -> None:
        key = f"{receiver}/{alert.fingerprint}"
        if self._said.get(key) != decision + reason:
            self._said[key] = decision + reason
            self._store.add_decision(
                now.wall_ns, "alert", f"{alert.labels['alertname']} {alert.labels['subject']}", decision,
                f"{receiver}: {reason}", alert.incident_id,
            )  # fmt: skip

    def step(self, alerts: Iterable[Alert], silences: Sequence[Silence], now: Moment) -> list[str]:
        """Decide what is to be said now; the ids of new notifications. `alerts`: one for each incident, closed too."""
        alerts = list(alerts)
        greater = Greater(a for a in alerts if a.firing)
        heard: Heard = []
        for alert in alerts:
            why = inhibited(alert, greater.than(alert)) if alert.firing else None
            verdict = "inhibited"
            if why is None:
                why, verdict = silenced(alert, silences, now.wall_ns), "silenced"
            heard.append((alert, verdict, why or ""))
        self._said = {k: v for k, v in self._said.items() if k.partition("/")[2] in {a.fingerprint for a in alerts}}
        out = []
        for receiver in self._receivers:
            out += self._receiver(receiver, heard, now)
        self._groups.save(now)
        return out

    def _receiver(self, receiver: Receiver, heard: Heard, now: Moment) -> list[str]:
        present: dict[str, tuple[dict[str, str], list[Alert]]] = {
            g.key: (g.labels, []) for g in self._groups.by_receiver(receiver.name)
        }
        for alert, verdict, why in heard:
            labels = {k: alert.labels[k] for k in receiver.group_by if k in alert.labels}
            key = group_key(labels)
            group = self._groups.find(receiver.name, key)
            known = group.known.get(alert.fingerprint) if group is not None else None
            if alert.firing and why:
                self._say(now, receiver.name, alert, verdict, why)
                if known is None:
                    continue  # what people were told stays true until it ends
            if not alert.firing and (known is None or known[0] != alert.starts_ns):
                continue  # nobody was told of it
            present.setdefault(key, (labels, []))[1].append(alert)
        out = []
        for key, (labels, alerts) in present.items():
            group = self._groups.of(receiver.name, key, labels)
            self._take(receiver, group, alerts, now)
            identity = self._decide(receiver, group, now)
            if identity:
                out.append(identity)
        return out

    def _take(self, receiver: Receiver, group: Group, alerts: list[Alert], now: Moment) -> None:
        """What there is to say in a group now."""
        firing = [a for a in alerts if a.firing]
        live = {a.fingerprint for a in firing}
        over = [a for a in alerts if a.fingerprint not in live]
        if not receiver.send_resolved:
            for alert in over:
                self._say(now, receiver.name, alert, "not sent", "the receiver wants no resolved notifications")
                del group.known[alert.fingerprint]
            over = []
        for fingerprint in group.known.keys() - live - {a.fingerprint for a in over}:
            del group.known[fingerprint]  # over for so long that nobody remembers it
        # The oldest first, and what is over at the end: a notification that is cut says the most important.
        group.current = (*sorted(firing, key=lambda a: (a.starts_ns, a.fingerprint)), *over)

    def _decide(self, receiver: Receiver, group: Group, now: Moment) -> str:
        current, news = group.current or (), group.news()
        since = None if group.concluded is None else now.mono_ns - group.concluded.mono_ns
        same = bool(group.refused) and group.content() == group.refused
        loud = same or any(a.firing and not a.mitigated for a in current)
        repeat = bool(current) and loud and since is not None and since >= receiver.repeat_interval_s * SECOND
        if receiver.name in self._gone:
            self._drop(group, "refused", self._gone[receiver.name], now)
            for alert in current:
                self._say(now, receiver.name, alert, "not sent", self._gone[receiver.name])
            return ""
        if group.attempt is not None and not self._still_wanted(group, bool(news)):
            self._drop(group, "dropped", "nothing is left to say", now)
        if group.attempt is not None and (group.attempt.id or group.attempt.under_way or not news):
            return ""
        if (news and not same) or repeat:
            if since is not None and since < receiver.group_interval_s * SECOND:
                for alert in current:
                    if alert.fingerprint in news:
                        self._say(now, receiver.name, alert, "held", "the group was notified a moment ago")
                return ""
            return self._begin(receiver, group, "repeat" if repeat else "news", now)
        if group.attempt is None and self._fades(receiver, group, now):
            group.attempt = Attempt("", "keep-alive", now.wall_ns, now)
        return ""

    @staticmethod
    def _fades(receiver: Receiver, group: Group, now: Moment) -> bool:
        """Whether a receiver that forgets what it does not hear of must hear of it again."""
        if receiver.keep_alive is None or group.alive is None or not any(a.firing for a in group.current or ()):
            return False
        return now.mono_ns - group.alive.mono_ns >= receiver.keep_alive * SECOND

    @staticmethod
    def _still_wanted(group: Group, news: bool) -> bool:
        if group.attempt is None or group.attempt.under_way:
            return True
        if group.attempt.because == "news":
            return news
        return any(a.firing for a in group.current or ()) or news

    def _drop(self, group: Group, state: str, why: str, now: Moment) -> None:
        attempt = group.attempt
        if attempt is None or attempt.under_way:
            return
        group.attempt = None
        if attempt.id:
            self._store.mark_delivery(attempt.id, state, attempt.tries, 0, now.wall_ns, why)

    def _begin(self, receiver: Receiver, group: Group, because: Because, now: Moment) -> str:
        for alert in group.current or ():
            if alert.firing:  # from now on it is owed: if it ends before anybody took it, its end is told
                group.known[alert.fingerprint] = (alert.starts_ns, group.known.get(alert.fingerprint, (0, ""))[1])
        parts = [self._store.id, group.place, str(group.count), str(now.wall_ns)]
        identity = "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        incidents = {a.incident_id for a in group.current or ()}
        group.attempt = Attempt(identity, because, now.wall_ns, now, incidents=incidents)
        said = [{"incident": a.incident_id, "state": word(a)} for a in group.current or ()]
        self._store.enqueue(identity, receiver.name, group.key, sorted(incidents), json.dumps(said), now.wall_ns)
        for alert in group.current or ():
            self._say(now, receiver.name, alert, "notified", f"{word(alert)}, as {identity}")
        return identity
