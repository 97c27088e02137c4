"""Publishing speaks Grafana's API. Grafana cannot be installed here, so a small fake of it answers over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dashboards.publish import Grafana, PublishError, Warehouse, publish

TOKEN = "glsa_of_the_test"
WAREHOUSE = Warehouse(host="192.0.2.7", port=8123, password="reader-secret")


class FakeGrafana(ThreadingHTTPServer):
    """Remembers folders, data sources and dashboards as Grafana's API would."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.things: dict[str, Any] = {}
        self.calls: list[tuple[str, str]] = []
        self.fail_with: tuple[int, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/grafana"


class Handler(BaseHTTPRequestHandler):
    server: FakeGrafana

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        self.server.calls.append((self.command, self.path))
        things = self.server.things
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"message": "Invalid API key"})
        if self.server.fail_with:
            status, message = self.server.fail_with
            return self.answer(status, {"message": message})
        match self.command, self.path.removeprefix("/grafana/api"):
            case "GET", path if path in things:
                return self.answer(200, things[path])
            case "GET", _:
                return self.answer(404, {"message": "not found"})
            case "POST", "/folders":
                things[f"/folders/{body['uid']}"] = body
                return self.answer(200, body)
            case "POST", "/datasources":
                things[f"/datasources/uid/{body['uid']}"] = body
                return self.answer(200, body)
            case "PUT", path if path in things:
                things[path] = body
                return self.answer(204)
            case "POST", "/dashboards/db" if f"/folders/{body['folderUid']}" in things:
                uid = body["dashboard"]["uid"]
                things[f"/dashboards/uid/{uid}"] = body
                return self.answer(200, {"uid": uid, "url": f"/grafana/d/{uid}/x", "status": "success"})
        return self.answer(404, {"message": "no such path"})

    do_GET = do_POST = do_PUT = handle_any


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    server = FakeGrafana()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_everything_arrives(fake: FakeGrafana) -> None:
    done = publish(Grafana(fake.url, TOKEN), WAREHOUSE)
    assert set(done.dashboards) == {"tgw-fleet", "tgw-incident", "tgw-probe"}
    assert done.dashboards["tgw-fleet"] == "/grafana/d/tgw-fleet/x"
    source = fake.things[f"/datasources/uid/{done.source}"]
    assert source["jsonData"]["host"] == "192.0.2.7"
    assert source["secureJsonData"] == {"password": "reader-secret"}
    sent = fake.things["/dashboards/uid/tgw-probe"]
    assert sent["folderUid"] == done.folder
    assert sent["dashboard"]["id"] is None
    assert sent["overwrite"] is True


def test_a_second_time_updates_and_survives_an_empty_answer(fake: FakeGrafana) -> None:
    grafana = Grafana(fake.url, TOKEN)
    publish(grafana, WAREHOUSE)
    publish(grafana, Warehouse(host="192.0.2.8", port=8123, password="other"))
    assert fake.things["/datasources/uid/tgw-clickhouse"]["jsonData"]["host"] == "192.0.2.8"
    assert sum(call == ("POST", "/grafana/api/folders") for call in fake.calls) == 1


def test_a_wrong_token_is_said_and_not_shown(fake: FakeGrafana) -> None:
    with pytest.raises(PublishError, match="401") as caught:
        publish(Grafana(fake.url, "wrong-token"), WAREHOUSE)
    assert "wrong-token" not in str(caught.value)


@pytest.mark.parametrize(("status", "text"), [(500, "boom"), (412, "version mismatch"), (400, "bad title")])
def test_a_refusal_names_what_was_published_and_why(fake: FakeGrafana, status: int, text: str) -> None:
    fake.fail_with = status, text
    with pytest.raises(PublishError, match=rf"folder: .*{status}.*{text}"):
        publish(Grafana(fake.url, TOKEN), WAREHOUSE)


def test_nobody_there(fake: FakeGrafana) -> None:
    with pytest.raises(PublishError, match="cannot be reached"):
        publish(Grafana("http://127.0.0.1:9", TOKEN, timeout_s=1), WAREHOUSE)


@pytest.mark.parametrize("url", ["grafana:3000", "ftp://x", "http://"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(PublishError, match="expected http"):
        Grafana(url, TOKEN)


def test_an_empty_token() -> None:
    with pytest.raises(PublishError, match="token"):
        Grafana("http://127.0.0.1:3000", "")
