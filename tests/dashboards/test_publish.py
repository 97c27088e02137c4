"""Publishing speaks Grafana's API. Grafana cannot be installed here, so a small fake of it answers over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from dashboards import build
from dashboards.publish import Grafana, PublishError, Warehouse, publish
from dashboards.source import PLUGIN

TOKEN = "glsa_of_the_test"
WAREHOUSE = Warehouse(host="192.0.2.7", port=8123, password="reader-secret")


def lines(text: str) -> set[str]:
    """The lines of a YAML text, without indentation and the dashes of lists."""
    return {line.strip().removeprefix("- ") for line in text.splitlines()}


class FakeGrafana(ThreadingHTTPServer):
    """Remembers folders, data sources and dashboards; refuses what came from files in Grafana's words."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.provisioned: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str]] = []
        self.fail_with: tuple[int, str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/grafana"

    def provision(self, folder_uid: str = "tgw", host: str = "192.0.2.7") -> None:
        """What Grafana has after a start with the shipped files."""
        assert {"folder: tgw", "folderUid: tgw", "allowUiUpdates: false"} <= lines(build.PROVIDER)
        self.folders[folder_uid] = {"uid": folder_uid, "title": "tgw"}
        given = {"uid": "tgw-clickhouse", "name": "tgw ClickHouse", "type": PLUGIN}
        assert {"editable: false", *(f"{key}: {value}" for key, value in given.items())} <= lines(build.DATASOURCES)
        self.sources[given["uid"]] = {**given, "jsonData": {"host": host, "port": 8123}, "readOnly": True}
        for path, text in build.files().items():
            if path.suffix == ".json":
                document = json.loads(text)
                self.dashboards[document["uid"]] = {"dashboard": document, "folderUid": folder_uid}
                self.provisioned[document["uid"]] = {"provisioned": True, "provisionedExternalId": path.name}


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
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"message": "Invalid API key"})
        if self.server.fail_with:
            status, message = self.server.fail_with
            return self.answer(status, {"message": message})
        path = unquote(self.path.removeprefix("/grafana/api"))
        match self.command, path.split("?")[0].split("/")[1:]:
            case command, ["folders", *rest]:
                return self.folder(command, rest, body)
            case command, ["datasources", *rest]:
                return self.source(command, rest, body)
            case command, ["dashboards", *rest]:
                return self.dashboard(command, rest, body)
        return self.answer(404, {"message": "no such path"})

    def folder(self, command: str, rest: list[str], body: Any) -> None:
        folders = self.server.folders
        match command, rest:
            case "GET", []:
                return self.answer(200, [{"id": i, **f} for i, f in enumerate(folders.values())])
            case "GET", [uid] if uid in folders:
                return self.answer(200, folders[uid])
            case "POST", []:
                if body["uid"] in folders or body["title"] in [f["title"] for f in folders.values()]:
                    return self.answer(409, {"message": "a folder with the same name already exists"})
                folders[body["uid"]] = body
                return self.answer(200, body)
        return self.answer(404, {"message": "folder not found"})

    def source(self, command: str, rest: list[str], body: Any) -> None:
        sources = self.server.sources
        match command, rest:
            case "GET", ["uid", uid] if uid in sources:
                return self.answer(200, sources[uid])
            case "GET", ["name", name]:
                for found in sources.values():
                    if found["name"] == name:
                        return self.answer(200, found)
            case "POST", []:
                if body["name"] in [s["name"] for s in sources.values()]:
                    return self.answer(409, {"message": "data source with the same name already exists"})
                sources[body["uid"]] = {**body, "readOnly": False}
                return self.answer(200, body)
            case "PUT", ["uid", uid] if uid in sources:
                if sources[uid]["readOnly"]:
                    return self.answer(403, {"message": "Cannot update read-only data source"})
                sources[uid] = {**body, "readOnly": False}
                return self.answer(204)
        return self.answer(404, {"message": "Data source not found"})

    def dashboard(self, command: str, rest: list[str], body: Any) -> None:
        kept, provisioned = self.server.dashboards, self.server.provisioned
        match command, rest:
            case "GET", ["uid", uid] if uid in kept:
                meta = {"url": f"/grafana/d/{uid}/x", **provisioned.get(uid, {"provisioned": False})}
                return self.answer(200, {"dashboard": kept[uid]["dashboard"], "meta": meta})
            case "POST", ["db"]:
                uid = body["dashboard"]["uid"]
                if uid in provisioned:
                    return self.answer(400, {"message": "Cannot save provisioned dashboard"})
                if body["folderUid"] not in self.server.folders:
                    return self.answer(404, {"message": "folder not found"})
                kept[uid] = body
                return self.answer(200, {"uid": uid, "url": f"/grafana/d/{uid}/x", "status": "success"})
        return self.answer(404, {"message": "Dashboard not found"})

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
    assert done.right
    assert not done.provisioned
    source = fake.sources[done.source]
    assert source["jsonData"]["host"] == "192.0.2.7"
    assert source["secureJsonData"] == {"password": "reader-secret"}
    sent = fake.dashboards["tgw-probe"]
    assert sent["folderUid"] == done.folder
    assert sent["dashboard"]["id"] is None
    assert sent["overwrite"] is True


def test_a_second_time_updates_and_survives_an_empty_answer(fake: FakeGrafana) -> None:
    grafana = Grafana(fake.url, TOKEN)
    publish(grafana, WAREHOUSE)
    publish(grafana, Warehouse(host="192.0.2.8", port=8123, password="other"))
    assert fake.sources["tgw-clickhouse"]["jsonData"]["host"] == "192.0.2.8"
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


@pytest.mark.parametrize("folder", ["tgw", "adm3kd9"], ids=["our uid", "a uid that Grafana chose"])
def test_what_was_provisioned_from_the_shipped_files_is_used_as_it_is(fake: FakeGrafana, folder: str) -> None:
    fake.provision(folder)
    before = json.dumps([fake.folders, fake.sources, fake.dashboards])
    done = publish(Grafana(fake.url, TOKEN), WAREHOUSE)
    assert (done.folder, done.right, done.notes) == (folder, True, [])
    assert set(done.provisioned) == set(done.dashboards) == set(fake.dashboards)
    assert json.dumps([fake.folders, fake.sources, fake.dashboards]) == before


def test_an_older_version_in_the_files_is_said(fake: FakeGrafana) -> None:
    fake.provision()
    fake.dashboards["tgw-probe"]["dashboard"]["panels"][1]["targets"][0]["rawSql"] = "SELECT 1"
    done = publish(Grafana(fake.url, TOKEN), WAREHOUSE)
    assert not done.right
    assert len(done.notes) == 1
    assert "tgw-probe" in done.notes[0]
    assert "tgw-probe.json" in done.notes[0]


def test_a_read_only_data_source_that_asks_another_warehouse_is_said(fake: FakeGrafana) -> None:
    fake.provision(host="198.51.100.1")
    done = publish(Grafana(fake.url, TOKEN), WAREHOUSE)
    assert not done.right
    assert "198.51.100.1:8123" in done.notes[0]
    assert "192.0.2.7:8123" in done.notes[0]
    assert "reader-secret" not in done.notes[0]


def test_only_the_data_source_is_from_files(fake: FakeGrafana) -> None:
    fake.provision()
    fake.dashboards.clear()
    fake.provisioned.clear()
    done = publish(Grafana(fake.url, TOKEN), WAREHOUSE)
    assert done.right
    assert not done.provisioned
    assert set(fake.dashboards) == set(done.dashboards)


def test_a_data_source_made_by_hand_under_our_name_is_asked(fake: FakeGrafana) -> None:
    fake.sources["by-hand"] = {"uid": "by-hand", "name": "tgw ClickHouse", "type": PLUGIN, "readOnly": False}
    done = publish(Grafana(fake.url, TOKEN), WAREHOUSE)
    assert done.source == "by-hand"
    assert list(fake.sources) == ["by-hand"]
    text = json.dumps(fake.dashboards)
    assert '"by-hand"' in text
    assert '"tgw-clickhouse"' not in text


def test_another_thing_under_our_name_is_left_alone(fake: FakeGrafana) -> None:
    fake.sources["x"] = {"uid": "x", "name": "tgw ClickHouse", "type": "prometheus", "readOnly": False}
    with pytest.raises(PublishError, match="of type 'prometheus'"):
        publish(Grafana(fake.url, TOKEN), WAREHOUSE)


def test_another_refusal_of_a_dashboard_ends_it(fake: FakeGrafana) -> None:
    fake.provision()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "dashboard", lambda self, *_: self.answer(400, {"message": "invalid title"}))
        with pytest.raises(PublishError, match=r"tgw-fleet: .*invalid title"):
            publish(Grafana(fake.url, TOKEN), WAREHOUSE)
