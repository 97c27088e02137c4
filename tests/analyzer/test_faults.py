"""The faults that must be reported, each injected into the test model as ground truth, at virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analyzer.region import SECOND, Region
from contract.fleet import Fleet
from tests.analyzer.model import Model, fleet
from tests.analyzer.story import Story

WARM_S = 40
Inject = Callable[[Model], object]


def told(inject: Inject, kind: str, within_s: float, seed: int = 1, **options: object) -> Story:
    """A story in which exactly one incident of a kind opens within a time of the fault."""
    story = Story(fleet(**options), seed=seed)  # type: ignore[arg-type]
    story.run(WARM_S)
    assert not story.incidents()
    inject(story.model)
    took = story.run(within_s, until=lambda: bool(story.incidents()))
    found = story.incidents()
    assert [i.kind for i in found] == [kind], f"after {took} s"
    return story


def each(fault: Callable[[str], None], *nodes: str) -> None:
    for node in nodes:
        fault(node)


def quiet(story: Story, seconds: float) -> None:
    """Nothing more is opened for so long."""
    before = len(story.incidents())
    story.run(seconds)
    assert len(story.incidents()) == before, [i.summary for i in story.incidents()]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_killed_cluster_is_one_incident_and_its_vips_are_moved(seed: int) -> None:
    story = told(lambda m: each(m.kill, "ld-a1", "ld-a2"), "cluster_down", 10, seed)
    (incident,) = story.incidents()
    assert (incident.subject, incident.named_nodes) == ("clb-a", ["ld-a1", "ld-a2"])
    fault_ns = story.model.taps["ld-a1"].ended_ns
    story.run(45, until=lambda: incident.state == "mitigated")
    assert incident.state == "mitigated", story.timeline(incident)
    (migration,) = story.model.control.migrations.values()
    assert migration.state == "done"
    assert migration.finished_ns is not None
    assert migration.finished_ns - fault_ns < 45 * SECOND
    assert {c for c, _ in story.model.control.placed.values()} & {"clb-a"} == set()
    # One alert for it, and one word that its traffic is clean: both nodes are dead still.
    assert story.told() == ["firing", "mitigated"]
    assert [a["labels"]["alertname"] for d in story.delivered for a in d["alerts"]] == ["TgwClusterDown"] * 2
    quiet(story, 60)


def test_a_killed_node_is_named_and_its_cluster_carries_on() -> None:
    story = told(lambda m: m.kill("ld-a1"), "crash", 10)
    (incident,) = story.incidents()
    assert incident.named_nodes == ["ld-a1"]
    assert incident.evidence["feed"] == "ended"
    assert incident.evidence["localization"]["culprit"]["name"] == "ld-a1"
    assert incident.evidence["localization"]["margin"] > 3
    story.run(45, until=lambda: incident.state == "mitigated")
    assert (incident.state, incident.severity, incident.worst) == ("mitigated", "warning", "critical")
    assert incident.standing == "1 of 2 LDs of clb-a left, carries 20 VIPs; one more loss moves them"
    assert not story.model.control.requests
    why = [d for d in story.store.decisions(100, incident.id) if d["about"] == "remedy"]
    assert "carry 30, its VIPs need 20" in why[-1]["reason"]
    quiet(story, 120)  # it stays dead, and is not reported again
    assert (story.told(), incident.state) == (["firing", "mitigated"], "mitigated")


def test_a_killed_node_that_leaves_too_little_capacity_is_acted_upon() -> None:
    story = told(lambda m: m.kill("ld-a1"), "crash", 10, ld_capacity=15.0)
    story.run(45)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]


def test_a_frozen_node_hangs_and_its_feed_is_not_called_lost() -> None:
    story = told(lambda m: m.freeze("ld-b2"), "hang", 15)
    assert story.incidents()[0].named_nodes == ["ld-b2"]
    quiet(story, 60)


def test_a_frozen_cluster_is_moved() -> None:
    story = told(lambda m: each(m.freeze, "ld-b1", "ld-b2"), "cluster_down", 15)
    story.run(45)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]


def test_a_drained_node_is_no_incident_and_neither_is_its_return() -> None:
    story = Story(fleet())
    story.run(WARM_S)
    story.model.drain("ld-a1")
    story.run(60)
    assert story.engine.detector.reports["ld-a1"].verdict == "maintenance"
    story.model.undrain("ld-a1")
    story.run(60)
    assert not story.incidents()
    assert not story.delivered
    assert story.engine.detector.reports["ld-a1"].verdict == "ok"
    # It is watched again.
    story.model.kill("ld-a1")
    story.run(12)
    assert [i.kind for i in story.incidents()] == ["crash"]


@pytest.mark.parametrize("silent", ["no reports", "no records"])
def test_a_dead_exporter_is_a_lost_feed_and_never_an_action(silent: str) -> None:
    def inject(model: Model) -> None:
        if silent == "no reports":
            model.taps["ld-a1"].reported = False
        else:
            model.nodes["ld-a1"].records = False

    story = told(inject, "feed_lost", 15, ld_capacity=15.0)
    assert story.incidents()[0].named_nodes == ["ld-a1"]
    quiet(story, 60)
    assert not story.model.control.requests
    totals = story.engine.ledger.totals
    if silent == "no reports":
        assert totals["unexplained"] == 0
        assert totals["unknown_feed"] > 0
    else:
        assert totals["unexplained"] > 0


def test_a_collector_outage_freezes_actions_and_every_probe_is_closed_afterwards() -> None:
    def inject(model: Model) -> None:
        model.outage = (model.now, model.now + 120 * SECOND)

    story = told(inject, "collector_outage", 15)
    assert story.engine.frozen
    story.run(200)
    assert [i.state for i in story.incidents()] == ["closed"]
    assert not story.model.control.requests
    totals = story.engine.ledger.totals
    assert totals["answered"] == sum(totals.values())
    assert sum(totals.values()) > 0.95 * len(story.model.sent)


def test_a_crash_during_an_outage_is_acted_upon_only_after_it() -> None:
    story = Story(fleet())
    story.run(WARM_S)
    end = story.model.now + 60 * SECOND
    story.model.outage = (story.model.now, end)
    story.run(20)
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(40)
    assert not story.model.control.requests
    story.run(45)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]
    assert next(iter(story.model.control.migrations.values())).requested_ns >= end


def test_an_unreadable_warehouse_is_an_outage_too() -> None:
    story = Story(fleet())
    story.run(WARM_S)
    story.blind = True
    story.run(14)
    assert [i.kind for i in story.incidents()] == ["collector_outage"]
    story.blind = False
    story.run(40)
    assert [i.state for i in story.incidents()] == ["closed"]
    assert not story.model.control.requests


def test_batches_delivered_twice_and_late_change_nothing() -> None:
    story = Story(fleet())
    story.model.duplicates, story.model.late = 0.5, 0.02
    story.run(180)
    assert not story.incidents()
    totals = story.engine.ledger.totals
    assert totals["answered"] == sum(totals.values())
    assert sum(totals.values()) <= len(story.model.sent)


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_tunnel_failures_are_jitter_with_their_reason_and_the_vips_are_scattered(share: float) -> None:
    def inject(model: Model) -> None:
        model.nodes["ld-a2"].encap_fail = share

    story = told(inject, "jitter", 15)
    (incident,) = story.incidents()
    assert incident.named_nodes == ["ld-a2"]
    assert incident.evidence["reason"] == "TUNNEL_ENCAP_FAIL"
    story.run(50)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]
    assert incident.state == "mitigated", story.timeline(incident)


def test_a_dead_prober_is_named_and_nothing_is_done() -> None:
    def inject(model: Model) -> None:
        model.stopped_probers.add("prober-1")
        model.taps["prober-1"].alive = False
        model.taps["prober-1"].ended_ns = model.now

    story = told(inject, "prober_lost", 15)
    assert story.incidents()[0].subject == "prober-1"
    quiet(story, 60)
    assert not story.model.control.requests


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_lossy_uplink_is_the_probers_fault(seed: int) -> None:
    story = told(lambda m: m.uplink_loss.update({"prober-2": 0.05}), "prober_lost", 30, seed)
    assert story.incidents()[0].subject == "prober-2"
    quiet(story, 60)
    assert not story.model.control.requests


def test_a_dead_real_server_is_named_and_not_the_gateway() -> None:
    story = told(lambda m: m.dead_servers.add(2), "real_server_dead", 30)
    (incident,) = story.incidents()
    assert incident.subject == "rs-2"
    assert incident.named_nodes == []
    assert incident.evidence["localization"]["culprit"]["name"] == "rs-2"
    quiet(story, 60)
    assert not story.model.control.requests


def test_a_real_server_that_refuses_is_named_and_not_the_gateway() -> None:
    story = told(lambda m: m.refusing_servers.add(2), "real_server_dead", 30)
    (incident,) = story.incidents()
    assert incident.subject == "rs-2"
    assert "refused" in incident.summary
    assert incident.evidence["localization"]["culprit"]["name"] == "rs-2"
    quiet(story, 60)
    assert not story.model.control.requests
    story.model.refusing_servers.clear()
    story.run(60)
    assert [i.state for i in story.incidents()] == ["closed"]


def test_a_vip_missing_on_one_node_is_named() -> None:
    story = told(lambda m: m.nodes["ld-a1"].missing_vips.add(1), "vip_missing", 30)
    (incident,) = story.incidents()
    assert incident.subject == "vip-1@ld-a1"
    quiet(story, 60)
    assert not story.model.control.requests


def test_a_vip_limited_on_every_node_is_an_attack_and_is_not_scattered() -> None:
    story = told(lambda m: m.attacked.add(1), "attack", 20)
    assert story.incidents()[0].subject == "vip-1"
    quiet(story, 60)
    assert not story.model.control.requests


@pytest.mark.parametrize(("name", "role"), [("eip-1", "eip"), ("host-1", "vswitch")])
def test_a_killed_node_of_another_role_is_reported_only(name: str, role: str) -> None:
    story = told(lambda m: m.kill(name), "crash", 12)
    assert story.incidents()[0].named_nodes == [name]
    story.run(30)
    assert not story.model.control.requests


def test_two_faults_at_once_are_both_named() -> None:
    story = Story(fleet())
    story.run(WARM_S)
    story.model.nodes["ld-b1"].encap_fail = 0.5
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(45)
    assert {(i.kind, tuple(i.named_nodes)) for i in story.incidents()} >= {
        ("cluster_down", ("ld-a1", "ld-a2")),
        ("jitter", ("ld-b1",)),
    }
    clusters = [r["cluster"] for r in story.model.control.requests]
    assert sorted(clusters) == ["clb-a", "clb-b"]


def test_a_flapping_node_gets_at_most_one_action() -> None:
    story = Story(fleet(ld_capacity=15.0))
    story.run(WARM_S)
    for _ in range(5):
        story.model.kill("ld-a1")
        story.run(20)
        story.model.revive("ld-a1")
        story.run(20)
    done = [m for m in story.model.control.migrations.values() if m.cluster == "clb-a"]
    assert len(done) == 1


@pytest.mark.parametrize("seed", [7, 8])
def test_healthy_hours_raise_nothing(seed: int) -> None:
    """A share of row 21's week: late batches, duplicates, ECMP by chance, no fault."""
    story = Story(fleet(), seed=seed)
    story.model.late, story.model.duplicates = 0.01, 0.01
    story.run(900)
    assert not story.incidents(), [i.summary for i in story.incidents()]
    assert not story.model.control.requests
    assert not story.delivered
    totals = story.engine.ledger.totals
    assert totals["answered"] == sum(totals.values()) > 14_000


@pytest.mark.slow
def test_a_quarter_of_a_day_of_a_small_region_raises_nothing() -> None:
    document = fleet(vips=6, clusters=1, lds=2, buffers=1, hosts=2)
    story = Story(document, seed=11)
    story.run(6 * 3600)
    assert not story.incidents(), [i.summary for i in story.incidents()]


def test_lost_feeds_of_a_cluster_and_of_every_host_are_no_dead_cluster() -> None:
    """What is left of a journey are the records of the EIP nodes, which say through which LD the answer came."""

    def inject(model: Model) -> None:
        for name in ("ld-a1", "ld-a2", "host-1", "host-2", "host-3", "host-4"):
            model.nodes[name].records = False

    story = Story(fleet(ld_capacity=15.0))
    story.run(WARM_S)
    inject(story.model)
    story.run(60)
    assert {i.kind for i in story.incidents()} == {"feed_lost"}, [i.summary for i in story.incidents()]
    assert not story.model.control.requests


def test_probes_of_a_vip_that_has_left_the_fleet_are_nobodys_fault() -> None:
    story = Story(fleet())
    story.run(WARM_S)
    document = story.model.fleet.model_dump(mode="json")
    document["vips"] = [v for v in document["vips"] if v["id"] != 1]
    story.engine.exchange_region(Region(Fleet.model_validate(document), 2))
    for node in ("eip-1", "eip-2"):
        story.model.nodes[node].missing_vips.add(1)  # the probers have not heard of it yet
    quiet(story, 60)


def test_during_an_outage_an_incident_says_once_why_nothing_is_done() -> None:
    story = Story(fleet())
    story.run(WARM_S)
    story.model.control.answers = False
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(12, until=lambda: bool(story.incidents()))
    story.blind = True
    story.run(60)
    (incident,) = story.incidents("cluster_down")
    waits = [e["text"] for e in story.store.events(incident.id) if "actions are frozen" in e["text"]]
    assert len(waits) == 1, waits
