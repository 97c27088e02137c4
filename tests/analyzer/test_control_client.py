"""The client of control against a fake control: views, requests, refusals, silence, nonsense."""

from __future__ import annotations

import asyncio
import json
import time
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
        "/v1/migrations": {"items": [{"id": "m1", "state": migration_state}], "next": 5, "store": "s"},
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


class FakeControl:
    """A fake of control's migrations: changes with numbers, pages, and a store that can be lost."""

    def __init__(self) -> None:
        self.store = "one"
        self.changed: dict[str, tuple[int, dict[str, Any]]] = {}
        self.asked: list[str] = []

    def change(self, number: int, identity: str, **more: Any) -> None:
        self.changed[identity] = (number, {"id": identity, **more})

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, request.url.params
        if not path.startswith("/v1/migrations"):
            return httpx.Response(200, json={} if path == "/v1/rails" else [])
        self.asked.append(str(request.url).removeprefix("http://control/v1/"))
        if path != "/v1/migrations":
            found = self.changed.get(path.rpartition("/")[2])
            return httpx.Response(200, json=found[1]) if found else httpx.Response(404)
        if query.get("active") == "true":
            items = [m for _, m in self.changed.values() if m["state"] not in ("done", "failed")]
            return httpx.Response(200, json={"items": items, "next": None, "store": self.store})
        since, limit = int(query["since"]), int(query["limit"])
        later = sorted((n, m) for n, m in ((n, m) for n, m in self.changed.values()) if n > since)[:limit]
        last = later[-1][0] if later else since
        return httpx.Response(200, json={"items": [m for _, m in later], "next": last, "store": self.store})


def test_migrations_are_fetched_once_and_then_only_what_changed() -> None:
    control = FakeControl()
    now, day = time.time_ns(), 24 * 3600 * SECOND
    control.change(1, "old", state="done", finished_ns=now - 9 * day)
    control.change(2, "long", state="verifying", finished_ns=None)
    for number in range(2500):
        control.change(now // 1000 - 10_000 + number, f"m{number}", state="done", finished_ns=now)
    made = client(control)

    async def story() -> None:
        view = await made.view()
        assert view is not None, made.error
        assert len(view.migrations) == 2501
        assert "old" not in view.migrations
        first = len(control.asked)
        assert first == 4, "what is under way, and three pages of what has changed"
        view = await made.view()
        assert len(control.asked) == first + 1
        control.change(now // 1000 + 5, "long", state="done", finished_ns=now)
        view = await made.view({"old", "nobody"})
        assert view is not None
        assert view.migrations["long"]["state"] == "done"
        assert view.migrations["old"]["state"] == "done", "an incident waits for it"
        assert "nobody" not in view.migrations
        # Control has lost its store: what it knows now is all there is.
        control.store, control.changed = "two", {}
        control.change(now // 1000 - 100, "new", state="announcing")
        view = await made.view()
        assert view is not None
        assert set(view.migrations) == {"new"}

    asyncio.run(story())


@pytest.mark.parametrize("token", ["schlüssel-of-16-characters".encode(), b"\xff\xfe-of-16-characters", b"a\nb"])
def test_a_token_that_is_no_token_is_said_and_ends_nothing(tmp_path: Path, token: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(token)
    made = client(fake(), path)
    assert asyncio.run(made.view()) is None
    assert made.error
    assert token.decode(errors="replace") not in made.error
    assert asyncio.run(made.fleet()) is None
    answer = asyncio.run(made.send(PostMigration("inc", "clb-a", "why", {"probers": 2, "vips": 3})))
    assert answer.status == 0
