"""The plan of kills is the seed's alone, and fair."""

from __future__ import annotations

import itertools
from collections import Counter

from benchmarks.chaos import plan

TARGETS = {"node": ["ld-1", "ld-2"], "collector": ["collector"], "warehouse": ["warehouse"], "analyzer": ["analyzer"]}


def test_the_same_seed_gives_the_same_plan_whatever_the_order_of_kinds() -> None:
    one = plan.steps(7, 50, TARGETS)
    assert one == plan.steps(7, 50, dict(reversed(TARGETS.items())))
    assert one != plan.steps(8, 50, TARGETS)


def test_each_kind_is_killed_as_often_and_at_no_fixed_pace() -> None:
    steps = plan.steps(1, 200, TARGETS)
    assert Counter(s.kind for s in steps) == dict.fromkeys(TARGETS, 50)
    assert {s.target for s in steps if s.kind == "node"} == {"ld-1", "ld-2"}
    pauses = [b.at_s - a.at_s for a, b in itertools.pairwise(steps)]
    assert min(pauses) < 0.5, "some are killed while they start"
    assert max(pauses) > 5
    assert 400 < steps[-1].at_s < 680
