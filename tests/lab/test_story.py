"""The report and the timeline, worked out from recorded observations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.screen import svg_format
from lab.story import Act, Incident, Probe, Request, Webhook, probes_of, report_of_act, timeline, verdict

S = 10**9
T0 = 1_000_000 * S


def probe(sent_s: float, outcome: str = "answered", vip: int = 1, port: int = 80, took_s: float = 0.01) -> Probe:
    sent = T0 + int(sent_s * S)
    return Probe(sent, sent + int(took_s * S), outcome, vip, port, "prober-1")


def request(start_s: float, outcome: str = "ok", vip: int = 1, took_s: float = 0.1) -> Request:
    start = T0 + int(start_s * S)
    return Request(start, start + int(took_s * S), outcome, vip, "new")


def at(seconds: float) -> int:
    return T0 + int(seconds * S)


MIGRATION: dict[str, Any] = {
    "id": "m-1",
    "cluster": "clb-a",
    "kind": "dispersed",
    "state": "done",
    "moves": [{"vip_id": 1, "from": "clb-a", "to": "buf-01"}, {"vip_id": 2, "from": "clb-a", "to": "buf-02"}],
    "requested_ns": at(8),
    "announced_ns": at(9),
    "finished_ns": at(14.5),
    "detail": None,
}


def act(**changes: Any) -> Act:
    """A cluster of two nodes dies; both VIPs are moved and answer again."""
    probes = [
        probe(-1),
        probe(1, "silent", took_s=2),
        probe(6, "silent", took_s=2),
        probe(11),
        probe(2, "silent", vip=2, took_s=2),
        probe(12.5, vip=2),
        probe(3, vip=9),
    ]
    requests = [
        request(-1),
        request(0.5, "timeout", took_s=2),
        request(8.8, "timeout", took_s=2),
        request(10),
        request(10.5, vip=2),
        request(13),
        request(20),
    ]
    base: dict[str, Any] = {
        "name": "act 1",
        "fault": "kill-cluster",
        "target": "clb-a",
        "nodes": ["ld-a1", "ld-a2"],
        "affected_vips": [1, 2],
        "fault_ns": T0,
        "probers": 2,
        "end_ns": at(25),
        "probes": probes,
        "incidents": [
            Incident("i-0", "crash", ["ld-b1"], at(-100), at(-50), "closed"),
            Incident("i-1", "crash", ["ld-a1"], at(7), at(22), "closed"),
            Incident("i-2", "crash", ["ld-a2"], at(7.5), at(23), "closed"),
        ],
        "migrations": [MIGRATION],
        "webhooks": [
            Webhook(at(-99), "i-0", "firing"),
            Webhook(at(7.9), "i-2", "firing"),
            Webhook(at(7.8), "i-1", "firing"),
        ],
        "requests": requests,
    }
    return Act(**(base | changes))


def test_the_report_of_a_healed_fault() -> None:
    found = report_of_act(act())
    assert found["fault"] == "kill-cluster clb-a"
    assert found["detected_after_s"] == 7.0
    assert found["named_node"] == "ld-a1, ld-a2"
    assert found["named_correctly"] is True
    assert found["restored_after_s"] == pytest.approx(12.51)
    assert (found["webhook_delivered"], found["webhook_after_s"]) == (True, 7.8)
    assert (found["requests_total"], found["requests_failed"], found["requests_failed_after_restore"]) == (6, 2, 0)
    assert found["action"]["vips_moved"] == 2
    assert found["action"]["to_clusters"] == 2
    assert found["action"]["announced_after_s"] == 9.0
    json.dumps(found)


def test_an_incident_before_the_fault_names_nobody_of_this_act() -> None:
    early = [Incident("i-0", "crash", ["ld-a1", "ld-a2"], at(-1), None, "open")]
    found = report_of_act(act(incidents=early))
    assert found["detected_after_s"] is None
    assert found["named_node"] is None
    assert found["named_correctly"] is False
    assert found["webhook_delivered"] is False


def test_one_node_too_many_is_not_named_correctly() -> None:
    more = [*act().incidents, Incident("i-3", "jitter", ["host-1"], at(9), None, "open")]
    assert report_of_act(act(incidents=more))["named_correctly"] is False


def test_restored_waits_for_every_target_and_for_the_last_silent_probe() -> None:
    base = act().probes
    assert act(probes=[p for p in base if p.vip_id != 2]).restored_ns() == at(11.01)
    late = [*base, probe(16, "silent", took_s=2)]
    assert act(probes=late).restored_ns() is None
    assert act(probes=[*late, probe(21)]).restored_ns() == at(21.01)
    # A second port of a VIP is a target of its own.
    assert act(probes=[*base, probe(3, "silent", port=8080, took_s=2)]).restored_ns() is None


def test_an_answer_before_the_routes_moved_does_not_count() -> None:
    assert act(migrations=[MIGRATION | {"announced_ns": at(12)}]).restored_ns() is None
    assert act(migrations=[MIGRATION | {"announced_ns": None}]).restored_ns() is None
    assert act(migrations=[]).restored_ns() is None


def test_a_request_that_fails_after_restore_is_counted() -> None:
    worse = [*act().requests, request(13.5, "reset")]
    assert report_of_act(act(requests=worse))["requests_failed_after_restore"] == 1


def test_what_was_not_seen_is_none_and_does_not_hold() -> None:
    found = report_of_act(act(migrations=[], incidents=[], webhooks=[], probes=[]))
    assert found["restored_after_s"] is None
    assert found["requests_failed_after_restore"] is None
    assert found["action"] is None


def test_an_act_ends_when_all_that_it_waits_for_has_happened() -> None:
    assert act().finished()
    assert not act(webhooks=[]).finished()
    assert not act(migrations=[MIGRATION | {"state": "verifying"}]).finished()
    assert not act(incidents=act().incidents[:2]).finished()


def test_requests_have_recovered_when_every_vip_that_failed_answers_again() -> None:
    assert act().recovered_ns() == at(10.1)
    both = [*act().requests, request(3, "timeout", vip=2)]
    assert act(requests=both).recovered_ns() == at(10.6)
    assert act(requests=[*both, request(21, "reset", vip=2)]).recovered_ns() is None
    assert act(requests=[request(1)]).recovered_ns() is None


def test_the_end_of_an_incident_is_seen_and_told() -> None:
    done = act(webhooks=[*act().webhooks, Webhook(at(24), "i-1", "resolved")])
    assert done.closed_ns() == at(23)
    assert [e.detail for e in timeline(done) if e.what == "webhook received"] == ["firing", "resolved"]
    still_open = [*act().incidents, Incident("i-3", "crash", ["ld-a1"], at(9), None, "open")]
    assert act(incidents=still_open).closed_ns() is None
    assert act(incidents=still_open).settled_ns() is None
    assert not act(incidents=still_open).finished()


def test_a_fault_that_is_mitigated_ends_its_act_and_is_not_called_closed() -> None:
    first, second = act().own_incidents()
    dead = [first, Incident(second.id, "crash", ["ld-a2"], at(7.5), None, "mitigated", at(21))]
    found = act(incidents=dead)
    assert (found.settled_ns(), found.closed_ns(), found.finished()) == (at(22), None, True)
    report = report_of_act(found)
    assert (report["incident_mitigated_after_s"], report["incident_closed_after_s"]) == (22.0, None)
    assert "incident mitigated" in [e.what for e in timeline(found)]
    felt_again = [first, Incident(second.id, "crash", ["ld-a2"], at(7.5), None, "open", None)]
    assert act(incidents=felt_again).settled_ns() is None
    assert not act(incidents=felt_again).finished()


def test_the_timeline_is_in_the_order_of_things() -> None:
    events = timeline(act())
    assert [e.ts_ns for e in events] == sorted(e.ts_ns for e in events)
    assert [e.what for e in events] == [
        "fault",
        "first silent probe",
        "requests fail",
        "incident opened",
        "incident opened",
        "webhook received",
        "migration asked for",
        "routes moved",
        "requests recovered",
        "first clean probe",
        "restored",
        "migration done",
        "incident closed",
        "incident closed",
    ]


def report(**changes: Any) -> dict[str, Any]:
    return {
        "acts": [report_of_act(act())],
        "probes_total": 100,
        "probes_unexplained": 0,
        "records_written": 1000,
        "records_lost": 0,
        "records_twice": 0,
        "idle_cpu_percent": 12.0,
        "processes_left": [],
    } | changes


def test_a_good_report_holds() -> None:
    assert verdict(report()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"probes_unexplained": 3}, "probes_unexplained: expected 0, got 3"),
        ({"probes_unexplained": None}, "probes_unexplained: expected 0, got None"),
        ({"probes_total": 0}, "probes_total: expected some, got 0"),
        ({"records_written": None}, "records_written: expected some, got None"),
        ({"records_lost": 1}, "records_lost: expected 0, got 1"),
        ({"records_twice": 2}, "records_twice: expected 0, got 2"),
        ({"idle_cpu_percent": None}, "idle_cpu_percent: expected below 30, got None"),
        ({"idle_cpu_percent": 31.0}, "idle_cpu_percent: expected below 30, got 31.0"),
        ({"processes_left": [7]}, r"processes_left: expected none, got [7]"),
    ],
)
def test_each_number_that_does_not_hold_is_named(changes: dict[str, Any], expected: str) -> None:
    assert verdict(report(**changes)) == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"detected_after_s": 15.1}, "detected_after_s: expected at most 15, got 15.1"),
        ({"restored_after_s": None}, "restored_after_s: expected at most 45, got None"),
        ({"named_correctly": False, "named_node": "x"}, "named_node: expected ld-a1, ld-a2, got x"),
        ({"webhook_delivered": False}, "webhook_delivered"),
        ({"requests_failed_after_restore": 2}, "requests_failed_after_restore: expected 0, got 2"),
        ({"requests_total": 0}, "requests_total"),
        ({"action": None}, "action: expected a finished migration, got None"),
        ({"incident_mitigated_after_s": None}, "incident_mitigated_after_s: expected a time, got None"),
    ],
)
def test_each_part_of_an_act_that_does_not_hold_is_named(change: dict[str, Any], expected: str) -> None:
    (line,) = verdict(report(acts=[report_of_act(act()) | change]))
    assert line.startswith("act 1: ")
    assert expected in line


def test_rows_of_the_warehouse_become_probes() -> None:
    row = {"ts_ns": "5", "closed_ns": "6", "outcome": "silent", "vip_id": 3, "dst_port": 80, "prober": "p"}
    assert probes_of([row]) == [Probe(5, 6, "silent", 3, 80, "p")]


def test_the_picture_fetches_nothing_from_elsewhere() -> None:
    text = svg_format()
    assert "@font-face" not in text
    assert "url(" not in text.replace("url(#", "")
    assert "href" not in text
