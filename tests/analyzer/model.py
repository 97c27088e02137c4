"""A test model of a region at virtual time: probes, nodes, taps, the collector and control, with known faults.

It is no simulation of the data plane. It makes the rows that the warehouse would hold, late and out of order, and it
knows which fault it injected.
"""

from __future__ import annotations

import dataclasses
import heapq
import ipaddress
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from analyzer.region import SECOND, ControlView, NodeView, Placed
from analyzer.rows import Batch, Feed, Point, Probe, Rows
from contract.fleet import Fleet
from contract.vocabulary import DropReason, Hop, Outcome

START = 1_800_000_000 * SECOND
ANYCAST = "10.3.255.1"
EIP_IN, CLB_IN, VSW_IN, VSW_OUT, CLB_OUT, EIP_OUT = (int(h) for h in Hop)
SYN, SYN_ACK, RST, RST_ACK = 0x02, 0x12, 0x04, 0x14


def fleet(
    *,
    eips: int = 2,
    clusters: int = 2,
    lds: int = 2,
    buffers: int = 10,
    hosts: int = 4,
    vips: int = 40,
    probers: int = 2,
    ld_capacity: float = 30.0,
    policy: dict[str, Any] | None = None,
) -> Fleet:
    """A region like the lab's: `vips` spread over `clusters` of `lds` LDs, `buffers` buffer clusters of one LD."""
    nodes, groups = (
        [],
        [{"name": "eip", "role": "eip", "az": "az-1"}, {"name": "hosts", "role": "vswitch", "az": "az-1"}],
    )
    number = 10

    def node(name: str, cluster: str, capacity: float) -> None:
        nonlocal number
        number += 1
        nodes.append({"name": name, "cluster": cluster, "tunnel_address": f"10.3.0.{number}", "capacity": capacity})

    for i in range(eips):
        node(f"eip-{i + 1}", "eip", 1000)
    for c in range(clusters):
        name = f"clb-{chr(97 + c)}"
        groups.append({"name": name, "role": "clb", "az": f"az-{c % 2 + 1}"})
        for i in range(lds):
            node(f"ld-{chr(97 + c)}{i + 1}", name, ld_capacity)
    for i in range(buffers):
        groups.append({"name": f"buf-{i + 1}", "role": "clb", "az": f"az-{i % 2 + 1}", "purpose": "buffer"})
        node(f"ld-buf{i + 1}", f"buf-{i + 1}", 15)
    for i in range(hosts):
        node(f"host-{i + 1}", "hosts", 1000)
    servers = [
        {"id": i + 1, "name": f"rs-{i + 1}", "host": f"host-{i + 1}", "key": i + 1, "address": f"10.5.0.{i + 1}"}
        for i in range(hosts)
    ]
    return Fleet.model_validate(
        {
            "region": "model",
            "tunnel": {"eip_anycast": ANYCAST},
            "probing": {
                "reserved": ["198.18.0.0/16"],
                "period_s": 5,
                "timeout_s": 2,
                "probers": [{"name": f"prober-{i + 1}", "sources": [f"198.18.{i}.0/24"]} for i in range(probers)],
            },
            "policy": policy or {},
            "azs": [{"name": "az-1"}, {"name": "az-2"}],
            "clusters": groups,
            "nodes": nodes,
            "real_servers": servers,
            "vips": [
                {
                    "id": i + 1,
                    "name": f"vip-{i + 1}",
                    "public": f"203.0.113.{i + 1}",
                    "private": f"10.100.0.{i + 1}",
                    "service": f"10.4.0.{i + 1}",
                    "cluster": f"clb-{chr(97 + i % clusters)}",
                    "listeners": [{"port": 80, "real_servers": [s["name"] for s in servers]}],
                }
                for i in range(vips)
            ],
        }
    )


@dataclass
class Tap:
    """A tap file of the model. `pending`: landing times of records that are not in the warehouse yet."""

    node: str
    role: int
    boot: str
    written: int = 0
    landed: int = 0
    lost: int = 0
    alive: bool = True
    heartbeat_ns: int = 0
    ended_ns: int = 0
    reported: bool = True
    last_land: int = 0
    pending: deque[int] = field(default_factory=deque)


@dataclass
class Node:
    """What a node of the model is doing."""

    name: str
    cluster: str
    forwards: bool = True
    routed_until: int = 1 << 62
    routed_from: int = 0
    maintenance_from: int = 1 << 62
    unreachable_from: int = 1 << 62
    records: bool = True
    encap_fail: float = 0.0
    missing_vips: set[int] = field(default_factory=set)

    def routed(self, ts: int) -> bool:
        return self.routed_from <= ts < self.routed_until


class Model:
    """The region. `advance` makes what happens up to a time; `read` gives what has landed since the last reading."""

    def __init__(self, document: Fleet, seed: int = 1, start_ns: int = START) -> None:
        self.fleet = document
        self.rng = random.Random(seed)
        self.now = self._start = start_ns
        self.nodes = {n.name: Node(n.name, n.cluster) for n in document.nodes}
        self.tunnel = {n.name: str(n.tunnel_address) for n in document.nodes}
        self.vips = {v.id: v for v in document.vips}
        self.servers = {s.id: s for s in document.real_servers}
        self.roles = {n.name: document.role_of(n) for n in document.nodes}
        self.members: dict[str, list[Node]] = {}
        for node in self.nodes.values():
            self.members.setdefault(node.cluster, []).append(node)
        self.eips = [n for n in self.nodes.values() if self.roles[n.name] == "eip"]
        number = {"eip": 1, "clb": 2, "vswitch": 3}
        self.taps = {n: Tap(n, number[r], f"boot-{n}") for n, r in self.roles.items()}
        self.taps |= {p.name: Tap(p.name, 0, f"boot-{p.name}") for p in document.probing.probers}
        self.control = Control(self)
        self.dead_servers: set[int] = set()
        self.refusing_servers: set[int] = set()
        self._refused = False
        self.uplink_loss: dict[str, float] = {}
        self.stopped_probers: set[str] = set()
        self.attacked: set[int] = set()
        self.outage: tuple[int, int] = (0, 0)
        self.duplicates = 0.0
        self.late = 0.0  # share of batches that take seconds
        self.sent: list[int] = []
        self._landing: list[tuple[int, int, str, Any]] = []
        self._order = 0
        self._read: list[Any] = []
        self.remembers = False
        self._stored: list[Any] = []
        self._next_feeds = start_ns
        self._count = 0
        period = int(document.probing.period_s * SECOND)
        self._plan = []
        for i, prober in enumerate(document.probing.probers):
            base = int(ipaddress.ip_network(str(prober.sources[0])).network_address)
            for j, vip in enumerate(document.vips):
                offset = period * j // len(document.vips) + i * period // (len(document.vips) * 3)
                self._plan.append((offset, prober.name, base + 1, vip.id))
        self._plan.sort()
        self._period = period
        self._slot = 0

    # faults: the ground truth

    def kill(self, name: str, at: int | None = None) -> None:
        """SIGKILL: the process is gone, its speaker withdraws 0.3 s later, control notices after 2 s."""
        at = at or self.now
        node, tap = self.nodes[name], self.taps[name]
        node.forwards, node.routed_until = False, at + 3 * SECOND // 10
        node.unreachable_from = at + 2 * SECOND
        tap.alive, tap.heartbeat_ns, tap.ended_ns = False, at, at

    def freeze(self, name: str) -> None:
        """SIGSTOP: the process is there but does not turn; its speaker withdraws 0.6 s later."""
        node, tap = self.nodes[name], self.taps[name]
        node.forwards, node.routed_until = False, self.now + 6 * SECOND // 10
        node.unreachable_from = self.now + 2 * SECOND
        tap.heartbeat_ns, tap.ended_ns = self.now, self.now

    def revive(self, name: str) -> None:
        """A killed or frozen node is started anew."""
        node = self.nodes[name]
        node.forwards, node.routed_from, node.routed_until = True, self.now + SECOND, 1 << 62
        node.unreachable_from = 1 << 62
        boot = f"boot-{name}-{self.now}"
        old = self.taps[name]
        self.taps[f"{name}@{old.boot}"] = old
        self.taps[name] = Tap(name, old.role, boot)

    def drain(self, name: str) -> None:
        """An operator takes the node out: maintenance in control, the route withdrawn 0.2 s later."""
        self.nodes[name].maintenance_from = self.now
        self.nodes[name].routed_until = self.now + SECOND // 5

    def undrain(self, name: str) -> None:
        """The operator gives the node back; its route comes 2 s later."""
        self.nodes[name].maintenance_from = 1 << 62
        self.nodes[name].routed_from, self.nodes[name].routed_until = self.now + 2 * SECOND, 1 << 62

    # time

    def advance(self, until: int) -> None:
        """Make everything that happens up to a time."""
        while True:
            round_, index = divmod(self._slot, len(self._plan))
            offset, prober, source, vip = self._plan[index]
            ts = self._start - self._start % self._period + round_ * self._period + offset
            if ts < self.now:
                self._slot += 1
                continue
            if ts >= until:
                break
            self._slot += 1
            self._feeds(ts)
            if prober not in self.stopped_probers:
                self._probe(ts, prober, source, vip)
        self._feeds(until)
        self.now = until
        self.control.advance(until)

    def _probe(self, ts: int, prober: str, source: int, vip_id: int) -> None:
        self._count += 1
        rng = self.rng
        port = 10_000 + self._count * 30_901 % 50_000
        identity = (source & 0xFFFF) << 48 | port << 32 | rng.getrandbits(32)
        address = f"198.18.{source >> 8 & 0xFF}.{source & 0xFF}"
        lossy = self.uplink_loss.get(prober, 0.0)
        answered = self._refused = False
        self.sent.append(identity)
        if not (lossy and rng.random() < lossy):
            answered = self._journey(ts, identity, address, vip_id)
            if answered and lossy and rng.random() < lossy:
                answered = False
        rtt = 400_000 + rng.randrange(200_000) if answered else 0
        closed = ts + rtt if answered else ts + 2 * SECOND
        outcome = Outcome.SILENT
        if answered:
            outcome = Outcome.REFUSED if self._refused else Outcome.ANSWERED
        tap = self.taps[prober]
        written = closed + SECOND if answered else closed
        row = Probe(prober, tap.boot, tap.written, ts, closed, identity, int(outcome), rtt, vip_id, port, 80)
        self._write(tap, row, written)

    def _journey(self, ts: int, identity: int, source: str, vip_id: int) -> bool:
        """Send the SYN, and its answer back; whether it came back."""
        rng, vip = self.rng, self.vips[vip_id]
        service = str(vip.service)

        def point(
            node: Node, hop: int, at: int, reason: int, flags: int, outer_src: str, outer_dst: str, server: int
        ) -> None:
            if not node.records:
                return
            tap = self.taps[node.name]
            kind = 2 if reason else 1
            row = Point(
                node.name, 0, tap.boot, tap.written, at, identity, kind, hop, reason, flags, source, outer_src,
                outer_dst, vip_id, server, 20_000,
            )  # fmt: skip
            self._write(tap, row, at)

        def reach(nodes: list[Node], at: int) -> Node | None:
            routed = [n for n in nodes if n.routed(at)]
            return routed[rng.randrange(len(routed))] if routed else None

        eip = reach(self.eips, ts)
        if eip is None or not eip.forwards:
            return False
        at = ts + 50_000
        if vip_id in eip.missing_vips:
            point(eip, EIP_IN, at, DropReason.NO_VIP, SYN, "", "", 0)
            return False
        point(eip, EIP_IN, at, 0, SYN, "", service, 0)
        cluster = self.control.serving(vip_id, ts)
        ld = reach(self.members[cluster], at)
        if ld is None:
            if rng.random() < 0.3:  # kernels answer with "unreachable" at a limited rate
                point(eip, EIP_IN, at + 100_000, DropReason.NO_ROUTE, SYN, "", service, 0)
            return False
        if not ld.forwards:
            return False
        at += 60_000
        came = self.tunnel[eip.name]
        if vip_id in ld.missing_vips:
            point(ld, CLB_IN, at, DropReason.NO_VIP, SYN, came, "", 0)
            return False
        if vip_id in self.attacked and rng.random() < 0.6:
            point(ld, CLB_IN, at, DropReason.FLOW_LIMIT, SYN, came, "", 0)
            return False
        if ld.encap_fail and rng.random() < ld.encap_fail:
            point(ld, CLB_IN, at, DropReason.TUNNEL_ENCAP_FAIL, SYN, came, "", 0)
            return False
        server = self.servers[rng.randrange(len(self.servers)) + 1]
        host = self.nodes[server.host]
        point(ld, CLB_IN, at, 0, SYN, came, self.tunnel[host.name], server.id)
        if not host.forwards:
            return False
        at += 60_000
        here = self.tunnel[ld.name]
        point(host, VSW_IN, at, 0, SYN, here, "", server.id)
        if server.id in self.dead_servers:
            return False
        self._refused = server.id in self.refusing_servers
        answer = RST_ACK if self._refused else SYN_ACK
        point(host, VSW_OUT, at + 40_000, 0, answer, "", here, server.id)
        at += 100_000
        if ld.encap_fail and rng.random() < ld.encap_fail:
            point(ld, CLB_OUT, at, DropReason.TUNNEL_ENCAP_FAIL, answer, self.tunnel[host.name], "", server.id)
            return False
        point(ld, CLB_OUT, at, 0, answer, self.tunnel[host.name], ANYCAST, server.id)
        out = reach(self.eips, at)
        if out is None or not out.forwards:
            return False
        point(out, EIP_OUT, at + 60_000, 0, answer, here, "", server.id)
        if self._refused:
            return True
        # The prober's reset goes the same way in.
        point(eip, EIP_IN, at + 200_000, 0, RST, "", service, 0)
        point(ld, CLB_IN, at + 260_000, 0, RST, came, self.tunnel[host.name], server.id)
        point(host, VSW_IN, at + 320_000, 0, RST, here, "", server.id)
        return True

    # taps, collector and warehouse

    def _write(self, tap: Tap, row: Any, at: int) -> None:
        tap.written += 1
        if not tap.reported:
            return
        delay = 200_000_000 + self.rng.randrange(600_000_000)
        if self.late and self.rng.random() < self.late:
            delay += self.rng.randrange(3 * SECOND)
        land = max(at + delay, tap.last_land)
        if self.outage[0] <= land < self.outage[1]:
            land = self.outage[1] + self.rng.randrange(2 * SECOND)
        tap.last_land = land
        tap.pending.append(land)
        self._land(land, row)

    def _land(self, land: int, row: Any) -> None:
        self._order += 1
        heapq.heappush(self._landing, (land, self._order, "", row))

    def _feeds(self, ts: int) -> None:
        """The collector's reports, one a second of every tap."""
        while self._next_feeds <= ts:
            at = self._next_feeds
            self._next_feeds += SECOND
            if self.outage[0] <= at < self.outage[1]:
                continue
            for tap in list(self.taps.values()):
                if not tap.reported or (not tap.alive and at - tap.ended_ns > 30 * SECOND):
                    continue
                while tap.pending and tap.pending[0] <= at:
                    tap.pending.popleft()
                    tap.landed += 1
                beat = tap.heartbeat_ns or at - 50_000_000
                row = Feed(at, tap.node, 0, tap.role, tap.boot, beat, tap.written, tap.landed, tap.lost, tap.alive)
                self._land(at + 200_000_000, row)
                self._land(at + 200_000_000, Batch(tap.node, 0, tap.boot, tap.landed))

    def replay(self) -> None:
        """The next reading gives everything that has ever landed, as to an analyzer that starts anew."""
        for row in self._stored:
            self._land(0, row)
        self._stored = []

    def read(self, now: int) -> Rows | None:
        """What has landed by now, in no order, some of it again."""
        rows = Rows()
        fresh = []
        while self._landing and self._landing[0][0] <= now:
            fresh.append(heapq.heappop(self._landing)[3])
        if self.remembers:
            self._stored += fresh
        if self.duplicates:
            again = [r for r in self._read if self.rng.random() < self.duplicates]
            self._read = fresh
            fresh = fresh + again
            self.rng.shuffle(fresh)
        for row in fresh:
            if type(row) is Point:
                rows.points.append(row)
            elif type(row) is Probe:
                rows.probes.append(row)
            elif type(row) is Feed:
                rows.feeds.append(row)
            else:
                rows.batches.append(row)
        return rows


@dataclass
class Migration:
    """A migration of the model's control."""

    id: str
    cluster: str
    incident_id: str
    moves: list[dict[str, Any]]
    requested_ns: int
    announced_ns: int | None = None
    finished_ns: int | None = None
    state: str = "planned"
    detail: str = ""
    refused_by: str | None = None
    verification: dict[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"kind": "dispersed"}


class Control:
    """Control of the model: places VIPs, refuses a second migration of a cluster within 10 min, trusts verdicts."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.home = {v.id: v.cluster for v in model.fleet.vips}
        self.placed = {v.id: (v.cluster, 0) for v in model.fleet.vips}
        self.migrations: dict[str, Migration] = {}
        self.requests: list[dict[str, Any]] = []
        self.verdicts: list[tuple[str, dict[str, Any]]] = []
        self.answers = True
        self.rail: str | None = None

    def serving(self, vip_id: int, ts: int) -> str:
        """The cluster whose route stands for a VIP."""
        return self.placed[vip_id][0]

    def advance(self, now: int) -> None:
        """Go on with migrations: configured 1 s, announced 1.5 s after the request."""
        for migration in self.migrations.values():
            if migration.state == "planned" and now >= migration.requested_ns + SECOND:
                migration.state = "configuring"
            if migration.state == "configuring" and now >= migration.requested_ns + 3 * SECOND // 2:
                migration.state, migration.announced_ns = "verifying", now
                for move in migration.moves:
                    self.placed[move["vip_id"]] = (move["to"], now)
            if migration.state == "verifying" and now > (migration.announced_ns or 0) + 60 * SECOND:
                self._roll_back(migration, now)

    def _roll_back(self, migration: Migration, now: int) -> None:
        migration.state, migration.finished_ns, migration.detail = "rolled_back", now, "probes were not clean"
        for move in migration.moves:
            self.placed[move["vip_id"]] = (move["from"], now)

    def post(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """POST /v1/migrations: status and document."""
        now = self.model.now
        if not self.answers:
            return 0, {}
        self.requests.append(body)
        if self.rail is not None:
            return 409, {"detail": "no", "rail": self.rail}
        for old in self.migrations.values():
            if old.cluster == body["cluster"] and now - old.requested_ns < 600 * SECOND:
                return 409, {"detail": f"{old.id} was less than 600 s ago", "rail": "cooldown"}
        buffers = [c.name for c in self.model.fleet.clusters if c.purpose == "buffer"]
        vips = [v for v, (c, _) in self.placed.items() if c == body["cluster"]]
        moves = [{"vip_id": v, "from": body["cluster"], "to": buffers[i % len(buffers)]} for i, v in enumerate(vips)]
        migration = Migration(f"mig-{len(self.migrations) + 1}", body["cluster"], body["incident_id"], moves, now)
        self.migrations[migration.id] = migration
        return 202, migration.document()

    def verdict(self, identity: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """POST /v1/migrations/{id}/verdict."""
        migration = self.migrations[identity]
        self.verdicts.append((identity, body))
        if body["clean"]:
            migration.state, migration.finished_ns = "done", self.model.now
        else:
            self._roll_back(migration, self.model.now)
        return 200, migration.document()

    def view(self) -> ControlView | None:
        """What the analyzer reads of control."""
        if not self.answers:
            return None
        now = self.model.now
        nodes = {}
        for node in self.model.nodes.values():
            state = "up"
            if now >= node.maintenance_from:
                state = "maintenance"
            elif now >= node.unreachable_from:
                state = "unreachable"
            nodes[node.name] = NodeView(state, node.forwards)
        moving = {
            m["vip_id"]: g.id
            for g in self.migrations.values()
            if g.state in ("planned", "configuring")
            for m in g.moves
        }
        return ControlView(
            now,
            nodes,
            {v: Placed(c, since, moving.get(v)) for v, (c, since) in self.placed.items()},
            {m.id: m.document() for m in self.migrations.values()},
            {},
        )
