"""Who is killed when: drawn once from a seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHORTEST_S, MEAN_S, LONGEST_S = 0.1, 2.7, 8.0


@dataclass(frozen=True, slots=True)
class Step:
    """`target` is killed `at_s` seconds after the beginning. `kind`: collector, warehouse, analyzer or node."""

    at_s: float
    kind: str
    target: str


def steps(seed: int, kills: int, targets: Mapping[str, Sequence[str]], mean_s: float = MEAN_S) -> list[Step]:
    """A plan of so many kills: in each round every kind once, in any order, and any process of the kind.

    The pauses are exponential with `mean_s` (SHORTEST_S to LONGEST_S), so some meet a process that is just starting.
    """
    rng = random.Random(seed)
    kinds = sorted(targets)
    at, out = 0.0, []
    for number in range(kills):
        if number % len(kinds) == 0:
            order = rng.sample(kinds, len(kinds))
        at += min(max(rng.expovariate(1 / mean_s), SHORTEST_S), LONGEST_S)
        kind = order[number % len(kinds)]
        out.append(Step(at, kind, rng.choice(list(targets[kind]))))
    return out
