"""A document as `make bench` writes it, with made-up numbers."""

from __future__ import annotations

from itertools import product
from typing import Any

from benchmarks import veth
from benchmarks.packets import Cores

DIRECTIONS = (
    "eip.request",
    "eip.request.rules",
    "eip.reply",
    "clb.request",
    "clb.reply",
    "vswitch.request",
    "vswitch.reply",
)


def case(name: str, flows: int, size: int, mode: str) -> dict[str, Any]:
    limit = 4.0 + 2.5 * len(str(flows)) / 2 + size / 512
    ns = limit * (2.5 if name.startswith("eip") else 4.1) * (0.8 if mode == "zipf" else 1.0)
    return {
        "case": name,
        "role": name.partition(".")[0],
        "flows": flows,
        "frame_bytes": size,
        "mode": mode,
        "ns_per_packet": round(ns, 2),
        "limit_ns_per_packet": round(limit, 2),
        "ratio_to_limit": round(ns / limit, 3),
        "spread": 0.04,
    }


def packets(name: str, pps: int, most: int = 14_000_000) -> dict[str, Any]:
    offered = [370_000, 700_000, 1_100_000, 1_400_000, 2_000_000, 3_400_000, most]
    return {
        "contestant": name,
        "pps": pps,
        "ns_per_packet": round(1e9 / pps, 1),
        "spread": 0.03,
        "offered_pps": pps,
        "generator_busy": 1.0,
        "balancer_busy": 0.98,
        "sweep": [[load, min(load, pps)] for load in reversed(offered)],
    }


def connections(name: str, cps: int) -> dict[str, Any]:
    def times(unit: float) -> dict[str, Any]:
        return {"p50_us": unit, "p90_us": 1.5 * unit, "p99_us": 2.6 * unit, "p999_us": 4.1 * unit}

    paced = {"rate": 1000, **times(2e6 / cps)}
    return {"contestant": name, "cps": cps, "spread": 0.05, "failed": 0, **times(3.2e7 / cps), "paced": paced}


def document() -> dict[str, Any]:
    shapes = list(product((1, 10_000, 1_000_000, 10_000_000), ("uniform", "zipf"), (64, 512)))
    cases = [
        case(name, flows, size, mode)
        for name in DIRECTIONS
        for flows, mode, size in shapes
        if mode == "uniform" or flows >= 1_000_000
    ]
    two = {
        "frame_bytes": 64,
        "dispatcher_ns": 61.0,
        "worker_ns": 140.0,
        "classify_ns": 41.0,
        "one_thread_ns": 110.0,
        "hop_ns": 50.0,
        "derived_ratio": 2.3,
        "spread": 0.05,
    }
    forwarded = [
        packets("receive_only", 3_900_000),
        packets("kernel_forward", 2_300_000),
        packets("nftables", 1_200_000),
        packets("tgw_af_xdp", 2_450_000),
        packets("tgw_af_packet", 700_000),
    ]
    connected = [
        connections("no_balancer", 25_000),
        connections("nftables", 24_000),
        connections("haproxy", 16_400),
        connections("tgw_af_xdp", 19_000),
        connections("tgw_af_packet", 13_000),
    ]
    return {
        "machine": {"cpu": "Some(R) Processor @ 2.90GHz", "cores": 2, "kernel": "6.18.44"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": True,
        "method": {"batch": 64},
        "cases": cases,
        "ablation": {
            "flows": 10_000_000,
            "all_on_ns": 55.0,
            "all_off_ns": 190.0,
            "factor": 3.45,
            "read_ns": 12.0,
            "ns_by_window": {"4": 80.0, "8": 61.0, "16": 56.0, "32": 55.0},
            "batching_ns": 98.0,
            "prefetch_ns": 120.0,
            "window_ns": 61.0,
            "tags_ns": 70.0,
            "lookup_share": {"all_on": 0.41, "all_off": 0.62},
        },
        "flood": {"established_evicted": 0, "slowdown": 0.043, "rss_growth_bytes": 0},
        "repeat_one": [
            {"case": "clb.request", "flows": flows, "ns_per_packet": ns, "limit_ns_per_packet": ns / 3}
            for flows, ns in ((1, 60.0), (10_000, 71.0), (1_000_000, 104.0))
        ],
        "exact": {"frames_in": 10, "frames_out": 7, "drops": 3, "drops_by_reason": {"NO_VIP": 3}, "difference": 0},
        "two_cores": {
            **two,
            "flows": 1_000_000,
            "hop_latency_ns": 190.0,
            "cases": [{**two, "flows": 10_000, "worker_ns": 95.0, "one_thread_ns": 70.0}, {**two, "flows": 1_000_000}],
        },
        "veth": veth.document(forwarded, connected, [], Cores(0, 1)),
    }
