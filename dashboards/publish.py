"""Publish dashboards through Grafana's API: folder, data source, dashboards. The one place that knows grafana-api."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaException
from grafana_api.grafana_face import GrafanaFace

from dashboards import build, source

FOLDER_UID = "tgw"
FOLDER_TITLE = "tgw"


class PublishError(Exception):
    """Grafana refused or could not be reached; the message says what was being published and what Grafana said."""


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
    """What was done. `dashboards`: uid -> path in Grafana."""

    folder: str
    source: str
    dashboards: dict[str, str]


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
            raise PublishError(f"{what}: Grafana at {self._url} answered {said}") from None
        except requests.exceptions.JSONDecodeError:
            return None  # Grafana answers some requests with an empty 204, which grafana-api tries to read
        except requests.exceptions.RequestException as error:
            raise PublishError(f"{what}: Grafana at {self._url} cannot be reached: {type(error).__name__}") from None


def publish(grafana: Grafana, warehouse: Warehouse) -> Published:
    """Make folder and data source be there and be right, and put every dashboard into the folder. PublishError."""
    _folder(grafana)
    _source(grafana, warehouse)
    done = {}
    for uid, document in build.documents().items():
        body = {"dashboard": {**document, "id": None}, "folderUid": FOLDER_UID, "overwrite": True, "message": "tgw"}
        try:
            answer = grafana.call(f"dashboard {uid}", "POST", "/dashboards/db", body)
        except KeyError:
            raise PublishError(f"dashboard {uid}: Grafana does not know the folder {FOLDER_UID}") from None
        done[uid] = str((answer or {}).get("url", f"/d/{uid}"))
    return Published(FOLDER_UID, source.UID, done)


def _folder(grafana: Grafana) -> None:
    try:
        grafana.call("folder", "GET", f"/folders/{FOLDER_UID}")
    except KeyError:
        grafana.call("folder", "POST", "/folders", {"uid": FOLDER_UID, "title": FOLDER_TITLE})


def _source(grafana: Grafana, warehouse: Warehouse) -> None:
    body = {
        "uid": source.UID,
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
    try:
        grafana.call("data source", "GET", f"/datasources/uid/{source.UID}")
    except KeyError:
        grafana.call("data source", "POST", "/datasources", body)
    else:
        grafana.call("data source", "PUT", f"/datasources/uid/{source.UID}", body)
