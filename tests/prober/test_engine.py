"""A whole prober at virtual time, against a network that a test plays."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from contract import colour
from contract.documents import DocumentError
from contract.fleet import Fleet
from contract.vocabulary import Outcome
from prober.engine import Bucket, Engine
from prober.judge import Closed
from prober.send import Link
from prober.settings import Limits

KEY = bytes(range(16))
MS, SECOND = 1_000_000, 1_000_000_000
WALL = 1_700_000_000_000_000_000
Play = Callable[[Packet], Packet | None]


class World:
    """A virtual clock and a network: each SYN is answered by `play`, a moment later."""

    def __init__(self, fleet: Fleet, play: Play, limits: Limits | None = None) -> None:
        self.now = 0
        self.play = play
        self.syns: list[tuple[int, Packet]] = []
        self.resets: list[tuple[int, Packet]] = []
        self.closed: list[Closed] = []
        self.waiting: list[tuple[int, bytes]] = []
        self.wire_up = True
        self.wall = WALL
        self.engine = Engine(
            "p1",
            KEY,
            limits or Limits(settle_s=0.1),
            clock=lambda: (self.now, self.wall + self.now),
            transmit=self.transmit,
            record=self.record,
            rng=random.Random(5),
        )
        self.engine.link = Link(b"\x02" * 6, b"\x04" * 6, b"\x06" * 6)
        self.engine.set_fleet(fleet)

    def record(self, closed: Closed) -> bool:
        self.closed.append(closed)
        return True

    def transmit(self, frame: bytes) -> bool:
        if not self.wire_up:
            return False
        packet = IP(frame[14:]) if frame[12:14] == b"\x08\x00" else IPv6(frame[14:])
        if packet[TCP].flags == "R":
            self.resets.append((self.now, packet))
            return True
        self.syns.append((self.now, packet))
        reply = self.play(packet)
        if reply is not None:
            self.deliver(reply, 3 * MS)
        return True

    def deliver(self, packet: Packet, after_ns: int) -> None:
        ethertype = b"\x08\x00" if isinstance(packet, IP) else b"\x86\xdd"
        self.waiting.append((self.now + after_ns, bytes(12) + ethertype + bytes(packet)))

    def run(self, seconds: float) -> None:
        end = self.now + round(seconds * SECOND)
        while True:
            ready = [(f, self.wall + at) for at, f in self.waiting if at <= self.now]
            self.waiting = [(at, f) for at, f in self.waiting if at > self.now]
            wake = self.engine.turn(ready)
            times = [at for at, _ in self.waiting] + ([wake] if wake is not None else [])
            following = min(times, default=end)
            if following >= end:
                self.now = end
                return
            assert following > self.now or following == wake, "a turn must not ask for itself again at once for ever"
            self.now = max(following, self.now)


def reply(syn: Packet, flags: str) -> Packet:
    over = type(syn)(src=syn.dst, dst=syn.src)
    return over / TCP(sport=syn.dport, dport=syn.sport, flags=flags, seq=77, ack=syn.seq + 1)


def test_healthy_probes_are_answered_and_reset_at_once(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: reply(syn, "SA"))
    world.run(5)
    assert len(world.syns) in range(19, 22)
    per_target = Counter((s.dst, s.dport) for _, s in world.syns)
    assert set(per_target) == {("203.0.113.1", 80), ("203.0.113.1", 81), ("203.0.113.2", 80), ("2001:db8:113::6", 80)}
    assert set(per_target.values()) <= {5, 6}
    for at, syn in world.syns[:-1]:
        (reset,) = [r for r in world.resets if r[1].sport == syn.sport and r[1][TCP].seq == (syn[TCP].seq + 1) % 2**32]
        assert reset[0] == at + 3 * MS
        assert reset[1].src == syn.src
        assert colour.is_cookie(KEY, syn[TCP].seq, WALL + at)
    assert {c.outcome for c in world.closed} == {Outcome.ANSWERED}
    assert {c.rtt_ns for c in world.closed} == {3 * MS}
    assert len(
        {colour.probe_id(ip_address(c.probe.source), c.probe.source_port, c.probe.isn) for c in world.closed}
    ) == len(world.closed)


def test_every_probe_ends_in_one_record(fleet: Fleet) -> None:
    rng = random.Random(3)

    def play(syn: Packet) -> Packet | None:
        return rng.choice([reply(syn, "SA"), reply(syn, "RA"), None])

    world = World(fleet, play)
    world.run(30)
    world.engine.stop_sending()
    world.run(2)
    assert Counter(c.probe.isn for c in world.closed) == Counter(s[TCP].seq for _, s in world.syns)
    assert {c.outcome for c in world.closed} == {Outcome.ANSWERED, Outcome.REFUSED, Outcome.SILENT}
    assert world.engine.close() == 0


def test_a_syn_ack_that_comes_again_is_reset_again_and_counted(fleet: Fleet) -> None:
    def play(syn: Packet) -> Packet:
        world.deliver(reply(syn, "SA"), 50 * MS)
        return reply(syn, "SA")

    world = World(fleet, play)
    world.run(3)
    assert {c.retransmits for c in world.closed} == {1}
    resets = Counter((r.dst, r.dport, r.sport, r[TCP].seq) for _, r in world.resets)
    assert set(list(resets.values())[:-2]) == {2}


def test_a_syn_ack_to_a_forgotten_probe_is_reset_by_its_cookie_alone(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: None)
    world.run(2)
    _, syn = world.syns[0]
    world.deliver(reply(syn, "SA"), 0)
    before = len(world.resets)
    world.run(0.01)
    assert len(world.resets) == before + 1
    assert world.engine.counts["late"] == 1


def test_strangers_get_nothing(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: None)
    stranger = IP(src="203.0.113.1", dst="198.18.1.1") / TCP(sport=80, dport=1, flags="SA", ack=12345)
    elsewhere = IP(src="203.0.113.1", dst="198.18.77.1") / TCP(sport=80, dport=1, flags="SA", ack=12345)
    for packet in (stranger, elsewhere):
        world.deliver(packet, 0)
    world.run(1)
    assert world.resets == []
    assert world.engine.counts["strange_frames"] == 2


def test_resets_are_bounded(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: None, Limits(resets_per_s=10))
    world.run(0.5)
    _, syn = world.syns[0]
    for _ in range(100):
        world.deliver(reply(syn, "SA"), 0)
    world.run(0.05)
    assert len(world.resets) == 5
    assert world.engine.counts["resets_held_back"] == 95


def test_what_cannot_be_sent_is_unsent(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: reply(syn, "SA"))
    world.wire_up = False
    world.run(2)
    assert {c.outcome for c in world.closed} == {Outcome.UNSENT}
    before = len(world.closed)
    world.wire_up, world.engine.link = True, Link(b"\x02" * 6, None, b"\x06" * 6)
    world.run(2)
    later = world.closed[before:]
    assert {c.outcome for c in later if c.probe.source[:12] == bytes(10) + b"\xff\xff"} == {Outcome.UNSENT}
    assert {c.outcome for c in later if c.probe.source[:12] != bytes(10) + b"\xff\xff"} == {Outcome.ANSWERED}


def test_a_prober_held_up_skips_and_does_not_burst(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: reply(syn, "SA"))
    world.run(1)
    world.now += 60 * SECOND
    before = len(world.syns)
    world.run(0.001)
    assert len(world.syns) - before <= 1
    assert world.engine.counts["skipped"] in range(238, 242)


@pytest.mark.parametrize("step", [-3600 * SECOND, 3600 * SECOND])
def test_a_set_clock_does_not_stop_the_probing(fleet: Fleet, step: int) -> None:
    world = World(fleet, lambda syn: reply(syn, "SA"))
    world.run(2)
    world.wall += step
    before = len(world.syns)
    world.run(2)
    assert len(world.syns) - before in range(7, 10)


def test_a_fleet_without_this_prober_is_refused_and_the_old_plan_stays(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: reply(syn, "SA"))
    other = fleet.model_copy(
        update={"probing": fleet.probing.model_copy(update={"probers": [fleet.probing.probers[1]]})}
    )
    plan = world.engine.plan
    with pytest.raises(DocumentError, match=r"probing.probers: expected a prober named 'p1'"):
        world.engine.set_fleet(other)
    assert world.engine.plan is plan


def test_a_vip_that_leaves_is_probed_no_more_and_its_open_probes_still_end(fleet: Fleet) -> None:
    world = World(fleet, lambda syn: None)
    world.run(0.9)
    world.engine.set_fleet(fleet.model_copy(update={"vips": [v for v in fleet.vips if v.id != 1]}))
    sent = len(world.syns)
    world.run(3)
    assert {s.dst for _, s in world.syns[sent:]} == {"203.0.113.2", "2001:db8:113::6"}
    assert sum(c.probe.vip_id == 1 for c in world.closed) == sum(s.dst == "203.0.113.1" for _, s in world.syns)


def test_the_bucket_refills_with_time() -> None:
    bucket = Bucket(4)
    assert [bucket.take(0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(250 * MS) for _ in range(2)] == [True, False]
