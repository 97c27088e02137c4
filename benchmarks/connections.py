"""TCP connections per second and how long each takes, through the gateway, HAProxy, and the kernel with nftables.

Clients and the real server share one core; all that is between them (the EIP node, the LD, the vSwitch and the router
of the gateway's fabric; or HAProxy) has the other one. Frames are received on the core of whom they are for (RPS).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import nodes
from benchmarks.packets import RULES, Cores
from benchmarks.wires import Network, Process, WireError, network

SERVER = "10.2.0.1"
# Connections a second at which the times of all are compared: below what any of them can do.
RATE = 1000
PERCENTILES = ("p50_us", "p90_us", "p99_us", "p999_us")
HAPROXY = """
global
  maxconn 4096
  nbthread 1
defaults
  mode tcp
  timeout connect 2s
  timeout client 5s
  timeout server 5s
listen balancer
  bind {vip}:{port}
  server one {server}:{port}
"""


@dataclass
class Contestant:
    """A way from clients to a server."""

    name: str
    network: Network
    binary: Path
    cores: Cores
    target: str
    processes: list[Process] = field(default_factory=list)
    full: list[dict[str, Any]] = field(default_factory=list)
    paced: list[dict[str, Any]] = field(default_factory=list)

    def turn(self, seconds: float, rate: int = 0) -> dict[str, Any]:
        """Connect for a while, at a rate or as fast as it goes. WireError."""
        words = ["connect", "--target", self.target, "--seconds", str(seconds), "--rate", str(rate)]
        client = self.network.start("client", self.cores.generator, str(self.binary), *words, says_ready=False)
        seen = client.result(seconds + 20)
        if not all(process.is_running() for process in self.processes):
            raise WireError(f"{self.name}: a process has ended")
        return seen

    def document(self) -> dict[str, Any]:
        """Its part of the results: medians over its turns."""
        rates = sorted(turn["cps"] for turn in self.full)
        middle = median(rates)
        return {
            "contestant": self.name,
            "cps": round(middle),
            "spread": round((rates[-1] - rates[0]) / middle, 3) if middle else None,
            "failed": sum(turn["failed"] for turn in self.full + self.paced),
            **_times(self.full),
            "paced": {"rate": RATE, **_times(self.paced)},
        }


def _times(turns: list[dict[str, Any]]) -> dict[str, float | None]:
    found = {}
    for key in PERCENTILES:
        values = [turn[key] for turn in turns if turn[key] is not None]
        found[key] = round(median(values), 1) if values else None
    return found


def _settle(made: Network, cores: Cores, ends: dict[str, str], between: list[tuple[str, str]]) -> None:
    """Who receives on which core; what a fast client needs."""
    for name, interface in ends.items():
        made.receive_on(name, interface, cores.generator)
    for name, interface in between:
        made.receive_on(name, interface, cores.balancer)
    made.sysctl("client", "net.ipv4.ip_local_port_range=1024 65535", "net.ipv4.tcp_syn_retries=3")
    for name, interface in ends.items():
        via = "10.1.255.254" if name == "client" else "10.2.255.254"
        made.ip(name, "route", "add", "default", "dev", interface, "via", via)


def _serve(made: Network, binary: Path, cores: Cores) -> Process:
    return made.start("server", cores.generator, str(binary), "serve", "--listen", f"0.0.0.0:{nodes.PORT}")


def _plain(made: Network, cores: Cores, forward: bool) -> None:
    made.namespaces("client", "balancer", "server", forward=("balancer",) if forward else ())
    made.veth(("client", "client0", "10.1.0.1/16"), ("balancer", "lb0", "10.1.255.254/16"))
    made.veth(("balancer", "lb1", "10.2.255.254/16"), ("server", "server0", f"{SERVER}/16"))
    _settle(made, cores, {"client": "client0", "server": "server0"}, [("balancer", "lb0"), ("balancer", "lb1")])


def _kernel(made: Network, binary: Path, cores: Cores, name: str, rules: bool) -> Contestant:
    _plain(made, cores, forward=True)
    target = SERVER
    if rules:
        target = nodes.PRIVATE
        path = made.directory / f"{made.prefix}rules.nft"
        text = RULES.format(vip=target, port=nodes.PORT, count=1, servers=f"0 : {SERVER}")
        path.write_text(text.replace("udp", "tcp"))
        made.run("balancer", "nft", "-f", str(path))
    return Contestant(name, made, binary, cores, f"{target}:{nodes.PORT}", [_serve(made, binary, cores)])


def _haproxy(made: Network, binary: Path, cores: Cores) -> Contestant:
    _plain(made, cores, forward=False)
    made.ip("balancer", "addr", "add", f"{nodes.PRIVATE}/32", "dev", "lo")
    path = made.directory / f"{made.prefix}haproxy.cfg"
    path.write_text(HAPROXY.format(vip=nodes.PRIVATE, port=nodes.PORT, server=SERVER))
    server = _serve(made, binary, cores)
    # It knows no stdin: if this process were killed, the limit would end it.
    words = ["timeout", "600", "haproxy", "-db", "-q", "-f", str(path)]
    proxy = made.start("balancer", cores.balancer, *words, says_ready=False)
    return Contestant("haproxy", made, binary, cores, f"{nodes.PRIVATE}:{nodes.PORT}", [server, proxy])


def _gateway(made: Network, binary: Path, cores: Cores, device: str) -> Contestant:
    """client - EIP node - router - vSwitch - server, and the LD at the router."""
    made.namespaces("client", "eip", "fabric", "ld", "host", "server", forward=("fabric",))
    made.veth(("client", "client0", "10.1.0.1/16"), ("eip", "edge0", "10.1.255.254/16"))
    near = {}
    for number, name in enumerate(("eip", "ld", "host"), 1):
        inside, outside = f"10.9.{number}.1", f"10.9.{number}.2"
        made.veth((name, "fabric0", f"{inside}/24"), ("fabric", f"to-{name}", f"{outside}/24"))
        near[name] = inside
    made.veth(("host", "srv0", "10.2.255.254/16"), ("server", "server0", f"{SERVER}/16"))
    routes = {"eip": (nodes.EIP, nodes.ANYCAST), "ld": (nodes.LD, nodes.SERVICE), "host": (nodes.HOST,)}
    for name, addresses in routes.items():
        for address in addresses:
            made.ip("fabric", "route", "add", address, "via", near[name])
    made.ip("server", "addr", "add", f"{nodes.PRIVATE}/32", "dev", "lo")
    between = [("eip", "edge0"), ("host", "srv0")]
    between += [pair for name in near for pair in ((name, "fabric0"), ("fabric", f"to-{name}"))]
    _settle(made, cores, {"client": "client0", "server": "server0"}, between)

    def fabric(name: str) -> dict[str, Any]:
        return nodes.port(made, name, 0, "fabric0", made.mac("fabric", f"to-{name}"))

    edge = nodes.port(made, "eip", 1, "edge0", made.mac("client", "client0"))
    served = nodes.port(made, "host", 1, "srv0", None)
    documents = {
        "eip": nodes.tables("eip", nodes.EIP, nodes.eip(), [fabric("eip"), edge]),
        "ld": nodes.tables("clb", nodes.LD, nodes.clb("tcp", [nodes.HOST]), [fabric("ld")]),
        "host": nodes.tables(
            "vswitch", nodes.HOST, nodes.vswitch(made.mac("server", "server0")), [fabric("host"), served]
        ),
    }
    processes = [_serve(made, binary, cores)]
    for name, document in documents.items():
        processes.append(nodes.start(made, name, cores.balancer, binary, device, document))
    return Contestant(f"tgw_{device}", made, binary, cores, f"{nodes.PUBLIC}:{nodes.PORT}", processes)


def _wait_for(one: Contestant, limit_s: float = 8.0) -> None:
    """Return once a connection has come about (HAProxy does not say when it listens). WireError when none does."""
    until = time.monotonic() + limit_s
    while (seen := one.turn(0.3))["connections"] == 0:
        if time.monotonic() > until:
            raise WireError(f"no connection came about: {seen['first_failure']}")


def measure(
    binary: Path, cores: Cores, devices: list[str], has_nft: bool, has_haproxy: bool, quick: bool, directory: Path,
    say: Callable[[str], None],
) -> tuple[list[dict[str, Any]], list[str]]:  # fmt: skip
    """What each contestant does, in alternation; and who could not take part, and why."""
    makers: list[tuple[str, Callable[[Network], Contestant]]] = [
        ("no_balancer", lambda made: _kernel(made, binary, cores, "no_balancer", rules=False))
    ]
    if has_nft:
        makers.append(("nftables", lambda made: _kernel(made, binary, cores, "nftables", rules=True)))
    if has_haproxy:
        makers.append(("haproxy", lambda made: _haproxy(made, binary, cores)))
    makers += [(f"tgw_{device}", partial(_gateway, binary=binary, cores=cores, device=device)) for device in devices]
    seconds, repeats = (0.3, 1) if quick else (2.0, 5)
    contestants: list[Contestant] = []
    absent: list[str] = []
    with ExitStack() as stack:
        for number, (name, make) in enumerate(makers):
            made = stack.enter_context(network(f"c{number}", directory))
            try:
                one = make(made)
                _wait_for(one)
                contestants.append(one)
            except WireError as error:
                absent.append(f"{name}: {error}")
                made.remove()
        for _ in range(repeats):
            for one in contestants:
                one.full.append(one.turn(seconds))
                one.paced.append(one.turn(seconds, RATE))
        documents = [one.document() for one in contestants]
    for document in documents:
        say(f"{document['contestant']:<16} {document['cps']:>8,} connections/s, median {document['p50_us']} us")
    return documents, absent
