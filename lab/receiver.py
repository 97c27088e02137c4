"""A webhook receiver on loopback that writes down what it gets: `python -m lab.receiver PORT FILE`.

One JSON line per POST: when it came (ns since 1970), the path, the headers and the body.
"""

from __future__ import annotations

import http.server
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from lab.state import append_line

LIMIT = 1 << 20


class Receiver(http.server.ThreadingHTTPServer):
    """Appends every POST to `file`."""

    daemon_threads = True

    def __init__(self, port: int, file: Path) -> None:
        self.file = file
        super().__init__(("127.0.0.1", port), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers 200 to a JSON body, 400 to any other, 413 to more than LIMIT bytes."""

    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Receiver

    def do_POST(self) -> None:
        received = time.time_ns()
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LIMIT:
            self.close_connection = True
            self._answer(413, "expected Content-Length of at most 1 MiB")
            return
        raw = self.rfile.read(int(length))
        try:
            body = json.loads(raw)
        except ValueError:
            self._answer(400, "expected a JSON body")
            return
        headers = {k.lower(): v for k, v in self.headers.items()}
        append_line(self.server.file, {"ts_ns": received, "path": self.path, "headers": headers, "body": body})
        self._answer(200, "noted")

    def do_GET(self) -> None:
        self._answer(200, "the lab's webhook receiver")

    def _answer(self, status: int, text: str) -> None:
        body = json.dumps({"detail": text}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The file is the log."""


def main(arguments: list[str]) -> int:
    """Receive until SIGTERM. 2 on bad arguments."""
    if len(arguments) != 2 or not arguments[0].isdigit():
        print("usage: python -m lab.receiver PORT FILE", file=sys.stderr)
        return 2
    receiver = Receiver(int(arguments[0]), Path(arguments[1]))
    threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 5.0}, daemon=True).start()
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    signal.signal(signal.SIGINT, lambda *_: done.set())
    done.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
