"""The ports of a node from what netlink says: found, missing, not resolved yet."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pyroute2 import NetlinkError

from gateway import node_ports
from gateway.node_ports import Port

MAC, HOP = "02:7e:02:00:01:02", "02:7e:02:00:01:01"


@dataclass
class Table:
    """A kernel with these links and neighbours."""

    links: dict[str, tuple[int, str]] = field(default_factory=lambda: {"fabric0": (2, MAC)})
    neighbours: dict[tuple[int, str], str] = field(default_factory=dict)

    def link(self, interface: str) -> tuple[int, str] | None:
        return self.links.get(interface)

    def addresses(self) -> list[str]:
        return ["10.2.1.2", "127.0.0.1", "fe80::1"]

    def neighbour(self, index: int, address: str) -> str | None:
        return self.neighbours.get((index, address))


def fabric(**more: object) -> Port:
    return Port.model_validate(
        {"index": 0, "interface": "fabric0", "next_hop": "10.2.1.1", "next_hop6": "fd01::1", "mtu": 1600, **more}
    )


def nobody(interface: str, address: str) -> None:
    raise AssertionError(f"asked for {address} on {interface}")


@pytest.mark.parametrize("answering", ["10.2.1.1", "fd01::1"])
def test_a_known_next_hop_of_either_family_is_used(answering: str) -> None:
    kernel = Table(neighbours={(2, answering): HOP})
    (port,) = node_ports.read([fabric()], kernel, nobody)
    assert port == {
        "index": 0,
        "interface": "fabric0",
        "mac": MAC,
        "next_hop_mac": HOP,
        "mtu": 1600,
        "host_addresses": ["10.2.1.2", "127.0.0.1", "fe80::1"],
    }


def test_an_unknown_next_hop_is_asked_for_and_named() -> None:
    asked = []
    kernel = Table(links={"fabric0": (2, MAC), "edge0": (3, MAC)}, neighbours={(3, "10.1.1.1"): HOP})
    edge = Port.model_validate({"index": 1, "interface": "edge0", "next_hop": "10.1.1.1", "mtu": 1500})
    with pytest.raises(node_ports.Unresolved, match=r"fabric0.*10\.2\.1\.1 or fd01::1"):
        node_ports.read([fabric(), edge], kernel, lambda interface, address: asked.append((interface, address)))
    assert asked == [("fabric0", "10.2.1.1"), ("fabric0", "fd01::1")]


def test_a_missing_interface_is_named_and_is_not_merely_unresolved() -> None:
    with pytest.raises(node_ports.PortError, match="fabric0: no such interface") as caught:
        node_ports.read([fabric()], Table(links={}), nobody)
    assert not isinstance(caught.value, node_ports.Unresolved)


def test_soliciting_where_there_is_no_way_is_quiet() -> None:
    node_ports.solicit("lo", "203.0.113.77")
    node_ports.solicit("lo", "2001:db8::77")


def test_the_kernel_of_this_machine_has_a_loopback() -> None:
    with node_ports.Kernel() as kernel:
        link = kernel.link("lo")
        assert link is not None
        assert link[1] == "00:00:00:00:00:00"
        assert kernel.link("tgwt-nope") is None
        assert "127.0.0.1" in kernel.addresses()
        assert kernel.neighbour(link[0], "203.0.113.77") is None


def test_trouble_of_the_kernels_tables_is_a_port_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refresh of a node goes on after it; NetlinkError is no OSError."""

    class Torn(Table):
        def __enter__(self) -> Torn:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def addresses(self) -> list[str]:
            raise NetlinkError(4, "dump interrupted")

    monkeypatch.setattr(node_ports, "Kernel", Torn)
    with pytest.raises(node_ports.PortError, match="dump interrupted"):
        node_ports.now([fabric()])
