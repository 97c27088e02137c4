"""The orchestrator of the fleet: one document, one placement, the migrations; operators carry out what follows from it.

Everything decided is in the store before anything acts on it. What nodes are told follows from the store alone, and the
epoch of a node rises only when the content changes: a restart of control tells nobody anything new.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from contract.documents import DocumentError, Problem, check
from contract.fleet import Fleet, Node, Policy
from gateway.control import desired, migration, rails, stored_fleet
from gateway.control.cluster_operator import ClusterOperator, Pace
from gateway.control.migration import Limits, World
from gateway.control.models import Maintenance, Migration, Move, Placement, Request, Verdict
from gateway.control.node_client import NodeClient, NodeError
from gateway.control.node_link import NodeLink, Wanted
from gateway.control.settings import Keep
from gateway.control.sharding import Buffer, NoCapacity, shard
from gateway.control.store import Spot, Store, WriteFailed

log = structlog.get_logger()

NodeState = Literal["up", "unreachable", "maintenance", "unknown"]


class Conflict(Exception):
    """What is asked for does not fit what is going on; the message says why. Nothing was done."""


class Degraded(Exception):
    """Control holds still until a person puts a right fleet document in force; the message says why."""


class Unknown(LookupError):
    """There is nothing of that name."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds; see control.toml."""

    pace: Pace = field(default_factory=Pace)
    misses: int = 3
    speaker_stale_s: float = 5.0
    configure_s: float = 20.0
    announce_s: float = 20.0
    tick_s: float = 0.5
    concurrency: int = 16


# In memory are the migrations of a day, at most so many, and those that something still depends on.
MEMORY_NS = 24 * 3600 * 1_000_000_000
MOST_IN_MEMORY = 500
PRUNE_NS = 3600 * 1_000_000_000


class Orchestrator:
    """The fleet. All methods run in one event loop. `clock`: ns since 1970."""

    def __init__(
        self,
        store: Store,
        client: NodeClient,
        probe_key: str,
        timing: Timing | None = None,
        clock: Callable[[], int] = time.time_ns,
        keep: Keep | None = None,
    ) -> None:
        self.store = store
        self._keep_of_past = keep or Keep()
        # Why the store did not take the last write; "" when it did.
        self.unwritten = ""
        self._untold = False
        self._next_prune = 0
        self.timing = timing or Timing()
        self._client = client
        self._probe_key = probe_key
        self._clock = clock
        self._slots = asyncio.Semaphore(self.timing.concurrency)
        self._awake = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._farewells: set[asyncio.Task[None]] = set()
        self.operators: dict[str, ClusterOperator] = {}
        self._migrations: dict[str, Migration] = {m.id: m for m in store.migrations()}
        self._maintenance = store.maintenance()
        self._epochs = store.node_epochs()
        self._stored = stored = store.fleet()
        self.epoch: int = stored.epoch if stored is not None else 0
        # Why control holds still: nodes keep the tables they have, and nothing is withdrawn. "" when it does not.
        self.fault = stored_fleet.fault(stored, store)
        self.fleet: Fleet | None = stored.fleet if stored is not None and not self.fault else None
        self.rails = store.rails() or (self.fleet.policy if self.fleet is not None else Policy())
        self._spots = store.placement()
        if self.fault:
            log.error("control holds still: nodes keep their tables until a right document is applied", why=self.fault)
        self._tell()

    def problems(self) -> list[str]:
        """What people should know of: nothing when all is well."""
        aside = self.store.set_aside
        out = [self.fault, f"the store takes no writes: {self.unwritten}" if self.unwritten else ""]
        out.append(f"{aside} rows of the store could not be read and are in its table unreadable" if aside else "")
        return [x for x in out if x]

    def usable(self) -> None:
        """Degraded while control holds still."""
        if self.fault:
            raise Degraded(self.fault)

    # Running.

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            while True:
                self._awake.clear()
                self._follow_tasks()
                self.tick()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.timing.tick_s):
                        await self._awake.wait()
        finally:
            tasks = [*self._tasks.values(), *self._farewells]
            self._tasks.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """Something has changed: tick soon."""
        self._awake.set()

    def _follow_tasks(self) -> None:
        for name in list(self._tasks):
            if name not in self.operators:
                self._tasks.pop(name).cancel()
            elif self._tasks[name].done():
                log.error("an operator has ended; starting it again", cluster=name, error=repr(self._tasks[name]))
                del self._tasks[name]
        for name, operator in self.operators.items():
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(operator.run(), name=f"operator {name}")

    def tick(self) -> None:
        """Move every migration on as far as it goes now, and keep the operators told.

        What the store does not take now is done by a later turn: nothing is acted on that is not durable.
        """
        if self.fleet is None:
            return
        try:
            self._turn()
            self._prune()
        except WriteFailed as error:
            self._not_written(error)
        else:
            self._written()

    def _not_written(self, error: WriteFailed) -> None:
        if not self.unwritten:
            log.error("the store takes no writes; control goes on once it does", problem=str(error))
        self.unwritten = str(error)

    def _written(self) -> None:
        if self.unwritten and not self._untold:
            log.info("the store takes writes again")
            self.unwritten = ""

    def _prune(self) -> None:
        now = self._clock()
        if self._next_prune - PRUNE_NS <= now < self._next_prune:
            return
        needed = self._needed()
        self.store.prune(self._keep_of_past, needed, now)
        recent = [m.id for m in self._migrations.values() if m.requested_ns > now - MEMORY_NS][-MOST_IN_MEMORY:]
        kept = needed.union(recent)
        self._migrations = {k: m for k, m in self._migrations.items() if k in kept}
        self._next_prune = now + PRUNE_NS

    def _needed(self) -> set[str]:
        """The migrations that something depends on: under way, the reason for a VIP's place, or of nodes still out."""
        where = self.current()
        out = {s.migration for s in self._spots.values() if s.migration is not None}
        for m in self._migrations.values():
            away = m.nodes_out and any(where.get(v, m.cluster) != m.cluster for v in m.vip_ids)
            if m.active or away:
                out.add(m.id)
        return out

    def _turn(self) -> None:
        if self._untold:
            self._tell()
        if self._untold:
            return
        self._catch_up()
        # Just after a start nobody has been heard: that is not the same as nobody being there.
        changed = self.heard()
        while changed:
            changed = False
            for m in self.active():
                after = migration.advance(m, self._world(m), self._limits(), self._clock())
                if after is not m:
                    self._keep(m, after)
                    changed = True
            if changed:
                self._tell()

    def heard(self) -> bool:
        """Whether every LD has answered once, or has failed to for long enough."""
        names = {c.name for c in self.fleet.clusters if c.role == "clb"} if self.fleet is not None else set()
        told = names <= self.operators.keys()
        return told and all(x.reach != "unknown" for n in names for x in self.operators[n].links.values())

    # The fleet document.

    def apply_fleet(self, fleet: Fleet, by: str) -> int:
        """Put a whole document in force; its epoch (the former one when nothing differs). Conflict, DocumentError."""
        if self.fleet == fleet:
            return self.epoch
        self._refuse_unfit(fleet)
        now, old = self._clock(), self.fleet
        before = self._stored.raw.get("policy") if self.fault and self._stored is not None else None
        removed = self._removed(fleet)
        with self.store.transaction():
            epoch = self.store.add_fleet(fleet, by, now)
            if (changed := stored_fleet.policy_change(old, fleet, before)) or old is None:
                # What a person has set by hand since stands, but for what the document says anew.
                self.store.set_rails(self.rails.model_copy(update=changed))
            self._place_anew(fleet, now)
            self._maintain_anew(old, fleet)
            self.store.let_go_of_faults()
            self.store.audit(now, by, "fleet", f"epoch {epoch}", "", _summary(fleet))
        self.epoch, self.fleet, self.fault = epoch, fleet, ""
        self.store.open_faults.clear()
        self._spots = self.store.placement()
        self._maintenance = self.store.maintenance()
        self.rails = self.store.rails() or fleet.policy
        log.info("fleet document in force", epoch=epoch, by=by)
        self._tell()
        self._let_go(removed)
        self.wake()
        return epoch

    def _refuse_unfit(self, fleet: Fleet) -> None:
        roles = {c.name: c.role for c in fleet.clusters}
        vips = {v.id for v in fleet.vips}
        for m in self.active():
            for name in {m.cluster, *(x.source for x in m.moves), *(x.to for x in m.moves)}:
                if roles.get(name) != "clb":
                    raise Conflict(f"{m.id} is {m.state} and needs cluster {name}, which the document does not have")
            if not vips.issuperset(m.vip_ids):
                raise Conflict(f"{m.id} is {m.state} and moves VIPs which the document does not have")

    def _place_anew(self, fleet: Fleet, now: int) -> None:
        homes = (
            {v.id: v.cluster for v in self.fleet.vips} if self.fleet is not None else stored_fleet.homes(self._stored)
        )
        clb = {c.name for c in fleet.clusters if c.role == "clb"}
        moving = {v for m in self.active() for v in m.vip_ids}
        for vip in fleet.vips:
            spot = self._spots.get(vip.id)
            displaced = spot is not None and (spot.current != homes.get(vip.id) or vip.id in moving)
            if spot is not None and displaced and spot.current in clb:
                continue  # a migration put it there; its home may be unfit still
            if spot is None or spot.current != vip.cluster:
                self.store.place(vip.id, Spot(vip.cluster, now, None))
        for gone in set(self._spots) - {v.id for v in fleet.vips}:
            self.store.displace(gone)

    def _maintain_anew(self, old: Fleet | None, fleet: Fleet) -> None:
        before = {n.name: n.maintenance for n in old.nodes} if old is not None else {}
        after = {n.name: n.maintenance for n in fleet.nodes}
        for name in self._maintenance:
            # The document's latest word stands over a person's earlier one.
            if name not in after or (name in before and before[name] != after[name]):
                self.store.drop_maintenance(name)

    def _removed(self, fleet: Fleet) -> list[Wanted]:
        """A last word for each working node that the document drops: announce nothing."""
        kept, out = {n.name for n in fleet.nodes}, []
        for operator in self.operators.values():
            for link in operator.links.values():
                if link.name not in kept and link.wanted is not None and link.reach == "up":
                    document = link.wanted.desired.document | {"routes": [], "edge_routes": []}
                    last = desired.Desired(link.name, document, link.wanted.desired.vips, {})
                    out.append(Wanted(link.wanted.epoch + 1, last))
        return out

    def _let_go(self, removed: list[Wanted]) -> None:
        async def last_word(wanted: Wanted) -> None:
            name = wanted.desired.node
            for _ in range(3):
                try:
                    await self._client.push(name, wanted.tables)
                    break
                except NodeError as error:
                    log.warning("a removed node does not take its last word", node=name, error=str(error))
            await self._client.forget(name)

        for wanted in removed:
            self._epochs[wanted.desired.node] = (wanted.epoch, wanted.desired.digest)
            try:
                self.store.set_node_epoch(wanted.desired.node, *self._epochs[wanted.desired.node])
            except WriteFailed as error:  # a node that is ahead of the store is caught up with
                self._not_written(error)
            task = asyncio.ensure_future(last_word(wanted))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)

    # What nodes are told.

    def drained(self) -> set[str]:
        """The nodes in maintenance, by a person's word or the document's."""
        return {n.name for n in self._fleet_nodes() if self._in_maintenance(n)}

    def _in_maintenance(self, node: Node) -> bool:
        entry = self._maintenance.get(node.name)
        return entry.on if entry is not None else node.maintenance

    def _tell(self) -> None:
        """Work out every node's desired state and give it to the operators; epochs are durable first.

        When they are not to be had, nodes keep what they have, and the next turn tells them.
        """
        self._untold = True
        try:
            self._tell_all()
        except WriteFailed as error:
            self._not_written(error)
        else:
            self._untold = False

    def _tell_all(self) -> None:
        if self.fleet is None:
            return
        held = desired.holdings(self.current(), self._migrations.values())
        fresh = desired.all_nodes(self.fleet, held, self.drained(), self._probe_key)
        wanted = {}
        epochs = dict(self._epochs)
        with self.store.transaction():
            for name, one in fresh.items():
                epoch, digest = epochs.get(name, (0, ""))
                if digest != one.digest:
                    epoch += 1
                    epochs[name] = (epoch, one.digest)
                    self.store.set_node_epoch(name, epoch, one.digest)
                wanted[name] = Wanted(epoch, one)
        self._epochs = epochs
        names = {c.name for c in self.fleet.clusters}
        self.operators = {n: o for n, o in self.operators.items() if n in names}
        busy = {x for m in self.active() for x in (m.cluster, *(y for v in m.moves for y in (v.source, v.to)))}
        for name in names:
            operator = self.operators.get(name)
            if operator is None:
                operator = self.operators[name] = ClusterOperator(
                    name, self._client, self._slots, self._clock, self.wake, self._new_link, self.timing.pace
                )
            if name in busy and not operator.urgent:
                operator.kick()
            operator.urgent = name in busy
            operator.want(wanted[n.name] for n in self.fleet.nodes_of(name))

    def _new_link(self, name: str) -> NodeLink:
        return NodeLink(name, self.timing.misses, int(self.timing.speaker_stale_s * 1e9))

    def _catch_up(self) -> None:
        """A node may know a later epoch than the store (which was lost or put back): go on above it."""
        ahead = [link for o in self.operators.values() for link in o.links.values() if link.ahead_of is not None]
        for link in ahead:
            if link.ahead_of is not None:
                log.warning("node is ahead of the store", node=link.name, epoch=link.ahead_of)
                # Without a digest the content counts as new.
                self._epochs[link.name] = (link.ahead_of, "")
        if ahead:
            self._tell()

    # Migrations.

    def active(self) -> list[Migration]:
        """The migrations that are on their way."""
        return [m for m in self._migrations.values() if m.active]

    def migrations(self) -> list[Migration]:
        """The migrations that memory holds, oldest first; the store has those before."""
        return list(self._migrations.values())

    def migration(self, migration_id: str) -> Migration:
        """The migration of that id; Unknown."""
        found = self._migrations.get(migration_id) or self.store.migration(migration_id)
        if found is None:
            raise Unknown(f"no migration {migration_id[:80]!r}")
        return found

    def request(self, request: Request) -> Migration:
        """Ask for a migration: it comes back planned, dry_run or refused (with the rail and the reason)."""
        self.usable()
        now = self._clock()
        common = request.model_dump(exclude={"dry_run", "evidence"}) | {"evidence": request.evidence}
        m = Migration(id="unsaved", state="planned", requested_ns=now, **common)
        if self.fleet is None:
            return self._refuse(m, rails.Refusal("unknown_cluster", "there is no fleet document yet"))
        if not self.heard():
            return self._refuse(m, rails.Refusal("control_starting", "not every LD has been heard yet: ask again"))
        facts = rails.Facts(self.fleet, self.rails, self.current(), self.migrations(), self.live())
        refusal = rails.check(request, facts, now)
        if refusal is not None:
            return self._refuse(m, refusal)
        try:
            moves = self._plan(request, facts)
        except NoCapacity as error:
            return self._refuse(m, rails.Refusal("no_buffer_capacity", str(error)))
        where = f"{len(moves)} VIPs to {len({x.to for x in moves})} clusters"
        out = [] if request.kind == "return" else list(facts.live.get(request.cluster, ()))
        m = m.model_copy(update={"id": self.store.next_migration_id(), "moves": moves, "nodes_out": out})
        if request.dry_run or self.rails.dry_run:
            why = "asked for as a dry run" if request.dry_run else "rails: dry_run"
            rail = None if request.dry_run else "dry_run"
            update = {
                "state": "dry_run",
                "refused_by": rail,
                "finished_ns": now,
                "detail": f"{why}: would move {where}",
            }
            m = m.model_copy(update=update | {"nodes_out": []})
        self._save(m, request.requested_by, "migration", request.reason, f"{m.state}: {where}")
        if m.active:
            self.tick()
        return self._migrations[m.id]

    def verdict(self, migration_id: str, verdict: Verdict) -> Migration:
        """Take the probes' verdict on a migration. Unknown; Conflict when it is not verifying; Degraded."""
        self.usable()
        m = self.migration(migration_id)
        try:
            judged = migration.judge(m, verdict)
        except ValueError as error:
            raise Conflict(str(error)) from None
        words = f"clean={verdict.clean} checked={verdict.checked} silent={verdict.silent}"
        self._save(judged, "analyzer", "verdict", "", words)
        self.tick()
        return self._migrations[m.id]

    def _plan(self, request: Request, facts: rails.Facts) -> list[Move]:
        vips = rails.moving(request, facts)
        if request.kind == "return":
            if not facts.live.get(request.cluster):
                raise NoCapacity(f"{request.cluster} has no live node to return to")
            to = dict.fromkeys(vips, request.cluster)
        else:
            demand = self._demand()
            to = shard({v: demand[v] for v in vips}, self._buffers(None), self.rails.buffer_clusters)
        return [Move(vip_id=v, source=facts.current[v], to=to[v]) for v in vips]

    def _refuse(self, m: Migration, refusal: rails.Refusal) -> Migration:
        update = {
            "state": "refused",
            "refused_by": refusal.rail,
            "detail": refusal.reason,
            "finished_ns": self._clock(),
        }
        refused = m.model_copy(update=update)
        # An analyzer that keeps asking gets the same answer; one entry of it is enough.
        last = next((x for x in reversed(self._migrations.values()) if x.cluster == m.cluster), None)
        same = ("state", "refused_by", "incident_id", "requested_by", "kind", "force")
        if last is not None and all(getattr(last, f) == getattr(refused, f) for f in same):
            return last.model_copy(update={"detail": refusal.reason})
        refused = refused.model_copy(update={"id": self.store.next_migration_id()})
        result = f"refused by {refusal.rail}: {refusal.reason}"
        self._save(refused, m.requested_by, "migration", m.reason, result)
        return refused

    def _save(self, m: Migration, who: str, what: str, why: str, result: str) -> None:
        with self.store.transaction():
            self._record(m, who, what, why, result)
        self._remember(m, what, result)

    def _record(self, m: Migration, who: str, what: str, why: str, result: str) -> None:
        self.store.save_migration(m)
        self.store.audit(self._clock(), who, what, f"{m.id} {m.cluster}", why, result)

    def _remember(self, m: Migration, what: str, result: str) -> None:
        self._migrations[m.id] = m
        log.info(what, id=m.id, cluster=m.cluster, state=m.state, result=result)

    def _keep(self, before: Migration, after: Migration) -> None:
        now, result = self._clock(), f"{after.state}: {after.detail}".removesuffix(": ")
        of = after.id if after.state != "rolled_back" else None
        spots = {vip: Spot(cluster, now, of) for vip, cluster in migration.placed(before, after).items()}
        with self.store.transaction():
            for vip, spot in spots.items():
                self.store.place(vip, spot)
            self._record(after, "control", "migration", before.state, result)
        # Memory follows the store, or a write that failed would leave it ahead.
        self._spots |= spots
        self._remember(after, "migration", result)

    def _limits(self) -> Limits:
        t, policy = self.timing, self.rails
        configure, announce = int(t.configure_s * 1e9), int(t.announce_s * 1e9)
        return Limits(configure, announce, int(policy.verify_timeout_s * 1e9), announce, policy.buffer_clusters)

    # What is known.

    def _world(self, m: Migration) -> World:
        now = self._clock()
        links = {link.name: link for o in self.operators.values() for link in o.links.values()}
        return World(
            live=self.live(),
            holds={n: link.vips_held for n, link in links.items()},
            announces={n: link.vips_announced(now) for n, link in links.items()},
            buffers=self._buffers(m),
            demand=self._demand(),
        )

    def current(self) -> dict[int, str]:
        """The cluster that serves each VIP of the document."""
        vips = self.fleet.vips if self.fleet is not None else []
        return {v.id: self._spots[v.id].current for v in vips}

    def live(self) -> dict[str, list[str]]:
        """By cluster: the nodes that answer, are not in maintenance, and whose speaker does not deny that they live."""
        out: dict[str, list[str]] = {}
        for node in self._fleet_nodes():
            if self.node_state(node) == "up":
                link = self.link(node.name)
                if link is not None and link.speaker(self._clock()).forwarding_alive is not False:
                    out.setdefault(node.cluster, []).append(node.name)
        return out

    def link(self, node: str) -> NodeLink | None:
        """What is known of a node."""
        for operator in self.operators.values():
            if node in operator.links:
                return operator.links[node]
        return None

    def node_state(self, node: Node) -> NodeState:
        """Maintenance is said by a person, so it stands over what polls see."""
        if self._in_maintenance(node):
            return "maintenance"
        link = self.link(node.name)
        return link.reach if link is not None else "unknown"

    def load(self, excluded: Migration | None = None) -> dict[str, float]:
        """The demand on each cluster, with what is on its way there (but by `excluded`)."""
        where = self.current()
        mine = set(excluded.vip_ids) if excluded is not None else set()
        for m in self.active():
            where |= {x.vip_id: x.to for x in m.moves if not m.settling and x.vip_id in where}
        demand, out = self._demand(), dict[str, float]()
        for vip, cluster in where.items():
            if vip not in mine:
                out[cluster] = out.get(cluster, 0.0) + demand[vip]
        return out

    def capacity_live(self) -> dict[str, float]:
        """What the live nodes of each cluster can carry."""
        live = {n for nodes in self.live().values() for n in nodes}
        out: dict[str, float] = {}
        for node in self._fleet_nodes():
            out[node.cluster] = out.get(node.cluster, 0.0) + (node.capacity if node.name in live else 0.0)
        return out

    def _buffers(self, m: Migration | None) -> list[Buffer]:
        if self.fleet is None:
            return []
        capacity, load = self.capacity_live(), self.load(m)
        names = [c.name for c in self.fleet.clusters if c.role == "clb" and c.purpose == "buffer"]
        return [Buffer(n, capacity[n], load.get(n, 0.0)) for n in names if capacity.get(n, 0.0) > 0]

    def _demand(self) -> dict[int, float]:
        return {v.id: v.demand for v in self.fleet.vips} if self.fleet is not None else {}

    def _fleet_nodes(self) -> list[Node]:
        return self.fleet.nodes if self.fleet is not None else []

    def placement(self) -> list[Placement]:
        """Where each VIP is, in document order."""
        vips = self.fleet.vips if self.fleet is not None else []
        out = []
        for v in vips:
            spot = self._spots[v.id]
            moving = next((m.id for m in self.active() if v.id in m.vip_ids), spot.migration)
            out.append(
                Placement(
                    vip_id=v.id,
                    name=v.name,
                    home=v.cluster,
                    current=spot.current,
                    since_ns=spot.since_ns,
                    migration=moving,
                )
            )
        return out

    # A person's word.

    def maintain(self, node: str, on: bool, by: str, reason: str) -> Maintenance:
        """Take a node out of the routes, or back in; durable. Unknown."""
        self.usable()
        if all(n.name != node for n in self._fleet_nodes()):
            raise Unknown(f"no node {node[:80]!r}")
        now = self._clock()
        entry = Maintenance(node=node, on=on, by=by, reason=reason, since_ns=now)
        with self.store.transaction():
            self.store.set_maintenance(entry)
            self.store.audit(now, by, "maintenance", node, reason, "on" if on else "off")
        self._maintenance[node] = entry
        self._tell()
        self.wake()
        return entry

    def set_rails(self, change: Mapping[str, Any], by: str, reason: str) -> Policy:
        """Change some fields of the rails; durable. DocumentError when the result is no policy."""
        if not change:
            raise DocumentError("rails", [Problem("", "expected at least one field to change", "none")])
        fresh = check({**self.rails.model_dump(), **change}, Policy, "rails")
        with self.store.transaction():
            self.store.set_rails(fresh)
            words = ", ".join(f"{k}={v}" for k, v in sorted(change.items()))
            self.store.audit(self._clock(), by, "rails", "", reason, words[:2000])
        self.rails = fresh
        return fresh


def _summary(fleet: Fleet) -> str:
    return f"{len(fleet.clusters)} clusters, {len(fleet.nodes)} nodes, {len(fleet.vips)} VIPs"
