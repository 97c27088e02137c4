"""A picture of each table of the results, drawn beside them: `draw`. A section that is not there has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

Document = dict[str, Any]

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "tgw",
}
# From few flows to many; the gateway's and the others' colours.
SHADES = ("#c6dbef", "#6baed6", "#3182bd", "#08306b", "#041c3d")
OURS, THEIRS, PLAIN, LIMIT = "#2171b5", "#969696", "#cccccc", "#d94801"
ACROSS: Any = {"axes.grid.axis": "x"}
BOTH: Any = {"axes.grid.axis": "both"}
NO_GRID: Any = {"axes.grid": False}


def draw(whole: Document, directory: Path) -> list[Path]:
    """Draw what is there; the files."""
    drawn = []
    with rc_context(STYLE):
        for name, plot in PLOTS.items():
            figure = plot(whole)
            path = directory / f"{name}.svg"
            if figure is None:
                # No picture of an earlier run beside these results.
                path.unlink(missing_ok=True)
                continue
            _footer(figure, whole)
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
    return drawn


def _footer(figure: Figure, whole: Document) -> None:
    machine = whole.get("machine", {})
    dirty = " with changes" if whole.get("dirty") else ""
    parts = [f"commit {str(whole.get('commit', 'unknown'))[:12]}{dirty}", machine.get("cpu", "unknown processor")]
    parts += [f"{machine['cores']} cores"] if "cores" in machine else []
    parts += [f"Linux {machine['kernel'].split('-')[0]}"] if "kernel" in machine else []
    figure.text(0.01, 0.008, "  ·  ".join(parts), fontsize=7, color="#666666", ha="left", va="bottom")


def _figure(
    title: str, width: float, height: float, rows: int = 1, columns: int = 1, legend: bool = False
) -> tuple[Figure, list[Axes]]:
    # Room for the footer, and for a legend above it.
    below = (0.48 if legend else 0.2) / height
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below)))
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [one for row in axes for one in row]


def _legend(figure: Figure, handles: list[Any]) -> None:
    """A legend under everything, above the footer."""
    at = (0.0, 0.16 / figure.get_figheight())
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=at, ncols=len(handles), fontsize=8)


def _count(number: float) -> str:
    """12 000 000 as 12 M."""
    for unit, name in ((1_000_000, " M"), (1_000, " k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:.3g}"


def _flows(count: int) -> str:
    return "1 flow" if count == 1 else f"{_count(count)} flows"


def cases(whole: Document) -> Figure | None:
    """Time per packet of each case, by flows, and the machine's limit in each bar."""
    measured = whole.get("cases") or []
    if not measured:
        return None
    sizes = sorted({case["frame_bytes"] for case in measured})
    names = list(dict.fromkeys(case["case"] for case in measured))
    flows = sorted({case["flows"] for case in measured})
    modes = list(dict.fromkeys(case["mode"] for case in measured))
    slots = [
        (mode, count)
        for mode in modes
        for count in flows
        if any((case["mode"], case["flows"]) == (mode, count) for case in measured)
    ]
    title = "Packet path in memory, one core: time per packet, and the machine's limit beside it"
    figure, axes = _figure(
        title, max(8.0, 1.6 + 0.2 * len(slots) * len(names)), 3.1 * len(sizes) + 0.6, rows=len(sizes), legend=True
    )
    shade = dict(zip(flows, SHADES[-len(flows) :] if len(flows) < 4 else SHADES, strict=False))
    width = 0.84 / len(slots)
    for axis, size in zip(axes, sizes, strict=True):
        for case in measured:
            if case["frame_bytes"] != size:
                continue
            slot = slots.index((case["mode"], case["flows"]))
            at = names.index(case["case"]) + (slot - (len(slots) - 1) / 2) * width
            hatch = None if case["mode"] == modes[0] else "////"
            color = shade.get(case["flows"], SHADES[-1])
            axis.bar(at, case["ns_per_packet"], width * 0.92, color=color, hatch=hatch, edgecolor="white", linewidth=0)
            limit = case["limit_ns_per_packet"]
            axis.plot([at - width * 0.46, at + width * 0.46], [limit, limit], color=LIMIT, linewidth=1.8)
            ratio = f"{case['ratio_to_limit']:.1f}x"
            axis.annotate(
                ratio, (at, case["ns_per_packet"]), (0, 2), textcoords="offset points", ha="center", va="bottom",
                fontsize=6, rotation=90,
            )  # fmt: skip
        axis.set_title(f"{size}-byte packets", loc="left", fontsize=9)
        axis.set_ylabel("ns per packet")
        axis.set_xticks(range(len(names)), names)
        axis.tick_params(axis="x", length=0)
        axis.margins(x=0.01, y=0.14)
    legend: list[Any] = [Patch(color=color, label=_flows(count)) for count, color in shade.items()]
    legend += [Patch(facecolor="#888888", hatch="////", edgecolor="white", label=mode) for mode in modes[1:]]
    legend.append(Line2D([], [], color=LIMIT, linewidth=1.8, label="machine's limit (label: times the limit)"))
    _legend(figure, legend)
    return figure


def _figures_of(section: Document, skip: set[str]) -> dict[str, float]:
    """Times by name: numbers, or the time in an object."""
    found = {}
    for name, value in section.items():
        if isinstance(value, dict):
            value = next((value[key] for key in ("ns", "off_ns", "ns_per_packet") if key in value), None)
        if name not in skip and isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = float(value)
    return found


def ablation(whole: Document) -> Figure | None:
    """Time per packet with each optimisation switched off, and by the size of the window where that was measured."""
    section = whole.get("ablation") or {}
    if "all_on_ns" not in section:
        return None
    no_times = {"flows", "all_on_ns", "all_off_ns", "factor", "spread", "frame_bytes", "turns", "ns_by_window"}
    # Parts of the path, not the path without a part.
    no_times |= {"read_ns", "read_and_look_up_ns", "lookup_share"}
    without = _figures_of(section, no_times)
    bars = [("all on", float(section["all_on_ns"]), OURS)]
    bars += [(f"without {name.removesuffix('_ns').replace('_', ' ')}", ns, THEIRS) for name, ns in without.items()]
    if section.get("all_off_ns"):
        bars.append(("all off", float(section["all_off_ns"]), LIMIT))
    windows = dict(sorted((section.get("ns_by_window") or {}).items(), key=lambda item: int(item[0])))
    flows = f" at {_flows(section['flows'])}" if "flows" in section else ""
    with rc_context(BOTH if windows else ACROSS):
        height = 1.3 + 0.42 * len(bars)
        figure, axes = _figure(
            f"What each optimisation gives{flows}", 11 if windows else 7.5, height, 1, 1 + bool(windows)
        )
    _across(axes[0], bars, lambda ns: f"{ns:.0f} ns  ({ns / bars[0][1]:.2f}x)")
    axes[0].grid(axis="y", visible=False)
    axes[0].set_xlabel("ns per packet")
    share = section.get("lookup_share")
    shares = share if isinstance(share, dict) else {"all_on": share}
    told = [f"{value:.0%} with {name.replace('_', ' ')}" for name, value in shares.items() if value is not None]
    if told:
        axes[0].set_title(f"the lookup's share of the time: {', '.join(told)}", loc="left", fontsize=9)
    for axis in axes[1:]:
        axis.plot(list(windows), list(windows.values()), "o-", color=OURS)
        axis.set_ylim(0, max(windows.values()) * 1.2)
        axis.set_xlabel("window of prefetching [packets]")
        axis.set_ylabel("ns per packet")
    return figure


def _across(axis: Axes, bars: list[tuple[str, float, str]], label: Callable[[float], str]) -> None:
    """Horizontal bars from the top down, each with its value."""
    for at, (_, value, color) in enumerate(bars):
        axis.barh(at, value, 0.7, color=color)
        axis.annotate(label(value), (value, at), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlim(0, max(value for _, value, _ in bars) * 1.3 or 1)


def flood(whole: Document) -> Figure | None:
    """What a SYN flood does to established flows, beside what it may do."""
    section = whole.get("flood") or {}
    wanted: list[tuple[str, str, float, Callable[[float], str]]] = [
        ("established_evicted", "established flows evicted", 0, lambda value: f"{value:,.0f}"),
        ("slowdown", "established traffic slower by", 0.1, lambda value: f"{100 * value:.3g} %"),
        ("rss_growth_bytes", "growth of memory", 0, lambda value: f"{value:,.0f} bytes"),
    ]
    here = [one for one in wanted if isinstance(section.get(one[0]), int | float)]
    if not here:
        return None
    with rc_context(NO_GRID):
        figure, axes = _figure("SYN flood, 90 % of the packets: measured, and what is allowed", 7.5, 2.6, 1, len(here))
    for axis, (key, title, most, text) in zip(axes, here, strict=True):
        value = float(section[key])
        # A slowdown is told as a factor or as a share.
        value = value - 1 if key == "slowdown" and value >= 0.9 else value
        axis.bar(0, max(value, 0), 0.5, color=OURS if value <= most else LIMIT)
        axis.axhline(most, color=LIMIT, linestyle="--", linewidth=1.2)
        top = max(value, most, 0) * 1.35 or 1.0
        axis.set_ylim(0, top)
        axis.set_xlim(-0.8, 0.8)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(title, fontsize=9, loc="left")
        axis.annotate(text(value), (0, max(value, 0)), (0, 4), textcoords="offset points", ha="center", fontsize=11)
        axis.set_xlabel(f"allowed: {text(most)}", fontsize=8, color=LIMIT)
    return figure


def _color(contestant: str) -> str:
    if contestant.startswith("tgw"):
        return OURS
    return PLAIN if contestant in ("receive_only", "kernel_forward", "no_balancer") else THEIRS


NAMES = {
    "tgw_af_xdp": "tgw, AF_XDP",
    "tgw_af_packet": "tgw, AF_PACKET",
    "nftables": "nftables DNAT",
    "haproxy": "HAProxy, TCP mode",
    "kernel_forward": "kernel, routing only",
    "receive_only": "kernel, receiving only",
    "no_balancer": "no balancer (routing only)",
}
LINES = ("o-", "s-", "^-", "D-", "v-", "x-")


def packets(whole: Document) -> Figure | None:
    """Packets per second on veths, and what came out at each offered load."""
    measured = (whole.get("veth") or {}).get("packets") or []
    if not measured:
        return None
    with rc_context(BOTH):
        figure, (bars, sweep) = _figure(
            "Real devices (veth): 64-byte packets through a balancer on one core", 11, 4.0, 1, 2
        )
    order = sorted(measured, key=lambda one: -one["pps"])
    for at, one in enumerate(order):
        million = one["pps"] / 1e6
        bars.barh(at, million, 0.7, color=_color(one["contestant"]))
        text = f"{million:.2f} M/s"
        if one.get("ns_per_packet"):
            text += f", {one['ns_per_packet']:.0f} ns"
        bars.annotate(text, (million, at), (4, 0), textcoords="offset points", va="center", fontsize=8)
    bars.set_yticks(range(len(order)), [NAMES.get(one["contestant"], one["contestant"]) for one in order])
    bars.tick_params(axis="y", length=0)
    bars.invert_yaxis()
    bars.grid(axis="y", visible=False)
    bars.set_xlim(0, max(one["pps"] for one in order) / 1e6 * 1.4 or 1)
    bars.set_xlabel("million packets per second delivered (median)")
    for one, line in zip(order, LINES, strict=False):
        points = sorted(one.get("sweep", []))
        x, y = [point[0] / 1e6 for point in points], [point[1] / 1e6 for point in points]
        label = NAMES.get(one["contestant"], one["contestant"])
        ours = one["contestant"].startswith("tgw")
        sweep.plot(x, y, line, markersize=3.5, linewidth=1.6 if ours else 1.0, label=label)
    sweep.set_xscale("log")
    sweep.set_xticks(ticks := [0.3, 0.5, 1, 2, 5, 10, 20], [f"{tick:g}" for tick in ticks])
    sweep.minorticks_off()
    sweep.set_xlabel("million packets per second offered")
    sweep.set_ylabel("delivered")
    sweep.set_ylim(bottom=0)
    sweep.legend(fontsize=7, loc="upper left")
    return figure


def connections(whole: Document) -> Figure | None:
    """Connections per second, and percentiles of their times."""
    measured = (whole.get("veth") or {}).get("connections") or []
    if not measured:
        return None
    figure, (rates, full, paced) = _figure(
        "Real devices (veth): short TCP connections, balancer on one core, clients and server on the other",
        12.5,
        4.0,
        1,
        3,
    )
    names = [NAMES.get(one["contestant"], one["contestant"]) for one in measured]
    for at, one in enumerate(measured):
        rates.bar(at, one["cps"], 0.7, color=_color(one["contestant"]))
        rates.annotate(
            _count(one["cps"]), (at, one["cps"]), (0, 2), textcoords="offset points", ha="center", fontsize=8
        )
    rates.set_xticks(range(len(names)), [name.replace(" (", "\n(").replace(", ", ",\n") for name in names], fontsize=7)
    rates.tick_params(axis="x", length=0)
    rates.set_title("as fast as it goes", fontsize=9, loc="left")
    rates.set_ylabel("connections per second")
    rate = next((one["paced"]["rate"] for one in measured if "paced" in one), 0)
    _percentiles(full, measured, "time of each, as fast as it goes")
    paced_times = [{"contestant": one["contestant"], **one["paced"]} for one in measured if "paced" in one]
    _percentiles(paced, paced_times, f"time of each at {rate:,} connections per second")
    return figure


def _percentiles(axis: Axes, measured: list[Document], title: str) -> None:
    keys = ("p50_us", "p90_us", "p99_us", "p999_us")
    width = 0.84 / max(len(measured), 1)
    shades = iter(("#08306b", "#6baed6", "#9ecae1"))
    grays = iter(("#dddddd", "#969696", "#525252", "#bbbbbb"))
    for number, one in enumerate(measured):
        color = next(shades if one["contestant"].startswith("tgw") else grays, THEIRS)
        at = [place + (number - (len(measured) - 1) / 2) * width for place in range(len(keys))]
        heights = [one.get(key) or 0 for key in keys]
        axis.bar(at, heights, width * 0.94, color=color, label=NAMES.get(one["contestant"], one["contestant"]))
    axis.set_yscale("log")
    axis.set_xticks(range(len(keys)), ["p50", "p90", "p99", "p99.9"])
    axis.set_ylabel("µs")
    axis.set_title(title, fontsize=9, loc="left")
    axis.tick_params(axis="x", length=0)
    bottom, top = axis.get_ylim()
    # Room for the legend.
    axis.set_ylim(max(bottom / 2, 10), top * 4)
    axis.legend(fontsize=7, loc="upper left")


def two_cores(whole: Document) -> Figure | None:
    """What dispatcher and worker cost per packet on a core each."""
    section = whole.get("two_cores") or {}
    measured = section.get("cases") or ([section] if "worker_ns" in section else [])
    if not measured:
        return None
    with rc_context(ACROSS):
        figure, (axis,) = _figure(
            "Dispatcher and worker of an LD on a core each, frames in memory",
            8,
            1.8 + 0.75 * len(measured),
            legend=True,
        )
    labels, at = [], 0
    for one in measured:
        classify, alone = one.get("classify_ns", 0), one.get("one_thread_ns", 0)
        sides = (("dispatcher", one["dispatcher_ns"], classify), ("worker", one["worker_ns"], alone))
        for side, total, work in sides:
            work = min(work, total)
            axis.barh(at, work, 0.7, color=OURS)
            axis.barh(at, total - work, 0.7, left=work, color="#9ecae1")
            text = f"{total:.0f} ns"
            if side == "worker":
                text += f"   a dispatcher feeds {one['derived_ratio']:.1f} workers"
            axis.annotate(text, (total, at), (4, 0), textcoords="offset points", va="center", fontsize=8)
            labels.append(f"{side}, {_count(one['flows'])} flows" if "flows" in one else side)
            at += 1
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlim(0, max(one["worker_ns"] for one in measured) * 1.6)
    axis.set_xlabel("ns per packet")
    own = Patch(color=OURS, label="classifying; processing")
    _legend(figure, [own, Patch(color="#9ecae1", label="the ring between")])
    return figure


def repeat_one(whole: Document) -> Figure | None:
    """Time of one packet per call, by flows."""
    section = whole.get("repeat_one") or []
    measured = section if isinstance(section, list) else section.get("cases") or [section]
    here = [one for one in measured if isinstance(one, dict) and "ns_per_packet" in one]
    if not here:
        return None
    with rc_context(ACROSS):
        figure, (axis,) = _figure("One packet per call, the call's own cost subtracted", 7.5, 1.4 + 0.42 * len(here))
        bars = [(_one_name(one), float(one["ns_per_packet"]), OURS) for one in here]
        _across(axis, bars, lambda ns: f"{ns:.0f} ns")
        limits = [(at, one["limit_ns_per_packet"]) for at, one in enumerate(here) if "limit_ns_per_packet" in one]
        for at, limit in limits:
            axis.plot([limit, limit], [at - 0.35, at + 0.35], color=LIMIT, linewidth=1.8)
        if limits:
            axis.set_xlim(right=max(axis.get_xlim()[1], max(limit for _, limit in limits) * 1.05))
            axis.set_title("line: the machine's limit in the same mode", loc="left", fontsize=9, color=LIMIT)
    axis.set_xlabel("ns per packet")
    return figure


def _one_name(one: Document) -> str:
    words = [str(one[key]) for key in ("case", "mode") if key in one]
    return " ".join([*words, _flows(one["flows"])] if "flows" in one else words) or "one packet"


PLOTS: dict[str, Callable[[Document], Figure | None]] = {
    "cases": cases,
    "ablation": ablation,
    "flood": flood,
    "repeat_one": repeat_one,
    "veth_packets": packets,
    "veth_connections": connections,
    "two_cores": two_cores,
}
