"""Receivers, as the settings file describes them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, HttpUrl, SecretStr, model_validator

from analyzer.alerting.sign import key_of
from contract.documents import Strict


class Receiver(Strict):
    """Where notifications go. `group_by`: the labels whose alerts share a notification."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    url: HttpUrl
    secret: SecretStr | None = None
    secret_file: Path | None = None
    group_by: tuple[str, ...] = ("region", "cluster")
    group_interval_s: float = Field(default=5.0, ge=0)
    repeat_interval_s: float = Field(default=4 * 3600.0, gt=0)
    send_resolved: bool = True
    timeout_s: float = Field(default=5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.secret is not None and self.secret_file is not None:
            raise ValueError("expected secret or secret_file, not both")
        if self.secret is not None:
            key_of(self.secret.get_secret_value())
        return self

    def signing_secret(self) -> str | None:
        """The secret; OSError or ValueError when its file is not what it should be."""
        if self.secret_file is not None:
            secret = self.secret_file.read_text().strip()
            key_of(secret)
            return secret
        return self.secret.get_secret_value() if self.secret is not None else None
