"""The orchestrator, its operators and its store together, over fake nodes at virtual time."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from contract.documents import DocumentError, check
from contract.fleet import Fleet
from gateway.control.models import Evidence, Request, State, Verdict
from gateway.control.orchestrator import Conflict, Unknown
from gateway.control.store import Store, StoreError
from tests.gateway.control.fakes import Region, document, fleet

CRASH = Request(
    cluster="clb-a", reason="crash", requested_by="analyzer", incident_id="inc-1", evidence=Evidence(probers=2, vips=5)
)
CLEAN, SILENT = Verdict(clean=True, checked=10, silent=0), Verdict(clean=False, checked=10, silent=9)
MOVED = (1, 2, 3, 4, 5)


@pytest.fixture
def region(tmp_path: Path) -> Region:
    return Region(tmp_path / "control.db").up()


def acked(region: Region, node: str) -> bool:
    link = region.control.link(node)
    assert link is not None, node
    return link.acked


def state(region: Region) -> State:
    return region.control.migrations()[-1].state


def test_every_node_gets_its_tables_and_acknowledges(region: Region) -> None:
    for name, node in region.client.nodes.items():
        assert node.epoch == 1, name
        assert acked(region, name)
    assert region.node("ld-a1").vips == set(MOVED)
    assert region.announcing(1) == {"ld-a1", "ld-a2"}
    assert all(len(n.taken) == 1 for n in region.client.nodes.values()), "nobody is told twice"


def test_a_dead_clusters_vips_are_scattered_verified_and_stay(region: Region) -> None:
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    m = region.control.request(CRASH)
    assert m.state == "configuring"
    assert {x.vip_id for x in m.moves} == set(MOVED)
    assert {x.to for x in m.moves} == {"buf-1", "buf-2", "buf-3"}
    region.run(5)
    assert state(region) == "verifying"
    for vip in MOVED:
        assert len(region.announcing(vip)) == 1
    m = region.control.verdict(m.id, CLEAN)
    assert m.state == "done"
    assert all(p.current.startswith("buf-") and p.migration == m.id for p in region.control.placement()[:5])
    # The dead nodes come back: they serve nothing until somebody returns the VIPs.
    for name in ("ld-a1", "ld-a2"):
        region.node(name).restart()
    region.run(4)
    assert region.node("ld-a1").vips == set()
    assert region.announcing(1) == {"bl-" + m.moves[0].to[-1]}
    back = region.control.request(CRASH.model_copy(update={"kind": "return", "force": True, "evidence": None}))
    region.run(5)
    region.control.verdict(back.id, CLEAN)
    region.run(1)
    assert region.announcing(1) == {"ld-a1", "ld-a2"}
    assert all(p.home == p.current for p in region.control.placement())


def test_somebody_announces_every_vip_all_the_time(region: Region) -> None:
    """A live source, as after jitter: at no moment is a VIP without a cluster, on the way there or back."""
    seen = []

    def watch(steps: int) -> None:
        for _ in range(steps):
            region.run(0.5)
            seen.append({v: region.announcing(v) for v in MOVED})

    m = region.control.request(CRASH)
    watch(8)
    assert state(region) == "verifying"
    assert not region.announcing(1) & {"ld-a1", "ld-a2"}
    region.control.verdict(m.id, SILENT)
    watch(8)
    assert state(region) == "rolled_back"
    assert region.announcing(1) == {"ld-a1", "ld-a2"}
    assert all(all(by_vip.values()) for by_vip in seen)
    assert {p.migration for p in region.control.placement()} == {None}
    assert region.node("bl-1").vips == set()


def test_tables_are_acknowledged_before_routes_are_announced(region: Region) -> None:
    m = region.control.request(CRASH)
    region.run(5)
    for name in ("bl-1", "bl-2", "bl-3"):
        taken = region.node(name).taken
        first = next(t for t in taken if t["clb"]["vips"])
        assert not [r for r in first["routes"] if r.startswith("10.4.")]
        assert [r for r in taken[-1]["routes"] if r.startswith("10.4.")]
    assert m.id


def test_a_buffer_that_dies_while_it_is_configured_is_replaced(region: Region) -> None:
    region.node("bl-2").refuses = True
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    region.control.request(CRASH)
    region.run(2)
    assert state(region) == "configuring"
    region.kill("bl-2")
    region.run(5)
    m = region.control.migrations()[-1]
    assert m.state == "verifying"
    assert {x.to for x in m.moves} == {"buf-1", "buf-3"}
    assert {x.vip_id for x in m.moves} == set(MOVED)


def test_an_unverified_move_of_a_dead_cluster_fails_and_stays(region: Region) -> None:
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    region.control.request(CRASH)
    region.run(70)
    m = region.control.migrations()[-1]
    assert (m.state, m.verification) == ("failed", None)
    assert region.announcing(1), "better unverified than nowhere"


def test_refusals_are_kept_once_with_their_rail(region: Region) -> None:
    region.control.set_rails({"actions_enabled": False}, "me", "test")
    for _ in range(5):
        m = region.control.request(CRASH)
        assert (m.state, m.refused_by) == ("refused", "actions_disabled")
    assert len(region.control.migrations()) == 1
    assert region.store.audit_entries(10)[0].result.startswith("refused by actions_disabled")
    assert region.node("bl-1").vips == set()


@pytest.mark.parametrize("by_rail", [True, False])
def test_a_dry_run_plans_and_does_nothing(region: Region, by_rail: bool) -> None:
    if by_rail:
        region.control.set_rails({"dry_run": True}, "me", "test")
    m = region.control.request(CRASH.model_copy(update={"dry_run": not by_rail}))
    assert m.state == "dry_run"
    assert m.refused_by == ("dry_run" if by_rail else None)
    assert {x.vip_id for x in m.moves} == set(MOVED)
    region.run(5)
    assert region.node("bl-1").vips == set()
    assert region.announcing(1) == {"ld-a1", "ld-a2"}


def test_too_little_room_is_refused_with_the_numbers(tmp_path: Path) -> None:
    region = Region(tmp_path / "control.db").up()
    region.kill("bl-1", "bl-2", "bl-3")
    region.run(3)
    m = region.control.request(CRASH)
    assert (m.refused_by, m.detail) == ("no_buffer_capacity", "no live buffer cluster")


def test_a_second_migration_waits_for_the_cooldown(region: Region) -> None:
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    m = region.control.request(CRASH)
    assert region.control.request(CRASH).refused_by == "migration_running"
    region.run(5)
    assert region.control.verdict(m.id, SILENT).state == "failed"
    for name in ("ld-a1", "ld-a2"):
        region.node(name).restart()
    region.run(5)
    back = CRASH.model_copy(update={"kind": "return"})
    assert region.control.request(back).refused_by == "cooldown"
    region.run(600, step_s=5)
    assert region.control.request(back).state == "configuring"


def test_maintenance_takes_the_routes_and_leaves_the_tables(region: Region) -> None:
    region.control.maintain("ld-a1", True, "me", "disk")
    region.run(2)
    assert region.announcing(1) == {"ld-a2"}
    assert region.node("ld-a1").vips == set(MOVED)
    assert region.node("ld-a1").tables["routes"] == []
    states = {n.name: region.control.node_state(n) for n in region.fleet.nodes}
    assert states["ld-a1"] == "maintenance"
    region.control.maintain("ld-a1", False, "me", "")
    region.run(2)
    assert region.announcing(1) == {"ld-a1", "ld-a2"}
    with pytest.raises(Unknown):
        region.control.maintain("nobody", True, "me", "")


def test_a_restarted_node_gets_everything_again(region: Region) -> None:
    region.node("ld-a1").restart()
    assert region.node("ld-a1").vips == set()
    region.run(2)
    assert region.node("ld-a1").vips == set(MOVED)


def test_a_restart_of_control_tells_nobody_anything_new(region: Region, tmp_path: Path) -> None:
    region.control.maintain("ld-b1", True, "me", "x")
    region.run(2)
    before = {n: (x.epoch, len(x.taken)) for n, x in region.client.nodes.items()}
    region.store.close()
    again = Region(tmp_path / "control.db", region.client)
    again.now = region.now
    again.run(5)
    assert again.control.epoch == 1
    assert {n: (x.epoch, len(x.taken)) for n, x in region.client.nodes.items()} == before
    assert all(acked(again, n) for n in region.client.nodes)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 6])
def test_a_restart_in_the_middle_of_a_migration_finishes_it(region: Region, tmp_path: Path, steps: int) -> None:
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    m = region.control.request(CRASH)
    region.run(0.5 * steps)
    region.store.close()
    again = Region(tmp_path / "control.db", region.client)
    again.now = region.now
    again.run(6)
    assert again.control.migration(m.id).state == "verifying"
    assert again.control.verdict(m.id, CLEAN).state == "done"
    assert all(len(again.announcing(v)) == 1 for v in MOVED)


def test_after_a_restart_nobody_is_taken_for_dead_before_it_was_asked(region: Region, tmp_path: Path) -> None:
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    m = region.control.request(CRASH)
    region.store.close()
    again = Region(tmp_path / "control.db", region.client)
    again.now = region.now
    again.control.tick()
    assert again.control.migration(m.id).state == "configuring"
    assert again.control.request(CRASH.model_copy(update={"cluster": "clb-b"})).refused_by == "control_starting"
    again.run(1)
    assert not again.control.heard(), "the dead have not missed enough yet"
    again.run(3)
    assert again.control.migration(m.id).state == "verifying"


def test_a_lost_store_goes_on_above_the_epochs_of_the_nodes(region: Region, tmp_path: Path) -> None:
    for _ in range(3):
        region.control.maintain("ld-a1", True, "me", "x")
        region.run(1)
        region.control.maintain("ld-a1", False, "me", "x")
        region.run(1)
    assert region.node("ld-a1").epoch == 7
    lost = Region(tmp_path / "other.db", region.client).up()
    lost.run(3)
    assert region.node("ld-a1").epoch == 8
    assert acked(lost, "ld-a1")


def test_a_node_that_leaves_the_document_is_told_to_announce_nothing(region: Region) -> None:
    smaller = document()
    smaller["nodes"] = [n for n in smaller["nodes"] if n["name"] != "ld-a2"]
    region.apply(check(smaller, Fleet, "x"))
    region.run(1)
    assert region.node("ld-a2").tables["routes"] == []
    assert region.control.link("ld-a2") is None


def test_the_same_document_changes_nothing_and_another_rises(region: Region) -> None:
    assert region.control.apply_fleet(fleet(), "again") == 1
    assert region.control.apply_fleet(fleet(vips=7), "more") == 2
    region.run(2)
    assert region.node("ld-a1").vips == {1, 2, 3, 4, 5, 6}


def test_a_new_document_keeps_moved_vips_where_they_are_and_sets_the_rails(region: Region) -> None:
    m = region.control.request(CRASH)
    with pytest.raises(Conflict, match=m.id):
        region.control.apply_fleet(fleet(buffers=1), "x")
    region.run(5)
    region.control.verdict(m.id, CLEAN)
    where = region.control.current()
    region.control.set_rails({"cooldown_s": 5.0}, "me", "")
    region.control.apply_fleet(fleet(vips=7), "x")
    assert region.control.rails.cooldown_s == 5.0, "the policy of the document has not changed"
    assert {v: region.control.current()[v] for v in MOVED} == {v: where[v] for v in MOVED}
    region.control.apply_fleet(fleet(vips=7, dry_run=True), "x")
    assert region.control.rails.dry_run is True
    region.apply(fleet(buffers=1, vips=3))
    assert all(c in ("clb-a", "clb-b", "buf-1") for c in region.control.current().values()), "their buffer is no more"


def test_wrong_rails_are_refused_and_nothing_changes(region: Region) -> None:
    before = region.control.rails
    for change in ({}, {"cooldown_s": -1}, {"on_crash": "panic"}, {"max_nodes_out_share": None}):
        with pytest.raises(DocumentError):
            region.control.set_rails(change, "me", "")
    assert region.control.rails == before


def test_the_audit_cannot_be_changed(region: Region, tmp_path: Path) -> None:
    assert region.store.audit_entries(10)
    with sqlite3.connect(tmp_path / "control.db") as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("UPDATE audit SET who = 'nobody'")
    with sqlite3.connect(tmp_path / "control.db") as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute("DELETE FROM audit")


def test_half_a_transaction_is_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.db")

    def half() -> None:
        with store.transaction():
            store.add_fleet(fleet(), "x", 1)
            with store.transaction():
                store.set_node_epoch("n", 1, "d")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        half()
    assert store.fleet() is None
    assert store.node_epochs() == {}


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("not a database, and long enough to be read as one" * 50)
    with pytest.raises(StoreError, match=r"x\.db"):
        Store(tmp_path / "x.db")
    Store(tmp_path / "y.db").close()
    with sqlite3.connect(tmp_path / "y.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="version 99"):
        Store(tmp_path / "y.db")


def test_a_node_with_an_absurd_epoch_does_not_end_control(region: Region) -> None:
    region.node("ld-a1").epoch = 2**63 - 1
    region.run(3)
    assert acked(region, "ld-a2")


def test_a_switch_that_a_person_has_thrown_outlasts_another_change_of_the_policy(region: Region) -> None:
    region.control.set_rails({"actions_enabled": False}, "me", "I am looking")
    region.apply(fleet(min_vips=2))
    assert region.control.rails.min_vips == 2
    assert region.control.rails.actions_enabled is False
    assert region.control.request(CRASH).refused_by == "actions_disabled"
    region.apply(fleet(actions_enabled=False))
    region.apply(fleet(actions_enabled=True))
    assert region.control.rails.actions_enabled is True, "the document has said so itself"
