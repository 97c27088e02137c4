"""Which alert speaks for which: every rule, and each of its conditions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from analyzer.alerting.alert import ALERT_NAMES, Alert
from analyzer.alerting.inhibit import inhibited
from analyzer.region import SECOND
from contract.incidents import MITIGATED

T = 1_800_000_000 * SECOND
# A greater fault -> the families that it explains, and what the two must have in common.
RULES = {
    "cluster_down": {
        "node_down": "cluster",
        "jitter": "cluster",
        "feed_lost": "cluster",
        "vip_missing": "vip",
        "attack": "vip",
    },
    "node_down": {"feed_lost": "node", "jitter": "node", "vip_missing": "node", "real_server_dead": "node"},
    "collector_outage": {"feed_lost": "nothing", "prober_lost": "nothing"},
}


def alert(
    family: str,
    subject: str,
    *,
    cluster: str | None = None,
    nodes: tuple[str, ...] | None = None,
    vips: tuple[int, ...] | None = None,
) -> Alert:
    """Of its own cluster, node and VIP unless told otherwise."""
    labels = {"alertname": "x", "subject": subject, "cluster": cluster or f"c-{subject}"}
    own = (f"n-{subject}",) if nodes is None else nodes
    mine = (len(subject) + 100,) if vips is None else vips
    return Alert(f"inc-{subject}", f"{family}-{subject}", family, labels, {}, own, mine, T, 0)


SHARED: dict[str, dict[str, Any]] = {
    "cluster": {"cluster": "c"},
    "node": {"nodes": ("a", "n")},
    "vip": {"vips": (1, 9)},
}
PAIRS = [(greater, less) for greater in ALERT_NAMES for less in ALERT_NAMES]


@pytest.mark.parametrize(("greater", "less"), PAIRS)
@pytest.mark.parametrize("common", ["cluster", "node", "vip", "nothing"])
def test_a_rule_holds_for_what_it_names_and_for_no_other(greater: str, less: str, common: str) -> None:
    over = SHARED.get(common, {})
    small, great = alert(less, "small", **over), alert(greater, "greater", **over)
    needed = RULES.get(greater, {}).get(less)
    why = inhibited(small, [great])
    if needed is not None and needed in (common, "nothing"):
        assert why is not None
        assert why.startswith("inc-greater: ")
        assert "down" in why or "no feed" in why
    else:
        assert why is None


def test_one_shared_node_or_vip_of_many_is_enough() -> None:
    down = alert("node_down", "d", nodes=("x", "host-1"))
    assert inhibited(alert("real_server_dead", "rs", nodes=("host-1", "y")), [down])
    assert inhibited(alert("real_server_dead", "rs", nodes=("y",)), [down]) is None
    cluster = alert("cluster_down", "c", vips=(1, 2))
    assert inhibited(alert("vip_missing", "v", vips=(2, 3)), [cluster])
    assert inhibited(alert("vip_missing", "v", vips=(3,)), [cluster]) is None


def test_none_speaks_for_itself_and_the_first_that_does_is_named() -> None:
    down = alert("node_down", "d", nodes=("a",))
    assert inhibited(down, [down]) is None
    feed = alert("feed_lost", "f", nodes=("a",))
    assert (inhibited(feed, [alert("jitter", "j", nodes=("a",)), down]) or "").startswith("inc-d")
    outage = alert("collector_outage", "o")
    assert (inhibited(feed, [feed, outage, down]) or "").startswith("inc-o")


def test_a_reason_names_what_is_down() -> None:
    same: dict[str, Any] = {"cluster": "clb-a", "nodes": ("a",), "vips": (1,)}
    cluster, node = alert("cluster_down", "clb-a", **same), alert("node_down", "ld-a1", **same)
    assert inhibited(node, [cluster]) == "inc-clb-a: the whole cluster clb-a is down"
    assert inhibited(alert("attack", "v", **same), [cluster]) == "inc-clb-a: the cluster of its VIP is down"
    assert inhibited(alert("feed_lost", "f", **same), [node]) == "inc-ld-a1: ld-a1 is down"
    assert inhibited(alert("real_server_dead", "rs", **same), [node]) == "inc-ld-a1: its host is down"
    assert inhibited(alert("prober_lost", "p"), [alert("collector_outage", "o")]) == "inc-o: no feed lands at all"


@pytest.mark.parametrize(("greater", "less", "holds"), [
    ("cluster_down", "node_down", True),
    ("cluster_down", "feed_lost", True),
    ("node_down", "feed_lost", True),
    ("node_down", "real_server_dead", True),
    ("cluster_down", "jitter", False),
    ("cluster_down", "vip_missing", False),
    ("node_down", "jitter", False),
    ("node_down", "vip_missing", False),
])  # fmt: skip
def test_a_mitigated_fault_explains_what_is_dead_with_it_and_not_what_traffic_feels(
    greater: str, less: str, holds: bool
) -> None:
    same: dict[str, Any] = {"cluster": "c", "nodes": ("a",), "vips": (1,)}
    mitigated = dataclasses.replace(alert(greater, "g", **same), state=MITIGATED)
    assert (inhibited(alert(less, "l", **same), [mitigated]) is not None) is holds
    elsewhere = alert(less, "l", **same | {"nodes": ("b",)})
    assert inhibited(elsewhere, [mitigated]) is None, "it explains no more than its own nodes"
