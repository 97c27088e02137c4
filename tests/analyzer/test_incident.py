"""The life of incidents: opened once, kept over restarts, explained by greater ones, closed and opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.incident import fingerprint
from analyzer.region import SECOND, Region
from analyzer.store import Store
from contract.fleet import Fleet
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
        assert [(i.kind, i.state) for i in story.incidents()] == [("cluster_down", "closed")], moment
        assert [m.state for m in story.model.control.migrations.values()] == ["done"], moment
        assert len(story.model.control.requests) == 1, moment
        assert [d["status"] for d in story.delivered] == ["firing", "resolved"], moment
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
    assert story.incidents()[0].state == "closed"


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
    assert incident.state == "closed"
    story.model.revive("ld-a1")
    story.run(40)
    assert incident.cleared
    story.model.kill("ld-a1")
    story.run(12)
    assert [i.id for i in story.incidents()] == [incident.id]
    assert (incident.reopened, incident.is_open) == (1, True)
    assert [d["status"] for d in story.delivered] == ["firing", "resolved", "firing"]


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
    story.run(40, until=lambda: not incident.is_open)
    assert not incident.is_open
    # Two periods of probes, and what it takes to know that one is silent.
    assert story.model.now - reopened >= 2 * story.engine.region.period_ns
