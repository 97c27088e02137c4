"""Random lives of incidents: findings of all kinds come and go, nodes die, come back, are drained, leave the fleet."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.alerting import alert
from analyzer.collapse import NodeReport
from analyzer.findings import FAMILY, Finding
from analyzer.incident import ABOUT_NODES, Book, Incident
from analyzer.region import SECOND, ControlView, NodeView, Region, Situation
from analyzer.store import Store
from contract.incidents import CLOSED, MITIGATED, STATES
from tests.analyzer.model import START, fleet

REGION = Region(fleet(vips=4, hosts=1, buffers=1))
NODES = ["ld-a1", "ld-a2", "eip-1"]
SUBJECT_TYPES = {"cluster_down": "cluster", "prober_lost": "prober", "vip_missing": "vip", "attack": "vip",
                 "real_server_dead": "real_server", "collector_outage": "collector"}  # fmt: skip

step = st.fixed_dictionaries(
    {
        "wait": st.sampled_from([1, 3, 12, 700]),
        "findings": st.lists(
            st.tuples(st.sampled_from(sorted(FAMILY)), st.sampled_from(NODES), st.booleans(), st.booleans()),
            max_size=3,
        ),
        "up": st.sets(st.sampled_from(NODES)),
        "drained": st.sets(st.sampled_from(NODES), max_size=1),
        "clean": st.booleans(),
    }
)


def finding(kind: str, node: str, idle: bool, lost: bool, *, now: int) -> Finding:
    cluster = REGION.cluster_of(node)
    nodes = list(REGION.members[cluster]) if kind == "cluster_down" else [node]
    subject = cluster if kind == "cluster_down" else node
    found = Finding(
        kind, subject, SUBJECT_TYPES.get(kind, "node"), f"{kind} of {subject}", now, cluster, nodes, [1, 2],
        ["prober-1", "prober-2"], {"idle": True} if idle and FAMILY[kind] == "node_down" else {"expected": 8.0},
    )  # fmt: skip
    found.lost = [(now, p) for p in ("prober-1", "prober-2") for _ in range(4)] if lost else []
    found.confirmed = True
    return found


def world(given_now: dict[str, Any], now: int) -> tuple[Situation, dict[str, NodeReport]]:
    """What control and detection say of the nodes."""
    states, reports = {}, {}
    for node in REGION.nodes:
        up = node in given_now["up"]
        states[node] = NodeView("maintenance" if node in given_now["drained"] else "up" if up else "unreachable")
        reports[node] = NodeReport(node, "ok" if up else "down", feed="beating" if up else "ended")
    return Situation(REGION, ControlView(now, states)), reports


def clean(word: bool, now: int, incident: Incident) -> tuple[bool, str]:
    """As analyzer.remedy.clean: never at once after an incident was opened."""
    return word and max(incident.opened_ns, incident.remedy.get("reopened_ns", 0)) < now, "clean"


def down(found: dict[str, Any], node: str) -> bool:
    return node not in found["up"] and node not in found["drained"]


@settings(max_examples=60, deadline=None)
@given(st.lists(step, min_size=3, max_size=20))
def test_what_must_hold_over_any_life(steps: list[dict[str, Any]]) -> None:
    """Labels never change; what is closed has its nodes back; states and severities fit; nobody fires twice at once."""
    book = Book(Store(":memory:"), START)
    now = START
    labels: dict[str, set[frozenset[tuple[str, str]]]] = defaultdict(set)
    for given_now in steps:
        now += given_now["wait"] * SECOND
        view = ControlView(
            now,
            {
                n: NodeView(
                    "maintenance" if n in given_now["drained"] else "up" if n in given_now["up"] else "unreachable"
                )
                for n in REGION.nodes
            },
        )
        situation = Situation(REGION, view)
        reports = {
            n: NodeReport(
                n, "ok" if n in given_now["up"] else "down", feed="beating" if n in given_now["up"] else "ended"
            )
            for n in REGION.nodes
        }
        # Detection does not blame a node that is up for being down.
        wanted = [f for f in given_now["findings"] if down(given_now, f[1]) or FAMILY[f[0]] not in ABOUT_NODES]
        before = {i.id: i.state for i in book.incidents.values()}
        book.take([finding(*f, now=now) for f in wanted], situation, now, lambda f: (dict(f.evidence), []))
        book.clear(situation, reports, now)
        closed, eased = book.close_what_is_clean(now, situation, partial(clean, given_now["clean"], now))
        for each in closed:
            if each.family in ABOUT_NODES:
                assert not [n for n in each.named_nodes if down(given_now, n)], (each.kind, each.ended)
        for each in eased:
            assert before.get(each.id) != MITIGATED
            assert [n for n in each.named_nodes if down(given_now, n)]
        for each in book.incidents.values():
            check(each)
            told = alert.of(each, "http://a")
            labels[each.id].add(frozenset(told.labels.items()))
            assert told.firing is (each.state != CLOSED)
        prints = [i.fingerprint for i in book.open_ones()]
        assert len(prints) == len(set(prints))
    assert {len(found) for found in labels.values()} <= {1}


def check(incident: Incident) -> None:
    """One incident by itself."""
    assert incident.state in STATES
    assert (incident.closed_ns > 0) is (incident.state == CLOSED)
    assert (incident.state == MITIGATED) <= bool(incident.standing and incident.mitigated_ns)
    assert incident.severity == ("warning" if incident.state == MITIGATED else incident.worst)
    assert bool(incident.ended) is (incident.state == CLOSED)
