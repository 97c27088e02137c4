"""Every target once a round, evenly spread, from ports that cover their range."""

from __future__ import annotations

import itertools
from collections import Counter
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from contract.fleet import Fleet, Prober
from prober.plan import Plan, Target, sources_of, targets_of

SECOND = 1_000_000_000
SOURCES = (ip_address("198.18.1.1"), ip_address("198.18.1.2"), ip_address("2001:db8:18:1::1"))


def targets(count: int) -> list[Target]:
    return [Target(i + 1, ip_address("203.0.113.0") + i, 80) for i in range(count)]


@given(count=st.integers(1, 60), start=st.integers(0, 2**61), period=st.sampled_from([0.7, 1.0, 5.0]))
def test_a_round_probes_every_target_once_at_even_distances(count: int, start: int, period: float) -> None:
    plan = Plan(targets(count), SOURCES, period_s=period, phase=0.5)
    first = plan.slot_at(start)
    assert first is not None
    assert start <= plan.time_of(first) <= start + plan.period_ns / count + 1
    slots = range(first, first + 2 * count)
    times = [plan.time_of(s) for s in slots]
    shots = [plan.shot(s) for s in slots]
    assert Counter(s.target for s in shots) == dict.fromkeys(plan.targets, 2)
    assert all(abs(b - a - plan.period_ns / count) <= 1 for a, b in itertools.pairwise(times))
    for target in plan.targets:
        a, b = (t for t, s in zip(times, shots, strict=True) if s.target == target)
        assert b - a == plan.period_ns


def test_two_probers_are_half_a_slot_apart() -> None:
    a, b = (Plan(targets(10), SOURCES, period_s=5, phase=p) for p in (0.0, 0.5))
    assert b.time_of(70) - a.time_of(70) == SECOND // 4


def test_source_ports_use_the_whole_range_before_one_comes_again() -> None:
    plan = Plan(targets(3), SOURCES, period_s=5, ports=range(20_000, 20_100))
    ports = [plan.shot(s).source_port for s in range(1, 3 * 100, 3)]
    assert sorted(ports) == list(range(20_000, 20_100))
    # Evenly from the start: any 20 in a row leave no gap much wider than the golden ratio promises.
    few = sorted(ports[:20])
    assert max(b - a for a, b in itertools.pairwise(few)) <= 3 * 100 / 20


def test_sources_change_and_match_the_family() -> None:
    mixed = [*targets(1), Target(9, ip_address("2001:db8:113::9"), 80)]
    plan = Plan(mixed, SOURCES, period_s=5)
    seen = {(plan.shot(s).target.address.version, plan.shot(s).source) for s in range(20)}
    assert seen == {(4, SOURCES[0]), (4, SOURCES[1]), (6, SOURCES[2])}


def test_a_family_without_a_source_is_left_out_and_named() -> None:
    plan = Plan([Target(9, ip_address("2001:db8:113::9"), 80)], SOURCES[:2], period_s=5)
    assert plan.slot_at(0) is None
    assert [t.vip_id for t in plan.unreachable] == [9]


def test_the_rate_limit_stretches_the_period() -> None:
    plan = Plan(targets(50), SOURCES, period_s=1, max_rate=10)
    assert plan.stretched
    assert plan.time_of(50) - plan.time_of(0) == 5 * SECOND


def test_targets_are_the_tcp_listeners_that_may_be_probed(fleet: Fleet) -> None:
    assert {(t.vip_id, t.port) for t in targets_of(fleet)} == {(1, 80), (1, 81), (2, 80), (6, 80)}


def test_sources_lie_in_their_networks_and_ipv6_borrows_ipv4_low_bits() -> None:
    prober = Prober(name="p", sources=[ip_network("198.18.7.0/24"), ip_network("2001:db8:18:1::/64")])
    four = sources_of(prober, 4)[:4]
    six = sources_of(prober, 4)[4:]
    assert [str(a) for a in four] == ["198.18.7.1", "198.18.7.2", "198.18.7.3", "198.18.7.4"]
    assert [int(a) & 0xFFFF for a in six] == [int(a) & 0xFFFF for a in four]
    assert all(a in prober.sources[1] for a in six)


def test_a_small_network_gives_what_it_has() -> None:
    prober = Prober(name="p", sources=[ip_network("198.18.7.8/30"), ip_network("198.18.9.9/32")])
    assert [str(a) for a in sources_of(prober, 4)] == ["198.18.7.9", "198.18.7.10", "198.18.9.9"]
