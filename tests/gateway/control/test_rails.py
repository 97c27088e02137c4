"""Every rail refuses what it is there for, by name and with a reason, and nothing else."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from contract.fleet import Policy
from gateway.control import rails
from gateway.control.models import Evidence, Migration, Move, Rail, Request, State
from tests.gateway.control.fakes import S, fleet

NOW = 1_700_000_000 * S
FLEET = fleet()
HOME = {v.id: v.cluster for v in FLEET.vips}
LIVE = {"clb-a": ["ld-a1", "ld-a2"], "clb-b": ["ld-b1", "ld-b2"], "buf-1": ["bl-1"]}
GOOD = Request(cluster="clb-a", reason="crash", requested_by="analyzer", evidence=Evidence(probers=2, vips=3))


def facts(**over: Any) -> rails.Facts:
    policy = FLEET.policy.model_copy(update=over.pop("policy", {}))
    return rails.Facts(FLEET, policy, **{"current": HOME, "migrations": [], "live": LIVE} | over)


def past(state: State = "done", ago_s: int = 60, **over: Any) -> Migration:
    moves = [Move(vip_id=v, source="clb-a", to="buf-1") for v in (1, 2, 3, 4, 5)]
    began = NOW - ago_s * S
    common = {"id": "mig-1", "cluster": "clb-a", "kind": "dispersed", "requested_ns": began, "started_ns": began}
    return Migration.model_validate(common | {"moves": moves, "state": state} | over)


def ask(f: rails.Facts, **over: Any) -> Rail | None:
    refusal = rails.check(GOOD.model_copy(update=over), f, NOW)
    return refusal.rail if refusal else None


def test_a_good_request_passes() -> None:
    assert rails.check(GOOD, facts(), NOW) is None


REFUSED = [
    ("unknown_cluster", facts(), {"cluster": "clb-z"}),
    ("unknown_cluster", facts(), {"cluster": "hosts"}),
    ("buffer_cluster_source", facts(), {"cluster": "buf-1"}),
    ("nothing_to_move", facts(current=dict.fromkeys(HOME, "buf-1")), {}),
    ("nothing_to_move", facts(), {"kind": "return"}),
    ("migration_running", facts(migrations=[past("verifying")]), {}),
    ("migration_running", facts(migrations=[past("failed", settling=True)]), {"force": True}),
    ("actions_disabled", facts(policy={"actions_enabled": False}), {}),
    ("actions_disabled", facts(policy={"actions_enabled": False}), {"force": True}),
    ("too_few_probers", facts(), {"evidence": Evidence(probers=1, vips=5)}),
    ("too_few_probers", facts(), {"evidence": None}),
    ("too_few_probers", facts(), {"evidence": Evidence(probers=1, vips=5), "force": True}),
    ("too_few_vips", facts(), {"evidence": Evidence(probers=2, vips=2)}),
    ("cooldown", facts(migrations=[past()]), {}),
    ("cooldown", facts(migrations=[past("rolled_back", ago_s=599)]), {}),
    ("nodes_out_share", facts(policy={"max_nodes_out_share": 0.1}), {}),
    ("nodes_out_share", facts(policy={"max_nodes_out_share": 0.1}), {"force": True}),
]


@pytest.mark.parametrize(("rail", "f", "over"), REFUSED)
def test_each_rail_refuses(rail: Rail, f: rails.Facts, over: dict[str, Any]) -> None:
    refusal = rails.check(GOOD.model_copy(update=over), f, NOW)
    assert refusal is not None
    assert refusal.rail == rail
    assert len(refusal.reason) > 10


def test_no_rail_is_without_a_test() -> None:
    elsewhere = {"dry_run", "no_buffer_capacity", "control_starting"}  # test_orchestrator.py: they need more than facts
    assert {r for r, _, _ in REFUSED} | elsewhere == set(get_args(Rail))


@pytest.mark.parametrize(
    ("f", "over"),
    [
        (facts(migrations=[past(ago_s=601)]), {}),
        (facts(migrations=[past()]), {"force": True}),
        (facts(migrations=[past("refused", started_ns=None)]), {}),
        (facts(migrations=[past()]), {"cluster": "clb-b", "evidence": Evidence(probers=2, vips=1)}),
        (facts(), {"evidence": None, "force": True}),
        (facts(policy={"max_nodes_out_share": 0.1}, live={}), {}),
    ],
    ids=["cooled", "forced", "refused-is-no-start", "other-cluster-few-vips", "person", "dead-cluster"],
)
def test_what_a_rail_must_let_pass(f: rails.Facts, over: dict[str, Any]) -> None:
    assert ask(f, **over) is None


def test_nodes_out_by_actions_add_up_and_those_out_by_faults_do_not() -> None:
    # 10 nodes of which 0.3 may be out: clb-a's two and clb-b's two are too many together.
    moved = HOME | dict.fromkeys(range(1, 6), "buf-1")
    other = {"cluster": "clb-b", "evidence": Evidence(probers=2, vips=1)}
    assert len(FLEET.nodes) == 10
    by_action = facts(current=moved, migrations=[past(nodes_out=["ld-a1", "ld-a2"])])
    assert ask(by_action, **other) == "nodes_out_share"
    assert ask(facts(current=moved, migrations=[past(nodes_out=[])]), **other) is None, "they were dead"
    assert ask(facts(migrations=[past(nodes_out=["ld-a1", "ld-a2"])]), **other) is None, "they are back"


def test_only_dispersed_migrations_that_have_begun_have_nodes_out() -> None:
    def out(migration: Migration, current: dict[int, str]) -> set[str]:
        return rails.nodes_out(facts(current=current, migrations=[migration]))

    moved, ld = HOME | dict.fromkeys(range(1, 6), "buf-1"), ["ld-a1"]
    assert out(past(nodes_out=ld), moved) == {"ld-a1"}
    assert out(past("verifying", nodes_out=ld), HOME) == {"ld-a1"}
    assert out(past(nodes_out=ld), HOME) == set()
    assert out(past(nodes_out=ld, started_ns=None), moved) == set()
    assert out(past(nodes_out=ld, kind="return"), moved) == set()
    gone = past(nodes_out=ld, moves=[Move(vip_id=99, source="clb-a", to="buf-1")])
    assert out(gone, moved) == set(), "its VIP is no longer in the document"


def test_the_default_policy_lets_two_of_twenty_nodes_be_relieved() -> None:
    assert Policy().max_nodes_out_share == 0.10
