"""Sharding is complete, balanced, within capacity, and the same every time."""

from __future__ import annotations

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


def test_the_least_loaded_are_chosen() -> None:
    buffers = [Buffer("full", 10, 9), Buffer("half", 10, 5), Buffer("empty", 10, 0)]
    assert set(shard({1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}, buffers, 2).values()) <= {"half", "empty"}


@pytest.mark.parametrize(
    ("buffers", "words"), [([], "no live buffer"), ([Buffer("a", 0, 0)], "no live"), ([Buffer("a", 5, 4.5)], "fits in")]
)
def test_what_does_not_fit_is_refused_with_the_numbers(buffers: list[Buffer], words: str) -> None:
    with pytest.raises(NoCapacity, match=words):
        shard({1: 1.0}, buffers, 3)
