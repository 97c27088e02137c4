"""The prober process against a real kernel TCP server, in two network namespaces.

The server's kernel is the witness: after each probe it holds no half-open and no accepted connection.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract import tap
from contract.fleet import Fleet
from contract.records import ProbeRecord
from contract.vocabulary import Outcome
from prober.__main__ import main

pytestmark = pytest.mark.root

TAG = f"tgwp-{os.getpid()}"
PROBER, SERVER = f"{TAG}-p", f"{TAG}-s"
V1, V2, V6 = "203.0.113.1", "203.0.113.2", "2001:db8:113::6"
LISTENERS = f"""
import socket, time
held = []
for family, address in ((socket.AF_INET, "{V1}"), (socket.AF_INET6, "{V6}")):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.bind((address, 80))
    s.listen(64)
    held.append(s)
print("ready", flush=True)
time.sleep(120)
"""


def ip(*words: str, namespace: str | None = None) -> str:
    where = ["-n", namespace] if namespace else []
    done = subprocess.run(["ip", *where, *words], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout


def inside(namespace: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", namespace, *words], capture_output=True, text=True, check=check, timeout=20
    )


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    """prober eth0 10.1.1.2 - 10.1.1.1 eth0 server; the server owns V1 and V6, V2 falls into a black hole."""
    for name in (PROBER, SERVER):
        ip("netns", "add", name)
    listener = None
    try:
        ip("link", "add", "eth0", "netns", PROBER, "type", "veth", "peer", "name", "eth0", "netns", SERVER)
        for name, end in ((PROBER, 2), (SERVER, 1)):
            inside(name, "sysctl", "-qw", "net.ipv4.ip_forward=0")
            ip("addr", "add", f"10.1.1.{end}/30", "dev", "eth0", namespace=name)
            ip("addr", "add", f"fd01::{end}/64", "dev", "eth0", "nodad", namespace=name)
            ip("link", "set", "lo", "up", namespace=name)
            ip("link", "set", "eth0", "up", namespace=name)
        ip("addr", "add", f"{V1}/32", "dev", "lo", namespace=SERVER)
        ip("addr", "add", f"{V6}/128", "dev", "lo", "nodad", namespace=SERVER)
        ip("route", "add", "blackhole", f"{V2}/32", namespace=SERVER)
        ip("route", "add", "198.18.0.0/16", "via", "10.1.1.2", namespace=SERVER)
        ip("-6", "route", "add", "2001:db8:18::/48", "via", "fd01::2", namespace=SERVER)
        listener = subprocess.Popen(
            ["ip", "netns", "exec", SERVER, sys.executable, "-c", LISTENERS], stdout=subprocess.PIPE, text=True
        )
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        yield
    finally:
        if listener is not None:
            listener.kill()
            listener.wait()
        for name in (PROBER, SERVER):
            ip("netns", "del", name)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path, fleet: Fleet, network: None) -> Iterator[Start]:
    running: list[subprocess.Popen[bytes]] = []
    (tmp_path / "probe.key").write_text(bytes(range(16)).hex())
    (tmp_path / "fleet.json").write_text(fleet.model_dump_json())
    (tmp_path / "prober.toml").write_text(
        f"""
        name = "p1"
        interface = "eth0"
        next_hop = "10.1.1.1"
        next_hop6 = "fd01::1"
        fleet = "{tmp_path}/fleet.json"
        key_file = "{tmp_path}/probe.key"
        tap_dir = "{tmp_path}/taps"
        """
    )

    def run() -> subprocess.Popen[bytes]:
        command = ["ip", "netns", "exec", PROBER, sys.executable, "-m", "prober", str(tmp_path / "prober.toml")]
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=(tmp_path / "log").open("wb"))
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()


def read(directory: Path) -> tuple[list[ProbeRecord], tap.TapState]:
    (path,) = (directory / "taps").glob("*.tap")
    data = path.read_bytes()
    header, state = tap.read_header(data), tap.read_state(data)
    raw = b"".join(tap.read_records(data, header, 0, state.write_cursor))
    return [ProbeRecord.unpack(raw[i : i + 128]) for i in range(0, len(raw), 128)], state


def until(what: Callable[[], bool], seconds: float, message: str) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, message
        time.sleep(0.05)


def outcomes(directory: Path) -> Counter[tuple[int, int, Outcome]]:
    if not list((directory / "taps").glob("*.tap")):
        return Counter()
    return Counter((r.vip_id, r.dst_port, Outcome(r.outcome)) for r in read(directory)[0])


def lingering() -> list[str]:
    """The server kernel's connections, and its listeners with something in their accept queue."""
    lines = inside(SERVER, "ss", "-Htan").stdout.splitlines()
    return [x for x in lines if not (x.startswith("LISTEN") and x.split()[1] == "0")]


def half_open() -> list[str]:
    return [x for x in lingering() if x.startswith("SYN-RECV")]


def test_answered_refused_and_silent_and_the_server_holds_nothing(start: Start, tmp_path: Path) -> None:
    process = start()
    want = {(1, 80, Outcome.ANSWERED), (1, 81, Outcome.REFUSED), (2, 80, Outcome.SILENT), (6, 80, Outcome.ANSWERED)}
    until(lambda: all(outcomes(tmp_path)[w] >= 3 for w in want), 15, f"{outcomes(tmp_path)}")
    # Time for the last SYN-ACK to meet its RST; a connection left behind would stay for seconds.
    until(lambda: not lingering(), 0.5, f"{lingering()}")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert process.wait(timeout=5) == 0
    assert time.monotonic() - began < 2
    records, state = read(tmp_path)
    assert {(r.vip_id, r.dst_port, Outcome(r.outcome)) for r in records} == want
    assert state.closed
    assert [r.seq for r in records] == list(range(len(records)))
    answered = [r for r in records if r.outcome == Outcome.ANSWERED]
    assert all(0 < r.rtt_ns < 100_000_000 and r.retransmits == 0 and r.reply_ttl == 64 for r in answered)
    assert len({r.probe_id for r in records}) == len(records)
    assert lingering() == []
    # The kernel of the prober's namespace saw SYN-ACKs to addresses it does not own, and kept out of it.
    counters = inside(PROBER, "nstat", "-asz", "TcpOutRsts", check=False).stdout
    assert "TcpOutRsts" in counters
    assert float(counters.split("TcpOutRsts")[1].split()[0]) == 0


def test_a_lost_reset_is_sent_again_when_the_server_repeats_its_syn_ack(start: Start, tmp_path: Path) -> None:
    # The prober's uplink holds every IPv4 RST up for ever: the server's kernel repeats the SYN-ACK after one second.
    tc = ("tc", "-batch", "-")
    hold = """
    qdisc add dev eth0 root handle 1: htb default 1
    class add dev eth0 parent 1: classid 1:1 htb rate 1gbit
    class add dev eth0 parent 1: classid 1:2 htb rate 8bit burst 1 cburst 1
    qdisc add dev eth0 parent 1:2 pfifo limit 1
    filter add dev eth0 parent 1: protocol ip u32 match ip protocol 6 0xff match u8 0x04 0x04 at 33 flowid 1:2
    """
    done = subprocess.run(["ip", "netns", "exec", PROBER, *tc], input=hold, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    try:
        start()
        until(lambda: len(half_open()) >= 2, 10, "no half-open connections to be seen")
    finally:
        inside(PROBER, "tc", "qdisc", "del", "dev", "eth0", "root")
    until(lambda: outcomes(tmp_path)[(1, 80, Outcome.ANSWERED)] >= 4, 15, f"{outcomes(tmp_path)}")
    # Half-open ones would live for a minute; the second RST ended them within their first repeat.
    until(lambda: not half_open(), 3, "the server still holds half-open connections")
    assert any(r.retransmits >= 1 for r in read(tmp_path)[0] if r.vip_id == 1)


def test_a_changed_fleet_is_followed_and_a_bad_one_is_not(start: Start, tmp_path: Path, fleet: Fleet) -> None:
    start()
    until(lambda: outcomes(tmp_path)[(2, 80, Outcome.SILENT)] >= 1, 15, "no probes")
    (tmp_path / "fleet.json").write_text('{"region": "r"}')
    until(lambda: b"fleet refused" in (tmp_path / "log").read_bytes(), 5, "not refused")
    before = outcomes(tmp_path)[(1, 80, Outcome.ANSWERED)]
    until(lambda: outcomes(tmp_path)[(1, 80, Outcome.ANSWERED)] > before, 5, "the old fleet is probed no more")
    fewer = fleet.model_copy(update={"vips": [v for v in fleet.vips if v.id == 6]})
    (tmp_path / "fleet.json").write_text(fewer.model_dump_json())
    time.sleep(3)  # the new document is noticed within a second, and open probes have ended
    before_all = outcomes(tmp_path)
    until(lambda: outcomes(tmp_path)[(6, 80, Outcome.ANSWERED)] > before_all[(6, 80, Outcome.ANSWERED)], 5, "stopped")
    assert {k for k, n in outcomes(tmp_path).items() if n > before_all[k]} == {(6, 80, Outcome.ANSWERED)}


def test_an_idle_prober_sleeps(start: Start, tmp_path: Path) -> None:
    process = start()
    until(lambda: sum(outcomes(tmp_path).values()) > 0, 15, "no probes")

    def cpu() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = cpu()
    time.sleep(5)
    share = (cpu() - before) / 5
    assert share < 0.05, f"four probes a second took {share:.1%} of a core"
    _, state = read(tmp_path)
    assert 0 <= time.time_ns() - state.heartbeat_ns < 400_000_000


def test_a_prober_that_is_not_in_the_fleet_is_refused(
    tmp_path: Path, fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "probe.key").write_text(bytes(range(16)).hex())
    (tmp_path / "fleet.json").write_text(fleet.model_dump_json())
    config = {"name": "p9", "interface": "lo", "next_hop": "10.1.1.1", "fleet": str(tmp_path / "fleet.json"),
              "key_file": str(tmp_path / "probe.key"), "tap_dir": str(tmp_path)}  # fmt: skip
    (tmp_path / "prober.toml").write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in config.items()))
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "prober.toml")])
    assert ended.value.code == 2
    assert "probing.probers: expected a prober named 'p9'" in capsys.readouterr().err
