"""An action is explained by the death of a node of its own cluster, shortly before, and by nothing else."""

from __future__ import annotations

import pytest

from benchmarks.chaos.region import EXPLAINED_S, Kill, explained

T, S = 1_800_000_000_000_000_000, 1_000_000_000
OWN = {"ld-a1", "ld-a2"}


def kill(target: str, at_s: float, kind: str = "node") -> Kill:
    return Kill(kind, target, T + round(at_s * S), 1, False)


def test_the_latest_death_of_its_own_nodes_explains_it() -> None:
    kills = [kill("ld-a1", 0), kill("ld-a2", 5), kill("ld-b1", 6), kill("ld-a1", 30)]
    assert explained(kills, OWN, T + 12 * S) == "ld-a2 was killed 7.0 s before"
    assert explained(kills, OWN, T + 31 * S) == "ld-a1 was killed 1.0 s before"


@pytest.mark.parametrize(
    "kills",
    [
        [],
        [kill("collector", 9, "collector"), kill("warehouse", 9, "warehouse"), kill("analyzer", 9, "analyzer")],
        [kill("ld-b1", 9), kill("eip-1", 9)],
        [kill("ld-a1", 11)],
        [kill("ld-a1", 10 - EXPLAINED_S - 0.1)],
    ],
    ids=["nothing", "telemetry", "other-nodes", "later", "long-ago"],
)
def test_nothing_else_does(kills: list[Kill]) -> None:
    assert explained(kills, OWN, T + 10 * S) is None


def test_in_the_fabric_every_node_dies_at_once() -> None:
    assert explained([kill("fabric", 1)], OWN, T + 2 * S) == "fabric was killed 1.0 s before"
