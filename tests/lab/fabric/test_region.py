"""A whole simulated region at virtual time, over the real native pipelines and the real prober."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from contract.vocabulary import Outcome
from gateway.node_state import Refused, Stale
from lab.fabric.engine import Fabric
from lab.fabric.node import Booted
from lab.fabric.region import Region
from lab.state import Run
from lab.topology import Size, Topology
from lab.traffic import Request
from prober.judge import Closed
from tests.lab.fabric.tables import tables

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
KEY = "00112233445566778899aabbccddeeff"
SIZE = Size(eips=2, clusters=1, lds=2, buffers=2, hosts=2, servers=2, probers=2, clients=1, vips=6, vips6=2)


class World:
    """A region that has its tables, and a diary of what its clients and probers saw."""

    def __init__(self, seed: int = 1, size: Size = SIZE) -> None:
        native = pytest.importorskip("gateway._dataplane")
        self.topology = Topology(size)
        self.fabric = Fabric(START, seed)
        self.requests: list[Request] = []
        self.closed: list[Closed] = []
        self.boots = 0

        def boot(name: str, role: str) -> Booted:
            self.boots += 1
            return Booted(native.Pipeline(role, node=name), f"{self.boots:032x}", self.boots)

        def record(_: str, closed: Closed) -> bool:
            self.closed.append(closed)
            return True

        self.region = Region(
            self.topology,
            Run(Path("/nowhere")),
            self.fabric,
            seed,
            bytes.fromhex(KEY),
            boot,
            record,
            lambda _, request: self.requests.append(request),
        )
        self.region.start()
        self.epoch = 0
        self.place({v.name: v.cluster for v in self.topology.fleet.vips})
        self.run(0.5)

    def place(self, placement: dict[str, str]) -> None:
        """Give every living node its tables."""
        self.epoch += 1
        self.placement = placement
        for name, wanted in tables(self.topology, self.epoch, placement, KEY).items():
            if self.region.nodes[name].life.value == "up":
                self.region.nodes[name].take(wanted)

    def run(self, seconds: float) -> None:
        self.fabric.advance(self.fabric.now + int(seconds * SECOND))
        assert self.fabric.account.balance == 0

    def since(self, ns: int) -> Counter[str]:
        return Counter(r.outcome for r in self.requests if r.start_ns >= ns)

    def frames_in(self, node: str) -> int:
        return sum(w.get("frames_in", 0) for w in self.region.nodes[node].counters())

    @property
    def outcomes(self) -> Counter[Outcome]:
        return Counter(c.outcome for c in self.closed)


def test_requests_and_probes_go_the_whole_way_in_both_families() -> None:
    world = World()
    world.region.probe()
    world.region.ask(rate=20, kept=6)
    world.run(12)
    assert set(world.since(0)) == {"ok"}
    vips = {v.name: v for v in world.topology.fleet.vips}
    assert {r.vip for r in world.requests} == set(vips)
    assert {v.public.version for v in vips.values()} == {4, 6}
    assert {r.server for r in world.requests} == {"rs-1", "rs-2"}
    assert set(world.outcomes) == {Outcome.ANSWERED}
    assert {c.probe.vip_id for c in world.closed} == {v.id for v in vips.values()}
    # Client and prober, router, EIP, router, LD, router, vSwitch, server and back: 14 links, 6 nodes.
    assert all(14 * 40_000 <= c.rtt_ns <= 14 * 60_000 + 6 * 25_000 for c in world.closed)
    # Both EIP nodes, both LDs and both hosts had their share.
    assert all(world.frames_in(n) > 50 for n in world.topology.nodes if not n.startswith("buf"))
    assert set(world.fabric.account.dropped) <= {"host_not_ours"}
    assert world.fabric.account.inside == world.region.pipeline_drops()


def test_every_frame_is_accounted_for_by_reason() -> None:
    world = World()
    world.region.ask(rate=50, kept=6)
    world.run(3)
    world.fabric.set_loss(world.region.nodes["ld-a1"], 0, 0.05)
    world.region.nodes["ld-a2"].inject({"kind": "encap_fail", "probability": 0.1, "seed": 1})
    for _ in range(40):
        world.run(0.1)
        account = world.fabric.account
        assert account.inside == world.region.pipeline_drops()
    drops = world.region.nodes["ld-a2"].drops()
    assert drops["TUNNEL_ENCAP_FAIL"] > 10
    assert account.dropped["link_loss"] > 10
    assert account.originated == (
        account.delivered + sum(account.dropped.values()) + world.region.pipeline_drops() + account.in_flight
    )


def test_a_killed_ld_loses_its_routes_at_once_and_the_other_takes_the_flows() -> None:
    world = World()
    world.region.probe()
    world.region.ask(rate=40, kept=6)
    world.run(5)
    killed = world.fabric.now
    before = world.frames_in("ld-a2")
    world.region.nodes["ld-a1"].kill()
    world.run(0.02)
    assert world.region.fabric_router.announced("ld-a1/fabric") == []
    assert world.region.nodes["ld-a1"].speaker.status()["forwarding_alive"] is False
    world.run(8)
    assert world.since(killed + SECOND) == {"ok": world.since(killed + SECOND).total()}
    assert world.since(killed)["ok"] > 250
    assert world.frames_in("ld-a2") > before + 500
    # The same tables, the same Maglev: established connections go on through the other LD.
    assert world.since(killed)["reset"] == 0


def test_a_frozen_ld_keeps_its_routes_for_half_a_second_and_gets_them_back() -> None:
    world = World()
    node = world.region.nodes["ld-a1"]
    router = world.region.fabric_router
    announced = router.announced("ld-a1/fabric")
    node.freeze()
    world.run(0.4)
    assert router.announced("ld-a1/fabric") == announced
    world.run(0.4)
    assert router.announced("ld-a1/fabric") == []
    node.thaw()
    world.run(0.4)
    assert router.announced("ld-a1/fabric") == announced


def test_a_restarted_node_announces_nothing_before_it_has_tables() -> None:
    world = World()
    node = world.region.nodes["ld-a1"]
    boot = node.boot_id
    node.kill()
    world.run(1)
    node.start()
    world.run(1)
    assert node.boot_id != boot
    assert (node.epoch, world.region.fabric_router.announced("ld-a1/fabric")) == (0, [])
    node.take(tables(world.topology, 9, world.placement, KEY)["ld-a1"])
    world.run(0.3)
    assert len(world.region.fabric_router.announced("ld-a1/fabric")) == 1 + len(world.topology.fleet.vips)


def test_a_lost_cluster_is_silent_until_its_vips_are_placed_elsewhere() -> None:
    world = World()
    world.region.probe()
    world.region.ask(rate=20, kept=4)
    world.run(6)
    killed = world.fabric.now
    for name in ("ld-a1", "ld-a2"):
        world.region.nodes[name].kill()
    world.run(10)
    silent = [c for c in world.closed if c.outcome is Outcome.SILENT]
    assert len(silent) >= 2 * len(world.topology.fleet.vips)
    assert world.since(killed)["ok"] == 0
    # The fabric has no route: it says so to the EIP nodes, which say so in their counters.
    assert sum(world.region.nodes[n].drops().get("NO_ROUTE", 0) for n in ("eip-1", "eip-2")) > 0
    buffers = [c.name for c in world.topology.fleet.clusters if c.purpose == "buffer"]
    world.place({v.name: buffers[i % 2] for i, v in enumerate(world.topology.fleet.vips)})
    world.run(3)
    moved = world.fabric.now
    world.run(10)
    assert set(world.since(moved)) == {"ok"}
    assert all(c.outcome is Outcome.ANSWERED for c in world.closed if c.probe.sent_ns > moved)


def test_tables_are_applied_whole_or_not_at_all() -> None:
    world = World()
    world.place(world.placement)
    good = tables(world.topology, world.epoch, world.placement, KEY)
    host, ld = world.region.nodes["host-1"], world.region.nodes["ld-a1"]
    strange: dict[str, Any] = good["host-1"] | {"epoch": 9, "vswitch": {"servers": [{"id": 9, "key": 999, "vips": []}]}}
    with pytest.raises(Refused, match="999"):
        host.take(strange)
    assert host.epoch == world.epoch
    with pytest.raises(Stale):
        ld.take(good["ld-a1"] | {"epoch": world.epoch - 1})
    broken = good["ld-a1"] | {"epoch": 9}
    broken["clb"] = broken["clb"] | {"vips": [broken["clb"]["vips"][0] | {"address": "nonsense"}]}
    with pytest.raises(ValueError, match=r"vips\[0\]|address"):
        ld.take(broken)
    assert ld.epoch == world.epoch
    assert len(world.region.fabric_router.announced("ld-a1/fabric")) == 1 + len(world.topology.fleet.vips)


def test_a_delay_inside_a_node_shows_in_the_round_trip() -> None:
    world = World()
    world.region.probe()
    world.run(7)
    plain = max(c.rtt_ns for c in world.closed)
    for name in ("ld-a1", "ld-a2"):
        world.region.nodes[name].inject({"kind": "delay", "probability": 1.0, "seed": 1, "delay_us": 5000})
    changed = world.fabric.now
    world.run(7)
    slow = [c.rtt_ns for c in world.closed if c.probe.sent_ns > changed]
    assert slow
    assert min(slow) > 10_000_000 > plain
    assert world.fabric.account.inside == world.region.pipeline_drops()


def test_the_same_seed_gives_the_same_day() -> None:
    def day(seed: int) -> list[tuple[Any, ...]]:
        world = World(seed)
        world.region.ask(rate=20, kept=3)
        world.run(3)
        return [(r.vip, r.start_ns, r.end_ns, r.server) for r in world.requests]

    first = day(1)
    assert first == day(1)
    assert first != day(2)
