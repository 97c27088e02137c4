"""Who was meant to see which probe: what arrived at each tier of the path, and which node showed for it.

A tier is a set of nodes that share what arrives: all EIP nodes, the LDs of one cluster (shared by ECMP), or one host
(addressed by name). What arrived is counted from the records of the tier before it, so a node that shows nothing is
measured against packets that really came its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from analyzer.ledger import CLB_IN, CLB_OUT, EIP_IN, EIP_OUT, VSW_IN, VSW_OUT, Entry, accused
from analyzer.region import Situation
from analyzer.rows import TRACE

EIP_TIER = "eip"


def cluster_tier(cluster: str) -> str:
    """The key of a cluster's tier."""
    return f"cluster {cluster}"


def host_tier(host: str) -> str:
    """The key of a host's tier."""
    return f"host {host}"


class Arrival(NamedTuple):
    """One probe at one tier. `node`: who recorded it, "" nobody. `hole`: who passed it on unrecorded, "" nobody."""

    ts_ns: int
    node: str
    hole: str
    vip_id: int
    prober: str
    probe_id: int


@dataclass(slots=True)
class Tier:
    """The arrivals at one tier, in order of time. `cluster`: whose nodes they are."""

    cluster: str
    nodes: list[str]
    arrivals: list[Arrival] = field(default_factory=list)


def tiers(entries: Iterable[Entry], situation: Situation) -> dict[str, Tier]:
    """The tiers of the region with what arrived at each, by EIP_TIER, cluster_tier and host_tier."""
    region = situation.region
    eips = [n for n in region.eips if not situation.maintained(n)]
    out: dict[str, Tier] = {EIP_TIER: Tier(region.cluster_of(eips[0]) if eips else "", eips)}
    settled: dict[tuple[int, int], bool] = {}
    for entry in entries:
        at_eip = entry.seen_at(EIP_IN)
        hops = entry.hops
        vip, prober, name = entry.vip_id, entry.prober, entry.probe_id
        if at_eip is not None:
            out[EIP_TIER].arrivals.append(Arrival(at_eip.ts_ns, at_eip.node, "", vip, prober, name))
        elif hops or entry.drops:
            # Another node has it: some EIP node passed it on. Records may still be on their way.
            hole = accused(entry, region, EIP_IN)
            out[EIP_TIER].arrivals.append(Arrival(entry.first_ns, "", hole, vip, prober, name))
        elif entry.verdict is not None and entry.verdict.kind in ("unexplained", "silent"):
            out[EIP_TIER].arrivals.append(Arrival(entry.first_ns, "", "", vip, prober, name))
        if at_eip is not None and at_eip.kind == TRACE:
            vip = region.vip_at(at_eip.outer_dst) or vip
            second = at_eip.ts_ns // 1_000_000_000
            ok = settled.get((vip, second))
            if ok is None:
                ok = settled[(vip, second)] = situation.settled(vip, at_eip.ts_ns)
            if ok:
                cluster = situation.cluster_of_vip(vip)
                key = cluster_tier(cluster)
                tier = out.get(key)
                if tier is None and cluster:
                    tier = out[key] = Tier(cluster, situation.expected_members(cluster))
                if tier is not None:
                    at_clb = entry.seen_at(CLB_IN)
                    hole = "" if at_clb is not None else accused(entry, region, CLB_IN)
                    if at_clb is None and not hole and CLB_OUT in hops:
                        hole = hops[CLB_OUT].node
                    seen = at_clb.node if at_clb is not None else ""
                    tier.arrivals.append(Arrival(at_eip.ts_ns, seen, hole, vip, prober, name))
        at_clb = hops.get(CLB_IN)
        if at_clb is not None:
            host = region.node_at(at_clb.outer_dst)
            if host is not None and region.role(host) == "vswitch" and not situation.maintained(host):
                tier = out.get(host_tier(host))
                if tier is None:
                    tier = out[host_tier(host)] = Tier(region.cluster_of(host), [host])
                here = entry.seen_at(VSW_IN)
                # An answer on its way back has been at the host, whoever recorded it.
                answered = VSW_OUT in hops or CLB_OUT in hops or EIP_OUT in hops
                hole = host if here is None and answered else ""
                seen = here.node if here is not None else ""
                tier.arrivals.append(Arrival(at_clb.ts_ns, seen, hole, vip, prober, name))
    for tier in out.values():
        tier.arrivals.sort(key=lambda a: a.ts_ns)
    return out
