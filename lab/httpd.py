"""A real HTTP/1.1 server that says its name: `python -m lab.httpd NAME PORT [PORT ...]`, on every address it has."""

from __future__ import annotations

import http.server
import signal
import socket
import sys
import threading
from typing import Any


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every GET with one line: the server's name, the path, and the client it saw."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        body = f"{self.server.name} {self.path} {self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """No line per request."""


class Server(http.server.ThreadingHTTPServer):
    """IPv4 and IPv6 on one socket; a thread per connection, ended with the process."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, name: str, port: int, host: str = "::") -> None:
        self.name = name
        super().__init__((host, port), Handler)

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer would look its own name up in the DNS here.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.name, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM. 2 on bad arguments."""
    if len(arguments) < 2 or not all(p.isdigit() and 0 < int(p) < 65536 for p in arguments[1:]):
        print("usage: python -m lab.httpd NAME PORT [PORT ...]   (ports 1 to 65535)", file=sys.stderr)
        return 2
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    signal.signal(signal.SIGINT, lambda *_: done.set())
    for port in arguments[1:]:
        server = Server(arguments[0], int(port))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 5.0}, daemon=True).start()
    print("ready", flush=True)
    done.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
