"""What may be done at all. Pure: a request and the facts in, a refusal with its rail and its reason out, or None.

`force` means that a person answers for the request: it lifts the cooldown, and stands in for evidence that is not given
at all. It lifts nothing else: evidence that is given and too thin stays too thin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from contract.fleet import Fleet, Policy
from gateway.control.models import Migration, Rail, Request


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which rail said no, and why in one sentence."""

    rail: Rail
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """The fleet at the time of the request. `current`: cluster by VIP id; `live`: live nodes by cluster."""

    fleet: Fleet
    policy: Policy
    current: Mapping[int, str]
    migrations: Sequence[Migration]
    live: Mapping[str, Sequence[str]]


def moving(request: Request, facts: Facts) -> list[int]:
    """The VIPs that a request is about: dispersed: all that the cluster serves; return: its own that are elsewhere."""
    if request.kind == "dispersed":
        return [v.id for v in facts.fleet.vips if facts.current[v.id] == request.cluster]
    return [v.id for v in facts.fleet.vips if v.cluster == request.cluster != facts.current[v.id]]


def check(request: Request, facts: Facts, now_ns: int) -> Refusal | None:
    """The first rail that refuses the request, in the order below; no_buffer_capacity is found while planning."""
    for rule in (_sense, _switch, _evidence, _cooldown, _nodes_out):
        refusal = rule(request, facts, now_ns)
        if refusal is not None:
            return refusal
    return None


def _sense(request: Request, facts: Facts, now_ns: int) -> Refusal | None:
    clusters = {c.name: c for c in facts.fleet.clusters}
    cluster = clusters.get(request.cluster)
    if cluster is None or cluster.role != "clb":
        what = "no cluster of that name" if cluster is None else f"it is a cluster of role {cluster.role}"
        return Refusal("unknown_cluster", f"cluster: expected a clb cluster, got {request.cluster[:80]!r}: {what}")
    if cluster.purpose == "buffer":
        # Its VIPs came from a cluster in trouble: to scatter them further could carry the trouble along.
        return Refusal("buffer_cluster_source", f"{request.cluster} is a buffer cluster: its VIPs are not scattered on")
    for other in facts.migrations:
        if other.active and (other.cluster == request.cluster or set(other.vip_ids) & set(moving(request, facts))):
            return Refusal("migration_running", f"{other.id} of {other.cluster} is {other.state}")
    if not moving(request, facts):
        return Refusal("nothing_to_move", f"{request.cluster} has no VIP to move")
    return None


def _switch(request: Request, facts: Facts, now_ns: int) -> Refusal | None:
    if not facts.policy.actions_enabled:
        return Refusal("actions_disabled", "actions are switched off (rails: actions_enabled)")
    return None


def _evidence(request: Request, facts: Facts, now_ns: int) -> Refusal | None:
    if request.evidence is None and request.force:
        return None
    probers, vips = (request.evidence.probers, request.evidence.vips) if request.evidence else (0, 0)
    need = min(facts.policy.min_probers, len(facts.fleet.probing.probers))
    if probers < need:
        return Refusal("too_few_probers", f"expected {need} probers that agree, got {probers}")
    need = min(facts.policy.min_vips, len(moving(request, facts)))
    if vips < need:
        return Refusal("too_few_vips", f"expected {need} VIPs that agree, got {vips}")
    return None


def _cooldown(request: Request, facts: Facts, now_ns: int) -> Refusal | None:
    if request.force:
        return None
    for other in reversed(facts.migrations):
        if other.cluster != request.cluster or other.started_ns is None:
            continue
        since = (now_ns - other.started_ns) / 1e9
        if since < facts.policy.cooldown_s:
            left = facts.policy.cooldown_s - since
            return Refusal("cooldown", f"{other.id} of {other.cluster} began {since:.0f} s ago: {left:.0f} s to wait")
    return None


def _nodes_out(request: Request, facts: Facts, now_ns: int) -> Refusal | None:
    """Only nodes that worked when an action relieved them count: a dead one was taken out by its fault."""
    if request.kind == "return":
        return None
    out = nodes_out(facts)
    fresh = [n for n in facts.live.get(request.cluster, ()) if n not in out]
    total, limit = len(facts.fleet.nodes), facts.policy.max_nodes_out_share
    if fresh and len(out) + len(fresh) > limit * total + 1e-9:
        return Refusal(
            "nodes_out_share",
            f"{len(out)} nodes are out by actions and {len(fresh)} more would be: more than {limit:.0%} of {total}",
        )
    return None


def nodes_out(facts: Facts) -> set[str]:
    """Working nodes that actions have relieved and whose VIPs are still elsewhere."""
    homes = {v.id: v.cluster for v in facts.fleet.vips}
    out: set[str] = set()
    for migration in facts.migrations:
        if migration.started_ns is not None and migration.kind == "dispersed":
            away = any(v in homes and facts.current.get(v) != migration.cluster for v in migration.vip_ids)
            if away or migration.active:
                out |= set(migration.nodes_out)
    return out
