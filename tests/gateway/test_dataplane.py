"""The native module through Python's door: the account, records, faults, errors, captures."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from contract import records
from contract.vocabulary import DropReason

dataplane = pytest.importorskip("gateway._dataplane")

NOW = 1_700_000_000_000_000_000
SECTIONS: dict[str, dict[str, Any]] = {
    "eip": {"eip": {"anycast": "10.3.255.1", "bindings": []}},
    "clb": {"clb": {"reply_to": "10.3.255.1", "reply_encap": "gre", "vips": []}},
    "vswitch": {"vswitch": {"servers": []}},
}
ROLES = list(SECTIONS)


def tables(role: str, epoch: int = 1) -> dict[str, Any]:
    """Tables that know no VIP."""
    port = {
        "index": 0,
        "interface": "fabric0",
        "mac": "02:00:00:00:00:01",
        "next_hop_mac": "02:00:00:00:00:02",
        "mtu": 1600,
        "host_addresses": ["10.2.0.2"],
    }
    return {
        "epoch": epoch,
        "node": "n",
        "role": role,
        "tunnel": {"local": "10.3.0.11", "encap": "gre"},
        "probe": {"reserved": ["198.18.0.0/16"], "key": "000102030405060708090a0b0c0d0e0f"},
        **SECTIONS[role],
        "routes": [],
        "edge_routes": [],
        "ports": [port, {**port, "index": 1, "interface": "edge0", "mac": "02:00:00:00:01:01", "mtu": 1500}],
    }


def drops(counters: dict[str, int]) -> dict[str, int]:
    return {name.removeprefix("drop."): n for name, n in counters.items() if name.startswith("drop.") and n}


def balance(pipeline: Any) -> None:
    for counters in pipeline.counters():
        assert counters["frames_in"] == counters["frames_out"] + sum(drops(counters).values())


def hostile(seed: int, count: int) -> list[tuple[int, bytes]]:
    """Frames of every length, some with a credible beginning."""
    dice = random.Random(seed)
    starts = [b"", bytes.fromhex("020000000001020000000002"), bytes.fromhex("0200000000010200000000020800450000")]
    return [(dice.randrange(2), dice.choice(starts) + dice.randbytes(dice.randrange(2300))) for _ in range(count)]


def test_every_counter_and_reason_has_its_name() -> None:
    (counters,) = dataplane.Pipeline("eip").counters()
    assert set(counters) == set(records.COUNTERS) | {f"drop.{reason.name}" for reason in DropReason}


def test_health_names_the_servers_of_listeners_that_check() -> None:
    document = tables("clb")
    backend = {"id": 5, "tunnel": "10.3.1.1", "key": 77, "encap": "gre", "weight": 100}
    listener = {"protocol": "tcp", "port": 80, "backends": [backend]}
    checked = {**listener, "port": 443, "health": {"interval_ms": 100, "timeout_ms": 50, "rise": 1, "fall": 1}}
    vip = {"id": 7, "address": "10.100.0.1", "service": "10.4.0.1", "listeners": [listener, checked]}
    document["clb"] = {**document["clb"], "vips": [vip]}
    pipeline = dataplane.Pipeline("clb")
    assert pipeline.health() == []
    pipeline.apply(json.dumps(document))
    entry = {"vip_id": 7, "server_id": 5, "port": 443, "up": True, "since_ns": 0}
    assert pipeline.health() == [entry]
    sent = 0
    for step in range(50):
        pipeline.beat(NOW + step * 10_000_000)
        sent += len(pipeline.process([], NOW + step * 10_000_000))
    (health,) = pipeline.health()
    assert not health["up"]
    assert NOW < health["since_ns"] < NOW + 300_000_000
    assert sent == sum(counters["generated"] for counters in pipeline.counters()) >= 3
    balance(pipeline)


@pytest.mark.parametrize("role", ROLES)
def test_no_tables_is_no_config(role: str) -> None:
    pipeline = dataplane.Pipeline(role, workers=2)
    assert pipeline.process([(0, bytes(60))] * 100, NOW) == []
    balance(pipeline)
    assert sum(drops(c).get("NO_CONFIG", 0) for c in pipeline.counters()) == 100
    raw = pipeline.take_records()
    assert len(raw) == 100 * records.POINT_SIZE
    assert pipeline.take_records() == b""


@pytest.mark.parametrize("role", ROLES)
def test_hostile_frames_are_counted_and_dropped(role: str) -> None:
    pipeline = dataplane.Pipeline(role, workers=2)
    pipeline.apply(json.dumps(tables(role)))
    for turn in range(20):
        pipeline.process(hostile(turn, 100), NOW + turn)
    balance(pipeline)
    first = pipeline.counters()[0] if role == "clb" else None
    taken = first["frames_in"] if first else sum(c["frames_in"] for c in pipeline.counters())
    assert taken == 2000


@pytest.mark.parametrize("role", ROLES)
def test_wrong_tables_name_the_place_and_change_nothing(role: str) -> None:
    pipeline = dataplane.Pipeline(role)
    pipeline.apply(json.dumps(tables(role, epoch=4)))
    for wrong in ("{", "[]", json.dumps({**tables(role, epoch=5), "tunnel": {"local": "nowhere", "encap": "gre"}})):
        with pytest.raises(dataplane.ConfigError) as caught:
            pipeline.apply(wrong)
        assert issubclass(dataplane.ConfigError, ValueError)
        assert caught.value.problems
        for path, expected, found in caught.value.problems:
            assert isinstance(path, str)
            assert expected
            assert isinstance(found, str)
    assert "tunnel" in caught.value.problems[0][0]
    assert {c["epoch"] for c in pipeline.counters()} == {4}


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"role": "router"}, "role"),
        ({"role": "eip", "workers": 0}, "workers"),
        ({"role": "eip", "tap_capacity": 1000}, "tap_capacity"),
        ({"role": "eip", "boot_id": "short"}, "boot_id"),
    ],
)
def test_a_pipeline_that_cannot_be_names_the_place(arguments: dict[str, Any], path: str) -> None:
    with pytest.raises(dataplane.ConfigError) as caught:
        dataplane.Pipeline(**arguments)
    assert caught.value.problems[0][0] == path


def test_a_tap_that_cannot_be_made_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(dataplane.DeviceError, match="missing") as caught:
        dataplane.Pipeline("eip", tap_dir=tmp_path / "missing")
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == 2


def test_a_stuck_worker_fills_the_ring_and_its_heart_stops(tmp_path: Path) -> None:
    from contract import tap

    def hearts(pipeline: Any) -> list[int]:
        return [tap.read_state(Path(path).read_bytes()).heartbeat_ns for path in pipeline.tap_paths()]

    pipeline = dataplane.Pipeline("clb", tap_dir=tmp_path)
    pipeline.beat(NOW)
    assert hearts(pipeline) == [NOW, NOW]
    pipeline.inject("stuck_worker", 1.0, 0, worker=1)
    pipeline.beat(NOW + 10**9)
    assert hearts(pipeline) == [NOW + 10**9, NOW]
    pipeline.process([(0, bytes(60))] * 1500, NOW)
    dispatcher, worker = pipeline.counters()
    assert (dispatcher["handed_over"], dispatcher["drop.RING_FULL"], worker["frames_in"]) == (1024, 476, 0)
    pipeline.clear_faults()
    pipeline.process([], NOW)
    assert pipeline.counters()[1]["frames_in"] == 1024
    balance(pipeline)


def test_delay_holds_frames_until_they_are_due_and_the_end_drops_them() -> None:
    pipeline = dataplane.Pipeline("eip")
    pipeline.inject("delay", 1.0, 0, delay_us=500)
    frames = [(0, bytes(60))] * 10
    pipeline.process(frames, NOW)
    assert pipeline.counters()[0]["frames_in"] == 0
    pipeline.process([], NOW + 499_999)
    assert pipeline.counters()[0]["frames_in"] == 0
    pipeline.process(frames[:3], NOW + 500_000)
    assert drops(pipeline.counters()[0]) == {"NO_CONFIG": 10}
    residence = [name for name, *_ in records.POINT_FIELDS].index("residence_ns")
    assert {records.POINT_STRUCT.unpack(raw)[residence] for raw in packed(pipeline)} == {500_000}
    pipeline.close(NOW + 600_000)
    assert drops(pipeline.counters()[0]) == {"NO_CONFIG": 10, "SHUTTING_DOWN": 3}
    balance(pipeline)


def packed(pipeline: Any) -> list[bytes]:
    raw = pipeline.take_records()
    return [raw[at : at + records.POINT_SIZE] for at in range(0, len(raw), records.POINT_SIZE)]


@pytest.mark.parametrize(
    ("kind", "probability", "options", "message"),
    [
        ("lightning", 1.0, {}, "stuck_worker"),
        ("delay", 1.0, {}, "delay_us"),
        ("vip_missing", 1.0, {}, "vip_id"),
        ("loss_silent", 1.1, {}, "probability"),
    ],
)
def test_a_fault_that_cannot_be_says_why(kind: str, probability: float, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataplane.Pipeline("eip").inject(kind, probability, 0, **options)


def test_records_that_nobody_takes_are_lost_and_counted_not_the_frames() -> None:
    pipeline = dataplane.Pipeline("eip", tap_capacity=16)
    pipeline.process([(0, bytes(60))] * 50, NOW)
    assert len(packed(pipeline)) == 16
    assert pipeline.counters()[0]["frames_in"] == 50
    pipeline.process([(0, bytes(60))] * 5, NOW)
    assert len(packed(pipeline)) == 5


def test_a_capture_reads_back(tmp_path: Path) -> None:
    frames = [(NOW + n, bytes([n]) * (60 + n)) for n in range(5)]
    path = tmp_path / "a.pcap"
    dataplane.write_pcap(path, frames)
    assert dataplane.read_pcap(path) == frames
    with pytest.raises(dataplane.DeviceError, match=r"missing.pcap"):
        dataplane.read_pcap(tmp_path / "missing.pcap")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(dataplane.DeviceError, match=r"a.pcap: cannot read on"):
        dataplane.read_pcap(path)
    path.write_bytes(b"x" * 30)
    with pytest.raises(dataplane.DeviceError, match="magic"):
        dataplane.read_pcap(path)
    with pytest.raises(dataplane.DeviceError, match=r"a.pcap: cannot write: frame too long"):
        dataplane.write_pcap(path, [(0, b"x" * 70_000)])


def test_a_node_without_its_interface_does_not_start() -> None:
    config = {"name": "n", "role": "eip", "boot_id": "0" * 32, "ports": [{"index": 0, "interface": "tgwt-nope"}]}
    node = dataplane.Node(json.dumps(config))
    with pytest.raises(dataplane.DeviceError, match="tgwt-nope"):
        node.start()
    with pytest.raises(RuntimeError, match="make a new one"):
        start_twice(json.dumps({**config, "ports": []}))
    with pytest.raises(dataplane.ConfigError):
        dataplane.Node("{}")


def start_twice(config: str) -> None:
    node = dataplane.Node(config)
    assert not node.is_running()
    node.start()
    try:
        assert node.is_running()
        assert node.boot_id == "0" * 32
        node.start()
    finally:
        node.stop()
        assert not node.is_running()
        assert node.counters()[0]["frames_in"] == 0
