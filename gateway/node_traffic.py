"""What a node has forwarded, by VIP, listener and real server, and how long frames stayed inside: over its workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

# As the native core gives them (see gateway/_dataplane.pyi), by worker.
Native = dict[int, tuple[list[tuple[int, int, int, int, int, int, int, int]], list[tuple[int, int]]]]
Times = tuple[list[int], dict[int, tuple[list[int], int]]]

# More time series than this and a scrape would hurt more than it tells; /v1/traffic has them all.
MOST_SERIES = 5000
PROTOCOLS = {6: "tcp", 17: "udp"}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets, and bytes of their IP packets without tunnels; requests go towards the real server."""

    requests: int
    request_bytes: int
    replies: int
    reply_bytes: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.requests + other.requests,
            self.request_bytes + other.request_bytes,
            self.replies + other.replies,
            self.reply_bytes + other.reply_bytes,
        )


NOTHING = Traffic(0, 0, 0, 0)
Thing = tuple[int, int, int, int]
"""vip_id, protocol, port, server_id."""


def summed(native: Native) -> tuple[dict[Thing, Traffic], Counter[int]]:
    """Over all workers: traffic of each thing, frames dropped by VIP id."""
    things: dict[Thing, Traffic] = {}
    drops: Counter[int] = Counter()
    for tallies, dropped in native.values():
        for vip, protocol, port, server, *counts in tallies:
            thing = (vip, protocol, port, server)
            things[thing] = things.get(thing, NOTHING) + Traffic(*counts)
        drops.update(dict(dropped))
    return things, drops


def document(native: Native) -> dict[str, Any]:
    """The body of GET /v1/traffic."""
    things, drops = summed(native)
    rows = [
        {
            "vip_id": vip,
            "protocol": PROTOCOLS.get(protocol),
            "port": port or None,
            "server_id": server or None,
            "requests": t.requests,
            "request_bytes": t.request_bytes,
            "replies": t.replies,
            "reply_bytes": t.reply_bytes,
        }
        for (vip, protocol, port, server), t in things.items()
    ]
    return {"traffic": rows, "drops": {str(vip): n for vip, n in drops.items() if n}}


def metrics(node: str, native: Native) -> Iterator[Metric]:
    """Prometheus counters by thing, and of drops by VIP; a gauge says how many things were left out."""
    things, drops = summed(native)
    shown = things if len(things) <= MOST_SERIES else {}
    labels = ["node", "vip_id", "protocol", "port", "server_id", "direction"]
    packets = CounterMetricFamily("tgw_node_traffic_packets", "packets that the pipeline forwarded", labels=labels)
    size = CounterMetricFamily(
        "tgw_node_traffic_bytes", "bytes of the IP packets forwarded, without tunnels", labels=labels
    )
    for (vip, protocol, port, server), t in shown.items():
        names = [node, str(vip), PROTOCOLS.get(protocol, ""), str(port or ""), str(server or "")]
        for direction, count, length in (("request", t.requests, t.request_bytes), ("reply", t.replies, t.reply_bytes)):
            packets.add_metric([*names, direction], count)
            size.add_metric([*names, direction], length)
    yield packets
    yield size
    dropped = CounterMetricFamily(
        "tgw_node_vip_drops", "frames dropped that were for this VIP", labels=["node", "vip_id"]
    )
    for vip, n in drops.items():
        if n:
            dropped.add_metric([node, str(vip)], n)
    yield dropped
    left_out = GaugeMetricFamily(
        "tgw_node_traffic_left_out", "things too many to show here: see /v1/traffic", labels=["node"]
    )
    left_out.add_metric([node], len(things) - len(shown))
    yield left_out


def histogram(node: str, role: str, times: Times) -> Iterator[Metric]:
    """How long frames stayed inside, by worker [s]."""
    bounds, workers = times
    family = HistogramMetricFamily(
        "tgw_node_residence_seconds",
        "time of a frame inside the node, from its receipt to its departure",
        labels=["node", "role", "worker"],
    )
    for worker, (counts, sum_ns) in workers.items():
        total, buckets = 0, []
        # The last bucket also holds what is longer.
        for bound, count in zip(bounds[:-1], counts[:-1], strict=True):
            total += count
            buckets.append((repr(bound / 1e9), float(total)))
        buckets.append(("+Inf", float(total + counts[-1])))
        family.add_metric([node, role, str(worker)], buckets, sum_ns / 1e9)
    yield family
