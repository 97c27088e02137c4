"""A node for the speaker's tests that forwards nothing: it writes routes.json and beats in one tap.

Usage: dummy_node.py STATE_DIR EPOCH ROUTE,ROUTE... [EDGE_ROUTE,...]
"""

from __future__ import annotations

import json
import mmap
import os
import secrets
import sys
import time
from pathlib import Path

from contract import records, tap


def main() -> None:
    state, epoch, routes = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
    edge_routes = sys.argv[4].split(",") if len(sys.argv) > 4 else []
    boot = secrets.token_bytes(16)
    header = tap.TapHeader(records.POINT_KIND, records.POINT_SIZE, 0, 16, boot, "dummy", time.time_ns(), os.getpid(), 1)
    path = state / f"dummy.0.{boot.hex()[:8]}.tap"
    with path.open("w+b") as file:
        file.truncate(header.file_size)
        view = memoryview(mmap.mmap(file.fileno(), 0))
    writer = tap.TapWriter(view, header)
    data = {"epoch": epoch, "boot_id": boot.hex(), "pid": os.getpid(), "taps": [str(path)]}
    data |= {"routes": routes, "edge_routes": edge_routes}
    fresh = state / "routes.json.new"
    fresh.write_text(json.dumps(data))
    fresh.replace(state / "routes.json")
    while True:
        writer.beat(time.time_ns())
        time.sleep(0.05)


main()
