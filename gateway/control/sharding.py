"""Which buffer cluster takes which VIP. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Buffer:
    """A live buffer cluster: what its live nodes can carry and what it carries, in the unit of Vip.demand."""

    name: str
    capacity: float
    load: float


class NoCapacity(ValueError):
    """The buffers cannot carry the VIPs; the message has the numbers."""


def shard(demands: Mapping[int, float], buffers: Iterable[Buffer], k: int) -> dict[int, str]:
    """Each VIP's buffer cluster: over the `k` least loaded, the biggest VIPs first, each to the emptiest that has room.

    NoCapacity when a VIP has no room in any of the k. The result depends on nothing but the arguments.
    """
    chosen = sorted((b for b in buffers if b.capacity > 0), key=lambda b: (b.load / b.capacity, b.name))[:k]
    if not chosen:
        raise NoCapacity("no live buffer cluster")
    load = {b.name: b.load for b in chosen}
    out: dict[int, str] = {}
    for vip, demand in sorted(demands.items(), key=lambda item: (-item[1], item[0])):
        room = [b for b in chosen if load[b.name] + demand <= b.capacity * (1 + 1e-9)]
        if not room:
            free = sum(max(0.0, b.capacity - b.load) for b in chosen)
            raise NoCapacity(
                f"VIP {vip} (demand {demand:g}) fits in none of {len(chosen)} buffer clusters: "
                f"demand {sum(demands.values()):g}, free capacity {free:g}"
            )
        best = min(room, key=lambda b: ((load[b.name] + demand) / b.capacity, b.name))
        load[best.name] += demand
        out[vip] = best.name
    return out
