"""What became of each probe: a state machine over sent probes, answers and time. No I/O, no clock of its own.

sent -> answered (SYN-ACK; reset at once, and again each time it comes again)
     -> refused (RST) | silent (nothing within the time-out)
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass

from contract.vocabulary import Outcome
from prober.receive import Answer, Kind

_Key = tuple[int, int, bytes, int, bytes]


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe as it was sent. Addresses: 16 bytes, IPv4 mapped."""

    vip_id: int
    source: bytes
    source_port: int
    vip: bytes
    vip_port: int
    isn: int
    sent_ns: int  # since 1970

    @property
    def key(self) -> _Key:
        return self.isn, self.source_port, self.source, self.vip_port, self.vip


@dataclass(frozen=True, slots=True)
class Closed:
    """A probe and its outcome. `closed_ns`: when the outcome was known [ns since 1970]."""

    probe: Probe
    outcome: Outcome
    closed_ns: int
    rtt_ns: int = 0
    retransmits: int = 0
    reply_ttl: int = 0


@dataclass(slots=True)
class _Open:
    probe: Probe
    deadline: int
    answer: Closed | None = None
    retransmits: int = 0


class Judge:
    """Follows every open probe. Monotonic times decide when to close; wall times are only written down.

    An answered probe stays open for `settle_ns`, so that its record counts the SYN-ACKs that came again.
    """

    def __init__(self, timeout_ns: int, settle_ns: int) -> None:
        self.timeout_ns = timeout_ns
        self.settle_ns = settle_ns
        self.counts: Counter[str] = Counter()
        self._open: dict[_Key, _Open] = {}
        self._deadlines: list[tuple[int, _Key]] = []

    def __len__(self) -> int:
        return len(self._open)

    @property
    def undecided(self) -> int:
        """Open probes with no answer yet."""
        return sum(1 for o in self._open.values() if o.answer is None)

    def sent(self, probe: Probe, mono_ns: int) -> None:
        """A probe is on the wire."""
        self._schedule(_Open(probe, mono_ns + self.timeout_ns))

    def answered(self, answer: Answer, mono_ns: int, wall_ns: int) -> bool:
        """Take an answer that the kernel received at `wall_ns`; whether it belongs to an open probe."""
        key = (answer.isn, answer.source_port, answer.source, answer.vip_port, answer.vip)
        entry = self._open.get(key)
        if entry is None:
            return False
        if answer.kind is Kind.UNREACHABLE:
            # The vocabulary has no outcome for it: the probe goes on, and ends silent unless an answer comes after all.
            self.counts["unreachable"] += 1
            return True
        if entry.answer is not None:
            if answer.kind is Kind.SYN_ACK:
                entry.retransmits += 1
            else:
                self.counts["reset_after_answer"] += 1
            return True
        rtt = max(wall_ns - entry.probe.sent_ns, 0)
        if rtt > self.timeout_ns:
            self.counts["late"] += 1
            return True
        outcome = Outcome.ANSWERED if answer.kind is Kind.SYN_ACK else Outcome.REFUSED
        entry.answer = Closed(entry.probe, outcome, wall_ns, rtt, reply_ttl=answer.ttl)
        entry.deadline = mono_ns + (self.settle_ns if outcome is Outcome.ANSWERED else 0)
        heapq.heappush(self._deadlines, (entry.deadline, key))
        return True

    def expired(self, mono_ns: int, wall_ns: int) -> list[Closed]:
        """Close what is due, oldest first."""
        closed = []
        while self._deadlines and self._deadlines[0][0] <= mono_ns:
            deadline, key = heapq.heappop(self._deadlines)
            entry = self._open.get(key)
            # Two entries of one probe may stand in the heap; the one with its present deadline counts.
            if entry is not None and entry.deadline == deadline:
                del self._open[key]
                closed.append(self._close(entry, wall_ns))
        return closed

    def settle(self) -> list[Closed]:
        """Close every probe whose answer is known, now (the prober stops)."""
        known = [entry for entry in self._open.values() if entry.answer is not None]
        for entry in known:
            del self._open[entry.probe.key]
        return [self._close(entry, 0) for entry in known]

    def next_deadline(self) -> int | None:
        """When `expired` may next have something [monotonic ns]."""
        return self._deadlines[0][0] if self._deadlines else None

    def _schedule(self, entry: _Open) -> None:
        self._open[entry.probe.key] = entry
        heapq.heappush(self._deadlines, (entry.deadline, entry.probe.key))

    def _close(self, entry: _Open, wall_ns: int) -> Closed:
        if entry.answer is None:
            return Closed(entry.probe, Outcome.SILENT, wall_ns)
        known = entry.answer
        return Closed(known.probe, known.outcome, known.closed_ns, known.rtt_ns, entry.retransmits, known.reply_ttl)
