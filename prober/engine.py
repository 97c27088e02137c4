"""A prober without its socket: plan, mark, send, judge and record, driven by a clock and the frames that came in.

The process (prober/__main__.py) and a simulation drive the same engine.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from contract.colour import Address, is_cookie
from contract.documents import DocumentError, Problem
from contract.fleet import Fleet
from contract.vocabulary import Outcome
from prober.judge import Closed, Judge, Probe
from prober.mark import Exhausted, Marker
from prober.plan import Plan, Target, sources_of, targets_of
from prober.receive import Answer, Kind, mapped, parse
from prober.send import Link, Template, frame
from prober.settings import Limits

# A prober that was held up skips the slots it missed, rather than sending them in one burst.
_BEHIND_NS = 250_000_000
# Nobody waits for a probe to close to the millisecond: closing together saves most of the wake-ups.
_GRAIN_NS = 50_000_000


class Bucket:
    """A token bucket: at most `rate` a second, and a burst of half a second's worth."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._room = self._level = max(1.0, rate / 2)
        self._then: int | None = None

    def take(self, mono_ns: int) -> bool:
        """Whether one more may go now."""
        if self._then is not None:
            self._level = min(self._room, self._level + (mono_ns - self._then) * self._rate / 1e9)
        self._then = mono_ns
        if self._level < 1:
            return False
        self._level -= 1
        return True


class Engine:
    """One prober. Call `turn` when frames came in or its last answer (a time) is reached."""

    def __init__(
        self,
        name: str,
        key: bytes,
        limits: Limits,
        *,
        clock: Callable[[], tuple[int, int]],
        transmit: Callable[[bytes], bool],
        record: Callable[[Closed], bool],
        rng: random.Random,
    ) -> None:
        """`clock`: (monotonic ns, ns since 1970). `transmit`: put a frame on the wire, False when it would not go."""
        self.name = name
        self.counts: Counter[str] = Counter()
        self.link: Link | None = None
        self._key = key
        self._limits = limits
        self._clock = clock
        self._transmit = transmit
        self._record = record
        self._rng = rng
        self._marker = Marker(key, rng)
        self._judge = Judge(0, round(limits.settle_s * 1e9))
        self._resets = Bucket(limits.resets_per_s)
        self._plan: Plan | None = None
        self._slot: int | None = None
        self._templates: dict[tuple[Address, int], Template] = {}
        self._sources: frozenset[bytes] = frozenset()
        self._identification = rng.randrange(1 << 16)

    @property
    def plan(self) -> Plan | None:
        """The plan of the present fleet."""
        return self._plan

    @property
    def judge(self) -> Judge:
        """The judge of the open probes."""
        return self._judge

    def set_fleet(self, fleet: Fleet, source: str = "fleet") -> None:
        """Probe this fleet from now on. DocumentError, and nothing changes, when it does not name this prober."""
        names = [p.name for p in fleet.probing.probers]
        if self.name not in names:
            raise DocumentError(
                source, [Problem("probing.probers", f"expected a prober named {self.name!r}", ", ".join(names))]
            )
        index = names.index(self.name)
        sources = sources_of(fleet.probing.probers[index], self._limits.addresses_per_network)
        self._plan = Plan(
            targets_of(fleet),
            sources,
            period_s=fleet.probing.period_s,
            phase=index / len(names),
            ports=range(self._limits.source_port_low, self._limits.source_port_high),
            seed=self.name,
            max_rate=self._limits.probes_per_s,
        )
        self._judge.timeout_ns = round(fleet.probing.timeout_s * 1e9)
        self._sources = frozenset(mapped(s.packed) for s in sources)
        old, self._templates = self._templates, {}
        for target in self._plan.targets:
            end = target.address, target.port
            self._templates[end] = old.get(end) or Template(target)
        self._slot = self._plan.slot_at(self._clock()[1])

    def turn(self, received: Iterable[tuple[bytes, int]] = ()) -> int | None:
        """Take frames (with the time each came in, ns since 1970), send what is due, record what has closed.

        Returns when to turn again if nothing comes in [monotonic ns], None for never.
        """
        for data, at in received:
            self._take(data, at)
        self._shoot()
        mono, wall = self._clock()
        for closed in self._judge.expired(mono, wall):
            self._write(closed)
        return self._next(mono, wall)

    def stop_sending(self) -> None:
        """Send no more probes; answers are still taken and reset."""
        self._slot = None

    def close(self) -> int:
        """Record what is known; the number of probes that had no answer yet, which leave no record: nobody knows."""
        for closed in self._judge.settle():
            self._write(closed)
        return self._judge.undecided

    def _take(self, data: bytes, at: int) -> None:
        answer = parse(data)
        if answer is None or answer.source not in self._sources:
            self.counts["strange_frames"] += 1
            return
        mono, _ = self._clock()
        known = self._judge.answered(answer, mono, at)
        if answer.kind is not Kind.SYN_ACK:
            return
        if not known:
            # A SYN-ACK to a probe that closed long ago, or that an earlier life of this prober sent.
            if not is_cookie(self._key, answer.isn, at):
                self.counts["strange_frames"] += 1
                return
            self.counts["late"] += 1
        self._reset(answer, mono)

    def _reset(self, answer: Answer, mono: int) -> None:
        if not self._resets.take(mono):
            self.counts["resets_held_back"] += 1
            return
        end = _address(answer.vip), answer.vip_port
        # A target that has left the fleet since: its connection is reset all the same.
        template = self._templates.get(end) or Template(Target(0, *end))
        packet = template.rst(_address(answer.source), answer.source_port, answer.isn, self._ident())
        sent = self._put(packet)
        self.counts["resets" if sent else "resets_unsent"] += 1

    def _shoot(self) -> None:
        plan = self._plan
        while plan is not None and self._slot is not None:
            mono, wall = self._clock()
            due = plan.time_of(self._slot)
            if due > wall and due - wall <= plan.period_ns:
                return
            if due > wall or wall - due > _BEHIND_NS:
                # Held up, or the clock was set.
                again = plan.slot_at(wall)
                self.counts["skipped"] += max(0, (again or 0) - self._slot)
                self._slot = again
                continue
            self._probe(plan, self._slot, mono, wall)
            self._slot += 1

    def _probe(self, plan: Plan, slot: int, mono: int, wall: int) -> None:
        shot = plan.shot(slot)
        try:
            isn = self._marker.isn(shot.source, shot.source_port, wall)
        except Exhausted:
            self.counts["nonces_exhausted"] += 1
            return
        packet = self._templates[shot.target.address, shot.target.port].syn(
            shot.source, shot.source_port, isn, self._ident()
        )
        probe = Probe(
            shot.target.vip_id,
            mapped(shot.source.packed),
            shot.source_port,
            mapped(shot.target.address.packed),
            shot.target.port,
            isn,
            wall,
        )
        if self._put(packet):
            self.counts["sent"] += 1
            self._judge.sent(probe, mono)
        else:
            self._write(Closed(probe, Outcome.UNSENT, wall))

    def _put(self, packet: bytes) -> bool:
        data = None if self.link is None else frame(self.link, packet)
        return data is not None and self._transmit(data)

    def _ident(self) -> int:
        self._identification = self._identification + 1 & 0xFFFF
        return self._identification

    def _write(self, closed: Closed) -> None:
        self.counts[closed.outcome.name.lower()] += 1
        if not self._record(closed):
            self.counts["records_lost"] += 1

    def _next(self, mono: int, wall: int) -> int | None:
        deadline = self._judge.next_deadline()
        times = [None if deadline is None else -(-deadline // _GRAIN_NS) * _GRAIN_NS]
        if self._plan is not None and self._slot is not None:
            times.append(mono + max(0, self._plan.time_of(self._slot) - wall))
        known = [t for t in times if t is not None]
        return min(known) if known else None


def _address(packed: bytes) -> Address:
    six = IPv6Address(packed)
    four: IPv4Address | None = six.ipv4_mapped
    return four or six
