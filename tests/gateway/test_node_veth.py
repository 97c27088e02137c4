"""A node's process on a real kernel: veths, ARP, packet sockets, signals."""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from contract import colour, records, tap
from contract.vocabulary import DropReason, Hop
from tests.gateway.veth import Process, Wires, inside, receive, run

pytest.importorskip("gateway._dataplane")
pytestmark = pytest.mark.root

KEY = bytes(range(16))
TUNNEL, ANYCAST, SERVICE = "10.3.0.11", "10.3.255.1", "10.4.0.1"
PUBLIC, PRIVATE, LD = "203.0.113.1", "10.100.0.1", "10.3.0.21"
GRE, TCP, SYN = 47, 6, 2


@pytest.fixture
def wires(request: pytest.FixtureRequest) -> Iterator[Wires]:
    wires = Wires(str(os.getpid()))
    try:
        wires.make(getattr(request, "param", 1))
        yield wires
    finally:
        wires.remove()


@pytest.fixture(params=["af_packet", "af_xdp"])
def kind(request: pytest.FixtureRequest) -> str:
    """Every test runs on both devices, if it does not say otherwise."""
    return str(request.param)


@pytest.fixture
def node(request: pytest.FixtureRequest, wires: Wires, tmp_path: Path, kind: str) -> Iterator[Process]:
    """An EIP node with one worker, or what the test's parameter says."""
    role, workers = getattr(request, "param", ("eip", 1))
    settings = f"""
name = "eip-1"
role = "{role}"
workers = {workers}
state_dir = "{tmp_path}/state"
tap_dir = "{tmp_path}/taps"
tap_capacity = 4096
allow_faults = true
api = {{ socket = "{tmp_path}/run/api.sock" }}
port = [
  {{ index = 0, interface = "fabric0", next_hop = "10.2.1.1", mtu = 1600, kind = "{kind}" }},
  {{ index = 1, interface = "edge0", next_hop = "10.1.1.1", mtu = 1500, kind = "{kind}" }},
]
"""
    if role == "vswitch":
        mac = wires.mac(wires.far, "edge1").hex(":")
        settings += f'server_port = [{{ key = 11, port = 1, mac = "{mac}" }}]\n'
    process = Process(wires, tmp_path, settings)
    try:
        yield process
    finally:
        process.end()


def tables(epoch: int) -> dict[str, Any]:
    binding = {"vip_id": 1, "public": PUBLIC, "private": PRIVATE, "service": SERVICE}
    return {
        "epoch": epoch,
        "node": "eip-1",
        "role": "eip",
        "tunnel": {"local": TUNNEL, "encap": "gre"},
        "probe": {"reserved": ["198.18.0.0/16", "2001:db8:18::/48"], "key": KEY.hex()},
        "eip": {"anycast": ANYCAST, "bindings": [binding]},
        "routes": [f"{TUNNEL}/32"],
        "edge_routes": [f"{PUBLIC}/32"],
    }


def checksum(data: bytes) -> int:
    words = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    return ~words & 0xFFFF


def ipv4(protocol: int, source: str, target: str, payload: bytes) -> bytes:
    ends = ip_address(source).packed + ip_address(target).packed
    start = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + bytes(4) + bytes([64, protocol])
    return start + checksum(start + b"\0\0" + ends).to_bytes(2, "big") + ends + payload


def tcp(source: str, target: str, ports: tuple[int, int], seq: int, flags: int = SYN) -> bytes:
    segment = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + seq.to_bytes(4, "big") + bytes(4)
    segment += bytes([0x50, flags]) + (1024).to_bytes(2, "big")
    pseudo = ip_address(source).packed + ip_address(target).packed + bytes([0, TCP, 0, 20])
    return segment + checksum(pseudo + segment + bytes(4)).to_bytes(2, "big") + bytes(2)


def packet(source: str, target: str, ports: tuple[int, int], seq: int, flags: int = SYN) -> bytes:
    return ipv4(TCP, source, target, tcp(source, target, ports, seq, flags))


def is_gre(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\0" and frame[23] == GRE


def is_tcp(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\0" and frame[23] == TCP


def address(data: bytes) -> str:
    return str(ip_address(data))


def test_frames_pass_are_counted_and_survive_a_kill(wires: Wires, node: Process, kind: str) -> None:
    status = node.ready()
    assert (status["epoch"], status["workers"], status["running"]) == (0, 1, True)
    assert [device["kind"] for device in status["devices"]] == [kind, kind]
    nothing = node.routes()
    assert (nothing["routes"], nothing["edge_routes"], nothing["boot_id"]) == ([], [], status["boot_id"])
    (path,) = nothing["taps"]

    ethernet = wires.mac(wires.node, "edge0") + wires.mac(wires.far, "edge1") + b"\x08\0"
    with wires.wire("edge1") as edge, wires.wire("fabric1") as fabric:
        before = [ethernet + packet("192.0.2.9", PUBLIC, (2000 + n, 80), n) for n in range(5)]
        for frame in before:
            edge.send(frame)
        node.until("five frames without tables", lambda c: c["drops"].get("NO_CONFIG", 0) >= 5)

        answer = node.http.put("/v1/desired", json=tables(7))
        assert (answer.status_code, answer.json()) == (200, {"epoch": 7})
        routes = node.routes()
        assert (routes["epoch"], routes["routes"], routes["edge_routes"]) == (7, [f"{TUNNEL}/32"], [f"{PUBLIC}/32"])

        # Requests: ten of a client, ten coloured ones of a prober.
        epoch = colour.epoch_of(time.time_ns())
        probes = {n: colour.cookie(KEY, n, epoch) for n in range(10)}
        for n in range(10):
            edge.send(ethernet + packet("192.0.2.9", PUBLIC, (3000 + n, 80), n))
            edge.send(ethernet + packet("198.18.0.5", PUBLIC, (4000 + n, 80), probes[n]))
        out = receive(fabric, 20, is_gre)
        assert len(out) == 20
        for frame in out:
            assert frame[:12] == wires.mac(wires.far, "fabric1") + wires.mac(wires.node, "fabric0")
            assert (address(frame[26:30]), address(frame[30:34])) == (TUNNEL, SERVICE)
            inner = frame[frame.index(b"\x45", 34) :]
            assert address(inner[16:20]) == PRIVATE
            assert checksum(inner[:20]) == 0
            pseudo = inner[12:20] + bytes([0, TCP, 0, 20])
            assert checksum(pseudo + inner[20:40]) == 0

        # A reply comes back through an LD.
        inner = packet(PRIVATE, "198.18.0.5", (80, 4000), 99, flags=0x12)
        wrapped = ipv4(GRE, LD, ANYCAST, b"\0\0\x08\0" + inner)
        fabric.send(wires.mac(wires.node, "fabric0") + wires.mac(wires.far, "fabric1") + b"\x08\0" + wrapped)
        (reply,) = receive(edge, 1, is_tcp)
        assert (address(reply[26:30]), address(reply[30:34])) == (PUBLIC, "198.18.0.5")
        assert reply[6:12] == wires.mac(wires.node, "edge0")

        edge.send(ethernet + packet("192.0.2.9", "203.0.113.250", (1, 80), 1))
        edge.send(ethernet + b"\x45")
        node.until("the bad frames", lambda c: {"NO_VIP", "MALFORMED_FRAME"} <= set(c["drops"]))

    older = node.http.put("/v1/desired", json=tables(6))
    assert older.status_code == 409
    wrong = tables(8)
    wrong["eip"]["bindings"][0]["public"] = "nowhere"
    refused = node.http.put("/v1/desired", json=wrong)
    assert refused.status_code == 422
    assert "eip.bindings[0].public" in refused.json()["problems"][0]["path"]
    counters = node.counters()
    assert (counters["epoch"], node.routes()["epoch"]) == (7, 7)
    assert counters["frames_out"] == 21

    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        header, state = tap.read_header(view), tap.read_state(view)
        assert (header.node, header.boot_id.hex(), header.pid) == ("eip-1", status["boot_id"], status["pid"])
        assert (state.closed, state.lost) == (False, 0)
        assert time.time_ns() - state.heartbeat_ns < 5e9
        raw = b"".join(bytes(run) for run in tap.read_records(view, header, 0, state.write_cursor))
        after = tap.read_counters(view)
    names = [name for name, *_ in records.POINT_FIELDS]
    points = [dict(zip(names, values, strict=True)) for values in records.POINT_STRUCT.iter_unpack(raw)]
    assert [p["seq"] for p in points] == list(range(state.write_cursor))
    source = ip_address("198.18.0.5")
    expected = {colour.probe_id(source, 4000 + n, isn) for n, isn in probes.items()}
    seen = {p["probe_id"] for p in points if p["kind"] == 1 and p["hop"] == Hop.EIP_IN}
    assert seen == expected
    assert all(p["residence_ns"] > 0 for p in points if p["kind"] == 1)
    reasons = {p["reason"] for p in points if p["kind"] == 2}
    assert reasons >= {DropReason.NO_CONFIG, DropReason.NO_VIP, DropReason.MALFORMED_FRAME}
    assert after[records.COUNTERS["frames_in"]] >= counters["frames_in"]


def test_a_stop_withdraws_closes_and_takes_less_than_two_seconds(node: Process) -> None:
    node.ready()
    assert node.http.put("/v1/desired", json=tables(1)).status_code == 200
    (path,) = node.routes()["taps"]
    start = time.monotonic()
    assert node.end(signal.SIGTERM) == 0, node.said()
    assert time.monotonic() - start < 2
    assert (node.routes()["routes"], node.routes()["edge_routes"]) == ([], [])
    assert tap.read_state(Path(path).read_bytes()).closed


def test_a_link_that_goes_down_and_comes_back(wires: Wires, node: Process) -> None:
    node.ready()
    assert node.http.put("/v1/desired", json=tables(1)).status_code == 200
    ethernet = wires.mac(wires.node, "edge0") + wires.mac(wires.far, "edge1") + b"\x08\0"
    frame = ethernet + packet("192.0.2.9", PUBLIC, (3000, 80), 1)
    link = ["ip", "-n", wires.node, "link", "set", "fabric0"]
    with wires.wire("edge1") as edge:
        subprocess.run([*link, "down"], check=True, timeout=10)
        edge.send(frame)
        node.until("a refused frame", lambda c: c["drops"].get("DEVICE_FULL") == 1)
        before = node.cpu_seconds()
        time.sleep(0.5)
        assert node.cpu_seconds() - before < 0.2, "a link that is down must not be polled hot"
        subprocess.run([*link, "up"], check=True, timeout=10)
        with wires.wire("fabric1") as fabric:
            until = time.monotonic() + 5
            while not (came := receive(fabric, 1, is_gre, 0.2)) and time.monotonic() < until:
                edge.send(frame)
        assert came
    assert node.ready()["running"]


def test_idle_costs_almost_nothing(node: Process) -> None:
    node.ready()
    assert node.http.put("/v1/desired", json=tables(1)).status_code == 200
    time.sleep(0.5)
    before = node.cpu_seconds()
    time.sleep(3)
    # Twenty nodes together must stay below 30 % of a core: 1.5 % each. The clock of /proc ticks 10 ms.
    assert node.cpu_seconds() - before <= 0.06


def test_a_silent_next_hop_is_named(wires: Wires, node: Process) -> None:
    node.ready()
    with inside(wires.far):
        subprocess.run(["ip", "link", "set", "fabric1", "arp", "off"], check=True, timeout=10)
    answer = node.http.put("/v1/desired", json=tables(1))
    assert answer.status_code == 503
    assert "fabric0" in answer.json()["detail"]
    assert "10.2.1.1" in answer.json()["detail"]
    assert node.routes()["routes"] == []
    with inside(wires.far):
        subprocess.run(["ip", "link", "set", "fabric1", "arp", "on"], check=True, timeout=10)
    until = time.monotonic() + 10
    while (status := node.http.put("/v1/desired", json=tables(1)).status_code) == 503:
        assert time.monotonic() < until
    assert status == 200


def test_a_stuck_worker_is_told_apart_and_recovers(node: Process) -> None:
    node.ready()
    assert node.http.put("/v1/desired", json=tables(1)).status_code == 200
    assert node.http.post("/v1/faults", json={"kind": "stuck_worker", "worker": 0}).status_code == 201
    time.sleep(0.3)
    (path,) = node.routes()["taps"]
    assert time.time_ns() - tap.read_state(Path(path).read_bytes()).heartbeat_ns > 150_000_000
    answer = node.http.put("/v1/desired", json=tables(2))
    assert answer.status_code == 503
    assert node.routes()["epoch"] == 1
    assert node.http.delete("/v1/faults").status_code == 204
    assert node.http.put("/v1/desired", json=tables(2)).status_code == 200
    assert time.time_ns() - tap.read_state(Path(path).read_bytes()).heartbeat_ns < 500_000_000
    assert node.routes()["epoch"] == 2


@pytest.mark.parametrize("kind", ["af_packet"])
def test_an_address_of_the_host_is_not_ours(wires: Wires, node: Process) -> None:
    """The kernel of the namespace answers for its own addresses while the node looks on."""
    node.ready()
    assert node.http.put("/v1/desired", json=tables(1)).status_code == 200
    with inside(wires.far), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("10.2.1.2", 9))
        sender.send(b"for the host")
    node.until("a frame of the host", lambda c: c["drops"].get("NOT_OURS", 0) >= 1)


def program(wires: Wires, interface: str) -> str | None:
    """Mode of the XDP program on an interface of the node, if there is one."""
    (link,) = json.loads(run("ip", "-j", "-n", wires.node, "link", "show", interface))
    return {1: "native", 2: "generic"}[link["xdp"]["mode"]] if "xdp" in link else None


@pytest.mark.parametrize("kind", ["af_xdp"])
def test_the_host_keeps_its_traffic_beside_the_program(wires: Wires, node: Process) -> None:
    """ARP, ping, BGP's port and BFD's port reach the host; its new addresses become its own; a kill leaves nothing."""
    assert node.ready()["devices"][0]["mode"] == program(wires, "fabric0") == "native"
    assert "fabric0: AF_XDP native, copy" in node.said()
    assert node.http.put("/v1/desired", json=tables(1)).status_code == 200
    with inside(wires.node):
        bgp = socket.create_server(("10.2.1.2", 179))
        bfd = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bfd.bind(("10.2.1.2", 3784))
    with inside(wires.far):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with bgp, bfd, raw, client:
        run("ip", "-n", wires.far, "neigh", "flush", "dev", "fabric1")
        with inside(wires.far):
            peer = socket.create_connection(("10.2.1.2", 179), 5)
        peer.close()
        bfd.settimeout(5)
        client.sendto(b"hello", ("10.2.1.2", 3784))
        assert bfd.recv(100) == b"hello"
        assert pings(raw, "10.2.1.2")
        # An address that comes later is the node's until the node has looked again.
        run("ip", "-n", wires.node, "addr", "add", "10.2.7.7/32", "dev", "fabric0")
        run("ip", "-n", wires.far, "route", "add", "10.2.7.7/32", "via", "10.2.1.2")
        before = node.counters()["frames_in"]
        assert not pings(raw, "10.2.7.7", 0.3)
        assert node.counters()["frames_in"] > before
        assert node.http.put("/v1/desired", json=tables(2)).status_code == 200
        before = node.counters()["frames_in"]
        assert pings(raw, "10.2.7.7")
        assert node.counters()["frames_in"] == before, "the node does not see what is the host's"
    assert node.end(signal.SIGKILL) == -signal.SIGKILL
    assert program(wires, "fabric0") is None


def pings(raw: socket.socket, target: str, limit_s: float = 5.0) -> bool:
    """Whether an echo request is answered."""
    request = b"\x08\0\0\0\x12\x34\0\x01ping"
    raw.sendto(request[:2] + checksum(request).to_bytes(2, "big") + request[4:], (target, 0))
    until = time.monotonic() + limit_s
    while (left := until - time.monotonic()) > 0 and select.select([raw], [], [], left)[0]:
        answer = raw.recv(200)
        if answer[20:21] == b"\0" and answer.endswith(b"ping") and address(answer[12:16]) == target:
            return True
    return False


@pytest.mark.parametrize(
    ("kind", "node"), [("auto", ("eip", 2)), ("auto", ("clb", 2)), ("af_xdp", ("eip", 2))], indirect=["node"]
)
def test_fewer_queues_than_workers(node: Process, kind: str) -> None:
    """A veth has one queue: an EIP node's workers share it by AF_PACKET, one worker of an LD sends by it."""
    if kind == "af_xdp":
        assert node.child.wait(20) == 1
        assert "fabric0: cannot share it between the workers: 1 queue(s) for 2 workers" in node.said()
        return
    status = node.ready()
    (device, _) = status["devices"]
    if status["role"] == "eip":
        assert device["kind"] == "af_packet"
        assert "1 queue(s) for 2 workers" in device["reason"]
        assert f"fabric0: AF_PACKET ({device['reason']})" in node.said()
    else:
        assert (device["kind"], device["queues"], device["packet_senders"]) == ("af_xdp", 1, 1)


@pytest.mark.parametrize(
    ("kind", "wires", "node"),
    [
        ("af_packet", 1, ("eip", 2)),
        ("af_packet", 1, ("clb", 2)),
        ("auto", 1, ("clb", 2)),
        ("af_xdp", 2, ("eip", 2)),
        ("af_xdp", 3, ("eip", 2)),
        ("af_xdp", 2, ("clb", 2)),
    ],
    indirect=["wires", "node"],
)
def test_two_workers_share_an_interface(wires: Wires, node: Process) -> None:
    """The kernel, the queues or the dispatcher spread the flows; no frame is taken twice or by nobody."""
    status = node.ready()
    packets = [packet("192.0.2.9", PUBLIC, (2000 + n, 80), n) for n in range(200)]
    if status["role"] == "clb":
        packets = [ipv4(GRE, LD, SERVICE, b"\0\0\x08\0" + inner) for inner in packets]
    side = "fabric" if status["role"] == "clb" else "edge"
    ethernet = wires.mac(wires.node, f"{side}0") + wires.mac(wires.far, f"{side}1") + b"\x08\0"
    with wires.wire(f"{side}1") as wire:
        for one in packets:
            wire.send(ethernet + one)
    node.until("200 frames", lambda c: c["drops"].get("NO_CONFIG", 0) >= 200)
    workers = node.http.get("/v1/counters").json()
    assert len(workers) == (3 if status["role"] == "clb" else 2) == status["workers"]
    taken = [worker["drops"].get("NO_CONFIG", 0) for worker in workers.values()]
    assert sum(taken) < 220, "a frame or two of the kernel's own besides, but none twice"
    assert sum(1 for n in taken if n > 20) == 2, taken


@pytest.mark.parametrize("node", [("vswitch", 1)], indirect=True)
def test_a_host_delivers_and_its_server_answers_through_the_learned_distributor(wires: Wires, node: Process) -> None:
    node.ready()
    document = {**tables(1), "role": "vswitch", "edge_routes": []}
    del document["eip"]
    vips = [{"id": 1, "address": PRIVATE}]
    unknown = {**document, "vswitch": {"servers": [{"id": 1, "key": 12, "vips": vips}]}}
    refused = node.http.put("/v1/desired", json=unknown)
    assert (refused.status_code, refused.json()["problems"][0]["path"]) == (422, "vswitch.servers[0].key")
    document["vswitch"] = {"servers": [{"id": 1, "key": 11, "vips": vips}]}
    answer = node.http.put("/v1/desired", json=document)
    assert answer.status_code == 200, answer.text

    gre = b"\x20\0\x08\0" + (11).to_bytes(4, "big")
    fabric_in = wires.mac(wires.node, "fabric0") + wires.mac(wires.far, "fabric1") + b"\x08\0"
    server_out = wires.mac(wires.node, "edge0") + wires.mac(wires.far, "edge1") + b"\x08\0"
    with wires.wire("edge1") as server, wires.wire("fabric1") as fabric:
        fabric.send(fabric_in + ipv4(GRE, LD, TUNNEL, gre + packet("192.0.2.9", PRIVATE, (3000, 80), 7)))
        (request,) = receive(server, 1, is_tcp)
        assert request[:12] == wires.mac(wires.far, "edge1") + wires.mac(wires.node, "edge0")
        assert (address(request[26:30]), address(request[30:34])) == ("192.0.2.9", PRIVATE)

        server.send(server_out + packet(PRIVATE, "192.0.2.9", (80, 3000), 99, flags=0x12))
        (reply,) = receive(fabric, 1, is_gre)
        assert (address(reply[26:30]), address(reply[30:34])) == (TUNNEL, LD)
        assert reply[34:42] == gre
        assert address(reply[54:58]) == PRIVATE

        server.send(server_out + packet(PRIVATE, "192.0.2.77", (80, 3000), 99, flags=0x12))
        node.until("a reply of no flow", lambda c: c["drops"].get("NO_FLOW") == 1)
    assert node.counters()["frames_out"] == 2
