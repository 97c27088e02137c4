"""The client of control against a fake control: views, requests, refusals, silence, nonsense."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from analyzer.control_client import ControlClient, parse
from analyzer.region import SECOND, Region, Situation
from analyzer.remedy import PostMigration, PostVerdict
from tests.analyzer.model import fleet

NODES = [{"name": "ld-a1", "state": "up", "forwarding_alive": True, "cluster": "clb-a"}, {"name": "x", "state": "odd"}]
PLACEMENT = [
    {"vip_id": 1, "name": "vip-1", "home": "clb-a", "current": "buf-1", "since_ns": 5 * SECOND, "migration": "m1"},
    {"vip_id": 2, "name": "vip-2", "home": "clb-b", "current": "clb-b", "since_ns": 0, "migration": None},
]


def client(handler: Any, token: Path | None = None) -> ControlClient:
    return ControlClient("http://control", token, 1.0, httpx.MockTransport(handler))


def fake(migration_state: str = "announcing") -> Any:
    answers: dict[str, Any] = {
        "/v1/nodes": NODES,
        "/v1/placement": PLACEMENT,
        "/v1/migrations": [{"id": "m1", "state": migration_state}],
        "/v1/rails": {"actions_enabled": False},
    }
    return lambda request: httpx.Response(200, json=answers[request.url.path])


@pytest.mark.parametrize(("state", "settled"), [("announcing", False), ("verifying", True), ("done", True)])
def test_a_view(state: str, settled: bool) -> None:
    view = asyncio.run(client(fake(state)).view())
    assert view is not None
    assert view.state("ld-a1") == "up"
    assert view.state("nobody") == "unknown"
    assert view.rails["actions_enabled"] is False
    situation = Situation(Region(fleet()), view)
    assert situation.cluster_of_vip(1) == "buf-1"
    assert situation.cluster_of_vip(3) == "clb-a"
    assert situation.settled(1, 60 * SECOND) is settled
    assert not situation.settled(1, 6 * SECOND)


@pytest.mark.parametrize(
    "handler",
    [
        lambda r: httpx.Response(500),
        lambda r: httpx.Response(200, text="no json"),
        lambda r: httpx.Response(200, json={"detail": "odd"}),
        lambda r: httpx.Response(200, json=[{"neither": "nor"}]),
    ],
)
def test_nonsense_is_no_view(handler: Any) -> None:
    made = client(handler)
    assert asyncio.run(made.view()) is None
    assert made.error


def test_a_control_that_is_not_there() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    made = client(refuse)
    assert asyncio.run(made.view()) is None
    assert asyncio.run(made.fleet()) is None
    answer = asyncio.run(made.send(PostMigration("inc", "clb-a", "why", {"probers": 2, "vips": 3})))
    assert (answer.status, answer.error) == (0, "ConnectError: refused")


def test_requests_and_answers(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-16-characters\n")
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if request.url.path == "/v1/migrations":
            return httpx.Response(409, json={"detail": "too early", "rail": "cooldown"})
        return httpx.Response(200, json={"id": "m1", "state": "done"})

    made = client(handler, token)
    refused = asyncio.run(made.send(PostMigration("inc", "clb-a", "why", {"probers": 2, "vips": 3})))
    assert (refused.status, refused.document["rail"]) == (409, "cooldown")
    asyncio.run(made.send(PostVerdict("inc", "m1", True, 40, 0)))
    assert [r.url.path for r in seen] == ["/v1/migrations", "/v1/migrations/m1/verdict"]
    assert {r.headers["authorization"] for r in seen} == {"Bearer a-token-of-16-characters"}
    assert json.loads(seen[0].content) == {
        "cluster": "clb-a",
        "kind": "dispersed",
        "incident_id": "inc",
        "reason": "why",
        "requested_by": "analyzer",
        "dry_run": False,
        "force": False,
        "evidence": {"probers": 2, "vips": 3},
    }
    assert json.loads(seen[1].content) == {"clean": True, "checked": 40, "silent": 0}


def test_parse_needs_states() -> None:
    with pytest.raises(KeyError):
        parse(1, [{"name": "x"}], [], [], {})
