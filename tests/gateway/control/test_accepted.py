"""What control accepts, every node takes: the fleet document's checks and the native core's may not drift apart."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from contract.documents import DocumentError, check
from contract.fleet import Fleet
from gateway import node_ports, node_state
from gateway.control.desired import all_nodes, holdings
from lab.topology import DEMO, SMALL, Size, Topology
from tests.gateway.control.fakes import KEY, document

dataplane = pytest.importorskip("gateway._dataplane")


class Kernel:
    """netlink of a node whose next hops all answer."""

    def link(self, interface: str) -> tuple[int, str] | None:
        index = int(interface.removeprefix("port"))
        return index + 2, f"02:00:00:00:{index >> 8:02x}:{index & 255:02x}"

    def addresses(self) -> list[str]:
        return ["10.2.0.2", "fe80::1"]

    def neighbour(self, index: int, address: str) -> str | None:
        return "02:00:00:00:ff:01"


def settings_of(name: str, role: str, servers: list[Mapping[str, Any]]) -> node_state.NodeSettings:
    """node.toml of a host with a port for each of its servers, of an EIP node with an edge."""
    count = 2 if role == "eip" else 1 + len(servers)
    ports = [{"index": i, "interface": f"port{i}", "next_hop": "10.2.0.1", "mtu": 1500} for i in range(count)]
    named = [{"id": s["id"]} if s["key"] is None else {"key": s["key"]} for s in servers]
    behind = [{**name, "port": i, "mac": "02:00:00:00:fe:01"} for i, name in enumerate(named, start=1)]
    document = {
        "name": name,
        "role": role,
        "state_dir": "/nowhere",
        "tap_dir": "/nowhere",
        "api": {"socket": "/nowhere/a"},
    }
    return check(document | {"port": ports, "server_port": behind}, node_state.NodeSettings, "node.toml")


def give_to_every_node(fleet: Fleet) -> None:
    """Every VIP is everywhere that a migration may bring it. ConfigError or Refused when a node does not take it."""
    held = holdings({v.id: v.cluster for v in fleet.vips}, [])
    buffers = {c.name for c in fleet.clusters if c.role == "clb" and c.purpose == "buffer"}
    wide = type(held)({vip: clusters | buffers for vip, clusters in held.tables.items()}, held.announce)
    for node in fleet.nodes:
        desired = all_nodes(fleet, wide, (), KEY)[node.name].document
        own = settings_of(node.name, desired["role"], desired.get("vswitch", {}).get("servers", []))
        state = node_state.Desired(own)
        tables = state.tables(state.check(desired | {"epoch": 1}), node_ports.read(own.port, Kernel()))
        dataplane.Pipeline(desired["role"], tap_capacity=64, flow_capacity=64).apply(tables)


@pytest.mark.parametrize("size", [SMALL, DEMO, Size(vips=12, vips6=12)])
def test_the_labs_nodes_take_the_labs_fleet(size: Size) -> None:
    give_to_every_node(Topology(size).fleet)


UNICAST = ["10.3.77.1", "fd77::1", "127.0.0.1", "10.3.20.1", "::1", "10.100.0.2", "255.255.255.255"]
OTHERS = ["0.0.0.0", "::", "224.0.0.5", "ff02::1", "::ffff:10.0.0.9", "fe80::1%x"]
ADDRESSES = st.sampled_from([*UNICAST, *OTHERS])
ENCAPS = st.sampled_from(["gre", "gre_udp", "vxlan", "ipip", "gue", "geneve"])
NUMBERS = st.sampled_from([None, 0, 1, 100, 2**16, 2**24 - 1, 2**24, 2**32 - 2, 2**32 - 1, 2**32, 2**43, 2**43 + 1])
NAMES = st.lists(st.sampled_from(["rs-1", "rs-2", "rs-3"]), min_size=1, max_size=4)
LISTS = st.sampled_from([None, "all", "none"])
PREFIXES = st.lists(st.sampled_from(["::/0", "0.0.0.0/0", "192.0.2.1/24", "::ffff:10.0.0.0/104", "10.0.0.0/08"]))

# Where a fleet may be changed, and to what: right and wrong.
CHANGES: dict[tuple[str | int, ...], st.SearchStrategy[Any]] = {
    ("tunnel", "eip_anycast"): ADDRESSES,
    ("tunnel", "encap"): ENCAPS,
    ("blacklist",): st.none() | st.fixed_dictionaries({"events": NUMBERS, "window_s": NUMBERS, "ttl_s": NUMBERS}),
    ("source_lists",): st.fixed_dictionaries({"all": PREFIXES, "none": st.just([])}),
    ("probing", "reserved"): st.just(["198.18.0.0/16", "::/0", "::ffff:0:0/96"]),
    **{("nodes", i, "tunnel_address"): ADDRESSES for i in (0, 4, -3, -2, -1)},
    **{("nodes", i, "encap"): ENCAPS for i in (-2, -1)},
    **{("real_servers", i, "key"): NUMBERS for i in (0, 1, 2)},
    **{("real_servers", i, "id"): NUMBERS for i in (0, 1, 2)},
    **{("real_servers", i, "weight"): NUMBERS for i in (0, 1, 2)},
    ("real_servers", 2, "host"): st.sampled_from(["host-1", "host-2"]),
    **{("vips", 2, field): ADDRESSES for field in ("public", "private", "service")},
    **{("vips", 2, field): NUMBERS for field in ("id", "new_flows_per_s", "packets_per_s", "bytes_per_s")},
    ("vips", 2, "flood_gate_per_s"): NUMBERS,
    ("vips", 2, "mode"): st.sampled_from(["tunnel", "dsr"]),
    ("vips", 2, "syn_cookies"): st.sampled_from(["never", "flood", "always"]),
    **{("vips", 2, field): LISTS for field in ("deny", "allow")},
    **{("vips", i, "listeners", 0, "real_servers"): NAMES for i in (0, 2)},
    ("vips", 2, "listeners", 0, "protocol"): st.sampled_from(["tcp", "udp"]),
    ("vips", 2, "listeners", 0, "port"): NUMBERS,
    ("vips", 2, "listeners", 0, "client_address"): st.sampled_from([None, "toa", "proxy_v2"]),
    ("vips", 2, "listeners", 0, "balance"): st.sampled_from(["maglev", "rendezvous"]),
    ("vips", 2, "listeners", 0, "affinity_s"): st.sampled_from([None, 1, 16_000, 16_001]),
    ("vips", 2, "listeners", 0, "slow_start_s"): st.sampled_from([None, 1, 86_400, 86_401]),
    ("vips", 2, "listeners", 0, "dispatch"): st.sampled_from(["tuple", "ip_pair", "quic"]),
    ("vips", 2, "listeners", 0, "quic_server_id"): st.none()
    | st.fixed_dictionaries({"offset": st.integers(-1, 20), "length": st.integers(0, 5)}),
    **{
        ("vips", i, "listeners", 0, "health"): st.none()
        | st.fixed_dictionaries({"interval_ms": st.sampled_from([99, 100, 3_600_000, 3_600_001])})
        | st.fixed_dictionaries({"timeout_ms": st.sampled_from([49, 50, 1000, 1001]), "fall": st.integers(0, 101)})
        for i in (0, 2)
    },
}


def changed(changes: Mapping[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """The fleet of the fakes with a third real server, and these changes."""
    data = copy.deepcopy(document(buffers=1))
    data["real_servers"].append({"id": 3, "name": "rs-3", "host": "host-2", "key": 103, "address": "10.5.0.3"})
    data["vips"][2]["listeners"][0]["real_servers"] = ["rs-1", "rs-2", "rs-3"]
    data["source_lists"] = {"all": ["::/0"], "none": []}
    for (*way, last), value in changes.items():
        where: Any = data
        for step in way:
            where = where[step]
        where[last] = value
    return data


def all_six() -> dict[tuple[str | int, ...], Any]:
    """Every tunnel over IPv6."""
    changes: dict[tuple[str | int, ...], Any] = {("tunnel", "eip_anycast"): "fd03:ffff::1"}
    for i in range(len(changed({})["nodes"])):
        changes["nodes", i, "tunnel_address"] = f"fd03::{i + 1:x}"
    for i in range(6):
        changes["vips", i, "service"] = f"fd04::{i + 1:x}"
    return changes


@st.composite
def variations(draw: st.DrawFn) -> dict[tuple[str | int, ...], Any]:
    """A few changes, so that many of the fleets stay right."""
    base = all_six() if draw(st.booleans()) else {}
    ways = draw(st.lists(st.sampled_from(list(CHANGES)), max_size=4, unique=True))
    return base | {way: draw(CHANGES[way]) for way in ways}


@settings(max_examples=300, deadline=None)
@given(variations())
@example({})
@example(all_six())
@example({("vips", 2, "new_flows_per_s"): 2**32})
@example({("real_servers", 2, "key"): 102})
@example({("real_servers", 2, "key"): 101})
@example({("vips", 2, "listeners", 0, "real_servers"): ["rs-1", "rs-1"]})
@example({("nodes", -1, "tunnel_address"): "fd00::3"})
@example({("vips", 2, "service"): "fd00::9"})
@example({("vips", 2, "public"): "0.0.0.0"})
@example({("vips", 2, "private"): "224.0.0.5"})
@example({("tunnel", "eip_anycast"): "fd03::ffff"})
def test_what_the_fleet_document_may_say_every_node_takes(changes: dict[tuple[str | int, ...], Any]) -> None:
    try:
        fleet = check(changed(changes), Fleet, "fleet.json")
    except DocumentError:
        return
    # As a stored document comes back.
    give_to_every_node(check(json.loads(fleet.model_dump_json()), Fleet, "again"))


def test_a_listener_has_no_more_servers_than_its_nodes_take() -> None:
    def of(count: int) -> dict[str, Any]:
        numbers = range(1, count + 1)
        return changed(
            {
                ("real_servers",): [
                    {"id": i, "name": f"rs-{i}", "host": "host-1", "key": i, "address": "10.5.0.9"} for i in numbers
                ],
                ("vips", 2, "listeners", 0, "real_servers"): [f"rs-{i}" for i in numbers],
            }
        )

    give_to_every_node(check(of(1024), Fleet, "fleet.json"))
    with pytest.raises(DocumentError):
        check(of(1025), Fleet, "fleet.json")
