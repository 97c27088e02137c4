"""How control reads the answers of a node, over a real Unix socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.control.node_client import HttpNodeClient, NodeError


async def ask(
    place: Path, do: Callable[[HttpNodeClient], Awaitable[Any]], status: int, body: bytes, wait_s: float = 0.0
) -> tuple[Any, list[bytes]]:
    """What a client makes of one answer, and the requests that the node got."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0
        )
        got.append(head.split(b"\r\n")[0] + b"\n" + await reader.readexactly(length))
        await asyncio.sleep(wait_s)
        writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (status, len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(place / "node.sock"))
    client = HttpNodeClient(lambda node: place / f"{node}.sock", 0.2, 5.0)
    try:
        return await do(client), got
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("status", "refused"),
    [(400, True), (409, True), (422, True), (499, True), (300, False), (500, False), (503, False)],
)
def test_a_refusal_is_told_from_a_node_that_cannot(tmp_path: Path, status: int, refused: bool) -> None:
    body = json.dumps({"detail": "no", "problems": [{"path": "clb.vips[0]", "expected": "an address"}]}).encode()
    with pytest.raises(NodeError, match=rf"desired: {status} no: clb\.vips\[0\]: an address") as caught:
        asyncio.run(ask(tmp_path, lambda c: c.push("node", {"epoch": 1}), status, body))
    assert caught.value.refused is refused


def test_tables_are_put_whole(tmp_path: Path) -> None:
    _, got = asyncio.run(ask(tmp_path, lambda c: c.push("node", {"epoch": 7}), 200, b"{}"))
    (request,) = got
    line, _, body = request.partition(b"\n")
    assert line == b"PUT /v1/desired HTTP/1.1"
    assert json.loads(body) == {"epoch": 7}


def test_a_status_is_json_or_an_error(tmp_path: Path) -> None:
    found, got = asyncio.run(ask(tmp_path, lambda c: c.status("node"), 200, b'{"node": "node"}'))
    assert found == {"node": "node"}
    assert got == [b"GET /v1/status HTTP/1.1\n"]


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "status: expected JSON"),
        (503, b"gone", "status: 503 gone"),
        (503, b"[1]", r"status: 503 \[1\]"),
        (404, b'{"detail": "x", "problems": 7}', "status: 404 x$"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, status: int, body: bytes, words: str) -> None:
    with pytest.raises(NodeError, match=words) as caught:
        asyncio.run(ask(tmp_path, lambda c: c.status("node"), status, body))
    assert not caught.value.refused


def test_a_node_that_does_not_answer_in_time_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"no answer within 0\.2 s"):
        asyncio.run(ask(tmp_path, lambda c: c.status("node"), 200, b"{}", wait_s=1.0))
    with pytest.raises(NodeError, match="ConnectError"):
        asyncio.run(ask(tmp_path, lambda c: c.status("nobody"), 200, b"{}"))
