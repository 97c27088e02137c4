"""The simulated router: longest prefix, equal paths, whole announcements, and honest refusals."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest

from lab.fabric import wire
from lab.fabric.engine import Fabric
from lab.fabric.router import Attachment, Router

MAC = bytes.fromhex("020000000001")


class Far:
    """The far end of a router's link: keeps what comes."""

    def __init__(self, name: str, fabric: Fabric) -> None:
        self.name = name
        self._fabric = fabric
        self.frames: list[bytes] = []

    def receive(self, port: int, frame: bytes) -> None:
        self._fabric.deliver()
        self.frames.append(frame)


class Net:
    def __init__(self, icmp: bool = True) -> None:
        self.fabric = Fabric(0, 1)
        self.router = Router(self.fabric, "fabric", 5, inner_hash=True, answers_icmp=icmp)
        self.far = []
        for port in range(4):
            far = Far(f"far-{port}", self.fabric)
            peer = bytes.fromhex(f"0200000000{port + 16:02x}")
            self.router.attach(Attachment(port, MAC, peer, ip_address(f"10.2.{port}.1").packed))
            self.fabric.connect((self.router, port), (far, 0), mtu=1500)
            self.far.append(far)

    def send(self, source: str, destination: str, port: int = 1000, ttl: int = 64) -> None:
        ends = ip_address(source).packed, ip_address(destination).packed
        packet = wire.build(wire.Segment(*ends, port, 80, 1, 0, wire.SYN), ttl)
        self.fabric.originate(self.far[0], 0, MAC + bytes(6) + b"\x08\x00" + packet)
        self.fabric.advance(self.fabric.now + 1_000_000_000)
        assert self.fabric.account.balance == 0

    @property
    def got(self) -> list[int]:
        return [len(far.frames) for far in self.far]


def test_the_longest_prefix_wins_and_an_empty_set_withdraws() -> None:
    net = Net()
    net.router.announce("a", 1, ["10.4.0.0/16"])
    net.router.announce("b", 2, ["10.4.0.7/32"])
    net.send("10.3.0.1", "10.4.0.7")
    net.send("10.3.0.1", "10.4.0.8")
    assert net.got == [0, 1, 1, 0]
    assert net.router.announce("b", 2, []) is True
    assert net.router.announce("b", 2, []) is False
    net.send("10.3.0.1", "10.4.0.7")
    assert net.got == [0, 2, 1, 0]


def test_equal_paths_share_flows_and_a_flow_keeps_its_path() -> None:
    net = Net()
    for port in (1, 2, 3):
        net.router.announce(f"n{port}", port, ["10.4.0.1/32"])
    for source_port in range(1000, 1300):
        net.send("10.3.0.1", "10.4.0.1", source_port)
    assert all(70 <= n <= 130 for n in net.got[1:])
    before = Counter(net.got)
    for _ in range(5):
        net.send("10.3.0.1", "10.4.0.1", 1000)
    assert sum(1 for a, b in zip(sorted(before.elements()), sorted(net.got), strict=True) if a != b) == 1


def test_no_route_is_answered_with_icmp_and_an_old_packet_dies() -> None:
    net = Net()
    net.router.announce("a", 0, ["10.3.0.1/32"])
    net.send("10.3.0.1", "10.4.9.9")
    assert net.fabric.account.dropped == {"router_no_route": 1}
    assert net.far[0].frames[0][14 + 9] == wire.ICMP
    net.send("10.3.0.1", "10.3.0.1", ttl=1)
    assert net.fabric.account.dropped["router_ttl"] == 1


def test_frames_to_another_mac_and_without_ip_are_dropped() -> None:
    net = Net()
    net.fabric.originate(net.far[0], 0, bytes(60))
    net.fabric.originate(net.far[0], 0, MAC + bytes(6) + b"\x08\x06" + bytes(46))
    net.fabric.advance(10**9)
    assert net.fabric.account.dropped == {"router_wrong_mac": 1, "router_malformed": 1}


def test_a_prefix_that_is_none_is_refused_and_nothing_changes() -> None:
    net = Net()
    net.router.announce("a", 1, ["10.4.0.1/32"])
    with pytest.raises(ValueError, match="host bits set"):
        net.router.announce("a", 1, ["10.4.0.1/16"])
    assert net.router.announced("a") == ["10.4.0.1/32"]
