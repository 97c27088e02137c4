"""The region is valid at every size, and nothing in it is used twice."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.fleet import Fleet
from lab import birds, documents
from lab.state import Run
from lab.topology import DEMO, SMALL, Size, Topology

PLACES = documents.Places({name: 7000 + i for i, name in enumerate(documents.SERVICES)})
SECRETS = documents.Secrets("0" * 32, "w" * 32, "r" * 32)


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    servers = draw(st.integers(1, 8))
    vips = draw(st.integers(1, 80))
    return Size(
        eips=draw(st.integers(1, 4)),
        clusters=draw(st.integers(1, 4)),
        lds=draw(st.integers(1, 4)),
        buffers=draw(st.integers(1, 12)),
        hosts=draw(st.integers(1, min(servers, 6))),
        servers=servers,
        probers=draw(st.integers(1, 3)),
        clients=draw(st.integers(1, 3)),
        vips=vips,
        vips6=draw(st.integers(0, vips)),
    )


@settings(max_examples=40, deadline=None)
@given(sizes())
def test_every_size_is_a_valid_fleet_without_shared_addresses(size: Size) -> None:
    topology = Topology(size)
    fleet = topology.fleet
    assert len(fleet.vips) == size.vips
    assert sum(1 for v in fleet.vips if v.public.version == 6) == size.vips6
    assert len(set(topology.namespaces)) == len(topology.namespaces)
    addresses = [a for x in topology.links for a in (x.router4, x.address4, x.router6, x.address6)]
    addresses += [x.address for x in topology.server_links]
    addresses += [str(a) for v in fleet.vips for a in (v.public, v.private, v.service)]
    addresses += [str(n.tunnel_address) for n in fleet.nodes] + [str(fleet.tunnel.eip_anycast)]
    assert len(set(map(ipaddress.ip_address, addresses))) == len(addresses)
    macs = [m for x in topology.links for m in (x.router_mac, x.mac)]
    macs += [m for x in topology.server_links for m in (x.host_mac, x.mac)]
    assert len(set(macs)) == len(macs)
    assert all(len(i) <= 15 for x in topology.links for i in (x.interface, x.router_interface))
    assert len({topology.asn(n) for n in topology.nodes}) == len(topology.nodes)


@settings(max_examples=40, deadline=None)
@given(sizes())
def test_each_cluster_gets_its_share_of_vips(size: Size) -> None:
    fleet = Topology(size).fleet
    share = -(-size.vips // size.clusters)
    for cluster in (c.name for c in fleet.clusters if c.role == "clb"):
        assert sum(1 for v in fleet.vips if v.cluster == cluster) <= share


def test_the_demo_is_the_region_of_the_story() -> None:
    topology = Topology(DEMO)
    fleet = topology.fleet
    by_purpose = {p: [c for c in fleet.clusters if c.role == "clb" and c.purpose == p] for p in ("serving", "buffer")}
    assert [c.name for c in by_purpose["serving"]] == ["clb-a", "clb-b"]
    assert len(by_purpose["buffer"]) == 10
    assert {c.az for c in by_purpose["serving"]} == {"az1", "az2"}
    assert [sum(1 for c in by_purpose["buffer"] if c.az == az) for az in ("az1", "az2")] == [5, 5]
    assert sum(1 for n in fleet.nodes if topology.role(n.name) == "eip") == 2
    assert len(fleet.vips) == 40
    assert [sum(1 for v in fleet.vips if v.cluster == c) for c in ("clb-a", "clb-b")] == [20, 20]
    assert sum(1 for v in fleet.vips if v.public.version == 6) == 4
    assert sorted(n.encap for n in fleet.nodes if topology.role(n.name) == "vswitch") == [
        "gre",
        "gre",
        "vxlan",
        "vxlan",
    ]
    assert {len(v.listeners[0].real_servers) for v in fleet.vips} == {2, 3, 4}
    assert any(len(v.listeners) == 2 for v in fleet.vips)


@pytest.mark.parametrize("size", [DEMO, SMALL])
def test_one_ld_carries_its_cluster_and_the_buffers_carry_any_cluster(size: Size) -> None:
    """A crash of one LD needs no migration; a dead cluster fits into the buffers, twice in the demo."""
    fleet = Topology(size).fleet
    buffers = [n for n in fleet.nodes if fleet.cluster(n.cluster).purpose == "buffer"]
    room = sum(n.capacity for n in buffers)
    assert room >= sum(v.demand for v in fleet.vips)
    for cluster in (c for c in fleet.clusters if c.role == "clb" and c.purpose == "serving"):
        demand = sum(v.demand for v in fleet.vips if v.cluster == cluster.name)
        assert all(n.capacity >= demand for n in fleet.nodes_of(cluster.name))


@pytest.mark.parametrize(("name", "value"), [("vips", 0), ("buffers", 21), ("hosts", 5), ("vips6", 41)])
def test_a_size_out_of_bounds_is_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        Size(**{name: value})


def test_every_settings_file_is_toml_and_names_what_exists(tmp_path: Path) -> None:
    topology = Topology(SMALL)
    run = Run(tmp_path)
    files = documents.files(topology, run, PLACES, SECRETS)
    parsed = {p: tomllib.loads(t) for p, t in files.items() if p.suffix == ".toml"}
    assert Fleet.model_validate_json(files[run.fleet]) == topology.fleet
    for name in topology.nodes:
        node = parsed[run.node(name) / "node.toml"]
        speaker = parsed[run.node(name) / "speaker.toml"]
        assert node["state_dir"] == speaker["state_dir"]
        assert [p["index"] for p in node["port"]] == list(range(len(node["port"])))
        assert {p["kind"] for p in node["port"]} == {"af_packet"}
        assert len(speaker["session"]) == (3 if node["role"] == "eip" else 1)
    host = parsed[run.node("host-1") / "node.toml"]
    keys = {s["key"]: s["port"] for s in host["server_port"]}
    assert keys == {s.key: i for i, s in enumerate(topology.fleet.real_servers, start=1)}


def test_toml_of_nested_tables_reads_back() -> None:
    data = {"a": 1, "b": 'x"\\\n', "c": [1.5, True], "d": {"e": {"f": "g"}}, "h": [{"i": 1, "j": {"k": 2}}, {"i": 2}]}
    assert tomllib.loads(documents.toml(data)) == data


def test_each_node_has_a_session_on_its_router() -> None:
    topology = Topology(DEMO)
    fabric = birds.router(topology, "fabric")
    edge = birds.router(topology, "edge")
    assert fabric.count("protocol bgp ") == len(topology.nodes)
    assert edge.count("protocol bgp ") == 4
    for link in topology.links:
        if link.side == "fabric":
            assert f"neighbor {link.address4} as {topology.asn(link.name)};" in fabric
