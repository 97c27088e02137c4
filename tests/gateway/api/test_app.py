"""The control API: what it answers, how it refuses, and that no input breaks it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.core.result import Ok

from gateway.api.app import create
from tests.gateway.control.fakes import KEY, Region, document

GOOD = {"cluster": "clb-a", "reason": "crash", "requested_by": "analyzer", "evidence": {"probers": 2, "vips": 5}}


@pytest.fixture
def region(tmp_path: Path) -> Region:
    return Region(tmp_path / "control.db").up()


@pytest.fixture
def api(region: Region) -> TestClient:
    # No context manager: the lifespan has nothing to start, and every call runs in a loop of its own.
    return TestClient(create(region.control))


@pytest.fixture
def empty(tmp_path: Path) -> TestClient:
    return TestClient(create(Region(tmp_path / "empty.db").control))


def test_health_and_the_document(api: TestClient, empty: TestClient) -> None:
    assert empty.get("/v1/health").json() == {
        "status": "ok",
        "fleet_epoch": 0,
        "nodes": 0,
        "nodes_up": 0,
        "nodes_behind": 0,
        "problems": [],
    }
    answer = empty.get("/v1/fleet")
    assert (answer.status_code, answer.json()["detail"][:8]) == (404, "no fleet")
    for path in ("nodes", "clusters", "placement"):
        assert empty.get(f"/v1/{path}").json() == []
    for path in ("migrations", "audit"):
        page = empty.get(f"/v1/{path}").json()
        assert (page["items"], page["next"]) == ([], None)
    assert empty.put("/v1/fleet", json=document()).json() == {"epoch": 1}
    assert empty.put("/v1/fleet", json=document()).json() == {"epoch": 1}, "the same again is no change"
    assert empty.put("/v1/fleet", json=document(vips=7)).json() == {"epoch": 2}
    kept = empty.get("/v1/fleet").json()
    assert empty.put("/v1/fleet", json=kept).json() == {"epoch": 2}, "what it tells it takes"
    assert api.get("/v1/health").json()["nodes_up"] == 10


def wrong(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = document()
    change(data)
    return data


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (wrong(lambda d: d["vips"][0].update(cluster="nowhere")), "vips[0].cluster", "clb cluster"),
        (wrong(lambda d: d["vips"][1].update(id=1)), "vips[1].id", "used once"),
        (wrong(lambda d: d["nodes"][0].update(capacity="much")), "nodes[0].capacity", "number"),
        (wrong(lambda d: d["nodes"][0].update(capacity=math.inf)), "nodes[0].capacity", "finite"),
        (wrong(lambda d: d["vips"][0]["listeners"][0].update(port=0)), "vips[0].listeners[0].port", "1"),
        (wrong(lambda d: d.pop("tunnel")), "tunnel", "required"),
        (wrong(lambda d: d.update(extra=1)), "extra", "not permitted"),
        (wrong(lambda d: d["policy"].update({"\ud800": 1})), "policy", "unicode"),
        ([], "", "dictionary"),
        (b"{", "", "JSON"),
        (b"\xff", "", "UTF-8"),
        (b"[" * 100_000, "", "JSON"),
        (b'{"region": ' + b"1" * 5000 + b"}", "", "JSON"),
        (b'{"region": "\\ud800"}', "region", "unicode"),
        (b"", "", "JSON"),
    ],
)
def test_a_wrong_document_is_refused_with_the_path_and_nothing_is_applied(
    api: TestClient, region: Region, body: Any, path: str, expected: str
) -> None:
    taken = {n: len(x.taken) for n, x in region.client.nodes.items()}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = api.put("/v1/fleet", content=content)
    assert answer.status_code == 422, answer.text
    problem = next(p for p in answer.json()["problems"] if p["path"] == path)
    assert expected in problem["expected"]
    region.run(2)
    assert api.get("/v1/health").json()["fleet_epoch"] == 1
    assert {n: len(x.taken) for n, x in region.client.nodes.items()} == taken
    assert len(region.store.audit_entries(100)) == 1


def test_a_document_that_is_too_large_is_refused(api: TestClient) -> None:
    assert api.put("/v1/fleet", content=b" " * (32 * 1024 * 1024 + 1)).status_code == 413


def test_nodes_and_clusters(api: TestClient, region: Region) -> None:
    region.kill("ld-a1")
    region.run(3)
    nodes = {n["name"]: n for n in api.get("/v1/nodes").json()}
    assert (nodes["ld-a1"]["state"], nodes["ld-a1"]["reachable"]) == ("unreachable", False)
    assert nodes["ld-a1"]["forwarding_alive"] is None, "not known is not false"
    assert nodes["ld-a2"]["epoch_acked"] == nodes["ld-a2"]["epoch_wanted"] == 1
    assert nodes["ld-a2"]["announced"][0] == "10.3.1.2/32"
    assert nodes["eip-1"]["edge_announced"][1] == "203.0.113.2/32"
    clusters = {c["name"]: c for c in api.get("/v1/clusters").json()}
    assert clusters["clb-a"] | {"az": ""} == {
        "name": "clb-a",
        "role": "clb",
        "az": "",
        "purpose": "serving",
        "nodes": ["ld-a1", "ld-a2"],
        "nodes_live": ["ld-a2"],
        "capacity_total": 60.0,
        "capacity_live": 30.0,
        "demand": 5.0,
        "vips": [1, 2, 3, 4, 5],
    }
    assert clusters["buf-1"]["demand"] == 0


def test_maintenance(api: TestClient, region: Region) -> None:
    body = {"on": True, "by": "me", "reason": "disk"}
    assert api.post("/v1/nodes/ld-a1/maintenance", json=body).json()["on"] is True
    region.run(1)
    nodes = {n["name"]: n for n in api.get("/v1/nodes").json()}
    assert (nodes["ld-a1"]["state"], nodes["ld-a1"]["reachable"]) == ("maintenance", True)
    assert api.post("/v1/nodes/nobody/maintenance", json=body).status_code == 404
    answer = api.post("/v1/nodes/ld-a1/maintenance", json={"on": "perhaps"})
    assert answer.status_code == 422
    assert {p["path"] for p in answer.json()["problems"]} == {"body.on", "body.by", "body.reason"}


def test_a_migration_from_request_to_verdict(api: TestClient, region: Region) -> None:
    answer = api.post("/v1/migrations", json=GOOD)
    assert answer.status_code == 202
    m = answer.json()
    assert m["state"] == "configuring"
    assert {"vip_id": 1, "from": "clb-a", "to": m["moves"][0]["to"]} == m["moves"][0]
    verdict = {"clean": True, "checked": 5, "silent": 0}
    early = api.post(f"/v1/migrations/{m['id']}/verdict", json=verdict)
    assert (early.status_code, "verifying" in early.json()["detail"]) == (409, True)
    region.run(5)
    assert api.get("/v1/placement").json()[0]["migration"] == m["id"]
    done = api.post(f"/v1/migrations/{m['id']}/verdict", json=verdict).json()
    assert (done["state"], done["verification"]) == ("done", verdict)
    assert api.get(f"/v1/migrations/{m['id']}").json() == done == api.get("/v1/migrations").json()["items"][0]
    assert api.get("/v1/migrations/none").status_code == 404
    assert api.post("/v1/migrations/none/verdict", json=verdict).status_code == 404
    said = [(e["who"], e["what"], e["result"]) for e in api.get("/v1/audit").json()["items"]]
    assert ("analyzer", "migration", "planned: 5 VIPs to 3 clusters") in said
    assert said[0][2] == "done: 5 probes are clean"
    assert len(api.get("/v1/audit?limit=2").json()["items"]) == 2
    assert api.get("/v1/audit?limit=0").status_code == 422


def test_a_refusal_names_its_rail(api: TestClient) -> None:
    assert api.put("/v1/rails", json={"actions_enabled": False, "by": "me"}).json()["actions_enabled"] is False
    answer = api.post("/v1/migrations", json=GOOD)
    assert answer.status_code == 409
    assert answer.json()["rail"] == "actions_disabled"
    assert "switched off" in answer.json()["detail"]
    assert api.get(f"/v1/migrations/{answer.json()['id']}").json()["refused_by"] == "actions_disabled"
    assert api.get("/v1/rails").json()["actions_enabled"] is False


@pytest.mark.parametrize("body", [{}, {"cooldown_s": -1}, {"unknown": 1}, {"dry_run": None}, {"cooldown_s": "x"}])
def test_wrong_rails_are_refused(api: TestClient, body: dict[str, Any]) -> None:
    before = api.get("/v1/rails").json()
    assert api.put("/v1/rails", json=body).status_code == 422
    assert api.get("/v1/rails").json() == before


def test_metrics_can_be_read_by_prometheus(api: TestClient, region: Region) -> None:
    region.kill("ld-a1")
    region.run(3)
    found = {
        (s.name, s.labels.get("state")): s.value
        for family in text_string_to_metric_families(api.get("/metrics").text)
        for s in family.samples
    }
    assert found[("tgw_control_nodes", "up")] == 9
    assert found[("tgw_control_nodes", "unreachable")] == 1
    assert found[("tgw_control_pushes_total", None)] == 10
    assert found[("tgw_control_vips_away", None)] == 0


def test_the_probe_key_is_told_to_nobody_but_nodes(api: TestClient, region: Region) -> None:
    api.post("/v1/migrations", json=GOOD)
    region.run(5)
    paths = [p for p, methods in api.get("/openapi.json").json()["paths"].items() if "get" in methods]
    for path in paths:
        assert KEY not in api.get(path.replace("{migration_id}", "mig-1")).text, path
    assert region.node("ld-a1").tables["probe"]["key"] == KEY


def test_the_description_has_a_title_for_everything(api: TestClient) -> None:
    schema = api.get("/openapi.json").json()
    assert schema["info"]["title"] == "tgw control plane"
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            assert route["summary"], (path, method)
    text = json.dumps(schema)
    for name in {r.split('"')[0] for r in text.split("#/components/schemas/")[1:]}:
        assert name in schema["components"]["schemas"]


def test_no_input_gets_a_server_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded: schemathesis makes up requests from the description, right ones and wrong ones."""
    monkeypatch.chdir(tmp_path)
    region = Region(tmp_path / "fuzzed.db").up()
    app = create(region.control)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    tried = []

    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @settings(
            max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            answer = case.call()
            tried.append((case.method, case.path, answer.status_code))
            assert answer.status_code < 500, (case.method, case.path, case.body)
            region.control.tick()

        check()
    assert len({(m, p) for m, p, _ in tried}) >= 14
    assert {s for _, _, s in tried} >= {200, 404, 409, 422}


def test_pages_give_everything_once_and_changes_in_their_order(api: TestClient, region: Region) -> None:
    region.control.set_rails({"actions_enabled": False}, "me", "")
    for number in range(25):
        api.post("/v1/migrations", json=GOOD | {"incident_id": f"inc-{number}"})
    found: list[str] = []
    before: dict[str, int] = {}
    while True:
        page = api.get("/v1/migrations", params={"limit": 10, **before}).json()
        found += [m["incident_id"] for m in page["items"]]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
    assert found == [f"inc-{n}" for n in reversed(range(25))]
    changes: list[str] = []
    since = 0
    while len((page := api.get("/v1/migrations", params={"limit": 10, "since": since}).json())["items"]) == 10:
        changes += [m["incident_id"] for m in page["items"]]
        since = page["next"]
    changes += [m["incident_id"] for m in page["items"]]
    assert changes == found[::-1]
    since = page["next"]
    assert api.get(f"/v1/migrations?since={since}").json() == {"items": [], "next": since, "store": region.store.id}
    region.control.set_rails({"actions_enabled": True}, "me", "")
    made = api.post("/v1/migrations", json=GOOD).json()
    (changed,) = api.get(f"/v1/migrations?since={since}").json()["items"]
    assert changed["id"] == made["id"] == api.get("/v1/migrations?active=true").json()["items"][0]["id"]
    audit: list[int] = []
    before = {}
    while True:
        entries = api.get("/v1/audit", params={"limit": 7, **before}).json()
        audit += [e["seq"] for e in entries["items"]]
        if entries["next"] is None:
            break
        before = {"before": entries["next"]}
    assert audit == list(range(audit[0], 0, -1))


def test_a_store_that_takes_no_writes_is_said_and_nothing_is_done(api: TestClient, region: Region) -> None:
    other = sqlite3.connect(region.store._db.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = api.post("/v1/migrations", json=GOOD)
    assert (answer.status_code, "locked" in answer.json()["detail"]) == (503, True)
    assert api.put("/v1/rails", json={"dry_run": True, "by": "me"}).status_code == 503
    assert api.get("/v1/rails").json()["dry_run"] is False
    other.execute("ROLLBACK")
    assert api.post("/v1/migrations", json=GOOD).status_code == 202
    other.close()


def test_a_control_that_holds_still_says_so_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    region = Region(path).up()
    region.store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE fleet SET document = json_set(document, '$.vips[2].id', -7)")
    db.close()
    region = Region(path, region.client)
    with TestClient(create(region.control), raise_server_exceptions=False) as api:
        health = api.get("/v1/health").json()
        assert health["status"] == "degraded"
        assert "vips[2].id" in health["problems"][0]
        for place in ("fleet", "nodes", "placement", "clusters"):
            answer = api.get(f"/v1/{place}")
            assert (answer.status_code, "vips[2].id" in answer.json()["detail"]) == (503, True)
        assert api.post("/v1/migrations", json=GOOD).status_code == 503
        assert api.get("/v1/migrations").status_code == 200
        assert api.get("/metrics").status_code == 200
        assert api.put("/v1/fleet", json=document()).json() == {"epoch": 2}
        assert api.get("/v1/health").json()["status"] == "ok"
