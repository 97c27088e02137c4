"""control.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from contract.colour import KEY_BYTES
from contract.documents import DocumentError, Problem, Strict
from service.listen import Listen
from service.settings import read_text


class Keep(Strict):
    """How much of the past is kept: so many of each at most, and none older than `days`.

    The document in force, and a migration that is active or says where a VIP is, are kept whatever these say.
    """

    days: float = Field(default=90.0, gt=0, le=36_500)
    documents: int = Field(default=100, ge=1, le=10_000)
    migrations: int = Field(default=5_000, ge=1, le=1_000_000)
    audit: int = Field(default=50_000, ge=1, le=10_000_000)


class ControlSettings(Strict):
    """control.toml. `node_socket`: path of a node's API socket, with {node} for its name.

    `fleet`: a document that is applied at start when it is not the one in force.
    """

    state_dir: Path
    api: Listen = Listen()
    node_socket: str
    probe_key_file: Path
    store: Path | None = None
    fleet: Path | None = None
    poll_s: float = Field(default=1.0, ge=0.05, le=60)
    urgent_poll_s: float = Field(default=0.2, ge=0.02, le=60)
    poll_timeout_s: float = Field(default=0.5, ge=0.05, le=30)
    push_timeout_s: float = Field(default=3.0, ge=0.1, le=60)
    misses: int = Field(default=3, ge=1, le=100)
    concurrency: int = Field(default=16, ge=1, le=256)
    speaker_stale_s: float = Field(default=5.0, ge=1, le=600)
    configure_timeout_s: float = Field(default=20.0, ge=0.1, le=600)
    announce_timeout_s: float = Field(default=20.0, ge=0.1, le=600)
    keep: Keep = Keep()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _template(self) -> Self:
        if "{node}" not in self.node_socket:
            raise ValueError(f"node_socket: expected a path with {{node}} in it, got {self.node_socket!r}")
        return self

    @property
    def store_path(self) -> Path:
        return self.store if self.store is not None else self.state_dir / "control.db"

    def socket(self, node: str) -> Path:
        """The API socket of a node."""
        return Path(self.node_socket.replace("{node}", node))


def read_probe_key(path: Path) -> str:
    """The fleet's probe key, hex digits. DocumentError when the file holds anything else; never shows what it holds."""
    text = read_text(path).strip()
    try:
        good = len(bytes.fromhex(text)) == KEY_BYTES and text == "".join(text.split())
    except ValueError:
        good = False
    if not good:
        raise DocumentError(str(path), [Problem("", f"expected {2 * KEY_BYTES} hex digits", "something else")])
    return text.lower()
