"""Whose numbers they are, and the numbers as tables."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent

Document = dict[str, Any]


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
        "siblings": _read("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list"),
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


SINGLE = ("case", "flows", "ns_per_packet", "median_ns", "limit_ns_per_packet", "emptied_ns_per_packet")


def tables(whole: Document) -> Iterator[Table]:
    """A table for each section that is there."""
    if whole.get("cases"):
        yield cases(whole["cases"])
    for key, title in (("ablation", "Ablation"), ("flood", "SYN flood"), ("repeat_one", "One packet per call")):
        if isinstance(whole.get(key), dict):
            yield figures(title, whole[key])
        elif isinstance(whole.get(key), list) and whole[key]:
            yield rows(title, whole[key], SINGLE)
    if whole.get("capacity"):
        yield figures("Very many connections", whole["capacity"])
    if whole.get("two_cores"):
        yield rows(
            "Dispatcher and worker on a core each",
            _cases_of(whole["two_cores"]),
            ("flows", "dispatcher_ns", "worker_ns", "hop_ns", "derived_ratio", "spread"),
        )
    devices = whole.get("veth") or {}
    if devices.get("packets"):
        yield rows(
            "veth: packets per second, balancer on one core",
            devices["packets"],
            ("contestant", "pps", "ns_per_packet", "spread", "offered_pps", "balancer_busy", "generator_busy"),
        )
    if devices.get("connections"):
        yield rows(
            "veth: TCP connections per second, as fast as it goes",
            devices["connections"],
            ("contestant", "cps", "spread", "failed", "p50_us", "p90_us", "p99_us", "p999_us"),
        )


def _cases_of(section: Document) -> list[Document]:
    found = section.get("cases")
    return found if isinstance(found, list) and found else [section]


def cases(measured: list[Document]) -> Table:
    """The cases beside the machine's limit."""
    shown = Table(title="Packet path in memory, one core", caption="frame: bytes of the inner IP packet")
    for name in ("case", "mode", "flows", "frame", "ns/packet", "limit ns", "x limit", "spread"):
        shown.add_column(name, justify="left" if name in ("case", "mode") else "right", no_wrap=True)
    for case in measured:
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


def figures(title: str, section: Document) -> Table:
    """Names and values of a section."""
    shown = Table(title=title)
    shown.add_column("what")
    shown.add_column("value", justify="right")
    for name, value in section.items():
        for inner, one in value.items() if isinstance(value, dict) else [("", value)]:
            shown.add_row(f"{name}: {inner}" if inner else name, _text(one))
    return shown


def rows(title: str, measured: list[Document], columns: tuple[str, ...] | None = None) -> Table:
    """A row for each; `columns` of them, or all that the first one has."""
    columns = columns or tuple(measured[0])
    shown = Table(title=title)
    for name in columns:
        shown.add_column(name, justify="left" if name == "contestant" else "right", no_wrap=True)
    for one in measured:
        shown.add_row(*(_text(one.get(name), name) for name in columns))
    return shown


def _text(value: Any, name: str = "") -> str:
    if value is None:
        return "-"
    if name == "spread" or name.endswith("_busy"):
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:,.2f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
