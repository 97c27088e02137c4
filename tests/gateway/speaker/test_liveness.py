"""The rule of the speaker at virtual time: what may be announced, given what is seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.speaker.liveness import Decision, Liveness, Routes, RoutesError, Sight

MS = 1_000_000
STALE = 500 * MS
ROUTES = Routes(7, "aa", 100, ("10.3.0.1/32",), ("203.0.113.1/32",), ("w0.tap", "w1.tap"))


class Node:
    """A node as the speaker sees it, and a clock."""

    def __init__(self, routes: Routes = ROUTES) -> None:
        self.liveness = Liveness(STALE)
        self.routes: Routes | None = routes
        self.now = 10**12
        self.beats: list[int | None] = [5, 5]
        self.beating = [True, True]
        self.alive = True

    def pass_ms(self, ms: int) -> bool:
        """Look every 100 ms; whether the last look announced."""
        out = False
        for _ in range(ms // 100):
            self.now += 100 * MS
            self.beats = [b + 1 if b is not None and on else b for b, on in zip(self.beats, self.beating, strict=True)]
            out = self.decide().alive
        return out

    def decide(self) -> Decision:
        return self.liveness.decide(Sight(self.routes, self.alive, tuple(self.beats)), self.now)


def test_announces_once_every_tap_has_been_seen_to_beat() -> None:
    node = Node()
    assert not node.decide().alive
    node.beating = [True, False]
    assert not node.pass_ms(300)
    node.beating = [True, True]
    assert node.pass_ms(100)
    decision = node.decide()
    assert (decision.epoch, decision.routes, decision.edge_routes) == (7, ROUTES.routes, ROUTES.edge_routes)


@pytest.mark.parametrize("worker", [0, 1])
def test_one_stalled_worker_withdraws_everything_within_the_limit(worker: int) -> None:
    node = Node()
    assert node.pass_ms(300)
    node.beating[worker] = False
    assert node.pass_ms(500), "within the limit it is only slow"
    assert not node.pass_ms(100)
    decision = node.decide()
    assert decision.routes == () == decision.edge_routes
    assert f"tap {worker}" in decision.reason
    node.beating[worker] = True
    assert node.pass_ms(100), "it is announced again as soon as it beats"


def test_a_late_look_at_a_beating_node_withdraws_nothing() -> None:
    node = Node()
    assert node.pass_ms(300)
    node.now += 30_000 * MS
    node.beats = [9, 9]
    assert node.decide().alive


def test_a_dead_process_withdraws_at_once_and_its_routes_never_come_back() -> None:
    node = Node()
    assert node.pass_ms(300)
    node.alive = False
    assert not node.decide().alive
    # Its process id may be another process now, and the file may be read again.
    node.alive = True
    assert not node.pass_ms(1000)
    assert "gone" in node.decide().reason


def test_the_next_life_is_announced_by_its_own_routes_and_its_own_beat() -> None:
    node = Node()
    assert node.pass_ms(300)
    node.alive = False
    assert not node.decide().alive
    node.alive = True
    node.routes = Routes(1, "bb", 101, ("10.3.0.9/32",), (), ("w0.tap", "w1.tap"))
    assert not node.decide().alive, "the heartbeat left by the former life proves nothing"
    assert node.pass_ms(100)
    assert node.decide().routes == ("10.3.0.9/32",)


def test_new_tables_of_the_same_life_change_the_set_without_a_gap() -> None:
    node = Node()
    assert node.pass_ms(300)
    node.routes = Routes(8, "aa", 100, (), (), ("w0.tap", "w1.tap"))
    decision = node.decide()
    assert decision.alive
    assert (decision.epoch, decision.routes) == (8, ())


@pytest.mark.parametrize("beats", [[None, 5], [5, None], []])
def test_no_tap_is_not_healthy(beats: list[int | None]) -> None:
    node = Node()
    node.beats = beats
    node.beating = [True] * len(beats)
    assert not node.pass_ms(1000)


def test_no_routes_file_announces_nothing() -> None:
    node = Node()
    assert node.pass_ms(300)
    node.routes = None
    assert not node.decide().alive


@given(st.lists(st.tuples(st.integers(1, 700), st.booleans(), st.booleans(), st.booleans()), max_size=60))
def test_never_announces_a_node_that_is_gone_or_has_not_moved_for_the_limit(
    steps: list[tuple[int, bool, bool, bool]],
) -> None:
    """Oracle: the times of movement, kept plainly."""
    liveness, now, beats, gone = Liveness(STALE), 0, [5, 5], False
    moved: list[int | None] = [None, None]
    liveness.decide(Sight(ROUTES, True, tuple(beats)), now)
    for ms, first, second, alive in steps:
        now += ms * MS
        gone |= not alive
        for tap, on in enumerate((first, second)):
            if on:
                beats[tap] += 1
                moved[tap] = now
        decision = liveness.decide(Sight(ROUTES, alive, tuple(beats)), now)
        if not gone:
            expected = all(m is not None and now - m <= STALE for m in moved)
            assert decision.alive == expected
        else:
            assert not decision.alive
        assert bool(decision.routes) == decision.alive


GOOD = {"epoch": 1, "boot_id": "aa", "pid": 5, "routes": ["10.3.0.1/32"], "edge_routes": [], "taps": ["x"]}


def test_routes_are_read_in_one_order_and_bad_ones_are_named() -> None:
    text = json.dumps(GOOD | {"routes": ["10.3.0.2/32", "fd00::1/128", "10.3.0.1/32", "10.3.0.1/24", "x; }", 7]})
    routes = Routes.parse(text)
    assert routes.routes == ("10.3.0.1/32", "10.3.0.2/32", "fd00::1/128")
    assert routes.refused == ("routes: '10.3.0.1/24'", "routes: 'x; }'", "routes: 7")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"epoch": "1"}, "epoch"),
        ({"pid": 0}, "pid"),
        ({"boot_id": ""}, "boot_id"),
        ({"routes": None}, "routes"),
        ({"edge_routes": "10.0.0.0/8"}, "edge_routes"),
        ({"taps": [1]}, "taps"),
    ],
)
def test_a_wrong_routes_file_is_refused_with_the_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(RoutesError, match=field):
        Routes.parse(json.dumps(GOOD | change))


@given(st.text(max_size=200))
def test_any_text_is_routes_or_refused(text: str) -> None:
    try:
        Routes.parse(text)
    except RoutesError:
        return
