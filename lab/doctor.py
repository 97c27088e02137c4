"""What this machine can do for tgw: each finding is one line that says what is missing and what for."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec

from lab import namespaces


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `detail`: what was found, or what to do."""

    what: str
    ok: bool
    detail: str


def examine() -> list[Finding]:
    """Every finding. Makes and removes one namespace when it may."""
    why_not = namespaces.supported()
    return [
        Finding("root", os.geteuid() == 0, "yes" if os.geteuid() == 0 else "the lab needs it; the rest does not"),
        Finding("network namespaces and veth", why_not is None, why_not or "yes"),
        _raw_sockets(),
        _program("bird", "BGP daemon: Debian package bird2", "--version"),
        _program("ip", "Debian package iproute2", "-V"),
        _program("ethtool", "switches offloads off: Debian package ethtool", "--version"),
        _multipath(),
        _native(),
        Finding("kernel", True, platform.release()),
        Finding("processors", True, f"{os.cpu_count()}"),
    ]


def _program(name: str, what_for: str, version: str) -> Finding:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        return Finding(name, False, f"not found; {what_for}")
    done = subprocess.run([path, version], capture_output=True, text=True, check=False, timeout=10)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return Finding(name, True, lines[0] if lines else path)


def _raw_sockets() -> Finding:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except (OSError, AttributeError) as error:
        return Finding("AF_PACKET sockets", False, f"{error}: nodes and probers read and write frames with them")
    return Finding("AF_PACKET sockets", True, "yes")


def _multipath() -> Finding:
    path = "/proc/sys/net/ipv4/fib_multipath_hash_fields"
    if os.path.exists(path):
        return Finding("ECMP by inner fields", True, "yes")
    return Finding("ECMP by inner fields", False, f"{path} is missing: tunnels would not spread (Linux 5.13 has it)")


def _native() -> Finding:
    if find_spec("gateway._dataplane") is None:
        return Finding("native packet path", False, "gateway._dataplane is not built: `make setup`")
    return Finding("native packet path", True, "built")
