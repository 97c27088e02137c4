"""What is done and what is not, each with its reason: policy, rails, refusals, verdicts of probes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from analyzer.region import Situation
from analyzer.remedy import decide
from tests.analyzer.model import Model, fleet
from tests.analyzer.story import Story


def kill_cluster(model: Model) -> None:
    model.kill("ld-a1")
    model.kill("ld-a2")


def story_of(policy: dict[str, Any] | None = None, **options: Any) -> Story:
    story = Story(fleet(policy=policy, **options))
    story.run(40)
    return story


def reasons(story: Story) -> list[str]:
    return [f"{d['decision']}: {d['reason']}" for d in reversed(story.store.decisions(100, about="remedy"))]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"actions_enabled": False}, "no_action: actions are switched off"),
        ({"on_crash": "report"}, "no_action: policy on_crash: report"),
    ],
)
def test_policy_switches_actions_off(policy: dict[str, Any], reason: str) -> None:
    story = story_of(policy)
    kill_cluster(story.model)
    story.run(20)
    assert reasons(story)[0] == reason
    assert not story.model.control.requests
    assert [d["status"] for d in story.delivered] == ["firing"]  # people hear of it all the same


def test_jitter_may_be_reported_only() -> None:
    story = story_of({"on_jitter": "report"})
    story.model.nodes["ld-a1"].encap_fail = 0.5
    story.run(40)
    assert reasons(story) == ["no_action: policy on_jitter: report"]
    assert not story.model.control.requests
    assert story.incidents()[0].is_open  # its probes are not clean


def test_a_crash_always_migrates_when_the_policy_says_so() -> None:
    story = story_of({"on_crash": "migrate"})
    story.model.kill("ld-a1")
    story.run(30)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]


def test_one_prober_is_no_agreement_where_two_exist() -> None:
    story = story_of()
    story.model.stopped_probers.add("prober-2")
    story.run(25)
    kill_cluster(story.model)
    story.run(25)
    assert any(r.startswith("wait: agreement: 1 probers and ") for r in reasons(story)), reasons(story)
    assert not story.model.control.requests


def test_one_prober_is_enough_where_one_exists() -> None:
    story = story_of(probers=1)
    kill_cluster(story.model)
    story.run(30)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]


def test_the_evidence_sent_to_control_counts_probers_and_vips() -> None:
    story = story_of()
    kill_cluster(story.model)
    story.run(10)
    (body,) = story.model.control.requests
    assert body["evidence"]["probers"] == 2
    assert body["evidence"]["vips"] >= 3
    assert (body["cluster"], body["kind"], body["dry_run"], body["force"]) == ("clb-a", "dispersed", False, False)
    assert body["incident_id"] == story.incidents()[0].id


def test_a_refusal_stands_in_the_timeline_with_its_rail_and_is_tried_again() -> None:
    story = story_of()
    story.model.control.rail = "cooldown"
    kill_cluster(story.model)
    story.run(20)
    (incident,) = story.incidents()
    refused = [e for e in story.store.events(incident.id) if e["kind"] == "refused"]
    assert len(refused) == 1
    assert "cooldown" in refused[0]["text"]
    assert len(story.model.control.requests) == 1
    story.run(60)
    assert len([e for e in story.store.events(incident.id) if e["kind"] == "refused"]) == 1  # said once
    story.model.control.rail = None
    story.run(60)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]
    assert incident.state == "mitigated"


def test_control_that_does_not_answer_is_asked_again() -> None:
    story = story_of()
    story.model.control.answers = False
    kill_cluster(story.model)
    story.run(15)
    assert [i.kind for i in story.incidents()] == ["cluster_down"]
    story.model.control.answers = True
    story.run(45)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]


def test_a_migration_whose_probes_stay_silent_is_said_to_be_unclean_and_a_person_is_asked() -> None:
    story = story_of()
    kill_cluster(story.model)
    story.run(10)
    for node in story.model.nodes.values():
        if node.cluster.startswith("buf-"):
            story.model.kill(node.name)
    story.run(90)
    assert [b["clean"] for _, b in story.model.control.verdicts] == [False]
    cluster = next(i for i in story.incidents() if i.subject == "clb-a")
    assert cluster.is_open
    assert len([r for r in story.model.control.requests if r["cluster"] == "clb-a"]) == 1
    # Scattering does not go on from the buffer clusters.
    assert not [r for r in story.model.control.requests if r["cluster"].startswith("buf-")]


def test_a_dead_real_server_does_not_spoil_the_verdict_on_a_migration() -> None:
    story = story_of()
    story.model.dead_servers.add(3)
    story.run(30)
    kill_cluster(story.model)
    story.run(60)
    assert [m.state for m in story.model.control.migrations.values()] == ["done"]
    assert {i.kind: i.state for i in story.incidents()} == {
        "real_server_dead": "verifying",
        "cluster_down": "mitigated",
    }


def test_every_family_that_is_not_actionable_says_so() -> None:
    story = story_of()
    story.model.dead_servers.add(1)
    story.run(30)
    (incident,) = story.incidents()
    context = story.engine._context(story.model.now, story.engine.situation(), [])
    assert decide(incident, context, set()).reason == "real_server_dead is reported, never acted upon"


def test_a_migration_that_control_has_forgotten_holds_no_incident_open() -> None:
    story = story_of()
    kill_cluster(story.model)
    story.run(12, until=lambda: bool(story.model.control.migrations))
    story.run(1)
    (incident,) = story.incidents()
    assert incident.remedy["status"] == "posted"
    story.model.control.migrations.clear()  # its store was put back
    for vip in story.model.vips:
        story.model.control.placed[vip] = ("clb-b", story.model.now)
    story.run(60)
    assert incident.state == "mitigated", story.timeline(incident)
    assert "control knows nothing of it any more" in story.timeline(incident)
    assert len(story.model.control.requests) == 1


def test_a_migration_from_before_the_incident_came_back_is_not_taken_for_the_new_one() -> None:
    story = story_of()
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(50)
    (incident,) = story.incidents()
    assert incident.state == "mitigated"
    (old,) = story.model.control.migrations
    incident.state, incident.closed_ns = "open", 0
    incident.remedy = {k: v for k, v in incident.remedy.items() if k in ("acted_ns", "past")}
    incident.remedy |= {"status": "posting", "posted_ns": story.model.now}
    story.engine.remedy._await(incident, story.engine._context(story.model.now, story.engine.situation(), []))
    assert incident.remedy["status"] == "posting", f"{old} was done before"


def test_a_cooldown_of_zero_is_a_cooldown_of_zero() -> None:
    story = story_of()
    kill_cluster(story.model)
    story.run(12, until=lambda: bool(story.incidents()))
    (incident,) = story.incidents()
    incident.remedy["acted_ns"] = story.model.now - 1
    view = dataclasses.replace(story.engine.view, rails={"cooldown_s": 0.0})
    context = story.engine._context(story.model.now, Situation(story.engine.region, view), [])
    incident.probers, incident.seen_by_vips = ["prober-1", "prober-2"], [1, 3, 5]
    assert "acted upon already" not in decide(incident, context, set()).reason
