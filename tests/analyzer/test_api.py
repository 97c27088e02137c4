"""The API: every answer on a running story, bad input, and the schema held to what is served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from analyzer.alerting.answer import Answer
from analyzer.alerting.silence import Matcher, NewSilence
from analyzer.api.app import build
from analyzer.region import SECOND
from analyzer.rows import Rows
from analyzer.store import Store
from tests.analyzer.model import START, fleet
from tests.analyzer.story import Story
from warehouse.client import Unavailable


class FakeShell:
    """Stands for the shell: a warehouse that knows what it is told to know."""

    def __init__(self) -> None:
        self.errors: dict[str, str] = {}
        self.last_look_s = 0.01
        self.rows = Rows()
        self.down = False

    async def journey(self, probe_id: int) -> Rows:
        if self.down:
            raise Unavailable("connection refused")
        return self.rows

    async def send_test(self, name: str) -> list[tuple[str, Answer]]:
        if name != "ops":
            raise KeyError(name)
        return [("firing", Answer("taken", 200, "thanks")), ("resolved", Answer("refused", 400, "what?", "HTTP 400"))]


@pytest.fixture(scope="module")
def story() -> Story:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(40)
    return story


@pytest.fixture
def shell() -> FakeShell:
    return FakeShell()


@pytest.fixture
def client(story: Story, shell: FakeShell) -> Iterator[TestClient]:
    with TestClient(build(story.engine, shell)) as client:
        yield client


def test_health(client: TestClient, shell: FakeShell) -> None:
    assert client.get("/v1/health").json()["status"] == "ok"
    shell.errors = {"control": "refused"}
    health = client.get("/v1/health").json()
    assert (health["status"], health["failing"]) == ("degraded", {"control": "refused"})


def test_incidents(client: TestClient) -> None:
    (incident,) = client.get("/v1/incidents").json()["items"]
    assert (incident["kind"], incident["named_nodes"], incident["state"]) == (
        "cluster_down", ["ld-a1", "ld-a2"], "mitigated",
    )  # fmt: skip
    assert client.get("/v1/incidents?state=closed").json()["items"] == []
    assert len(client.get("/v1/incidents?state=active").json()["items"]) == 1
    assert len(client.get("/v1/incidents?state=mitigated").json()["items"]) == 1
    whole = client.get(f"/v1/incidents/{incident['id']}").json()
    assert whole["timeline"][-1]["text"].startswith("verifying -> mitigated")
    assert [a["state"] for a in whole["actions"]] == ["done"]
    assert [a["state"] for a in whole["alerts"]] == ["delivered", "delivered"]
    assert whole["evidence"]["localization"]["culprit"]["name"] == "clb-a"
    assert whole["samples"][0]["hops"]
    assert client.get("/v1/incidents/none").status_code == 404
    assert client.get("/v1/incidents?state=odd").status_code == 422


def test_nodes_and_vips(client: TestClient) -> None:
    nodes = {n["name"]: n for n in client.get("/v1/nodes").json()}
    assert len(nodes) == 20
    assert nodes["ld-b1"]["verdict"] == "ok"
    assert nodes["ld-a1"]["control"] == "unreachable"
    assert nodes["ld-a1"]["feed"] == "ended"
    vips = {v["id"]: v for v in client.get("/v1/vips").json()}
    assert vips[1]["home"] == "clb-a"
    assert vips[1]["cluster"].startswith("buf-")
    assert vips[2]["probes"]["answered"] > 10


def test_probes_and_the_journey_of_one(client: TestClient, story: Story, shell: FakeShell) -> None:
    lost = client.get("/v1/probes?outcome=silent").json()
    assert lost
    assert {p["verdict"]["kind"] for p in lost} == {"silent"}
    assert [p["sent_ns"] for p in lost] == sorted((p["sent_ns"] for p in lost), reverse=True)
    since = story.model.now - 5 * SECOND
    recent = client.get(f"/v1/probes?since={since}&vip=3&limit=5000").json()
    assert recent
    assert all(p["vip_id"] == 3 and p["sent_ns"] >= since for p in recent)
    (answered,) = client.get("/v1/probes?outcome=answered&limit=1").json()
    by_decimal = client.get(f"/v1/probes/{answered['probe_id']}").json()
    by_hex = client.get(f"/v1/probes/{answered['probe_id_hex']}").json()
    assert by_decimal == by_hex
    probe = [h for h in by_decimal["hops"] if h["packet"] == "probe"]
    assert [h["hop"] for h in probe] == ["eip_in", "clb_in", "vsw_in", "vsw_out", "clb_out", "eip_out"]
    assert [h["offset_us"] for h in probe] == sorted(h["offset_us"] for h in probe)
    assert by_decimal["verdict"]["kind"] == "answered"
    # One that is not remembered any more comes from the warehouse.
    entry = story.engine.ledger.get(int(answered["probe_id"]))
    assert entry is not None
    assert entry.probe is not None
    old = [p._replace(probe_id=1) for p in entry.points]
    shell.rows = Rows(points=old, probes=[entry.probe._replace(probe_id=1)])
    assert client.get("/v1/probes/1").json()["verdict"]["kind"] == "answered"


@pytest.mark.parametrize(
    ("text", "status"), [("2", 404), ("0xfff", 404), ("x", 422), ("-1", 422), ("1" * 21, 422), (str(2**64), 404)]
)
def test_unknown_and_bad_probe_ids(client: TestClient, text: str, status: int) -> None:
    answer = client.get(f"/v1/probes/{text}")
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_warehouse_that_does_not_answer_is_said_so(client: TestClient, shell: FakeShell) -> None:
    shell.down = True
    answer = client.get("/v1/probes/3")
    assert answer.status_code == 503
    assert "connection refused" in answer.json()["detail"]


def test_the_ledger_adds_up(client: TestClient, story: Story) -> None:
    totals = client.get("/v1/ledger").json()
    kinds = ("answered", "refused", "dropped", "silent", "unexplained", "unknown_feed", "unsent")
    assert totals["probes_total"] == sum(totals[k] for k in kinds) > 1000
    assert totals["unexplained"] == totals["unknown_feed"] == 0
    assert totals["silent"] + totals["dropped"] > 10


def test_decisions_say_why(client: TestClient) -> None:
    found = client.get("/v1/decisions?about=remedy").json()["items"]
    assert found[0]["decision"] == "act"
    assert "capacity 0" in found[0]["reason"]


def test_silences_are_made_kept_and_ended(client: TestClient, story: Story) -> None:
    wanted = {
        "matchers": [{"label": "cluster", "value": "clb-b"}],
        "ends_ns": story.model.now + 3600 * SECOND,
        "created_by": "me",
        "comment": "works",
    }
    made = client.post("/v1/silences", json=wanted)
    assert made.status_code == 201
    assert [s["id"] for s in client.get("/v1/silences?active=true").json()["items"]] == [made.json()["id"]]
    assert [s["id"] for s in story.store.silences()] == [made.json()["id"]]
    assert client.delete(f"/v1/silences/{made.json()['id']}").status_code == 200
    assert client.get("/v1/silences?active=true").json()["items"] == []
    assert client.delete("/v1/silences/none").status_code == 404
    assert client.post("/v1/silences", json=wanted | {"ends_ns": 5}).status_code == 422
    assert client.post("/v1/silences", json={"matchers": []}).status_code == 422


def test_events_stream(client: TestClient) -> None:
    text = client.get("/v1/events?once=true").text
    datas = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert datas[1]["kind"] == "opened"
    last = datas[-1]["number"]
    assert client.get(f"/v1/events?once=true&after={last}").text == ""


def test_receivers_and_what_they_said(client: TestClient) -> None:
    (found,) = client.get("/v1/receivers").json()
    assert (found["name"], found["kind"], found["target"], found["gone"], found["owed"]) == (
        "ops", "alertmanager-webhook", "http://127.0.0.1:9", None, 0,
    )  # fmt: skip
    assert (found["last"]["state"], found["last"]["status"]) == ("delivered", 200)
    newest, first = client.get("/v1/notifications").json()["items"]
    assert newest == found["last"]
    page = client.get("/v1/notifications?limit=1").json()
    assert page["items"] == [newest]
    assert client.get(f"/v1/notifications?before={page['next']}").json()["items"] == [first]
    assert client.get("/v1/notifications?state=refused").json()["items"] == []
    assert client.get("/v1/notifications?receiver=other").json()["items"] == []
    assert client.get("/v1/notifications?limit=0").status_code == 422


def test_a_test_notice_says_what_the_receiver_said(client: TestClient) -> None:
    found = client.post("/v1/receivers/ops/test").json()
    assert found["taken"] is False
    assert [(t["notice"], t["outcome"], t["said"]) for t in found["tries"]] == [
        ("firing", "taken", "thanks"), ("resolved", "refused", "what?"),
    ]  # fmt: skip
    missing = client.post("/v1/receivers/nobody/test")
    assert (missing.status_code, missing.json()["detail"]) == (404, "no receiver 'nobody'; the settings have: ops")


def test_metrics(client: TestClient) -> None:
    text = client.get("/metrics").text
    assert 'tgw_incidents{state="mitigated"} 1.0' in text
    assert 'tgw_probes_total{kind="unexplained"} 0.0' in text


def test_the_schema_is_kept_whatever_is_asked(story: Story) -> None:
    """Generated requests: no 5xx, nothing but what the OpenAPI document says."""
    app = build(story.engine, FakeShell())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checked = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if operation.path == "/v1/events":  # an endless stream
            continue

        @settings(max_examples=8, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def one(case: schemathesis.Case[Any]) -> None:
            nonlocal checked
            # A silence may be well formed and still end before it begins.
            free = case.operation.path == "/v1/silences"
            case.call_and_validate(excluded_checks=[positive_data_acceptance] if free else [])
            checked += 1

        one()
    assert checked > 20


def every(client: TestClient, path: str, limit: int) -> list[dict[str, Any]]:
    """All items of a paged answer, page by page."""
    found: list[dict[str, Any]] = []
    before: dict[str, str] = {}
    while True:
        page = client.get(path, params={"limit": limit, **before}).json()
        assert len(page["items"]) <= limit
        found += page["items"]
        if page["next"] is None:
            return found
        before = {"before": page["next"]}


def test_pages_give_everything_once_newest_first(client: TestClient, story: Story) -> None:
    (incident,) = client.get("/v1/incidents").json()["items"]
    path = f"/v1/incidents/{incident['id']}/timeline"
    numbers = [e["number"] for e in every(client, path, 2)]
    assert numbers == [e["number"] for e in story.store.events(incident["id"])][::-1]
    assert client.get("/v1/incidents/none/timeline").status_code == 404
    decisions = every(client, "/v1/decisions", 3)
    assert [d["number"] for d in decisions] == [d["number"] for d in story.store.decisions(1000)]
    store = Store(":memory:")
    paged = Story(fleet(), store=store)
    for number in range(250):
        document = {"id": f"inc-{number}-a", "opened_ns": START + number // 3, "closed_ns": 5, "samples": [1]}
        store.save_incident(str(document["id"]), "f", "closed", START + number // 3, document)
    with TestClient(build(paged.engine, FakeShell())) as other:
        found = every(other, "/v1/incidents", 100)
        assert [(i["opened_ns"], i["id"]) for i in found] == sorted(
            ((START + n // 3, f"inc-{n}-a") for n in range(250)), reverse=True
        )
        assert "samples" not in found[0]
        assert other.get("/v1/incidents/inc-7-a").json()["samples"] == [1]
        assert other.get("/v1/incidents?limit=1001").status_code == 422
        assert other.get("/v1/incidents?before=x").status_code == 422
        for number in range(5):
            wanted = NewSilence(
                matchers=[Matcher(label="a", value="b")], ends_ns=START * 2, created_by="me", comment=str(number)
            )
            paged.engine.add_silence(wanted, START + number)
        assert [s["comment"] for s in every(other, "/v1/silences", 2)] == list("43210")
