"""Sharding is complete, balanced, within capacity, and the same every time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.sharding import Buffer, NoCapacity, shard

demands = st.dictionaries(st.integers(1, 500), st.floats(0.1, 5), min_size=1, max_size=60)


@given(demands, st.integers(1, 12), st.integers(1, 12))
def test_equal_empty_buffers_share_evenly(demand: dict[int, float], count: int, k: int) -> None:
    buffers = [Buffer(f"b{i:02}", 1000.0, 0.0) for i in range(count)]
    found = shard(demand, buffers, k)
    assert set(found) == set(demand), "every VIP has a place"
    loads = dict.fromkeys((b.name for b in buffers), 0.0)
    for vip, name in found.items():
        loads[name] += demand[vip]
    used = sorted(loads.values(), reverse=True)[: min(k, count)]
    assert sum(used) == pytest.approx(sum(demand.values())), "k clusters at most"
    # The bound of this method: no two differ by more than the biggest single VIP.
    assert max(used) - min(used) <= max(demand.values()) + 1e-9
    assert found == shard(dict(reversed(demand.items())), list(reversed(buffers)), k)


@given(demands, st.lists(st.tuples(st.floats(0, 40), st.floats(0, 40)), max_size=8), st.integers(1, 8))
def test_no_buffer_carries_more_than_it_can(demand: dict[int, float], sizes: list[tuple[float, float]], k: int) -> None:
    buffers = [Buffer(f"b{i}", capacity, load) for i, (capacity, load) in enumerate(sizes)]
    try:
        found = shard(demand, buffers, k)
    except NoCapacity:
        return
    assert set(found) == set(demand)
    for b in buffers:
        more = sum(demand[v] for v, name in found.items() if name == b.name)
        assert more == 0 or b.load + more <= b.capacity * (1 + 1e-6)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
def test_the_biggest_go_first_or_there_would_be_no_room_for_them(order: tuple[int, ...]) -> None:
    demand = {1: 1.0, 2: 1.0, 3: 3.0}
    found = shard({vip: demand[vip] for vip in order}, [Buffer("a", 3.0, 0.0), Buffer("b", 2.0, 0.0)], 2)
    assert found == {1: "b", 2: "b", 3: "a"}
    # Of equal ones the lower id, of equally empty buffers the first by name.
    even = shard(dict.fromkeys(order, 1.0), [Buffer("b", 9.0, 0.0), Buffer("a", 9.0, 0.0)], 2)
    assert even == {1: "a", 2: "b", 3: "a"}


@given(st.lists(st.integers(1, 20), min_size=1, max_size=7), st.integers(1, 3))
def test_biggest_first_is_within_a_third_of_the_best_there_is(sizes: list[int], count: int) -> None:
    """The bound of this order (Graham, 1969), against every placement; other orders break it."""
    demand = {i: float(size) for i, size in enumerate(sizes, start=1)}
    buffers = [Buffer(f"b{i}", 1000.0, 0.0) for i in range(count)]
    found = shard(demand, buffers, count)
    worst = max(sum(demand[v] for v, name in found.items() if name == b.name) for b in buffers)
    best = min(
        max(sum(size for size, place in zip(sizes, places, strict=True) if place == i) for i in range(count))
        for places in itertools.product(range(count), repeat=len(sizes))
    )
    assert worst <= best * (4 / 3 - 1 / (3 * count)) + 1e-9


def test_the_least_loaded_are_chosen() -> None:
    buffers = [Buffer("full", 10, 9), Buffer("half", 10, 5), Buffer("empty", 10, 0)]
    assert set(shard({1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}, buffers, 2).values()) <= {"half", "empty"}


@pytest.mark.parametrize(
    ("buffers", "words"), [([], "no live buffer"), ([Buffer("a", 0, 0)], "no live"), ([Buffer("a", 5, 4.5)], "fits in")]
)
def test_what_does_not_fit_is_refused_with_the_numbers(buffers: list[Buffer], words: str) -> None:
    with pytest.raises(NoCapacity, match=words):
        shard({1: 1.0}, buffers, 3)
