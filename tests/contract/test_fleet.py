"""The fleet document is checked as a whole."""

from __future__ import annotations

import copy

import pytest

from contract.documents import DocumentError, check
from contract.fleet import Fleet

GOOD = {
    "region": "r",
    "tunnel": {"eip_anycast": "10.3.255.1"},
    "probing": {"reserved": ["198.18.0.0/16"], "probers": [{"name": "p1", "sources": ["198.18.1.0/24"]}]},
    "azs": [{"name": "az1"}],
    "clusters": [
        {"name": "c", "role": "clb", "az": "az1"},
        {"name": "e", "role": "eip", "az": "az1"},
        {"name": "h", "role": "vswitch", "az": "az1"},
    ],
    "nodes": [
        {"name": "ld1", "cluster": "c", "tunnel_address": "10.3.0.1"},
        {"name": "ld2", "cluster": "c", "tunnel_address": "10.3.0.2"},
        {"name": "host1", "cluster": "h", "tunnel_address": "10.3.0.3"},
    ],
    "real_servers": [
        {"id": 1, "name": "rs1", "host": "host1", "key": 1, "address": "10.5.0.1"},
        {"id": 2, "name": "rs2", "host": "host1", "key": 2, "address": "10.5.0.2"},
    ],
    "vips": [
        {
            "id": 1,
            "name": "v1",
            "public": "203.0.113.1",
            "private": "10.100.0.1",
            "service": "10.4.0.1",
            "cluster": "c",
            "listeners": [{"port": 80, "real_servers": ["rs1", "rs2"]}],
        },
        {
            "id": 2,
            "name": "v2",
            "public": "2001:db8::2",
            "private": "fd00::2",
            "service": "10.4.0.2",
            "cluster": "c",
            "listeners": [
                {"port": 80, "real_servers": ["rs1"]},
                {"protocol": "udp", "port": 80, "real_servers": ["rs2"]},
            ],
        },
    ],
}


def with_change(path, value):
    """GOOD with the value at `path` (keys and indices) replaced; a value of `...` removes it."""
    data = copy.deepcopy(GOOD)
    where = data
    for step in path[:-1]:
        where = where[step]
    if value is ...:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return data


def paths(data):
    with pytest.raises(DocumentError) as caught:
        check(data, Fleet, "fleet.json")
    return {p.path for p in caught.value.problems}


def test_a_good_document_and_its_questions():
    fleet = check(GOOD, Fleet, "fleet.json")
    assert fleet.cluster("c").role == "clb"
    assert [n.name for n in fleet.nodes_of("c")] == ["ld1", "ld2"]
    assert fleet.role_of(fleet.nodes[2]) == "vswitch"
    assert fleet.policy.buffer_clusters == 10
    with pytest.raises(KeyError):
        fleet.cluster("none")
    assert check(fleet.model_dump(mode="json"), Fleet, "again") == fleet


@pytest.mark.parametrize(
    ("at", "value", "path"),
    [
        (("clusters", 0, "az"), "az9", "clusters[0].az"),
        (("nodes", 0, "cluster"), "none", "nodes[0].cluster"),
        (("nodes", 1, "name"), "ld1", "nodes[0].name"),
        (("nodes", 1, "tunnel_address"), "10.3.0.1", "nodes[1].tunnel_address"),
        (("nodes", 0, "capacity"), 0, "nodes[0].capacity"),
        (("real_servers", 0, "host"), "ld1", "real_servers[0].host"),
        (("real_servers", 0, "host"), "none", "real_servers[0].host"),
        (("real_servers", 1, "id"), 1, "real_servers[1].id"),
        (("real_servers", 0, "key"), 2**24, "real_servers[0].key"),
        (("vips", 0, "cluster"), "e", "vips[0].cluster"),
        (("vips", 1, "id"), 1, "vips[1].id"),
        (("vips", 0, "id"), 0, "vips[0].id"),
        (("vips", 0, "private"), "fd00::1", "vips[0].private"),
        (("vips", 0, "service"), "10.3.255.1", "vips[0].service"),
        (("vips", 0, "public"), "203.0.113", "vips[0].public"),
        (("vips", 0, "listeners"), [], "vips[0].listeners"),
        (("vips", 1, "listeners", 1, "protocol"), "tcp", "vips[1].listeners[1].port"),
        (("vips", 0, "listeners", 0, "real_servers"), ["rs1", "rs9"], "vips[0].listeners[0].real_servers[1]"),
        (("vips", 0, "listeners", 0, "port"), 65536, "vips[0].listeners[0].port"),
        (("probing", "probers", 0, "sources"), ["192.0.2.0/24"], "probing.probers[0].sources[0]"),
        (("probing", "probers", 0, "sources"), ["2001:db8::/64"], "probing.probers[0].sources[0]"),
        (("vips", 0, "listeners", 0, "balance"), "random", "vips[0].listeners[0].balance"),
        (("vips", 0, "listeners", 0, "affinity_s"), 0, "vips[0].listeners[0].affinity_s"),
        (("vips", 0, "listeners", 0, "affinity_s"), 16_001, "vips[0].listeners[0].affinity_s"),
        (("vips", 0, "listeners", 0, "slow_start_s"), 0, "vips[0].listeners[0].slow_start_s"),
        (("vips", 0, "listeners", 0, "health"), {"fall": 0}, "vips[0].listeners[0].health.fall"),
        (("vips", 0, "listeners", 0, "health"), {"timeout_ms": 1001}, "vips[0].listeners[0].health.timeout_ms"),
        (("vips", 1, "listeners", 1, "health"), {}, "vips[1].listeners[1].health"),
        (("vips", 1, "listeners", 0, "health"), {}, "vips[1].listeners[0].health"),
        (("vips", 0, "listeners", 0, "dispatch"), "quic", "vips[0].listeners[0].dispatch"),
        (
            ("vips", 0, "listeners", 0, "quic_server_id"),
            {"offset": 1, "length": 1},
            "vips[0].listeners[0].quic_server_id",
        ),
        (("region",), "Not A Name", "region"),
        (("azs",), [], "azs"),
        (("tunnel", "encap"), "ipip", "tunnel.encap"),
        (("format",), 2, "format"),
        (("tunnel",), ..., "tunnel"),
    ],
)
def test_each_fault_is_named_by_its_path(at, value, path):
    assert path in paths(with_change(at, value))


def test_all_faults_are_told_at_once():
    data = with_change(("clusters", 0, "az"), "az9")
    data["vips"][0]["cluster"] = "none"
    data["real_servers"][0]["host"] = "none"
    assert paths(data) == {"clusters[0].az", "vips[0].cluster", "real_servers[0].host"}


UDP = ("vips", 1, "listeners", 1)


def with_udp(**fields):
    listener = {**GOOD["vips"][1]["listeners"][1], **fields}
    return with_change(UDP, listener)


def test_a_listener_may_balance_as_it_likes():
    data = with_udp(dispatch="quic", quic_server_id={"offset": 16, "length": 4})
    more = {"balance": "rendezvous", "affinity_s": 60, "slow_start_s": 30, "health": {}, "dispatch": "ip_pair"}
    data["vips"][0]["listeners"][0] |= more
    fleet = check(data, Fleet, "fleet.json")
    health = fleet.vips[0].listeners[0].health
    assert (health.interval_ms, health.timeout_ms, health.rise, health.fall) == (1000, 500, 2, 3)


def test_a_quic_server_id_has_room_for_every_server_and_no_affinity_beside_it():
    at = "vips[1].listeners[1]"
    wrong = with_udp(dispatch="quic", quic_server_id={"offset": 17, "length": 4})
    assert paths(wrong) == {f"{at}.quic_server_id.length"}
    assert paths(with_udp(dispatch="quic", affinity_s=5)) == {f"{at}.affinity_s"}
    wrong = with_udp(dispatch="quic", quic_server_id={"offset": 1, "length": 1})
    wrong["real_servers"][1]["id"] = 256
    assert paths(wrong) == {f"{at}.quic_server_id.length"}


def test_health_wants_one_family_on_every_ld_that_may_hold_the_vip():
    data = with_change(("vips", 0, "listeners", 0, "health"), {})
    check(data, Fleet, "fleet.json")
    data["clusters"].append({"name": "b", "role": "clb", "az": "az1", "purpose": "buffer"})
    data["nodes"].append({"name": "ld9", "cluster": "b", "tunnel_address": "fd00::9"})
    assert paths(data) == {"vips[0].listeners[0].health"}
