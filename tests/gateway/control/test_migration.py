"""The migration machine at virtual time."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.migration import MOST_REPLANS, Limits, World, advance, judge, placed
from gateway.control.models import Migration, Move, State, Verdict
from gateway.control.sharding import Buffer

S = 1_000_000_000
LIMITS = Limits()
ALL = frozenset({1, 2})


def new(**over: Any) -> Migration:
    moves = [Move(vip_id=1, source="a", to="b1"), Move(vip_id=2, source="a", to="b2")]
    common = {"id": "m", "cluster": "a", "kind": "dispersed", "state": "planned", "requested_ns": 0}
    return Migration.model_validate(common | {"moves": moves} | over)


def world(live: str = "a b1 b2 b3", holds: str = "", announces: str = "") -> World:
    """Every cluster has one node, `n` + its name; a word `b1` in holds/announces: that node has all VIPs."""
    return World(
        live={c: [f"n{c}"] for c in live.split()},
        holds={f"n{c}": ALL for c in holds.split()},
        announces={f"n{c}": ALL for c in announces.split()},
        buffers=[Buffer(c, 10.0, 0.0) for c in ("b1", "b2", "b3") if c in live.split()],
        demand={1: 1.0, 2: 1.0},
    )


def at(state: State, **over: Any) -> Migration:
    return new(state=state, started_ns=0, deadline_ns=20 * S, **over)


CLEAN, SILENT = Verdict(clean=True, checked=6, silent=0), Verdict(clean=False, checked=6, silent=4)


def test_the_whole_way_with_a_dead_source() -> None:
    m = advance(new(), world(live="b1 b2"), LIMITS, 1)
    assert (m.state, m.started_ns) == ("configuring", 1)
    assert advance(m, world(live="b1 b2", holds="b1"), LIMITS, 2) is m, "every target must have acknowledged"
    m = advance(m, world(live="b1 b2", holds="b1 b2"), LIMITS, 2)
    assert m.state == "announcing"
    assert advance(m, world(live="b1 b2", holds="b1 b2", announces="b2"), LIMITS, 3) is m
    before, m = m, advance(m, world(live="b1 b2", holds="b1 b2", announces="b1 b2"), LIMITS, 3)
    assert (m.state, m.announced_ns) == ("verifying", 3)
    assert placed(before, m) == {1: "b1", 2: "b2"}
    assert advance(m, world(live="b1 b2"), LIMITS, 4) is m
    m = advance(judge(m, CLEAN), world(live="b1 b2"), LIMITS, 5)
    assert (m.state, m.finished_ns, m.active) == ("done", 5, False)
    assert advance(m, world(), LIMITS, 6) is m


def test_a_verdict_counts_in_verifying_alone() -> None:
    for state in ("planned", "configuring", "announcing", "done", "failed"):
        with pytest.raises(ValueError, match="verifying"):
            judge(at(state), CLEAN)


def test_a_buffer_that_dies_before_it_carries_anything_is_replaced() -> None:
    m = advance(at("configuring"), world(live="b1 b3", holds="b1"), LIMITS, 5)
    assert m.state == "configuring"
    assert [(x.vip_id, x.source, x.to) for x in m.moves] == [(1, "a", "b1"), (2, "a", "b3")]
    assert "b2" in m.detail
    assert m.deadline_ns == 5 + LIMITS.configure_ns


def test_a_buffer_that_does_not_acknowledge_in_time_is_replaced() -> None:
    m = at("configuring")
    assert advance(m, world(holds="b1"), LIMITS, 20 * S - 1) is m
    m = advance(m, world(holds="b1"), LIMITS, 20 * S)
    assert {x.to for x in m.moves} == {"b1", "b3"}


def test_without_another_buffer_it_fails_and_nothing_was_announced() -> None:
    m = advance(at("configuring"), dataclasses.replace(world(live="a"), buffers=[]), LIMITS, 5)
    assert (m.state, m.settling) == ("failed", False)
    assert "nothing was announced" in m.detail
    assert placed(at("configuring"), m) == {}


def test_it_does_not_replan_for_ever() -> None:
    m = at("configuring", replans=MOST_REPLANS)
    assert advance(m, world(live="a b1 b3", holds="b1"), LIMITS, 5).state == "failed"


def test_a_buffer_that_falls_under_traffic_is_not_replaced() -> None:
    m = advance(at("announcing"), world(live="a b1 b3", announces="b1"), LIMITS, 5)
    assert m.state == "verifying"
    assert {x.to for x in m.moves} == {"b1", "b2"}, "its traffic may have felled it: nobody else gets it"
    assert "b2 fell" in m.detail


def test_all_buffers_fallen_go_back_to_a_live_source() -> None:
    before = at("announcing")
    m = advance(before, world(live="a b3"), LIMITS, 5)
    assert (m.state, m.settling) == ("failed", True)
    assert advance(m, world(live="a", announces="a"), LIMITS, 6).state == "rolled_back"


def test_a_target_that_never_announces_rolls_back_to_a_live_source() -> None:
    m = advance(at("announcing"), world(announces="b1"), LIMITS, 20 * S)
    assert (m.state, m.settling) == ("failed", True)
    assert "b2 did not announce" in m.detail


def test_a_target_that_never_announces_is_left_behind_when_the_source_is_dead() -> None:
    m = advance(at("announcing"), world(live="b1 b2", announces="b1"), LIMITS, 20 * S)
    assert m.state == "verifying"
    assert "b2 did not announce" in m.detail


@pytest.mark.parametrize("verdict", [SILENT, None])
def test_a_failed_verification_goes_back_make_before_break(verdict: Verdict | None) -> None:
    m = at("verifying", verification=verdict)
    m = advance(m, world(announces="b1 b2"), LIMITS, 20 * S)
    assert (m.state, m.settling, m.finished_ns) == ("failed", True, None)
    assert advance(m, world(announces="b1 b2"), LIMITS, 21 * S) is m, "the targets announce until the source does"
    back = advance(m, world(announces="a b1 b2"), LIMITS, 22 * S)
    assert (back.state, back.settling, back.finished_ns) == ("rolled_back", False, 22 * S)
    assert placed(m, back) == {1: "a", 2: "a"}


def test_a_failed_verification_without_a_source_stays() -> None:
    m = advance(at("verifying", verification=SILENT), world(live="b1 b2"), LIMITS, 1)
    assert (m.state, m.settling) == ("failed", False)
    assert "4 of 6" in m.detail
    assert placed(at("verifying"), m) == {}


def test_a_source_that_dies_on_the_way_back_is_not_waited_for() -> None:
    m = at("failed", settling=True, detail="x; going back to the source")
    assert advance(m, world(live="b1 b2"), LIMITS, 1).state == "failed"
    late = advance(m, world(), LIMITS, 20 * S)
    assert (late.state, late.active) == ("failed", False)


def test_times_out_of_every_state() -> None:
    """No state waits for ever, whatever the nodes do."""
    for state in ("planned", "configuring", "announcing", "verifying"):
        m, now = new(state=state, deadline_ns=0 if state != "planned" else None), 0
        for _ in range(20):
            now += 100 * S
            m = advance(m, world(), LIMITS, now)
        assert not m.active, state


@st.composite
def worlds(draw: st.DrawFn) -> tuple[World, int, Verdict | None]:
    some = st.lists(st.sampled_from(["a", "b1", "b2", "b3"]), unique=True).map(" ".join)
    return (
        world(draw(some), draw(some), draw(some)),
        draw(st.integers(0, 15)),
        draw(st.sampled_from([None, CLEAN, SILENT])),
    )


@settings(max_examples=100)
@given(st.lists(worlds(), max_size=25))
def test_any_course_of_events_ends_and_never_skips_a_step(course: list[tuple[World, int, Verdict | None]]) -> None:
    order = ["planned", "configuring", "announcing", "verifying"]
    m, now = new(), 0
    for seen, seconds, verdict in course:
        now += seconds * S
        if verdict is not None and m.state == "verifying" and m.active:
            m = judge(m, verdict)
        before, m = m, advance(m, seen, LIMITS, now)
        if before.state in order and m.state in order and before.state != m.state:
            assert order.index(m.state) == order.index(before.state) + 1
        if m.state == "done":
            assert m.verification is not None
            assert m.verification.clean
        if before.state == "configuring" and m.state == "announcing":
            assert all(seen.all_have(t, {v}, seen.holds) for v, t in ((x.vip_id, x.to) for x in m.moves))
        assert {x.vip_id for x in m.moves} == {1, 2}, "no VIP is lost on the way"
        if not before.active:
            assert m is before, "an ended migration stays ended"
    for _ in range(20):
        now += 100 * S
        m = advance(m, world(), LIMITS, now)
    assert not m.active
