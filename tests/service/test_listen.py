"""APIs listen on loopback; anywhere else they want a token."""

from __future__ import annotations

import hmac
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError

from service.listen import Address, BearerToken, Listen, is_loopback, server

TOKEN = "0123456789abcdef"


def app() -> FastAPI:
    out = FastAPI()

    @out.get("/")
    def root() -> dict[str, bool]:
        return {"ok": True}

    return out


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    Listen(host=host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_elsewhere_needs_a_token(host: str) -> None:
    with pytest.raises(ValidationError, match="token"):
        Listen(host=host)
    Listen(host=host, token=SecretStr(TOKEN))


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}])
def test_without_the_token_nothing_is_served(header: dict[str, str]) -> None:
    answer = TestClient(BearerToken(app(), TOKEN)).get("/", headers=header)
    assert answer.status_code == 401
    assert "Authorization" in answer.json()["detail"]


@pytest.mark.parametrize(
    "token",
    [TOKEN[:13] + "xyz", TOKEN[:-1] + "x", "x" + TOKEN[1:], TOKEN[:13], TOKEN + "0", TOKEN.upper(), f" {TOKEN}", ""],
)
def test_a_token_that_is_nearly_right_is_wrong(token: str) -> None:
    answer = TestClient(BearerToken(app(), TOKEN)).get("/", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


def test_tokens_are_compared_whole_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time would tell how many characters are right: only hmac.compare_digest may look, and at all of them."""
    seen = []

    def compare(given: bytes, expected: bytes) -> bool:
        seen.append((given, expected))
        return hmac.compare_digest(given, expected)

    monkeypatch.setattr("service.listen.hmac", SimpleNamespace(compare_digest=compare))
    wrong = f"Bearer {TOKEN[:13]}xyz"
    assert TestClient(BearerToken(app(), TOKEN)).get("/", headers={"Authorization": wrong}).status_code == 401
    assert seen == [(wrong.encode(), f"Bearer {TOKEN}".encode())]


def test_with_the_token_it_is() -> None:
    answer = TestClient(BearerToken(app(), TOKEN)).get("/", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.json() == {"ok": True}


def test_the_server_guards_the_app_it_is_given() -> None:
    made = server(app(), Listen(host="127.0.0.1", token=SecretStr(TOKEN)))
    assert isinstance(made.config.app, BearerToken)
    assert not isinstance(server(app(), Listen()).config.app, BearerToken)


def test_an_app_that_asks_by_itself_may_listen_anywhere() -> None:
    address = Address(host="0.0.0.0")
    assert not address.is_local
    assert not isinstance(server(app(), address).config.app, BearerToken)
    assert Listen().is_local
