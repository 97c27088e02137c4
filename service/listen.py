"""How a process listens: on loopback or a Unix socket unless told otherwise, and then only with a token."""

from __future__ import annotations

import hmac
import ipaddress
from pathlib import Path
from typing import Self

import uvicorn
from pydantic import Field, SecretStr, model_validator
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from contract.documents import Strict


class Address(Strict):
    """Where a server listens that asks every request who it is: `socket` (a Unix socket), or `host` and `port`."""

    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65535)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.socket is not None or is_loopback(self.host)


class Listen(Address):
    """Where an API listens: a Unix socket (guarded by its directory's mode) or loopback, elsewhere only with a token.

    `token` is asked for as a bearer token.
    """

    token: SecretStr | None = None

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if not self.is_local and self.token is None:
            raise ValueError(f"host {self.host} is not loopback: expected a token beside it")
        if self.token is not None and len(self.token.get_secret_value()) < 16:
            raise ValueError("token: expected at least 16 characters")
        return self


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class BearerToken:
    """ASGI middleware: 401 unless the request carries the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = Headers(scope=scope).get("authorization", "").encode()
            if not hmac.compare_digest(given, self._expected):
                response = JSONResponse({"detail": "expected the header Authorization: Bearer TOKEN"}, 401)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)


def server(app: ASGIApp, listen: Address) -> uvicorn.Server:
    """A uvicorn server for `app` that keeps the rules above. Run it with `await server(...).serve()`.

    With a bare Address, `app` itself must ask every request who it is.
    """
    token = listen.token if isinstance(listen, Listen) else None
    guarded = app if token is None else BearerToken(app, token.get_secret_value())
    common = {"log_level": "warning", "access_log": False, "lifespan": "on", "timeout_graceful_shutdown": 2}
    if listen.socket is not None:
        # The directory decides who may connect (uvicorn opens the socket itself to all).
        listen.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A socket left by a killed process would refuse the bind.
        listen.socket.unlink(missing_ok=True)
        config = uvicorn.Config(guarded, uds=str(listen.socket), **common)  # type: ignore[arg-type]
    else:
        config = uvicorn.Config(guarded, host=listen.host, port=listen.port, **common)  # type: ignore[arg-type]
    return uvicorn.Server(config)
