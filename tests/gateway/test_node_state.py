"""What a node takes for its desired state, and what it makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contract.documents import check
from gateway.node_state import Desired, NodeSettings, Refused, Stale

MAC = "02:7e:05:00:01:02"


def settings(role: str = "vswitch", **more: Any) -> NodeSettings:
    document = {
        "name": "host-1",
        "role": role,
        "state_dir": "/nowhere/state",
        "tap_dir": "/nowhere/taps",
        "api": {"socket": "/nowhere/api.sock"},
        "port": [{"index": 0, "interface": "fabric0", "next_hop": "10.2.1.1", "mtu": 1600}],
        "server_port": [{"key": 11, "port": 1, "mac": MAC}],
        **more,
    }
    return check(document, NodeSettings, "node.toml")


def desired(epoch: Any = 1, **more: Any) -> dict[str, Any]:
    servers = [{"id": 1, "key": 11, "vips": []}]
    section = {"vswitch": {"servers": servers}}
    return {"epoch": epoch, "node": "host-1", "role": "vswitch", "routes": ["10.3.1.1/32"], **section, **more}


def test_a_server_gets_its_local_port_and_mac() -> None:
    given = desired()
    merged = Desired(settings()).check(given)
    assert merged["vswitch"]["servers"] == [{"id": 1, "key": 11, "vips": [], "port": 1, "mac": MAC}]
    assert "port" not in given["vswitch"]["servers"][0], "the caller's document stays as it is"


def test_a_server_without_a_local_port_is_refused_with_its_place() -> None:
    servers = [{"id": 1, "key": 11}, {"id": 2, "key": 12}]
    with pytest.raises(Refused) as caught:
        Desired(settings()).check(desired(vswitch={"servers": servers}))
    (problem,) = caught.value.problems
    assert (problem.path, problem.found) == ("vswitch.servers[1].key", "12")
    assert "11" in problem.expected


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"node": "host-2"}, "node"),
        ({"role": "clb"}, "role"),
        ({"epoch": 0}, "epoch"),
        ({"epoch": "7"}, "epoch"),
        ({"epoch": True}, "epoch"),
        ({"routes": "10.0.0.0/8"}, "routes"),
        ({"edge_routes": [1]}, "edge_routes"),
    ],
)
def test_what_is_not_for_this_node_is_refused(change: dict[str, Any], path: str) -> None:
    with pytest.raises(Refused) as caught:
        Desired(settings()).check(desired(**change))
    assert [problem.path for problem in caught.value.problems] == [path]


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(Refused):
        Desired(settings()).check(document)


def test_an_older_epoch_is_stale_the_same_one_is_not() -> None:
    state = Desired(settings())
    state.took(state.check(desired(epoch=7)), [])
    with pytest.raises(Stale, match=r"epoch 6 .* 7"):
        state.check(desired(epoch=6))
    assert state.check(desired(epoch=7))["epoch"] == 7
    assert state.check(desired(epoch=8))["epoch"] == 8


def test_a_refused_document_changes_nothing() -> None:
    state = Desired(settings())
    state.took(state.check(desired(epoch=7)), [])
    before = state.routes("b", 1, [])
    with pytest.raises(Refused):
        state.check(desired(epoch=8, role="eip"))
    assert state.routes("b", 1, []) == before
    assert state.epoch == 7


def test_routes_follow_tables() -> None:
    state = Desired(settings())
    nothing = {"epoch": 0, "boot_id": "b", "pid": 1, "routes": [], "edge_routes": [], "taps": ["t"]}
    assert state.routes("b", 1, ["t"]) == nothing
    state.took(state.check(desired(epoch=3, edge_routes=["203.0.113.1/32"])), [])
    all_of_it = {**nothing, "epoch": 3, "routes": ["10.3.1.1/32"], "edge_routes": ["203.0.113.1/32"]}
    assert state.routes("b", 1, ["t"]) == all_of_it
    assert state.routes("b", 1, ["t"], announce=False) == {**nothing, "epoch": 3}


def test_the_native_core_gets_everything_and_the_ports() -> None:
    state = Desired(settings())
    ports = [{"index": 0, "mac": MAC}]
    assert json.loads(state.tables(desired(), ports)) == {**desired(), "ports": ports}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"role": "router"}, "role"),
        ({"colour": "red"}, "colour"),
        ({"port": []}, "port"),
        ({"port": [{"index": 0, "interface": "fabric0", "mtu": 1600}]}, "next_hop"),
        ({"server_port": [{"key": 1, "port": 0, "mac": MAC}]}, "server_port"),
        ({"api": {"host": "0.0.0.0"}}, "loopback"),
    ],
)
def test_wrong_settings_name_the_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_the_process_refuses_wrong_settings_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gateway._dataplane")
    from gateway import node

    path = tmp_path / "node.toml"
    path.write_text('name = "x"\nrole = "eip"\n')
    with pytest.raises(SystemExit) as caught:
        node.main([str(path)])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert "state_dir" in said
    assert node.main([]) == 2


@pytest.mark.parametrize("key", [[], {}, "\ud800", 12, 12.5])
def test_a_server_key_of_any_kind_is_refused_with_its_place(key: Any) -> None:
    with pytest.raises(Refused) as caught:
        Desired(settings()).check(desired(vswitch={"servers": [{"id": 1, "key": key}]}))
    (problem,) = caught.value.problems
    assert problem.path == "vswitch.servers[0].key"
    assert str(problem).encode()


def test_a_server_without_a_key_is_named_by_its_id() -> None:
    ports = [{"key": 11, "port": 1, "mac": MAC}, {"id": 2, "port": 3, "mac": MAC}]
    state = Desired(settings(server_port=ports))
    servers = [{"id": 1, "key": 11}, {"id": 2, "key": None}]
    merged = state.check(desired(vswitch={"servers": servers}))
    assert [server["port"] for server in merged["vswitch"]["servers"]] == [1, 3]
    with pytest.raises(Refused) as caught:
        state.check(desired(vswitch={"servers": [{"id": 1, "key": None}]}))
    (problem,) = caught.value.problems
    assert problem.path == "vswitch.servers[0].id"
    for wrong in ({"port": 1, "mac": MAC}, {"key": 1, "id": 1, "port": 1, "mac": MAC}):
        with pytest.raises(ValueError, match="key or an id"):
            settings(server_port=[wrong])


def test_a_document_that_is_nested_too_deeply_is_refused() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(Refused, match="nested"):
        Desired(settings()).check(desired(probe=deep))
