"""Packets per second of a balancer on one core, over veths: the gateway's LD, and the kernel with nftables.

One core sends UDP datagrams of many flows (an XDP program on frames that never were in a socket), the other core does
all that the balancer does: receiving on the near veth in a NAPI thread, balancing, sending into the far veth, and what
the kernel at the far end does until it throws the frame away (its MAC is not the far interface's).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import nodes
from benchmarks.wires import Network, Process, WireError, network

FRAME_BYTES, FLOWS = 64, 1 << 16
SERVERS = 4
# Waited before each frame [ns]: from as fast as one core sends to what every contestant takes without a loss.
GAPS = (0, 100, 200, 300, 400, 500, 600, 700, 850, 1000, 1300, 1700, 2300)
QUICK_GAPS = (0, 200, 350, 700)
NOBODY = "02:00:00:00:ff:ff"
RULES = """
table ip balancer {{
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr {vip} udp dport {port} dnat to jhash ip saddr . udp sport mod {count} map {{ {servers} }}
  }}
}}
"""


@dataclass
class Cores:
    """Who runs where."""

    generator: int
    balancer: int


@dataclass
class Turn:
    """What came out at one offered load."""

    gap: int
    offered_pps: float
    delivered_pps: float
    generator_busy: float
    balancer_busy: float


@dataclass
class Contestant:
    """A balancer between a generator and a sink."""

    name: str
    network: Network
    binary: Path
    cores: Cores
    to: str
    target: str
    tunnel: str | None = None
    count_at: tuple[str, str] = ("server", "server0")
    node: Process | None = None
    sweep: list[Turn] = field(default_factory=list)
    best: list[Turn] = field(default_factory=list)

    def turn(self, gap: int, window_s: float) -> Turn:
        """Offer one load for a while, and count what comes out in a part of it. WireError."""
        settle_s = 0.2
        words = ["send", "--interface", "client0", "--to", self.to, "--source", "10.1.0.0", "--target", self.target]
        words += ["--flows", str(FLOWS), "--bytes", str(FRAME_BYTES), "--gap", str(gap)]
        words += ["--seconds", str(round(settle_s + window_s + 0.1, 3))]
        words += ["--tunnel", self.tunnel] if self.tunnel else []
        name, interface = self.count_at
        count = ["count", "--interface", interface, "--settle", str(settle_s), "--seconds", str(window_s)]
        # Both cores will have no time to start a process: the counter is there before.
        counter = self.network.start(name, self.cores.generator, str(self.binary), *count)
        before = _busy()
        sender = self.network.start("client", self.cores.generator, str(self.binary), *words, says_ready=False)
        sent = sender.result()
        after = _busy()
        counted = counter.result()
        busy = {core: _share(before[core], after[core]) for core in (self.cores.generator, self.cores.balancer)}
        return Turn(gap, sent["pps"], counted["pps"], busy[self.cores.generator], busy[self.cores.balancer])

    def document(self) -> dict[str, Any]:
        """Its part of the results: the median of its repeated turns at the load where most came out."""
        by_gap: dict[int, list[Turn]] = {}
        for turn in self.best:
            by_gap.setdefault(turn.gap, []).append(turn)
        at = max(by_gap.values(), key=lambda turns: median(turn.delivered_pps for turn in turns))
        delivered = sorted(turn.delivered_pps for turn in at)
        middle = median(delivered)
        return {
            "contestant": self.name,
            "pps": round(middle),
            "ns_per_packet": round(1e9 / middle, 1) if middle else None,
            "spread": round((delivered[-1] - delivered[0]) / middle, 3) if middle else None,
            "offered_pps": round(median(turn.offered_pps for turn in at)),
            "generator_busy": round(median(turn.generator_busy for turn in at), 2),
            "balancer_busy": round(median(turn.balancer_busy for turn in at), 2),
            "sweep": [[round(turn.offered_pps), round(turn.delivered_pps)] for turn in self.sweep],
        }


def _wires(made: Network, cores: Cores) -> None:
    made.namespaces("client", "balancer", "server", forward=("balancer",))
    made.veth(("client", "client0", "10.1.0.1/16"), ("balancer", "lb0", "10.1.255.254/16"))
    made.veth(("balancer", "lb1", "10.2.255.254/16"), ("server", "server0", "10.2.0.1/16"))
    made.receive_in_thread("balancer", "lb0", cores.balancer)


def _kernel(made: Network, binary: Path, cores: Cores, name: str, rules: bool) -> Contestant:
    _wires(made, cores)
    servers = [f"10.2.1.{number}" for number in range(1, SERVERS + 1)]
    for server in servers:
        made.neighbour("balancer", "lb1", server, NOBODY)
    if rules:
        served = ", ".join(f"{number} : {server}" for number, server in enumerate(servers))
        text = RULES.format(vip=nodes.PRIVATE, port=nodes.PORT, count=len(servers), servers=served)
        path = made.directory / f"{made.prefix}rules.nft"
        path.write_text(text)
        made.run("balancer", "nft", "-f", str(path))
    target = nodes.PRIVATE if rules else servers[0]
    return Contestant(name, made, binary, cores, made.mac("balancer", "lb0"), f"{target}:{nodes.PORT}")


def _gateway(made: Network, binary: Path, cores: Cores, device: str) -> Contestant:
    _wires(made, cores)
    # The node owns these interfaces: the kernel must not route what it sees of them.
    made.sysctl("balancer", "net.ipv4.ip_forward=0")
    ports = [
        nodes.port(made, "balancer", 0, "lb1", NOBODY),
        nodes.port(made, "balancer", 1, "lb0", made.mac("client", "client0")),
    ]
    section = nodes.clb("udp", [f"10.3.1.{number}" for number in range(1, SERVERS + 1)])
    document = nodes.tables("clb", nodes.LD, section, ports)
    node = nodes.start(made, "balancer", cores.balancer, binary, device, document, ring_capacity=4096)
    to, tunnel = made.mac("balancer", "lb0"), f"{nodes.EIP},{nodes.SERVICE}"
    target = f"{nodes.PRIVATE}:{nodes.PORT}"
    return Contestant(f"tgw_{device}", made, binary, cores, to, target, tunnel=tunnel, node=node)


def _receiver(made: Network, binary: Path, cores: Cores) -> Contestant:
    _wires(made, cores)
    # Not for us: received, and dropped at the first look.
    target = f"{nodes.PRIVATE}:{nodes.PORT}"
    return Contestant("receive_only", made, binary, cores, NOBODY, target, count_at=("balancer", "lb0"))


def measure(
    binary: Path, cores: Cores, devices: list[str], has_nft: bool, quick: bool, directory: Path,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """What each contestant does, in alternation; and who could not take part, and why."""
    makers: list[tuple[str, Callable[[Network], Contestant]]] = [
        ("receive_only", lambda made: _receiver(made, binary, cores)),
        ("kernel_forward", lambda made: _kernel(made, binary, cores, "kernel_forward", rules=False)),
    ]
    if has_nft:
        makers.append(("nftables", lambda made: _kernel(made, binary, cores, "nftables", rules=True)))
    makers += [(f"tgw_{device}", partial(_gateway, binary=binary, cores=cores, device=device)) for device in devices]
    gaps, window_s, repeats = (QUICK_GAPS, 0.15, 1) if quick else (GAPS, 0.4, 5)
    contestants: list[Contestant] = []
    absent: list[str] = []
    with ExitStack() as stack:
        for number, (name, make) in enumerate(makers):
            made = stack.enter_context(network(f"p{number}", directory))
            try:
                contestants.append(make(made))
            except WireError as error:
                absent.append(f"{name}: {error}")
                made.remove()
        # First where each is at its best; then, in alternation, that load and its neighbours again.
        for one in contestants:
            one.sweep = [one.turn(gap, window_s) for gap in gaps]
            best = max(one.sweep, key=lambda turn: turn.delivered_pps)
            say(f"{one.name:<16} {best.delivered_pps:>10,.0f} packets/s at {best.offered_pps:,.0f} offered")
        for _ in range(repeats):
            for one in contestants:
                at = max(range(len(gaps)), key=lambda at: one.sweep[at].delivered_pps)
                near = gaps[at : at + 1] if quick else gaps[max(at - 1, 0) : at + 2]
                one.best += [one.turn(gap, window_s) for gap in near]
        documents = [one.document() for one in contestants]
        for one, document in zip(contestants, documents, strict=True):
            if one.node is not None:
                document["node"] = one.node.result()["workers"]
    return documents, absent


def _busy() -> dict[int, tuple[int, int]]:
    """By core: ticks not idle, and all ticks."""
    found = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name.startswith("cpu") and name[3:].isdigit():
            ticks = [int(value) for value in values[:8]]
            found[int(name[3:])] = (sum(ticks) - ticks[3] - ticks[4], sum(ticks))
    return found


def _share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """The share of the time between that was not idle."""
    return (after[0] - before[0]) / max(after[1] - before[1], 1)
