"""What detection says: findings, and the confirmation that a finding needs before anybody hears of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from analyzer.region import SECOND

# kind -> family. An incident's fingerprint is made of the family and the subject: a fault that first looked like a
# crash and turns out to be a hang is still the same incident.
FAMILY = {
    "crash": "node_down",
    "hang": "node_down",
    "isolated": "node_down",
    "cluster_down": "cluster_down",
    "jitter": "jitter",
    "feed_lost": "feed_lost",
    "collector_outage": "collector_outage",
    "real_server_dead": "real_server_dead",
    "prober_lost": "prober_lost",
    "vip_missing": "vip_missing",
    "attack": "attack",
}
# How long a finding must stand, seen in at least two looks with fresh rows, before it is confirmed.
PERSIST_NS = {
    "node_down": 8 * SECOND // 10,
    "cluster_down": 8 * SECOND // 10,
    "jitter": 8 * SECOND // 10,
    "feed_lost": 2 * SECOND,
    "collector_outage": 2 * SECOND,
    "real_server_dead": 2 * SECOND,
    "prober_lost": 3 * SECOND,
    "vip_missing": 3 * SECOND,
    "attack": 2 * SECOND,
}
FORGET_NS = 3 * SECOND


@dataclass(slots=True)
class Finding:
    """A departure from health. `horizon_ns`: records up to here were looked at. `samples`: probe ids that show it.

    `lost`: the probes of the window that no node of the tier recorded: when each came, and from which prober.
    """

    kind: str
    subject: str
    subject_type: str  # node | cluster | prober | vip | real_server | collector
    summary: str
    horizon_ns: int
    cluster: str = ""
    nodes: list[str] = field(default_factory=list)
    vips: list[int] = field(default_factory=list)
    probers: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)
    lost: list[tuple[int, str]] = field(default_factory=list)
    since_ns: int = 0
    looks: int = 1
    confirmed: bool = False

    @property
    def family(self) -> str:
        return FAMILY[self.kind]

    @property
    def key(self) -> tuple[str, str]:
        return self.family, self.subject


@dataclass(slots=True)
class _Streak:
    first_ns: int
    last_ns: int
    horizon_ns: int
    looks: int = 1


class Confirmation:
    """Counts the looks that showed the same finding. A look at the same rows again does not count."""

    def __init__(self) -> None:
        self._streaks: dict[tuple[str, str], _Streak] = {}

    def take(self, findings: list[Finding], now_ns: int) -> None:
        """Mark what is confirmed; forget streaks that were not seen for a while."""
        for finding in findings:
            streak = self._streaks.get(finding.key)
            if streak is None:
                streak = self._streaks[finding.key] = _Streak(now_ns, now_ns, finding.horizon_ns)
            else:
                streak.last_ns = now_ns
                if finding.horizon_ns > streak.horizon_ns:
                    streak.horizon_ns = finding.horizon_ns
                    streak.looks += 1
            finding.since_ns, finding.looks = streak.first_ns, streak.looks
            finding.confirmed = streak.looks >= 2 and now_ns - streak.first_ns >= PERSIST_NS[finding.family]
        for key in [k for k, s in self._streaks.items() if now_ns - s.last_ns > FORGET_NS]:
            del self._streaks[key]
