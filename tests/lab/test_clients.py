"""The real HTTP server, the clients that keep asking it, and the webhook receiver, over loopback."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import httpd, receiver, traffic
from lab.state import read_lines
from lab.topology import SMALL, Topology


@contextmanager
def serving(server: httpd.Server | receiver.Receiver) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_server_says_its_name_on_both_families_and_keeps_the_connection(address: str) -> None:
    with serving(httpd.Server("rs-9", 0)) as port:
        connection = http.client.HTTPConnection(address, port, timeout=5)
        for path in ("/a", "/b"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.read().decode().split()[:2] == ["rs-9", path]
        connection.close()


def run_client(target: traffic.Target, log: Path, seconds: float, kept: int = 1) -> list[dict[str, object]]:
    async def go() -> None:
        stop = asyncio.Event()
        client = traffic.Client([target], traffic.Log(log), rate=50, kept=kept, seed=1)
        asyncio.get_running_loop().call_later(seconds, stop.set)
        await client.run(stop)

    asyncio.run(go())
    return read_lines(log)


def test_both_kinds_of_request_are_logged_with_the_server_that_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "KEPT_PAUSE_S", 0.05)
    with serving(httpd.Server("rs-9", 0)) as port:
        requests = run_client(traffic.Target("vip-01", 1, "127.0.0.1", port), tmp_path / "log", 0.5)
    assert {r["kind"] for r in requests} == {"new", "kept"}
    assert {(r["outcome"], r["server"], r["vip"]) for r in requests} == {("ok", "rs-9", "vip-01")}
    assert all(r["start_ns"] <= r["end_ns"] for r in requests)  # type: ignore[operator]
    # 50 a second for half a second, and a burst after no pause.
    assert 5 <= sum(1 for r in requests if r["kind"] == "new") <= 32


def test_a_closed_port_is_refused_and_a_silent_one_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "ANSWER_TIMEOUT_S", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        closed = run_client(traffic.Target("v", 1, "127.0.0.1", port), tmp_path / "closed", 0.2, kept=0)
        silent.listen(64)
        mute = run_client(traffic.Target("v", 1, "127.0.0.1", port), tmp_path / "mute", 0.4, kept=0)
    assert {r["outcome"] for r in closed} == {"refused"}
    assert {r["outcome"] for r in mute} == {"timeout"}


def test_the_answer_of_another_vip_is_no_success(tmp_path: Path) -> None:
    async def go() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nrs-1 /other")
            await writer.drain()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(traffic.BadAnswer):
            await traffic.ask(reader, writer, traffic.Target("v", 1, "127.0.0.1", port), close=False)
        writer.close()
        server.close()

    asyncio.run(go())


def test_targets_are_every_tcp_listener() -> None:
    found = traffic.targets(Topology(SMALL).fleet)
    assert len(found) == 5
    assert {t.port for t in found} == {80, 8080}


@pytest.mark.parametrize("arguments", [["x"], ["x", "y", "--rate", "0"], ["x", "y", "--kept", "-1"]])
def test_the_clients_refuse_bad_arguments(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        traffic.main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("arguments", [[], ["rs-1"], ["rs-1", "x"], ["rs-1", "70000"]])
def test_the_server_refuses_bad_arguments(arguments: list[str]) -> None:
    assert httpd.main(arguments) == 2


def test_the_receiver_writes_down_what_it_gets_and_refuses_what_is_no_json(tmp_path: Path) -> None:
    file = tmp_path / "webhooks.jsonl"
    with serving(receiver.Receiver(0, file)) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

        def post(body: bytes, headers: dict[str, str]) -> int:
            connection.request("POST", "/hook", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        assert post(json.dumps({"status": "firing"}).encode(), {"webhook-id": "7"}) == 200
        assert post(b"{", {}) == 400
        assert post(b"", {"Content-Length": str(receiver.LIMIT + 1)}) == 413
        connection.close()
    (entry,) = read_lines(file)
    assert (entry["path"], entry["body"], entry["headers"]["webhook-id"]) == ("/hook", {"status": "firing"}, "7")
    assert entry["ts_ns"] > 0
