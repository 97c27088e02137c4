"""The `veth` section: the gateway on real devices, beside what else balances load on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import connections, packets, wires
from benchmarks.packets import Cores

DEVICES = ("af_xdp", "af_packet")
METHOD = {
    "packets": "UDP datagrams in IPv4 packets of 64 bytes, 65536 flows, client - balancer - server over veth "
    "pairs. One core generates: an XDP program run on live frames (BPF_PROG_RUN) that redirects them "
    "into the client's veth, so that no socket and no packet buffer of the kernel is before the "
    "balancer. The other core has all of the balancer: the NAPI thread of its near veth (threaded, "
    "pinned), forwarding, sending, and what the far kernel does until it drops the frame (its MAC is "
    "not the interface's). Counted at the far interface. Each contestant first meets a sweep of offered "
    "loads; the load at which most comes out, and its neighbours, are repeated in alternation with the "
    "others; the figure is the median at the best of these",
    "tgw": "an LD (one worker that runs to completion, without a dispatcher): GRE in with the datagram inside, "
    "flow table, GRE out to one of 4 hosts. Frames are 24 bytes longer than nftables' when they come in "
    "and 28 when they leave",
    "nftables": "DNAT to jhash of source address and port mod 4, with connection tracking: no tunnel, nothing to "
    "encapsulate, and no account of frames. kernel_forward is the same without rules, receive_only ends "
    "at the near veth",
    "connections": "connect, one byte, 128 bytes back, close; 32 threads. Clients and server share one core, all that "
    "is between them has the other one, for the gateway three nodes (EIP, LD, vSwitch) and the kernel's "
    "router of the fabric: 4 nodes each way where HAProxy is one process. Percentiles as fast as it "
    "goes, and paced at the same rate for all",
    "priority": "what is measured runs at nice -15, NAPI threads at -10",
}

Document = dict[str, Any]


def cores() -> Cores:
    """Generator and balancer: the last two cores that this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(generator=usable[-2], balancer=usable[-1])


def measure(binary: Path, devices: list[str], quick: bool, say: Callable[[str], None]) -> Document:
    """Everything on real devices; what cannot be measured here is null, and `missing` says why."""
    why = wires.missing()
    if why is not None:
        return document([], [], [why], None)
    for name in wires.remove_left_over():
        say(f"removed {name}, left over from a measurement that was killed")
    has_nft, has_haproxy = shutil.which("nft") is not None, shutil.which("haproxy") is not None
    where = cores()
    missing = [
        f"{name}: not installed (tools/setup.sh --bench, as root)"
        for name, here in (("nftables", has_nft), ("haproxy", has_haproxy))
        if not here
    ]
    with tempfile.TemporaryDirectory(prefix="tgw-bench-") as directory:
        path = Path(directory)
        forwarded, absent = packets.measure(binary, where, devices, has_nft, quick, path, say)
        missing += absent
        connected, absent = connections.measure(binary, where, devices, has_nft, has_haproxy, quick, path, say)
        missing += [reason for reason in absent if reason not in missing]
    return document(forwarded, connected, missing, where)


def document(forwarded: list[Document], connected: list[Document], missing: list[str], where: Cores | None) -> Document:
    """The section: the figures to compare first, then each contestant in full."""
    pps = {one["contestant"]: one["pps"] for one in forwarded}
    cps = {one["contestant"]: one["cps"] for one in connected}
    devices = [f"tgw_{device}" for device in DEVICES]

    def ratio(name: str, other: str, among: dict[str, int]) -> float | None:
        return round(among[name] / among[other], 2) if among.get(name) and among.get(other) else None

    return {
        **{f"{name}_pps": pps.get(name) for name in (*devices, "nftables", "kernel_forward", "receive_only")},
        **{f"{name}_to_nftables": ratio(name, "nftables", pps) for name in devices},
        "haproxy_cps": cps.get("haproxy"),
        "tgw_cps": next((cps[name] for name in devices if name in cps), None),
        **{f"{name}_cps": cps.get(name) for name in (*devices, "nftables", "no_balancer")},
        "packets": forwarded,
        "connections": connected,
        "missing": missing,
        "cores": None if where is None else {"generator": where.generator, "balancer": where.balancer},
        "bottleneck": [bottleneck(one) for one in forwarded],
    }


def bottleneck(one: Document) -> str:
    """What kept a contestant from more, by how busy the two cores were."""
    name, balancer, generator = one["contestant"], one["balancer_busy"], one["generator_busy"]
    most = max((offered for offered, _ in one["sweep"]), default=0)
    if most > 1.2 * one["pps"]:
        return f"{name}: the balancer's core ({balancer:.0%} busy); the generator offered up to {most:,} a second"
    return f"{name}: the generator's core ({generator:.0%} busy; up to {most:,} a second)"
