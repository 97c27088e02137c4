"""Notices to render, and a real HTTP server that answers as it is told."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import trustme

from analyzer.alerting.alert import Alert
from analyzer.alerting.notice import Notice
from tests.analyzer.desk import T, alert, mitigated, over

FIRING, MITIGATED, OVER = (
    alert("node_down", "ld-a1"), mitigated(alert("node_down", "ld-a2")), over(alert("cluster_down", "clb-a")),
)  # fmt: skip
NASTY = "a <b> & *c* _d_ [e](f) `g` \r\nBcc: x@example.net \u2028 \U0001f600 " + "long " * 9000


def nasty() -> Alert:
    """An alert whose texts would break whoever does not bound and escape them."""
    found = alert("node_down", "ld-a1" + "x" * 3000)
    found.annotations.update(summary=NASTY, description=NASTY)
    return replace(found, incident_id="inc-1")


def notice(*alerts: Alert, **options: Any) -> Notice:
    """A notice of these alerts, all of them news."""
    given = alerts or (FIRING, MITIGATED, OVER)
    base: dict[str, Any] = {
        "id": "msg_1",
        "receiver": "ops",
        "region": "r",
        "group": {"region": "r", "cluster": "clb-a"},
        "alerts": given,
        "url": "http://analyzer.example.net",
        "now_ns": T + 10**9,
        "fresh": frozenset(a.fingerprint for a in given),
    }
    return Notice(**(base | options))


class Server(http.server.ThreadingHTTPServer):
    """Keeps what it gets; answers with `status`, `headers` and `said`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, str, dict[str, str], Any]] = []
        self.status, self.said = 200, b"ok"
        self.headers: dict[str, str] = {}
        self.scheme = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.server.got.append((self.command, self.path, headers, json.loads(raw)))
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.said)))
        self.end_headers()
        self.wfile.write(self.server.said)

    do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def serving(authority: trustme.CA | None = None) -> Iterator[Server]:
    """A server on loopback; with an authority, over TLS with a certificate of its for localhost."""
    server = Server()
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.scheme = "https"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def secret(directory: Path, name: str, text: str) -> Path:
    """A file with a secret."""
    path = directory / name
    path.write_text(text + "\n")
    return path
