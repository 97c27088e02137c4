"""HTTP to nodes over their Unix sockets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx


class NodeError(Exception):
    """A node did not answer, or not as a node does. `refused`: it answered that it will not take this."""

    def __init__(self, message: str, refused: bool = False) -> None:
        self.refused = refused
        # A node's own words may hold half a surrogate pair, which no answer of ours can.
        super().__init__(message.encode("utf-8", "backslashreplace").decode())


class NodeClient(Protocol):
    """How control speaks to nodes."""

    async def status(self, node: str) -> Any:
        """The node's status document. NodeError."""

    async def push(self, node: str, tables: dict[str, Any]) -> None:
        """Have the node take its desired state. NodeError."""

    async def forget(self, node: str) -> None:
        """Let go of what is kept for a node that is no more."""


class HttpNodeClient:
    """One kept connection per node. Timeouts in seconds."""

    def __init__(self, socket_of: Callable[[str], Path], poll_timeout_s: float, push_timeout_s: float) -> None:
        self._socket_of = socket_of
        self._poll_timeout_s = poll_timeout_s
        self._push_timeout_s = push_timeout_s
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def status(self, node: str) -> Any:
        answer = await self._ask(node, "GET", "/v1/status", None, self._poll_timeout_s)
        if not answer.is_success:
            raise NodeError(f"status: {answer.status_code} {_detail(answer)}")
        try:
            return answer.json()
        except ValueError:
            raise NodeError("status: expected JSON") from None

    async def push(self, node: str, tables: dict[str, Any]) -> None:
        answer = await self._ask(node, "PUT", "/v1/desired", tables, self._push_timeout_s)
        if not answer.is_success:
            refused = 400 <= answer.status_code < 500
            raise NodeError(f"desired: {answer.status_code} {_detail(answer)}", refused)

    async def forget(self, node: str) -> None:
        client = self._clients.pop(node, None)
        if client is not None:
            await client.aclose()

    async def close(self) -> None:
        """Close every connection."""
        for node in list(self._clients):
            await self.forget(node)

    async def _ask(self, node: str, method: str, path: str, body: Any, timeout_s: float) -> httpx.Response:
        client = self._clients.get(node)
        kept = client is not None
        if client is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self._socket_of(node)))
            client = httpx.AsyncClient(transport=transport, base_url="http://node", trust_env=False)
            self._clients[node] = client
        try:
            return await client.request(method, path, json=body, timeout=timeout_s)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
            if not kept:
                raise NodeError(f"{type(error).__name__}: {error}"[:200]) from None
        except httpx.TimeoutException:
            raise NodeError(f"no answer within {timeout_s} s") from None
        except httpx.HTTPError as error:
            raise NodeError(f"{type(error).__name__}: {error}"[:200]) from None
        # The kept connection was of an earlier life of the node: a fresh one decides. Every request may be repeated.
        await self.forget(node)
        return await self._ask(node, method, path, body, timeout_s)


def _detail(answer: httpx.Response) -> str:
    try:
        data = answer.json()
    except ValueError:
        return answer.text[:200]
    if not isinstance(data, dict):
        return str(data)[:200]
    problems = data.get("problems")
    first = ""
    if isinstance(problems, list) and problems and isinstance(problems[0], dict):
        first = f": {problems[0].get('path')}: {problems[0].get('expected')}"
    return f"{data.get('detail')}{first}"[:300]
