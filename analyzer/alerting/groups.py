"""What each receiver was told of each group of alerts, and the one notification that may be on its way there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from analyzer.alerting.alert import Alert
from analyzer.alerting.moment import Moment
from analyzer.region import SECOND
from analyzer.store import Store

Because = Literal["news", "repeat", "keep-alive"]
KEPT = "groups"
FORGET_NS = 24 * 3600 * SECOND


@dataclass(slots=True)
class Attempt:
    """A notification that is to be taken. Its content is not kept: it is the present state, at every try.

    `id`: its row in the outbox, "" for a keep-alive, which has none. `due`: when it is tried next, `wait_s` after the
    last try.
    """

    id: str
    because: Because
    created_ns: int
    due: Moment
    wait_s: float = 0.0
    tries: int = 0
    incidents: set[str] = field(default_factory=set)
    under_way: bool = False


@dataclass(slots=True)
class Group:
    """`known`: fingerprint -> (start, the mark that the receiver took; "" while it is only owed).

    `refused`: the content that it will not have (not kept over a restart: by then somebody may have mended it).
    `concluded`, `alive`: when a notification was last taken or refused, and when it was last taken. `current`: the
    alerts of the last look, None before the first.
    """

    receiver: str
    key: str
    labels: dict[str, str]
    known: dict[str, tuple[int, str]] = field(default_factory=dict)
    refused: str = ""
    concluded: Moment | None = None
    alive: Moment | None = None
    count: int = 0
    attempt: Attempt | None = None
    current: tuple[Alert, ...] | None = None

    @property
    def place(self) -> str:
        return f"{self.receiver} {self.key}"

    def news(self) -> set[str]:
        """Fingerprints that the receiver has not taken as they are now. What is over is news: else it is forgotten."""
        out = set()
        for alert in self.current or ():
            if not alert.firing or self.known.get(alert.fingerprint, (0, ""))[1] != alert.mark:
                out.add(alert.fingerprint)
        return out

    def content(self) -> str:
        """A digest of what there is to say."""
        return content_of(self.current or ())


def content_of(alerts: Iterable[Alert]) -> str:
    """A digest of what a list of alerts says: equal only for equal states."""
    lines = sorted(f"{a.fingerprint} {a.mark} {a.ends_ns}" for a in alerts)
    return hashlib.sha256("\0".join(lines).encode()).hexdigest()[:32]


class Groups:
    """All groups, in memory and in the store."""

    def __init__(self, store: Store, receivers: Iterable[str], now: Moment) -> None:
        self._store = store
        self._all: dict[str, Group] = {}
        self._written: list[dict[str, Any]] = []
        names = set(receivers)
        for row in store.get(KEPT, []):
            group = _read(row, now)
            if group is not None and group.receiver in names:
                self._all[group.place] = group
        if store.get("told", {}):
            self._from_before(store.get("told", {}), names)
        mine = {g.attempt.id for g in self if g.attempt is not None}
        for row in store.pending():
            if row["id"] not in mine:
                error = "nobody waits for it any more"
                store.mark_delivery(row["id"], "dropped", row["attempts"], 0, now.wall_ns, error)

    def _from_before(self, told: dict[str, Any], names: set[str]) -> None:
        """What an analyzer of an earlier kind kept. What it had not delivered yet is owed again."""
        owed = {(r["receiver"], r["group_key"]) for r in self._store.pending()}
        for place, kept in told.items():
            receiver, _, key = place.partition(" ")
            if receiver not in names or place in self._all or not isinstance(kept, dict):
                continue
            group = self._all[place] = Group(receiver, key, {})
            for fingerprint, mark in dict(kept.get("firing") or {}).items():
                start = str(mark).split(" ")[0]
                if start.isdigit():
                    taken = "" if (receiver, key) in owed else str(mark)
                    group.known[fingerprint] = (int(start), taken)
        self._store.put("told", {})

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._all.values()))

    def find(self, receiver: str, key: str) -> Group | None:
        """The group, when something is known of it."""
        return self._all.get(f"{receiver} {key}")

    def of(self, receiver: str, key: str, labels: dict[str, str]) -> Group:
        """The group, made when it is new."""
        group = self._all.setdefault(f"{receiver} {key}", Group(receiver, key, labels))
        group.labels = labels or group.labels
        return group

    def by_receiver(self, receiver: str) -> list[Group]:
        """The groups that a receiver knows or is to know."""
        return [g for g in self._all.values() if g.receiver == receiver]

    def save(self, now: Moment) -> None:
        """Write them down, without those of which nothing is left to know."""
        for place, group in list(self._all.items()):
            old = group.concluded is None or now.mono_ns - group.concluded.mono_ns > FORGET_NS
            if not group.known and group.attempt is None and not group.current and old:
                del self._all[place]
        rows = [_write(g) for g in self]
        if rows != self._written:
            self._written = rows
            self._store.put(KEPT, rows)


def _write(group: Group) -> dict[str, Any]:
    attempt = group.attempt
    return {
        "receiver": group.receiver,
        "key": group.key,
        "labels": group.labels,
        "known": {k: list(v) for k, v in group.known.items()},
        "concluded_ns": None if group.concluded is None else group.concluded.wall_ns,
        "alive_ns": None if group.alive is None else group.alive.wall_ns,
        "count": group.count,
        "attempt": None
        if attempt is None or not attempt.id
        else {
            "id": attempt.id,
            "because": attempt.because,
            "created_ns": attempt.created_ns,
            "due_ns": attempt.due.wall_ns,
            "wait_s": attempt.wait_s,
            "tries": attempt.tries,
            "incidents": sorted(attempt.incidents),
        },
    }


def _read(row: Any, now: Moment) -> Group | None:
    """A group as it was kept; None when it is not what it should be: then everything that fires is told again."""
    try:
        attempt = row["attempt"]
        return Group(
            str(row["receiver"]),
            str(row["key"]),
            {str(k): str(v) for k, v in row["labels"].items()},
            {str(k): (int(start), str(mark)) for k, (start, mark) in row["known"].items()},
            "",
            None if row["concluded_ns"] is None else now.past(int(row["concluded_ns"])),
            None if row["alive_ns"] is None else now.past(int(row["alive_ns"])),
            int(row["count"]),
            None
            if attempt is None
            else Attempt(
                str(attempt["id"]),
                "repeat" if attempt["because"] == "repeat" else "news",
                int(attempt["created_ns"]),
                now.coming(int(attempt["due_ns"]), float(attempt["wait_s"])),
                float(attempt["wait_s"]),
                int(attempt["tries"]),
                {str(i) for i in attempt["incidents"]},
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
