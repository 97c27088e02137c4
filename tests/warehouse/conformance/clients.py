"""The clients of other languages: built once into out/conformance, from their pins; the reason where they cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE.parents[2] / "out" / "conformance"
# A cold build of the Go client takes a minute of a core.
BUILD_S, RUN_S = 400, 120


class Missing(Exception):
    """What this client needs and this machine has not; the message says it."""


def _run(command: list[str], folder: Path, timeout_s: float, more: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (more or {}),
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def _fetched(command: list[str], folder: Path, more: Mapping[str, str] | None = None) -> None:
    """Fetch what is pinned; Missing when it is not to be had."""
    try:
        _run(command, folder, BUILD_S, more)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise Missing(f"its packages cannot be fetched: {str(error)[-200:]}") from None


def _go(folder: Path) -> None:
    caches = {"GOCACHE": str(OUT / "go-cache"), "GOFLAGS": "-mod=readonly"}
    _fetched(["go", "mod", "download"], folder, caches)
    # It runs for a second: what takes time is to compile it.
    _run(["go", "build", "-gcflags=all=-N -l", "-o", "client", "."], folder, BUILD_S, caches)


def _node(folder: Path) -> None:
    _fetched(["npm", "ci", "--no-progress", "--no-audit", "--no-fund"], folder)


def _jdbc(folder: Path) -> None:
    _fetched(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'jars'}"], folder)
    _run(["javac", "-d", "classes", "Conformance.java"], folder, BUILD_S)


# Name -> (the tools it needs, how it is built, how it is run).
CLIENTS: dict[str, tuple[list[str], Callable[[Path], None], list[str]]] = {
    "go": (["go"], _go, ["./client"]),
    "node": (["node", "npm"], _node, ["node", "client.mjs"]),
    "jdbc": (["java", "javac", "mvn"], _jdbc, ["java", "-Xmx256m", "-cp", "classes:jars/*", "Conformance"]),
}


def built(name: str) -> Path:
    """The folder of a client that is ready to run; Missing."""
    tools, build, _ = CLIENTS[name]
    for tool in tools:
        if shutil.which(tool) is None:
            raise Missing(f"needs {tool}")
    sources = sorted(path for path in (HERE / name).iterdir() if path.is_file())
    key = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in sources)).hexdigest()[:16]
    folder = OUT / f"{name}-{key}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in sources:
            shutil.copyfile(path, folder / path.name)
        build(folder)
        (folder / "ready").touch()
    return folder


def checks(name: str, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the client says of each of its checks: `check`, `ok`, `got`, `expected`. Missing."""
    folder = built(name)
    return [json.loads(line) for line in _run(CLIENTS[name][2], folder, RUN_S, environment).splitlines()]
