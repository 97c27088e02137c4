"""Measure the packet path: `python -m benchmarks.dataplane` builds and runs tgw-bench, writes out/bench/dataplane.json.

The numbers are tgw-bench's own; this adds what machine they are from and which commit, and prints them as a table. The
file is written whether or not the account is exact; exit status 1 when it is not, or when the benchmark did not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "gateway" / "dataplane" / "Cargo.toml"
OUT = ROOT / "out" / "bench" / "dataplane.json"

Document = dict[str, Any]


class BenchError(Exception):
    """The benchmark could not be built or run; the message says why."""


def cpu_model(cpuinfo: str) -> str | None:
    """The model in the text of /proc/cpuinfo; None when it names none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def machine() -> Document:
    """What the numbers depend on. What cannot be read here is left out."""
    known = {
        "cpu": cpu_model(_read("/proc/cpuinfo") or ""),
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load_before": round(os.getloadavg()[0], 2),
    }
    return {key: value for key, value in known.items() if value is not None}


def commit(root: Path = ROOT) -> Document | None:
    """The commit checked out, and whether tracked files differ from it; None outside a repository."""
    try:
        status = ["git", "status", "--porcelain", "--untracked-files=no"]
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        changed = subprocess.run(status, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"id": head.stdout.strip(), "dirty": bool(changed.stdout.strip())}


def build(release: bool = True) -> Path:
    """Build tgw-bench and return where it is. BenchError when it cannot be built."""
    command = ["cargo", "build", "--quiet", "--manifest-path", str(MANIFEST), "--package", "tgw-bench"]
    command += ["--message-format", "json-render-diagnostics"] + (["--release"] if release else [])
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    except FileNotFoundError as error:
        raise BenchError("cargo is not here: run tools/setup.sh") from error
    except subprocess.CalledProcessError as error:
        raise BenchError(f"cargo build failed with status {error.returncode}") from error
    for line in reversed(done.stdout.splitlines()):
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable"):
            return Path(message["executable"])
    raise BenchError("cargo built no tgw-bench")


def run(binary: Path, arguments: list[str]) -> Document:
    """Run tgw-bench; its progress goes to our stderr. An account that is not exact is a result, not an error.

    BenchError when it ends without a result.
    """
    done = subprocess.run([str(binary), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    try:
        result: Document = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise BenchError(f"tgw-bench ended with status {done.returncode} and without a result") from error
    return result


def document(result: Document, where: Document, revision: Document | None) -> Document:
    """The whole document: machine and commit first, then what was measured; nothing that was not."""
    head: Document = {"machine": where}
    if revision is not None:
        head["commit"] = revision["id"]
        head["dirty"] = revision["dirty"]
    return head | {key: result[key] for key in ("method", "cases", "exact") if key in result}


def is_exact(whole: Document) -> bool:
    """Whether every frame is accounted for; without an account there is nothing to find fault with."""
    return bool(whole.get("exact", {}).get("difference", 0) == 0)


def table(whole: Document) -> Table:
    """The cases as a table."""
    shown = Table(title="Packet path in memory, one core", caption="frame: bytes of the inner IP packet")
    for name in ("case", "mode", "flows", "frame", "ns/packet", "limit ns", "x limit", "spread"):
        shown.add_column(name, justify="left" if name in ("case", "mode") else "right", no_wrap=True)
    for case in whole["cases"]:
        shown.add_row(
            case["case"],
            case["mode"],
            f"{case['flows']:,}",
            str(case["frame_bytes"]),
            f"{case['ns_per_packet']:.1f}",
            f"{case['limit_ns_per_packet']:.1f}",
            f"{case['ratio_to_limit']:.2f}",
            f"{case['spread']:.0%}",
        )
    return shown


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.dataplane", description="Measure the packet path.")
    parser.add_argument("--quick", action="store_true", help="few flows and short turns: shows that it works")
    parser.add_argument("--frames", type=int, help="frames of the exact account (default 10 million; 0: none)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the result goes (default {OUT})")
    given = parser.parse_args(arguments)
    words = ["--quick"] if given.quick else []
    if given.frames is not None:
        words += ["--frames", str(given.frames)]
    try:
        binary = build()
        where = machine()
        whole = document(run(binary, words), where, commit())
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(whole, indent=2) + "\n")
    # A pipe has no width of its own: let the table have what it needs.
    console = Console() if sys.stdout.isatty() else Console(width=110)
    console.print(table(whole))
    if "exact" in whole:
        account = whole["exact"]
        console.print(
            f"account: {account['frames_in']:,} in = {account['frames_out']:,} out + {account['drops']:,} dropped"
            f" by {len(account['drops_by_reason'])} reasons; difference {account['difference']}"
        )
    console.print(f"written: {given.out}")
    return 0 if is_exact(whole) else 1


if __name__ == "__main__":
    sys.exit(main())
