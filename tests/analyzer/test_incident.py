"""The life of incidents: opened once, kept over restarts, explained by greater ones, closed and opened again."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from analyzer.api.app import State
from analyzer.incident import Incident, fingerprint
from analyzer.region import SECOND, Region
from analyzer.store import Store
from contract.fleet import Fleet
from contract.incidents import STATES
from dashboards.panels import STATES as SHOWN
from tests.analyzer.model import fleet
from tests.analyzer.story import Story


def test_fingerprints_are_stable_names() -> None:
    assert fingerprint("node_down", "ld-a1") == "416e87a28a2ce92e"
    assert fingerprint("node_down", "ld-a1") != fingerprint("jitter", "ld-a1")


def test_a_restart_in_the_middle_of_an_incident_goes_on_without_duplicates(tmp_path: Path) -> None:
    """The analyzer dies at another second of a story each time; there is one incident, one action, one alert."""
    for moment in range(1, 24, 3):
        store = Store(tmp_path / f"{moment}.sqlite")
        story = Story(fleet(), store=store)
        story.model.remembers = True
        story.run(40)
        story.model.kill("ld-a1")
        story.model.kill("ld-a2")
        story.run(moment)
        store.close()
        story.store = Store(tmp_path / f"{moment}.sqlite")
        story.model.replay()
        story.restart()
        story.run(50)
        assert [(i.kind, i.state) for i in story.incidents()] == [("cluster_down", "mitigated")], moment
        assert [m.state for m in story.model.control.migrations.values()] == ["done"], moment
        assert len(story.model.control.requests) == 1, moment
        assert story.told() == ["firing", "mitigated"], moment
        totals = story.engine.ledger.totals
        assert sum(totals.values()) <= len(story.model.sent), moment
        assert sum(totals.values()) > len(story.model.sent) - 80, moment
        story.store.close()


def test_an_answer_lost_in_a_restart_is_found_in_controls_list(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    with monkeypatch.context() as patched:
        patched.setattr(story.engine, "take_answer", lambda answer, now_ns: None)
        story.run(12, until=lambda: bool(story.model.control.requests))
    story.run(30)
    assert len(story.model.control.requests) == 1
    assert story.incidents()[0].state == "mitigated"


def test_a_node_that_dies_first_is_absorbed_by_its_cluster() -> None:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-a1")
    story.run(12)
    assert [i.kind for i in story.incidents()] == ["crash"]
    story.model.kill("ld-a2")
    story.run(12)
    kinds = {i.kind: i for i in story.incidents()}
    assert set(kinds) == {"crash", "cluster_down"}
    assert kinds["crash"].state == "closed"


def test_evidence_holds_numbers_samples_and_the_timeline_has_times() -> None:
    story = Story(fleet())
    story.run(40)
    fault = story.model.now
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(10)
    (incident,) = story.incidents()
    assert incident.evidence["seen"] == 0
    assert incident.evidence["expected"] >= 8
    assert incident.evidence["chance"] < 1e-5
    assert {n["kind"] for n in incident.evidence["nodes"].values()} == {"crash"}
    assert 1 <= len(incident.samples) <= 5
    for sample in incident.samples:
        assert [h["hop"] for h in sample["hops"] if h["verdict"] == "forwarded"] == ["eip_in"]
    events = story.store.events(incident.id)
    assert [e["kind"] for e in events[:2]] == ["first_look", "opened"]
    assert all(fault <= e["ts_ns"] <= story.model.now for e in events)
    assert incident.first_seen_ns <= incident.opened_ns < fault + 10 * SECOND


def test_a_node_that_came_back_and_fails_again_reopens_its_incident() -> None:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-a1")
    story.run(40)
    (incident,) = story.incidents()
    assert incident.state == "mitigated"
    story.model.revive("ld-a1")
    story.run(40)
    assert (incident.state, incident.cleared) == ("closed", True)
    assert incident.ended.startswith("ld-a1 forwards again")
    story.model.kill("ld-a1")
    story.run(12)
    assert [i.id for i in story.incidents()] == [incident.id]
    assert (incident.reopened, incident.is_open) == (1, True)
    assert story.told() == ["firing", "mitigated", "resolved", "firing"]


def test_an_incident_of_a_node_that_leaves_the_fleet_ends() -> None:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-buf1")
    story.run(30)
    (incident,) = story.incidents()
    assert incident.idle
    document = story.model.fleet.model_dump(mode="json")
    document["nodes"] = [n for n in document["nodes"] if n["name"] != "ld-buf1"]
    story.engine.exchange_region(Region(Fleet.model_validate(document), 2))
    story.run(5)
    assert incident.state == "closed", story.timeline(incident)
    assert "ld-buf1 is not of the fleet any more" in story.timeline(incident)


def test_an_incident_that_is_opened_again_waits_for_probes_sent_since() -> None:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-a1")
    story.run(40)
    (incident,) = story.incidents()
    story.model.revive("ld-a1")
    story.run(40)
    story.model.kill("ld-a1")
    story.run(12, until=lambda: incident.is_open)
    reopened = story.model.now
    story.run(40, until=lambda: incident.state == "mitigated")
    assert incident.state == "mitigated"
    # Two periods of probes, and what it takes to know that one is silent.
    assert story.model.now - reopened >= 2 * story.engine.region.period_ns


def mitigated(story: Story, node: str = "ld-a1") -> Incident:
    """The incident of a node that was killed, once its traffic is clean."""
    story.run(40)
    story.model.kill(node)
    story.run(45, until=lambda: bool(story.incidents()) and story.incidents()[0].state == "mitigated")
    (incident,) = story.incidents()
    assert incident.state == "mitigated", story.timeline(incident)
    return incident


def test_a_dead_node_is_never_called_resolved_however_clean_the_traffic_is() -> None:
    story = Story(fleet())
    incident = mitigated(story)
    story.run(300)
    assert (incident.state, incident.closed_ns) == ("mitigated", 0)
    assert story.told() == ["firing", "mitigated"]
    (alert,) = story.delivered[1]["alerts"]
    assert alert["annotations"]["severity_now"] == "warning"
    assert "1 of 2 LDs of clb-a left, carries 20 VIPs; one more loss moves them" in alert["annotations"]["summary"]


@pytest.mark.parametrize("end", ["revived", "drained", "removed"])
def test_a_mitigated_incident_ends_with_its_node(end: str) -> None:
    story = Story(fleet())
    incident = mitigated(story)
    if end == "revived":
        story.model.revive("ld-a1")
    elif end == "drained":
        story.model.drain("ld-a1")
    else:
        document = story.model.fleet.model_dump(mode="json")
        document["nodes"] = [n for n in document["nodes"] if n["name"] != "ld-a1"]
        story.engine.exchange_region(Region(Fleet.model_validate(document), 2))
    story.run(40, until=lambda: not incident.is_open)
    assert incident.state == "closed", story.timeline(incident)
    story.run(5)
    assert story.told() == ["firing", "mitigated", "resolved"]
    words = {"revived": "forwards again", "drained": "was drained", "removed": "is not of the fleet any more"}
    assert words[end] in incident.ended


def test_a_process_that_answers_while_its_workers_are_stuck_is_not_back() -> None:
    """Control reaches it and its traffic is clean; its speaker says that it does not forward."""
    story = Story(fleet())
    story.run(40)
    story.model.freeze("ld-b2")
    story.model.nodes["ld-b2"].unreachable_from = 1 << 62
    story.run(120)
    (incident,) = story.incidents()
    assert (incident.kind, incident.state) == ("hang", "mitigated"), story.timeline(incident)


def test_a_mitigated_node_that_breaks_something_again_fires_again() -> None:
    """It draws traffic again without forwarding it: routes that nobody withdrew."""
    story = Story(fleet())
    incident = mitigated(story)
    node = story.model.nodes["ld-a1"]
    node.routed_from, node.routed_until = story.model.now, 1 << 62
    story.run(20, until=lambda: incident.state != "mitigated")
    assert (incident.reopened, incident.severity) == (1, "critical"), story.timeline(incident)
    story.run(3)
    assert story.told() == ["firing", "mitigated", "firing"]
    assert not [r for r in story.model.control.requests if r["cluster"] != "clb-a"]
    node.routed_until = story.model.now
    story.run(60)
    assert story.told()[-1] == "mitigated"


def test_a_prober_that_loses_probes_does_not_make_a_dead_eip_node_fire_again() -> None:
    story = Story(fleet())
    incident = mitigated(story, "eip-1")
    story.model.uplink_loss["prober-2"] = 0.05
    story.run(120)
    assert (incident.state, incident.reopened) == ("mitigated", 0), story.timeline(incident)


def test_a_node_that_jittered_is_not_sound_because_it_has_nothing_to_do() -> None:
    """Its VIPs were moved away: it is watched until it forwards cleanly, is started again, drained or removed."""
    story = Story(fleet())
    story.run(40)
    story.model.nodes["ld-a2"].encap_fail = 1.0
    story.run(60)
    (incident,) = story.incidents()
    assert incident.state == "mitigated", story.timeline(incident)
    assert "ld-a2 is still not known to be sound" in story.timeline(incident)
    assert incident.standing == "1 of 2 LDs of clb-a left, carries no VIP"
    story.run(60)
    assert incident.state == "mitigated"
    story.model.nodes["ld-a2"].encap_fail = 0.0
    story.model.revive("ld-a2")
    story.run(20, until=lambda: not incident.is_open)
    assert "ld-a2 was started again" in story.timeline(incident), story.timeline(incident)


def test_redundancy_that_shrinks_while_an_incident_is_mitigated_stands_in_its_timeline() -> None:
    story = Story(fleet(lds=3))
    incident = mitigated(story)
    assert incident.standing == "2 of 3 LDs of clb-a left, carries 20 VIPs; one more loss is carried"
    story.model.drain("ld-a3")
    story.run(5)
    assert incident.standing == "1 of 2 LDs of clb-a left, carries 20 VIPs; one more loss moves them"
    assert incident.standing in story.timeline(incident)
    assert story.told() == ["firing", "mitigated"]  # told once


def test_a_clock_that_was_set_back_holds_no_incident_open() -> None:
    story = Story(fleet())
    story.run(40)
    story.model.refusing_servers.add(2)
    story.run(30, until=lambda: bool(story.incidents()))
    (incident,) = story.incidents()
    story.model.refusing_servers.clear()
    story.run(20)
    incident.last_seen_ns += 3600 * SECOND
    story.run(30, until=lambda: not incident.is_open)
    assert incident.state == "closed"


def test_every_state_is_known_wherever_states_are_listed() -> None:
    assert set(get_args(State)) == {*STATES, "active"}
    assert set(STATES) <= set(SHOWN)
    assert all(state.text for state in STATES.values())
