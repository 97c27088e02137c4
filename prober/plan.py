"""Which target is probed when, and from which source. Pure: a slot number decides everything.

A round is one probing period. Target i of n has its place at i/n of every round, so probes are evenly spread and each
target is probed once a round. Rounds are counted on the wall clock, so a restarted prober goes on where it was. Source
ports follow the golden-ratio sequence: any run of probes of a target covers the port range (and so the ECMP paths)
evenly, and every port is used once before any comes again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from contract.colour import Address
from contract.fleet import Fleet, Prober


@dataclass(frozen=True, slots=True)
class Target:
    """One (VIP, TCP port) of the fleet."""

    vip_id: int
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Shot:
    """One probe to send: the target's index in the plan, the target, and the source end."""

    index: int
    target: Target
    source: Address
    source_port: int


def _digest(*parts: object) -> int:
    text = "/".join(str(p) for p in parts).encode()
    return int.from_bytes(hashlib.blake2s(text, digest_size=8).digest(), "little")


def targets_of(fleet: Fleet) -> tuple[Target, ...]:
    """Every TCP listener that may be probed, in an order that mixes the VIPs and changes little with the fleet."""
    found = [
        Target(vip.id, vip.public, listener.port)
        for vip in fleet.vips
        for listener in vip.listeners
        if listener.protocol == "tcp" and listener.probe
    ]
    return tuple(sorted(found, key=lambda t: (_digest(t.vip_id, t.address, t.port), t.vip_id, t.port)))


def sources_of(prober: Prober, per_network: int) -> tuple[Address, ...]:
    """The addresses a prober sends from: up to `per_network` of each of its networks, never the network's first.

    A probe's name holds the low 16 bits of its source only. IPv6 sources therefore borrow the low bits of the prober's
    IPv4 network, which no other prober has.
    """
    four = [n for n in prober.sources if n.version == 4]
    low = int(four[0].network_address) & 0xFFFF if four else _digest(prober.name) & 0xFF00
    found: list[Address] = []
    for network in prober.sources:
        if network.num_addresses == 1:
            found.append(network.network_address)
            continue
        # The last address of an IPv4 network is its broadcast address.
        last = network.num_addresses - (1 if network.version == 4 and network.num_addresses > 2 else 0)
        base = low if network.version == 6 and network.num_addresses > 1 << 16 else 0
        found.extend(network[base + n] for n in range(1, min(per_network + 1, last)))
    return tuple(found)


class Plan:
    """A period's worth of targets and the sources to probe them from."""

    def __init__(
        self,
        targets: Sequence[Target],
        sources: Sequence[Address],
        *,
        period_s: float,
        phase: float = 0.0,
        ports: range = range(10_000, 60_000),
        seed: str = "",
        max_rate: float = math.inf,
    ) -> None:
        """`phase`: 0..1, the prober's share of a slot. `max_rate` [probes/s] stretches the period when it must.

        Targets of a family without a source are left out and stand in `unreachable`.
        """
        by_version = {v: tuple(s for s in sources if s.version == v) for v in (4, 6)}
        self.targets = tuple(t for t in targets if by_version[t.address.version])
        self.unreachable = tuple(t for t in targets if not by_version[t.address.version])
        self.period_ns = max(round(period_s * 1e9), math.ceil(len(self.targets) / max_rate * 1e9))
        self.stretched = self.period_ns > round(period_s * 1e9)
        self._sources = by_version
        self._ports = ports
        self._starts = tuple(_digest(seed, t.vip_id, t.address, t.port) for t in self.targets)
        slot_ns = self.period_ns / max(len(self.targets), 1)
        self._phase_ns = int(phase * slot_ns)
        self._step = _coprime_near(len(ports), (math.sqrt(5) - 1) / 2)

    def time_of(self, slot: int) -> int:
        """When a slot is due [ns since 1970]."""
        round_, index = divmod(slot, len(self.targets))
        return round_ * self.period_ns + self._phase_ns + index * self.period_ns // len(self.targets)

    def slot_at(self, wall_ns: int) -> int | None:
        """The first slot due at or after a time; None when there is nothing to probe."""
        count = len(self.targets)
        if not count:
            return None
        round_, rest = divmod(wall_ns - self._phase_ns, self.period_ns)
        slot = round_ * count + rest * count // self.period_ns
        while self.time_of(slot) < wall_ns:
            slot += 1
        return slot

    def shot(self, slot: int) -> Shot:
        """What to send in a slot."""
        round_, index = divmod(slot, len(self.targets))
        target, start = self.targets[index], self._starts[index]
        sources = self._sources[target.address.version]
        port = self._ports[(start + round_ * self._step) % len(self._ports)]
        return Shot(index, target, sources[(start + round_) % len(sources)], port)


def _coprime_near(size: int, share: float) -> int:
    """The step nearest to share * size that visits every residue before it repeats one."""
    step = max(1, round(size * share))
    while math.gcd(step, size) != 1:
        step += 1
    return step
