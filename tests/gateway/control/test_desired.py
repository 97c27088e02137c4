"""What each role is told."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.documents import check
from contract.fleet import Fleet
from gateway.control.desired import Desired, all_nodes, holdings
from gateway.control.models import Migration, Move, State
from tests.gateway.control.fakes import KEY, document, fleet

FLEET = fleet()
HOME = {v.id: v.cluster for v in FLEET.vips}


def told(
    migrations: Sequence[Migration] = (), drained: Collection[str] = (), current: dict[int, str] = HOME
) -> dict[str, Desired]:
    return all_nodes(FLEET, holdings(current, migrations), drained, KEY)


def moving(state: State, settling: bool = False, **over: Any) -> Migration:
    moves = [Move(vip_id=2, source="clb-a", to="buf-1")]
    common = {"id": "m", "cluster": "clb-a", "kind": "dispersed", "requested_ns": 1, "moves": moves}
    return Migration.model_validate({"state": state, "settling": settling} | common | over)


def vips_of(desired: Desired) -> set[int]:
    return {v["id"] for v in desired.document["clb"]["vips"]}


def test_eip_nodes_get_every_binding_and_both_sets_of_routes() -> None:
    document = told()["eip-1"].document
    assert document["role"] == "eip"
    assert document["tunnel"] == {"local": "10.3.0.1", "encap": "gre"}
    assert document["probe"] == {"reserved": ["198.18.0.0/16"], "key": KEY}
    assert document["eip"]["anycast"] == "10.3.255.1"
    assert document["eip"]["bindings"][1] == {
        "vip_id": 2,
        "public": "203.0.113.2",
        "private": "10.100.0.2",
        "service": "10.4.0.2",
    }
    assert len(document["eip"]["bindings"]) == 6
    assert document["routes"] == ["10.3.0.1/32", "10.3.255.1/32"]
    assert document["edge_routes"] == ["2001:db8:100::1/128", *(f"203.0.113.{i}/32" for i in range(2, 7))]
    assert "clb" not in document
    assert "vswitch" not in document


def test_lds_get_the_vips_of_their_cluster_and_announce_them() -> None:
    document = told()["ld-a1"].document
    assert document["clb"]["reply_to"] == "10.3.255.1"
    assert document["clb"]["reply_encap"] == "gre"
    assert vips_of(told()["ld-a1"]) == {1, 2, 3, 4, 5}
    assert document["clb"]["vips"][2] == {
        "id": 3,
        "address": "10.100.0.3",
        "service": "10.4.0.3",
        "mode": "tunnel",
        "new_flows_per_s": None,
        "listeners": [
            {
                "protocol": "tcp",
                "port": 80,
                "client_address": None,
                "backends": [
                    {"id": 1, "tunnel": "10.3.20.1", "key": 101, "encap": "gre", "weight": 100},
                    {"id": 2, "tunnel": "10.3.20.2", "key": 102, "encap": "vxlan", "weight": 100},
                ],
            }
        ],
    }
    assert document["routes"] == ["10.3.1.1/32", *(f"10.4.0.{i}/32" for i in range(1, 6))]
    assert document["edge_routes"] == []
    assert told()["bl-1"].document["clb"]["vips"] == []
    assert told()["bl-1"].document["routes"] == ["10.3.10.1/32"]


def test_lds_get_the_protection_of_their_vips_and_only_the_lists_that_those_name() -> None:
    data = document()
    data["vips"][1] |= {"packets_per_s": 10, "flood_gate_per_s": 7, "syn_cookies": "flood", "deny": "bad"}
    data["vips"][5] |= {"bytes_per_s": 1000, "allow": "good"}
    data["source_lists"] = {"bad": ["192.0.2.0/24"], "good": ["::/0"], "unused": []}
    data["blacklist"] = {"events": 20, "window_s": 10, "ttl_s": 60}
    protected = check(data, Fleet, "test fleet")
    desired = all_nodes(protected, holdings(HOME, ()), (), KEY)
    a, b = (desired[name].document["clb"] for name in ("ld-a1", "ld-b1"))
    asked = {"packets_per_s": 10, "flood_gate_per_s": 7, "deny": "bad", "syn_cookies": "flood"}
    assert a["vips"][1] == told()["ld-a1"].document["clb"]["vips"][1] | asked
    assert a["vips"][0] == told()["ld-a1"].document["clb"]["vips"][0]
    assert a["source_lists"] == {"bad": ["192.0.2.0/24"]}
    assert b["source_lists"] == {"good": ["::/0"]}
    assert a["blacklist"] == b["blacklist"] == {"events": 20, "window_s": 10, "ttl_s": 60}
    assert "blacklist" not in told()["ld-a1"].document["clb"]
    assert desired["eip-1"] == told()["eip-1"]


def test_lds_are_told_how_a_listener_balances_where_it_is_not_the_default() -> None:
    document = FLEET.model_dump(mode="json")
    more = {"balance": "rendezvous", "affinity_s": 60, "slow_start_s": 30, "health": {"fall": 5}}
    document["vips"][2]["listeners"][0] |= more
    document["vips"][2]["listeners"].append(
        {
            "protocol": "udp",
            "port": 443,
            "real_servers": document["vips"][2]["listeners"][0]["real_servers"],
            "dispatch": "quic",
            "quic_server_id": {"offset": 1, "length": 2},
        }
    )
    changed = type(FLEET).model_validate(document)
    desired = all_nodes(changed, holdings(HOME, ()), (), KEY)["ld-a1"].document
    tcp, quic = next(v["listeners"] for v in desired["clb"]["vips"] if v["id"] == 3)
    assert {key: tcp[key] for key in more} == more | {
        "health": {"interval_ms": 1000, "timeout_ms": 500, "rise": 2, "fall": 5}
    }
    assert "dispatch" not in tcp
    assert (quic["dispatch"], quic["quic_server_id"]) == ("quic", {"offset": 1, "length": 2})
    assert set(quic) == {"protocol", "port", "client_address", "backends", "dispatch", "quic_server_id"}


def test_hosts_get_their_servers_with_the_addresses_of_the_vips_that_use_them() -> None:
    document = told()["host-1"].document
    assert document["tunnel"] == {"local": "10.3.20.1", "encap": "gre"}
    assert told()["host-2"].document["tunnel"]["encap"] == "vxlan"
    assert document["vswitch"]["servers"] == [
        {
            "id": 1,
            "key": 101,
            "vips": [
                {"id": 1, "address": "fd00:100::1", "mode": "tunnel"},
                {"id": 3, "address": "10.100.0.3", "mode": "tunnel"},
                {"id": 5, "address": "10.100.0.5", "mode": "tunnel"},
            ],
        }
    ]
    assert document["routes"] == ["10.3.20.1/32"]


def test_direct_return_and_client_addresses_reach_the_nodes() -> None:
    data = document()
    data["vips"][2] |= {"mode": "dsr"}
    data["vips"][2]["listeners"][0]["client_address"] = "toa"
    data["nodes"][-1]["encap"] = "ipip"
    del data["real_servers"][1]["key"]
    for vip in data["vips"]:
        vip["listeners"][0]["real_servers"] = ["rs-1", "rs-2"] if vip["id"] % 2 else ["rs-2"]
    desired = all_nodes(check(data, Fleet, "test"), holdings(HOME, ()), (), KEY)
    vip = desired["ld-a1"].document["clb"]["vips"][2]
    assert vip["mode"] == "dsr"
    assert vip["listeners"][0]["client_address"] == "toa"
    assert vip["listeners"][0]["backends"][1] == {
        "id": 2,
        "tunnel": "10.3.20.2",
        "key": None,
        "encap": "ipip",
        "weight": 100,
    }
    host = desired["host-2"].document
    assert host["tunnel"]["encap"] == "ipip"
    assert host["vswitch"]["reply_to"] == "10.3.255.1"
    assert host["vswitch"]["reply_encap"] == "gre"
    assert host["vswitch"]["servers"][0]["key"] is None
    assert {v["id"]: v["mode"] for v in host["vswitch"]["servers"][0]["vips"]}[3] == "dsr"
    assert "reply_to" not in told()["host-2"].document["vswitch"]


@pytest.mark.parametrize("name", ["eip-1", "ld-a1", "host-1"])
def test_a_node_in_maintenance_keeps_its_tables_and_loses_its_routes(name: str) -> None:
    before, after = told()[name].document, told(drained={name})[name].document
    assert after["routes"] == [] == after["edge_routes"]
    assert before | {"routes": [], "edge_routes": []} == after
    assert told(drained={name})["bl-1"] == told()["bl-1"]


@pytest.mark.parametrize(
    ("state", "settling", "announcing"),
    [
        ("configuring", False, {"ld-a1", "ld-a2"}),
        ("announcing", False, {"ld-a1", "ld-a2", "bl-1"}),
        ("verifying", False, {"bl-1"}),
        ("failed", True, {"ld-a1", "ld-a2", "bl-1"}),
    ],
)
def test_a_moving_vip_is_held_by_both_and_announced_by_somebody_at_every_step(
    state: State, settling: bool, announcing: set[str]
) -> None:
    desired = told([moving(state, settling)])
    assert {n for n, d in desired.items() if d.document["role"] == "clb" and 2 in vips_of(d)} == {
        "ld-a1",
        "ld-a2",
        "bl-1",
    }
    assert {n for n, d in desired.items() if "10.4.0.2/32" in d.document["routes"]} == announcing


@pytest.mark.parametrize("state", ["done", "failed", "rolled_back", "refused", "dry_run"])
def test_an_ended_migration_changes_nothing(state: State) -> None:
    assert told([moving(state)]) == told()


def test_the_digest_names_the_content() -> None:
    assert told()["ld-a1"].digest == told()["ld-a1"].digest
    assert told()["ld-a1"].digest != told(drained={"ld-a1"})["ld-a1"].digest


@given(
    st.dictionaries(st.integers(1, 6), st.sampled_from(["clb-a", "clb-b", "buf-1", "buf-2", "buf-3"])),
    st.sampled_from(["configuring", "announcing", "verifying", "done"]),
    st.sets(st.sampled_from(["ld-a1", "bl-1", "eip-1"])),
)
def test_every_vip_is_announced_and_only_where_its_tables_are(
    moved: dict[int, str], state: State, drained: set[str]
) -> None:
    moves = [Move(vip_id=v, source=HOME[v], to=to) for v, to in moved.items() if HOME[v] != to]
    desired = told([moving(state, moves=moves)], drained)
    json.dumps([d.document for d in desired.values()])
    announced = set()
    for d in desired.values():
        assert set(d.routes) <= d.vips
        assert set(d.routes.values()) <= set(d.document["routes"])
        announced |= set(d.routes)
        if d.node in drained:
            assert d.document["routes"] == []
    if not drained:
        assert announced == set(HOME)
