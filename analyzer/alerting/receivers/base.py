"""What every receiver is: settings, secrets that are read when something is sent, and a pure `render`."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, HttpUrl, model_validator

from analyzer.alerting.notice import Notice
from contract.documents import Strict

JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Post:
    """One HTTP request. Its repr shows neither URL nor body: both may hold a secret."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON), repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Mail:
    """One e-mail; the password is with the receiver's secrets."""

    message: EmailMessage = field(repr=False)


Message = Post | Mail


class Receiver(Strict):
    """Where notifications go. `group_by`: the labels whose alerts share a notification.

    A subclass is one kind: it stands in a file of this package by itself, with `kind`, an EXAMPLE of its settings, and
    a docstring that docs/alerts.md shows.
    """

    EXAMPLE: ClassVar[str]
    # How many alerts fit into one notification; the others come with the next.
    MOST_ALERTS: ClassVar[int] = 100
    # Whether it holds an alert open until it is told of its end: a test notice is then ended at once.
    KEEPS_STATE: ClassVar[bool] = False

    kind: str
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    group_by: tuple[str, ...] = ("region", "cluster")
    group_interval_s: float = Field(default=5.0, ge=0)
    repeat_interval_s: float = Field(default=4 * 3600.0, gt=0)
    send_resolved: bool = True
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    # The certificate authority of a receiver of one's own, PEM; read at every attempt.
    ca_file: Path | None = None

    @property
    def keep_alive(self) -> float | None:
        """How often it must hear of what fires even when nothing changes [s]; None: never."""
        return None

    @property
    def target(self) -> str:
        """Where it sends, for people; never a secret."""
        raise NotImplementedError

    def secret_files(self) -> dict[str, Path]:
        """The files of its secrets, by the field that names each."""
        return {}

    def secrets(self) -> dict[str, str]:
        """Its secrets as they are now; OSError, ValueError. Neither shows a secret."""
        found = {}
        for name, path in self.secret_files().items():
            try:
                text = path.read_text().strip()
            except UnicodeDecodeError:
                raise ValueError(f"{name}: {path}: expected text") from None
            if not text or not text.isprintable():
                raise ValueError(f"{name}: {path}: expected one line of text")
            found[name] = text
        return found

    def render(self, notice: Notice, secrets: Mapping[str, str]) -> Sequence[Message]:
        """What to send to say this. Pure."""
        raise NotImplementedError


class Authorized(Receiver):
    """A receiver with a URL that is no secret, and if need be a bearer token, or a user and a password."""

    url: HttpUrl
    token_file: Path | None = None
    user: str | None = Field(default=None, pattern=r"^[^:\x00-\x1f]+$")
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("expected user and password_file together")
        if self.user is not None and self.token_file is not None:
            raise ValueError("expected token_file, or user and password_file, not both")
        return self

    @property
    def target(self) -> str:
        return host_of(str(self.url))

    def secret_files(self) -> dict[str, Path]:
        found = {"token_file": self.token_file, "password_file": self.password_file}
        return {k: v for k, v in found.items() if v is not None}

    def authorization(self, secrets: Mapping[str, str]) -> dict[str, str]:
        """The header that says who we are."""
        if "token_file" in secrets:
            return {"authorization": f"Bearer {secrets['token_file']}"}
        if "password_file" in secrets:
            pair = f"{self.user}:{secrets['password_file']}".encode()
            return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


class SecretUrl(Receiver):
    """A receiver whose URL is the secret: whoever knows it may post."""

    url_file: Path

    @property
    def target(self) -> str:
        return f"the URL in {self.url_file}"

    def secret_files(self) -> dict[str, Path]:
        return {"url_file": self.url_file}

    def secrets(self) -> dict[str, str]:
        found = super().secrets()
        parts = urlsplit(found["url_file"])
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url_file: {self.url_file}: expected a URL that starts with https://")
        return found


def authority(ca_file: Path | None) -> ssl.SSLContext:
    """Whom to trust: one authority, or those of the system; OSError, ValueError naming the file."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except ssl.SSLError as error:
        raise ValueError(f"ca_file: {ca_file}: expected certificates in PEM: {error.reason}") from None
    except OSError as error:
        raise OSError(f"ca_file: {ca_file}: {error.strerror or error}") from None


def host_of(url: str) -> str:
    """A URL without what may be secret in it: scheme, host and port."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"
