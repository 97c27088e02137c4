"""The outbox: one notification for each receiver and group, tried until it is taken or refused. The caller sends it.

A try says what is true when it is made. Only what a receiver refuses for good is left, until the group changes or its
repeat interval has passed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.alerting.answer import Answer
from analyzer.alerting.groups import Attempt, Group, Groups, content_of
from analyzer.alerting.moment import Moment
from analyzer.alerting.notice import Notice
from analyzer.alerting.receivers.base import Receiver
from analyzer.store import Store

FIRST_WAIT_S = 1
LONGEST_WAIT_S = 60
# So many attempts at once for one receiver: one that hangs must not hold everything that this process may open.
MOST_UNDER_WAY = 4


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt that is due. Hand it back with `done`, whatever happens."""

    notice: Notice
    receiver: str
    tries: int
    group: Group
    attempt: Attempt
    content: str

    @property
    def id(self) -> str:
        """Stays the same from try to try while the content does."""
        return self.notice.id


class Outbox:
    """What is due, and what became of it. `gone`: receivers that answered so."""

    def __init__(
        self, receivers: Sequence[Receiver], store: Store, groups: Groups, gone: dict[str, str], region: str, url: str
    ) -> None:
        self._receivers = {r.name: r for r in receivers}
        self._store = store
        self._groups = groups
        self._gone = gone
        self._region = region
        self.url = url

    def due(self, now: Moment) -> list[Delivery]:
        """What to send now."""
        out = []
        busy = dict.fromkeys(self._receivers, 0)
        for group in self._groups:
            if group.attempt is not None and group.attempt.under_way:
                busy[group.receiver] += 1
        for group in self._groups:
            attempt = group.attempt
            if attempt is None or attempt.under_way or not group.current or now.mono_ns < attempt.due.mono_ns:
                continue
            if group.receiver in self._gone or busy[group.receiver] >= MOST_UNDER_WAY:
                continue
            notice = self._notice(group, attempt, now)
            attempt.under_way = True
            busy[group.receiver] += 1
            out.append(Delivery(notice, group.receiver, attempt.tries, group, attempt, group.content()))
        return out

    def _notice(self, group: Group, attempt: Attempt, now: Moment) -> Notice:
        current, news = group.current or (), group.news()
        most = self._receivers[group.receiver].MOST_ALERTS
        fits = current
        if len(current) > most:  # news first: what does not fit comes with the next notification
            fits = tuple(sorted(current, key=lambda a: a.fingerprint not in news)[:most])
        parts = [attempt.id or f"{group.place} {attempt.created_ns}", content_of(fits)]
        identity = "msg_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        fresh = news if attempt.because == "news" else {a.fingerprint for a in current}
        return Notice(
            identity, group.receiver, self._region, group.labels, fits, self.url, now.wall_ns,
            frozenset(fresh & {a.fingerprint for a in fits}), len(current) - len(fits),
        )  # fmt: skip

    def done(self, delivery: Delivery, answer: Answer, now: Moment) -> str:
        """Note what came of an attempt: "delivered", "pending" or "refused"."""
        group, attempt = delivery.group, delivery.attempt
        if group.attempt is not attempt or not attempt.under_way:
            return "dropped"
        attempt.under_way = False
        attempt.tries += 1
        attempt.incidents |= {a.incident_id for a in delivery.notice.alerts}
        if answer.outcome == "later":
            wait = min(FIRST_WAIT_S * 2 ** min(attempt.tries - 1, 10), LONGEST_WAIT_S)
            attempt.wait_s = max(wait, answer.retry_after_s or 0)
            attempt.due = now.after(attempt.wait_s)
            self._write(group, attempt, "pending", answer, now)
            self._groups.save(now)
            return "pending"
        if answer.outcome == "taken":
            self._taken(group, delivery.notice, now)
        else:
            group.refused = delivery.content
            if answer.outcome == "gone":
                self._gone[group.receiver] = f"{answer.error}; not told anything more until the next start"
        # A keep-alive says nothing new: it does not put off the next repetition.
        if attempt.because != "keep-alive" or answer.outcome != "taken":
            group.concluded = now
            group.count += 1
        state = "delivered" if answer.outcome == "taken" else "refused"
        self._write(group, attempt, state, answer, now)
        group.attempt = None
        self._groups.save(now)
        return state

    def _taken(self, group: Group, notice: Notice, now: Moment) -> None:
        group.refused = ""
        group.alive = now
        for alert in notice.alerts:
            if alert.firing:
                group.known[alert.fingerprint] = (alert.starts_ns, alert.mark)
            elif group.known.get(alert.fingerprint, (0, ""))[0] == alert.starts_ns:
                del group.known[alert.fingerprint]

    def _write(self, group: Group, attempt: Attempt, state: str, answer: Answer, now: Moment) -> None:
        """The row of a notification. A keep-alive gets one when it goes wrong."""
        if not attempt.id:
            if answer.outcome == "taken":
                return
            parts = f"{self._store.id} {group.place} keep-alive {attempt.created_ns}"
            attempt.id = "msg_" + hashlib.sha256(parts.encode()).hexdigest()[:32]
            self._store.enqueue(attempt.id, group.receiver, group.key, sorted(attempt.incidents), "[]", now.wall_ns)
        next_ns = attempt.due.wall_ns if state == "pending" else 0
        self._store.mark_delivery(
            attempt.id, state, attempt.tries, next_ns, None if state == "pending" else now.wall_ns,
            None if state == "delivered" else answer.error or answer.outcome,
            status=answer.status, said=answer.said, tried_ns=now.wall_ns, incident_ids=sorted(attempt.incidents),
        )  # fmt: skip
