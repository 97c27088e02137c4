"""Measure the packet path: `python -m benchmarks.dataplane` writes out/bench/dataplane.json and a plot of each table.

In memory by tgw-bench (each case beside the machine's limit, two cores, the exact account), on real devices by
`benchmarks.veth`. The file is written whether or not the account is exact; exit status 1 when it is not, or when a part
of the benchmark did not run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import plots, report, veth
from benchmarks.report import ROOT, commit, machine

MANIFEST = ROOT / "gateway" / "dataplane" / "Cargo.toml"
OUT = ROOT / "out" / "bench" / "dataplane.json"
PARTS = ("memory", "two_cores", "veth")
# The order of the document; what else tgw-bench yields comes after.
ORDER = ("method", "cases", "ablation", "flood", "repeat_one", "capacity", "exact", "two_cores", "veth")

Document = dict[str, Any]


class BenchError(Exception):
    """The benchmark could not be built or run; the message says why."""


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


def two_cores(binary: Path, quick: bool) -> Document:
    """Dispatcher and worker on a core each. BenchError."""
    return run(binary, ["two-cores", *(["--flows", "1000", "--turns", "3", "--batches", "200"] if quick else [])])


def document(result: Document, where: Document, revision: Document | None) -> Document:
    """The whole document: machine and commit first, then what was measured; nothing that was not."""
    head: Document = {"machine": where}
    if revision is not None:
        head["commit"] = revision["id"]
        head["dirty"] = revision["dirty"]
    known = {key: result[key] for key in ORDER if key in result}
    return head | known | {key: value for key, value in result.items() if key not in known}


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def is_exact(whole: Document) -> bool:
    """Whether every frame is accounted for; without an account there is nothing to find fault with."""
    return bool(whole.get("exact", {}).get("difference", 0) == 0)


def measure(binary: Path, parts: list[str], devices: list[str], quick: bool, words: list[str]) -> tuple[Document, bool]:
    """The results of these parts, and whether all of them ran."""
    result: Document = {}
    complete = True
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {text}", file=sys.stderr, flush=True)

    # The devices first: a part that fails takes nothing from the others, and the longest comes last.
    for part in reversed(PARTS):
        if part not in parts:
            continue
        if part == "two_cores" and usable_cores() < 2:
            say("two_cores: not here, with one core")
            continue
        say(part)
        try:
            if part == "veth":
                result["veth"] = veth.measure(binary, devices, quick, say)
            elif part == "two_cores":
                result["two_cores"] = two_cores(binary, quick)
            else:
                result |= run(binary, words)
        except (BenchError, OSError, RuntimeError) as error:
            print(f"bench: {part}: {error}", file=sys.stderr)
            complete = False
    if "veth" in result:
        result["method"] = {**result.get("method", {}), "veth": veth.METHOD}
    if "two_cores" in result:
        result["method"] = {**result.get("method", {}), "two_cores": TWO_CORES}
    return result, complete


TWO_CORES = (
    "dispatcher and worker of a CLB, each pinned to a core, frames in memory, batches of 64 each timed by itself: "
    "dispatcher_ns is classifying and handing over, worker_ns taking, processing and giving the buffer back; "
    "writing the frames into the buffers is in neither, nor is a device. one_thread_ns is the worker's part without "
    "a ring. hop_ns is what both sides together cost more than classifying and processing in one thread; "
    "hop_latency_ns how long an item takes from core to core; derived_ratio how many workers one dispatcher keeps "
    "busy"
)


def write(whole: Document, out: Path) -> list[Path]:
    """Write the document and its plots beside it; the plots."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(whole, indent=2) + "\n")
    return plots.draw(whole, out.parent)


def show(whole: Document, console: Console) -> None:
    """Every section as a table, the account and what is missing as lines."""
    for table in report.tables(whole):
        console.print(table)
    if "exact" in whole:
        account = whole["exact"]
        by_reason = len(account.get("drops_by_reason", {}))
        console.print(
            f"account: {account['frames_in']:,} in = {account['frames_out']:,} out + {account['drops']:,} dropped"
            f" by {by_reason} reasons; difference {account['difference']}"
        )
    for line in [*whole.get("veth", {}).get("bottleneck", []), *whole.get("veth", {}).get("missing", [])]:
        console.print(f"veth: {line}")


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.dataplane", description="Measure the packet path.")
    parser.add_argument("--quick", action="store_true", help="few flows and short turns: shows that it works")
    parser.add_argument("--frames", type=int, help="frames of the exact account (0: none)")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part (may be repeated)")
    parser.add_argument("--device", action="append", choices=veth.DEVICES, help="only this kind of device (repeatable)")
    parser.add_argument("--replot", action="store_true", help="measure nothing: draw the plots of the file anew")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where the result goes (default {OUT})")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    given = arguments(words)
    # Namespaces must not outlive us: let an end by a signal be an end in order.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if given.replot:
        whole, complete = json.loads(given.out.read_text()), True
    else:
        bench_words = ["--quick"] if given.quick else []
        bench_words += ["--frames", str(given.frames)] if given.frames is not None else []
        try:
            binary = build()
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
        where, revision = machine(), commit()
        parts, devices = given.only or list(PARTS), given.device or list(veth.DEVICES)
        result, complete = measure(binary, parts, devices, given.quick, bench_words)
        whole = document(result, where, revision)
    drawn = write(whole, given.out)
    # A pipe has no width of its own: let the tables have what they need.
    show(whole, Console() if sys.stdout.isatty() else Console(width=130))
    print(f"written: {given.out} {' '.join(path.name for path in drawn)}")
    return 0 if complete and is_exact(whole) else 1


if __name__ == "__main__":
    sys.exit(main())
