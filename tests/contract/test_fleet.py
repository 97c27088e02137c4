"""The fleet document is checked as a whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from contract.documents import DocumentError, check
from contract.fleet import Fleet

GOOD: dict[str, Any] = {
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


def with_change(path: Sequence[str | int], value: Any) -> dict[str, Any]:
    """GOOD with the value at `path` (keys and indices) replaced; a value of `...` removes it."""
    data = copy.deepcopy(GOOD)
    where: Any = data
    for step in path[:-1]:
        where = where[step]
    if value is ...:
        del where[path[-1]]
    else:
        where[path[-1]] = value
    return data


def paths(data: dict[str, Any]) -> set[str]:
    with pytest.raises(DocumentError) as caught:
        check(data, Fleet, "fleet.json")
    return {p.path for p in caught.value.problems}


def test_a_good_document_and_its_questions() -> None:
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
        (("real_servers", 1, "key"), 1, "real_servers[1].key"),
        (("real_servers", 0, "address"), "::", "real_servers[0].address"),
        (("tunnel", "eip_anycast"), "224.0.0.5", "tunnel.eip_anycast"),
        (("nodes", 0, "tunnel_address"), "0.0.0.0", "nodes[0].tunnel_address"),
        (("nodes", 0, "tunnel_address"), "fd00::3", "nodes[0].tunnel_address"),
        (("nodes", 2, "tunnel_address"), "fd00::3", "vips[0].listeners[0].real_servers[0]"),
        (("vips", 0, "public"), "0.0.0.0", "vips[0].public"),
        (("vips", 0, "private"), "224.0.0.5", "vips[0].private"),
        (("vips", 1, "public"), "ff02::1", "vips[1].public"),
        (("vips", 1, "private"), "::ffff:10.0.0.1", "vips[1].private"),
        (("vips", 1, "private"), "fe80::1%eth0", "vips[1].private"),
        (("vips", 0, "service"), "::", "vips[0].service"),
        (("vips", 0, "new_flows_per_s"), 2**32, "vips[0].new_flows_per_s"),
        (("vips", 0, "listeners", 0, "real_servers"), ["rs1", "rs1"], "vips[0].listeners[0].real_servers[1]"),
        (("vips", 0, "listeners", 0, "real_servers"), ["rs1"] * 1025, "vips[0].listeners[0].real_servers"),
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
        (("tunnel", "encap"), "l2tp", "tunnel.encap"),
        (("real_servers", 0, "key"), ..., "real_servers[0].key"),
        (("nodes", 2, "encap"), "ipip", "real_servers[0].key"),
        (("vips", 0, "mode"), "nat", "vips[0].mode"),
        (("vips", 0, "listeners", 0, "client_address"), "forwarded", "vips[0].listeners[0].client_address"),
        (("vips", 1, "listeners", 1, "client_address"), "toa", "vips[1].listeners[1].client_address"),
        (("format",), 2, "format"),
        (("tunnel",), ..., "tunnel"),
        (("vips", 0, "packets_per_s"), 0, "vips[0].packets_per_s"),
        (("vips", 0, "bytes_per_s"), 2**43 + 1, "vips[0].bytes_per_s"),
        (("vips", 0, "flood_gate_per_s"), -1, "vips[0].flood_gate_per_s"),
        (("vips", 0, "syn_cookies"), "sometimes", "vips[0].syn_cookies"),
        (("vips", 0, "syn_cookies"), "flood", "vips[0].syn_cookies"),
        (("vips", 0, "deny"), "none-such", "vips[0].deny"),
        (("vips", 1, "allow"), "none-such", "vips[1].allow"),
        (("source_lists",), {"Bad Name": []}, "source_lists.Bad Name.[key]"),
        (("source_lists",), {"bad": ["192.0.2.0/24", "192.0.2.1/24"]}, "source_lists.bad[1]"),
        (("blacklist",), {"events": 1, "window_s": 1, "ttl_s": 0}, "blacklist.ttl_s"),
    ],
)
def test_each_fault_is_named_by_its_path(at: Sequence[str | int], value: Any, path: str) -> None:
    assert path in paths(with_change(at, value))


def test_all_faults_are_told_at_once() -> None:
    data = with_change(("clusters", 0, "az"), "az9")
    data["vips"][0]["cluster"] = "none"
    data["real_servers"][0]["host"] = "none"
    assert paths(data) == {"clusters[0].az", "vips[0].cluster", "real_servers[0].host"}


def without_keys(encap: str) -> dict[str, Any]:
    """GOOD with the host of the real servers on a tunnel that may go without keys, and none of them."""
    data = with_change(("nodes", 2, "encap"), encap)
    for server in data["real_servers"]:
        del server["key"]
    return data


@pytest.mark.parametrize("encap", ["ipip", "gue"])
def test_servers_without_keys_on_one_host_share_no_vip(encap: str) -> None:
    data = without_keys(encap)
    for vip in data["vips"]:
        for listener in vip["listeners"]:
            listener["real_servers"] = ["rs1"]
    assert check(data, Fleet, "fleet.json").real_servers[0].key is None
    data["vips"][1]["listeners"][1]["real_servers"] = ["rs2"]
    assert paths(data) == {"vips[1].listeners[1].real_servers[0]"}
    if encap == "gue":
        data["real_servers"][1]["key"] = 2
        check(data, Fleet, "fleet.json")


def test_direct_return_wants_no_proxy_header() -> None:
    data = with_change(("vips", 0, "mode"), "dsr")
    assert check(data, Fleet, "fleet.json").vips[0].mode == "dsr"
    data["vips"][0]["listeners"][0]["client_address"] = "proxy_v2"
    assert paths(data) == {"vips[0].listeners[0].client_address"}
    data["vips"][0]["listeners"][0]["client_address"] = "toa"
    check(data, Fleet, "fleet.json")


def test_a_key_names_one_server_of_the_region_wherever_its_host() -> None:
    data = with_change(("real_servers", 1), {**GOOD["real_servers"][1], "host": "host2", "key": 1})
    data["nodes"].append({"name": "host2", "cluster": "h", "tunnel_address": "10.3.0.4"})
    assert paths(data) == {"real_servers[1].key"}
    data["real_servers"][1]["key"] = 2
    check(data, Fleet, "fleet.json")


def test_both_ends_of_a_tunnel_are_of_one_family() -> None:
    data = with_change(("tunnel", "eip_anycast"), "fd03::ffff")
    servers = {
        f"vips[{i}].listeners[{j}].real_servers[{k}]" for i, j, k in ((0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0))
    }
    assert paths(data) == {"nodes[0].tunnel_address", "nodes[1].tunnel_address"} | servers
    for i, node in enumerate(data["nodes"]):
        node["tunnel_address"] = f"fd03::{i + 1}"
    check(data, Fleet, "fleet.json")
    data["nodes"].append({"name": "eip1", "cluster": "e", "tunnel_address": "fd03::10"})
    assert paths(data) == {"vips[0].service", "vips[1].service"}
    for i, vip in enumerate(data["vips"]):
        vip["service"] = f"fd04::{i + 1}"
    check(data, Fleet, "fleet.json")


UDP = ("vips", 1, "listeners", 1)


def with_udp(**fields: Any) -> dict[str, Any]:
    listener = {**GOOD["vips"][1]["listeners"][1], **fields}
    return with_change(UDP, listener)


def test_a_listener_may_balance_as_it_likes() -> None:
    data = with_udp(dispatch="quic", quic_server_id={"offset": 16, "length": 4})
    more = {"balance": "rendezvous", "affinity_s": 60, "slow_start_s": 30, "health": {}, "dispatch": "ip_pair"}
    data["vips"][0]["listeners"][0] |= more
    fleet = check(data, Fleet, "fleet.json")
    health = fleet.vips[0].listeners[0].health
    assert health is not None
    assert (health.interval_ms, health.timeout_ms, health.rise, health.fall) == (1000, 500, 2, 3)


def test_a_quic_server_id_has_room_for_every_server_and_no_affinity_beside_it() -> None:
    at = "vips[1].listeners[1]"
    wrong = with_udp(dispatch="quic", quic_server_id={"offset": 17, "length": 4})
    assert paths(wrong) == {f"{at}.quic_server_id.length"}
    assert paths(with_udp(dispatch="quic", affinity_s=5)) == {f"{at}.affinity_s"}
    wrong = with_udp(dispatch="quic", quic_server_id={"offset": 1, "length": 1})
    wrong["real_servers"][1]["id"] = 256
    assert paths(wrong) == {f"{at}.quic_server_id.length"}


def test_health_wants_one_family_on_every_ld_that_may_hold_the_vip() -> None:
    data = with_change(("vips", 0, "listeners", 0, "health"), {})
    check(data, Fleet, "fleet.json")
    data["clusters"].append({"name": "b", "role": "clb", "az": "az1", "purpose": "buffer"})
    data["nodes"].append({"name": "ld9", "cluster": "b", "tunnel_address": "fd00::9"})
    assert paths(data) == {"nodes[3].tunnel_address", "vips[0].listeners[0].health"}
