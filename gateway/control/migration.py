"""A migration, step by step. Pure: the migration, what is seen of the nodes and a clock in, the next migration out.

    planned -> configuring   the targets get tables, without routes; every live node of a target must acknowledge
            -> announcing    source and targets announce; every live node of a target must be seen to announce
            -> verifying     the targets alone announce; probes decide
            -> done | failed -> rolled_back

Make before break all the way: a VIP that was served by anyone is served by someone at every step, and a dead source is
waited for at none. A target that falls before it carries traffic is replaced; one that falls afterwards is not, because
the traffic itself may have felled it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.control.models import Migration, Move, State, Verdict
from gateway.control.sharding import Buffer, NoCapacity, shard

MOST_REPLANS = 3


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a state may take [ns]. `buffers`: over how many clusters VIPs are sharded."""

    configure_ns: int = 20_000_000_000
    announce_ns: int = 20_000_000_000
    verify_ns: int = 60_000_000_000
    settle_ns: int = 20_000_000_000
    buffers: int = 10


@dataclass(frozen=True, slots=True)
class World:
    """What control knows of the fleet now.

    `live`: live nodes by cluster. `holds`, `announces`: VIP ids by node, as acknowledged and as its speaker says.
    `buffers`: every live buffer cluster, its load without this migration. `demand`: by VIP id.
    """

    live: Mapping[str, Sequence[str]]
    holds: Mapping[str, frozenset[int]]
    announces: Mapping[str, frozenset[int]]
    buffers: Sequence[Buffer]
    demand: Mapping[int, float]

    def all_have(self, cluster: str, vips: set[int], what: Mapping[str, frozenset[int]]) -> bool:
        """Whether every live node of the cluster has these VIPs; False when none is live."""
        nodes = self.live.get(cluster, ())
        return bool(nodes) and all(vips <= what.get(n, frozenset()) for n in nodes)

    def any_has(self, cluster: str, vips: set[int], what: Mapping[str, frozenset[int]]) -> bool:
        """Whether some live node of the cluster has these VIPs."""
        return any(vips <= what.get(n, frozenset()) for n in self.live.get(cluster, ()))


def advance(m: Migration, world: World, limits: Limits, now_ns: int) -> Migration:
    """The migration after one step; the very same object when nothing has changed."""
    if m.settling:
        return _settle(m, world, now_ns)
    if m.state == "planned":
        return _to(m, "configuring", now_ns, limits.configure_ns, started_ns=now_ns)
    if m.state == "configuring":
        return _configure(m, world, limits, now_ns)
    if m.state == "announcing":
        return _announce(m, world, limits, now_ns)
    if m.state == "verifying":
        return _verify(m, world, limits, now_ns)
    return m


def judge(m: Migration, verdict: Verdict) -> Migration:
    """Take the probes' verdict; it counts in state verifying alone (ValueError otherwise)."""
    if m.state != "verifying":
        raise ValueError(f"{m.id} is {m.state}: expected a migration that is verifying")
    return m.model_copy(update={"verification": verdict})


def targets(m: Migration) -> dict[str, set[int]]:
    """The VIP ids by target cluster."""
    out: dict[str, set[int]] = {}
    for move in m.moves:
        out.setdefault(move.to, set()).add(move.vip_id)
    return out


def placed(before: Migration, after: Migration) -> dict[int, str]:
    """The VIPs whose cluster changes with this step, and the cluster: the one that holds on if all ends here."""
    if after.state == "rolled_back" and before.state != "rolled_back":
        return {m.vip_id: m.source for m in after.moves}
    began = after.state == "verifying" or after.settling
    if began and before.state != "verifying" and not before.settling:
        return {m.vip_id: m.to for m in after.moves}
    return {}


def _to(m: Migration, state: State, now_ns: int, wait_ns: int, **more: object) -> Migration:
    return m.model_copy(update={"state": state, "deadline_ns": now_ns + wait_ns, **more})


def _end(m: Migration, state: State, now_ns: int, detail: str) -> Migration:
    update = {"state": state, "finished_ns": now_ns, "deadline_ns": None, "settling": False, "detail": detail}
    return m.model_copy(update=update)


def _and(detail: str, more: str) -> str:
    return "; ".join(x for x in (detail, more.removesuffix("; ")) if x)


def _late(m: Migration, now_ns: int) -> bool:
    return m.deadline_ns is not None and now_ns >= m.deadline_ns


def _configure(m: Migration, world: World, limits: Limits, now_ns: int) -> Migration:
    waiting = {t for t, vips in targets(m).items() if not world.all_have(t, vips, world.holds)}
    if not waiting:
        return _to(m, "announcing", now_ns, limits.announce_ns)
    bad = {t for t in waiting if not world.live.get(t)}
    if _late(m, now_ns):
        bad = waiting
    if not bad:
        return m
    names = ", ".join(sorted(bad))
    if m.kind == "return" or m.replans >= MOST_REPLANS:
        # Nothing has been announced: the source is as it was.
        return _end(m, "failed", now_ns, f"{names} did not take the tables; nothing was announced")
    return _replan(m, world, limits, now_ns, bad)


def _replan(m: Migration, world: World, limits: Limits, now_ns: int, bad: set[str]) -> Migration:
    kept = [move for move in m.moves if move.to not in bad]
    extra: dict[str, float] = {}
    for move in kept:
        extra[move.to] = extra.get(move.to, 0.0) + world.demand.get(move.vip_id, 0.0)
    buffers = [Buffer(b.name, b.capacity, b.load + extra.get(b.name, 0.0)) for b in world.buffers if b.name not in bad]
    lost = {move.vip_id: world.demand.get(move.vip_id, 0.0) for move in m.moves if move.to in bad}
    names = ", ".join(sorted(bad))
    try:
        anew = shard(lost, buffers, limits.buffers)
    except NoCapacity as error:
        return _end(m, "failed", now_ns, f"{names} did not take the tables and {error}; nothing was announced")
    moves = [Move(vip_id=x.vip_id, source=x.source, to=anew.get(x.vip_id, x.to)) for x in m.moves]
    detail = f"{names} did not take the tables: planned anew"
    return _to(m, "configuring", now_ns, limits.configure_ns, moves=moves, replans=m.replans + 1, detail=detail)


def _announce(m: Migration, world: World, limits: Limits, now_ns: int) -> Migration:
    by_target = targets(m)
    fallen = sorted(t for t in by_target if not world.live.get(t))
    standing = {t: vips for t, vips in by_target.items() if t not in fallen}
    note = f"{', '.join(fallen)} fell while its routes were announced; " if fallen else ""
    if not standing:
        return _fail(m, world, limits, now_ns, f"{note}no target is left")
    ready = all(world.all_have(t, vips, world.announces) for t, vips in standing.items())
    if not ready and _late(m, now_ns):
        quiet = sorted(t for t, vips in standing.items() if not world.any_has(t, vips, world.announces))
        if quiet:
            note += f"{', '.join(quiet)} did not announce in time; "
            if _source_lives(m, world):
                return _fail(m, world, limits, now_ns, note.removesuffix("; "))
        # Without a source the VIPs that are announced are better off than before.
        ready = True
    if not ready:
        return m
    return _to(m, "verifying", now_ns, limits.verify_ns, announced_ns=now_ns, detail=_and(m.detail, note))


def _verify(m: Migration, world: World, limits: Limits, now_ns: int) -> Migration:
    verdict = m.verification
    if verdict is not None and verdict.clean:
        return _end(m, "done", now_ns, _and(m.detail, f"{verdict.checked} probes are clean"))
    if verdict is not None:
        return _fail(
            m, world, limits, now_ns, f"{verdict.silent} of {verdict.checked} probes were silent after the move"
        )
    if _late(m, now_ns):
        return _fail(m, world, limits, now_ns, "nobody verified the move in time")
    return m


def _fail(m: Migration, world: World, limits: Limits, now_ns: int, why: str) -> Migration:
    if _source_lives(m, world):
        return _to(m, "failed", now_ns, limits.settle_ns, settling=True, detail=f"{why}; going back to the source")
    return _end(m, "failed", now_ns, f"{why}; the source has no live node to go back to")


def _source_lives(m: Migration, world: World) -> bool:
    return any(world.live.get(s) for s in {move.source for move in m.moves})


def _settle(m: Migration, world: World, now_ns: int) -> Migration:
    sources: dict[str, set[int]] = {}
    for move in m.moves:
        sources.setdefault(move.source, set()).add(move.vip_id)
    # A source that has died meanwhile is not waited for, as long as one is left to go back to.
    live = {s: vips for s, vips in sources.items() if world.live.get(s)}
    why = m.detail.removesuffix("; going back to the source")
    if not live:
        return _end(m, "failed", now_ns, f"{why}; the source died before it could be gone back to")
    if all(world.all_have(s, vips, world.announces) for s, vips in live.items()):
        return _end(m, "rolled_back", now_ns, why)
    if _late(m, now_ns) and all(world.any_has(s, vips, world.announces) for s, vips in live.items()):
        return _end(m, "rolled_back", now_ns, why)
    if _late(m, now_ns):
        return _end(m, "failed", now_ns, f"{why}; the source did not announce again, so the VIPs stay where they are")
    return m
