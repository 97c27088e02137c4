"""Simulated hosts talk HTTP over a simulated link, at virtual time: handshake, loss, refusal, silence, close."""

from __future__ import annotations

from collections import Counter

import pytest

from lab.fabric.engine import Fabric
from lab.fabric.hosts import Asker, HttpClient, HttpServer
from lab.fabric.tcp import Connection
from lab.traffic import Request, Target

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
CLIENT_MAC, SERVER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


class Pair:
    """A client and a server with one link between them."""

    def __init__(self, six: bool = False, seed: int = 1, loss: float = 0.0) -> None:
        self.fabric = Fabric(START, seed)
        self.address = "2001:db8::2" if six else "192.0.2.2"
        mine = "2001:db8::1" if six else "192.0.2.1"
        self.requests: list[Request] = []
        self.client = HttpClient(self.fabric, "client", CLIENT_MAC, SERVER_MAC, [mine], self.requests.append)
        self.server = HttpServer(self.fabric, "rs-1", SERVER_MAC, CLIENT_MAC, [(self.address, 80)])
        self.fabric.connect((self.client, 0), (self.server, 0), mtu=1500, loss=loss)

    def target(self, port: int = 80) -> Target:
        return Target("vip-01", 1, self.address, port)

    def ask(self, kind: str = "new", port: int = 80) -> Asker:
        asker = Asker(self.client, self.target(port), "kept" if kind == "kept" else "new")
        asker.ask()
        return asker

    def run(self, seconds: float) -> None:
        self.fabric.advance(self.fabric.now + int(seconds * SECOND))
        assert self.fabric.account.balance == 0

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(r.outcome for r in self.requests)


@pytest.mark.parametrize("six", [False, True])
def test_a_request_is_answered_and_both_ends_forget_the_connection(six: bool) -> None:
    pair = Pair(six)
    pair.ask()
    pair.run(0.01)
    (request,) = pair.requests
    assert (request.outcome, request.server, request.kind) == ("ok", "rs-1", "new")
    # SYN, SYN-ACK, then question and answer: two round trips of at most 60 us each way.
    assert 4 * 40_000 <= request.end_ns - request.start_ns <= 4 * 60_000
    pair.run(2)
    assert (len(pair.client), len(pair.server)) == (0, 0)
    assert pair.fabric.account.dropped.total() == 0
    assert pair.fabric.account.in_flight == 0


def test_a_kept_connection_is_used_again_and_opened_again_after_it_broke() -> None:
    pair = Pair()
    pair.ask("kept")
    pair.run(7)
    assert pair.outcomes == {"ok": 4}
    assert (len(pair.client), len(pair.server)) == (1, 1)
    # The server forgets everything, as a new real server would: the next question meets a reset.
    pair.server._connections.clear()
    pair.run(4)
    assert pair.outcomes == {"ok": 5, "reset": 1}


def test_a_port_without_a_listener_refuses() -> None:
    pair = Pair()
    pair.ask(port=81)
    pair.run(1)
    assert pair.outcomes == {"refused": 1}
    assert len(pair.client) == 0


def test_silence_is_a_timeout_after_two_seconds_and_one_syn_more() -> None:
    pair = Pair(loss=1.0)
    pair.ask()
    pair.run(10)
    (request,) = pair.requests
    assert request.outcome == "timeout"
    assert request.end_ns - request.start_ns == 2 * SECOND
    assert pair.fabric.account.dropped == {"link_loss": 2}
    assert len(pair.client) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_lossy_link_is_overcome_by_sending_again(seed: int) -> None:
    pair = Pair(seed=seed, loss=0.1)
    pair.client.start([pair.target()], rate=20, kept=1)
    pair.run(30)
    assert pair.outcomes["ok"] > 550
    # What fails is late, never wrong.
    assert set(pair.outcomes) <= {"ok", "timeout", "reset"}
    assert pair.outcomes["ok"] / pair.outcomes.total() > 0.93
    assert pair.fabric.account.dropped["link_loss"] > 100


class Sink:
    """Gathers what arrives."""

    def __init__(self, fabric: Fabric) -> None:
        self.fabric = fabric
        self.data = b""
        self.why: str | None = None

    def opened(self, connection: Connection) -> None: ...

    def received(self, connection: Connection, data: bytes) -> None:
        self.data += data

    def peer_closed(self, connection: Connection) -> None:
        connection.close(self.fabric.now)

    def ended(self, connection: Connection, why: str) -> None:
        self.why = why


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_a_long_stream_arrives_whole_and_in_order(loss: float) -> None:
    pair = Pair(loss=loss, seed=3)
    sink = Sink(pair.fabric)
    pair.server.accept = lambda address, port: sink  # type: ignore[method-assign]
    source = Sink(pair.fabric)
    connection = pair.client.connect(source, pair.address, 80)
    pair.run(5)
    text = bytes(i * 7 % 251 for i in range(100_000))
    connection.send(text, pair.fabric.now)
    connection.close(pair.fabric.now)
    pair.client.settle(connection)
    pair.run(120)
    assert sink.data == text
    assert (source.why, sink.why) == ("closed", "closed")


def test_a_bare_reset_ends_a_half_open_connection() -> None:
    pair = Pair()
    sink = Sink(pair.fabric)
    connection = pair.client.connect(sink, pair.address, 80)
    pair.fabric.advance(START + 130_000)
    assert len(pair.server) == 1
    connection.abort()
    pair.client.settle(connection)
    pair.run(1)
    assert len(pair.server) == 0
    # Unanswered, the SYN-ACK would have been sent twice more.
    assert pair.fabric.account.originated <= 4


def test_frames_beyond_the_mtu_and_on_no_link_are_counted() -> None:
    pair = Pair()
    pair.fabric.originate(pair.client, 0, bytes(14 + 1501))
    pair.fabric.originate(pair.client, 7, bytes(60))
    pair.fabric.originate(pair.client, 0, SERVER_MAC + CLIENT_MAC + b"\x08\x00" + bytes(60))
    pair.run(1)
    assert pair.fabric.account.dropped == {"link_mtu": 1, "no_link": 1, "host_not_ours": 1}


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> list[Request]:
        pair = Pair(seed=seed, loss=0.05)
        pair.client.start([pair.target()], rate=20, kept=1)
        pair.run(5)
        return pair.requests

    assert run(1) == run(1)
    assert run(1) != run(2)
