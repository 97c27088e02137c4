"""Publish dashboards through Grafana's API: folder, data source, dashboards. The one place that knows grafana-api.

What Grafana was provisioned with from files belongs to the files: Grafana refuses to change it (403 for a data source,
400 for a dashboard). It is then used as it is, and `Published` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from dashboards import build, source

FOLDER_UID = "tgw"
FOLDER_TITLE = "tgw"


class PublishError(Exception):
    """Grafana refused or could not be reached; the message says what was being published and what Grafana said.

    `status`: of the answer; None when there was none.
    """

    def __init__(self, message: str, status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.said = said


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The warehouse as Grafana reaches it, with its reader."""

    host: str
    port: int
    password: str
    user: str = "reader"
    database: str = "tgw"


@dataclass(frozen=True, slots=True)
class Published:
    """What was done. `dashboards`: uid -> path in Grafana. `provisioned`: uids that come from Grafana's files.

    `notes`: what a person should know of things that could not be changed. `right`: whether all is as it should be.
    """

    folder: str
    source: str
    dashboards: dict[str, str]
    provisioned: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    right: bool = True


class Grafana:
    """Grafana's API, as far as publishing needs it.

    `url`: http(s)://host[:port][/prefix]; `token`: a service account's.
    """

    def __init__(self, url: str, token: str, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PublishError(f"Grafana's address: expected http(s)://host[:port][/prefix], got {url!r}")
        if not token:
            raise PublishError("Grafana's token: expected a service account token, got an empty one")
        prefix = parts.path.strip("/")
        self._url = url
        self._face = GrafanaFace(
            auth=token,
            host=parts.hostname,
            port=parts.port,
            protocol=parts.scheme,
            url_path_prefix=f"{prefix}/" if prefix else "",
            timeout=timeout_s,
        )

    def call(self, what: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request; the answer's JSON (None for an empty one). PublishError; KeyError for a 404."""
        try:
            return getattr(self._face.api, method)(path, json=body)
        except GrafanaException as error:
            if error.status_code == 404:
                raise KeyError(path) from None
            said = f"{error.status_code}: {error.message}"
            message = f"{what}: Grafana at {self._url} answered {said}"
            raise PublishError(message, error.status_code, str(error.message)) from None
        except requests.exceptions.JSONDecodeError:
            return None  # Grafana answers some requests with an empty 204, which grafana-api tries to read
        except requests.exceptions.RequestException as error:
            raise PublishError(f"{what}: Grafana at {self._url} cannot be reached: {type(error).__name__}") from None

    def find(self, what: str, path: str) -> Any:
        """What is at a path; None for a 404."""
        try:
            return self.call(what, "GET", path)
        except KeyError:
            return None


def publish(grafana: Grafana, warehouse: Warehouse, places: source.Places | None = None) -> Published:
    """Make folder and data source be there and be right, and put every dashboard into the folder. PublishError."""
    folder = _folder(grafana)
    uid, notes = _source(grafana, warehouse)
    done: dict[str, str] = {}
    provisioned = []
    for name, document in build.documents(places, uid).items():
        body = {"dashboard": {**document, "id": None}, "folderUid": folder, "overwrite": True, "message": "tgw"}
        try:
            answer = grafana.call(f"dashboard {name}", "POST", "/dashboards/db", body) or {}
        except KeyError:
            raise PublishError(f"dashboard {name}: Grafana does not know the folder {folder}") from None
        except PublishError as refusal:
            path, note = _kept(grafana, name, document, refusal)
            provisioned.append(name)
            notes += [note] if note else []
            done[name] = path
        else:
            done[name] = str(answer.get("url", f"/d/{name}"))
    return Published(folder, uid, done, provisioned, notes, not notes)


def _kept(grafana: Grafana, uid: str, document: dict[str, Any], refusal: PublishError) -> tuple[str, str]:
    """(path, what is not right) of a dashboard that Grafana has from files. The refusal again where it is none."""
    there = grafana.find(f"dashboard {uid}", f"/dashboards/uid/{uid}") if refusal.status in (400, 403) else None
    meta = (there or {}).get("meta", {})
    if there is None or not (meta.get("provisioned") or "provisioned" in refusal.said.lower()):
        raise refusal
    note = ""
    if _asks(there["dashboard"]) != _asks(document):
        file = meta.get("provisionedExternalId") or f"{uid}.json"
        note = f"dashboard {uid}: Grafana has another version from its file {file}, which only that file can change"
    return str(meta.get("url", f"/d/{uid}")), note


def _asks(document: dict[str, Any]) -> list[object]:
    """What a dashboard shows and asks; the rest of its JSON may be rewritten by Grafana as its schema goes on."""
    panels = document.get("panels", [])
    return [(p.get("title"), [t.get("rawSql") for t in p.get("targets", [])]) for p in panels]


def _folder(grafana: Grafana) -> str:
    """The uid of our folder: that with our uid, else one with our title (so it was provisioned), else a new one."""
    if grafana.find("folder", f"/folders/{FOLDER_UID}") is not None:
        return FOLDER_UID
    for folder in grafana.find("folder", "/folders?limit=1000") or []:
        if folder.get("title") == FOLDER_TITLE:
            return str(folder["uid"])
    answer = grafana.call("folder", "POST", "/folders", {"uid": FOLDER_UID, "title": FOLDER_TITLE})
    return str((answer or {}).get("uid", FOLDER_UID))


def _source(grafana: Grafana, warehouse: Warehouse) -> tuple[str, list[str]]:
    """(uid of the data source, what is not right about it)."""
    there = grafana.find("data source", f"/datasources/uid/{source.UID}")
    if there is None:  # a person may have made it by hand, with a uid that Grafana chose
        there = grafana.find("data source", f"/datasources/name/{quote(source.NAME, safe='')}")
        if there is not None and there.get("type") != source.PLUGIN:
            raise PublishError(
                f"data source: Grafana has one called {source.NAME!r} of type {there.get('type')!r}, "
                f"expected {source.PLUGIN!r}"
            )
    uid = str(there["uid"]) if there is not None else source.UID
    body = {
        "uid": uid,
        "name": source.NAME,
        "type": source.PLUGIN,
        "access": "proxy",
        "jsonData": {
            "host": warehouse.host,
            "port": warehouse.port,
            "protocol": "http",
            "username": warehouse.user,
            "defaultDatabase": warehouse.database,
        },
        "secureJsonData": {"password": warehouse.password},
    }
    if there is None:
        grafana.call("data source", "POST", "/datasources", body)
        return uid, []
    if not there.get("readOnly"):
        try:
            grafana.call("data source", "PUT", f"/datasources/uid/{uid}", body)
        except PublishError as refusal:
            if refusal.status != 403 or "read-only" not in refusal.said:
                raise
        else:
            return uid, []
    has = there.get("jsonData", {})
    place = f"{has.get('host')}:{has.get('port')}"
    if place == f"{warehouse.host}:{warehouse.port}":
        return uid, []
    return uid, [
        f"data source {uid}: Grafana has it from its files, for {place}; expected {warehouse.host}:{warehouse.port}, "
        "which only those files can change"
    ]
