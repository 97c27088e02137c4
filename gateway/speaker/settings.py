"""speaker.toml."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, IPvAnyAddress, model_validator

from contract.documents import Strict

# Linux holds the path of a Unix socket in 108 bytes, the last of them a NUL.
LONGEST_SOCKET_PATH = 107

Asn = Annotated[int, Field(ge=1, le=2**32 - 2)]


class Session(Strict):
    """[[session]]: one BGP session with one router. `side`: which of the node's two sets of routes it carries."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")
    interface: str = Field(pattern=r"^[A-Za-z0-9._-]{1,15}$")
    neighbor: IPvAnyAddress
    neighbor_asn: Asn
    local: IPvAnyAddress
    family: Literal[4, 6]
    side: Literal["fabric", "edge"]
    bfd: bool = True

    @model_validator(mode="after")
    def _one_family(self) -> Self:
        for name in ("neighbor", "local"):
            address = getattr(self, name)
            if address.version != self.family:
                raise ValueError(f"{name}: expected an IPv{self.family} address as family says, got {address}")
        return self


class SpeakerSettings(Strict):
    """speaker.toml. BFD is slow enough by default that a busy machine of two cores does not flap."""

    node: str = Field(min_length=1, max_length=64)
    state_dir: Path
    router_id: IPv4Address
    asn: Asn
    session: Annotated[list[Session], Field(min_length=1)]
    poll_ms: int = Field(default=100, ge=10, le=1000)
    stale_ms: int = Field(default=500, ge=150, le=60_000)
    status_ms: int = Field(default=2000, ge=100, le=60_000)
    bfd_interval_ms: int = Field(default=300, ge=10, le=10_000)
    bfd_multiplier: int = Field(default=5, ge=2, le=50)
    hold_s: int = Field(default=9, ge=3, le=3600)
    bird: str = "bird"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [s.name.replace("-", "_") for s in self.session]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"session: expected each name once, {name!r} stands {names.count(name)} times")
        if self.stale_ms < 2 * self.poll_ms:
            raise ValueError(f"stale_ms: expected at least two polls ({2 * self.poll_ms} ms), got {self.stale_ms}")
        longest = len(str(self.control_socket).encode())
        if longest > LONGEST_SOCKET_PATH:
            raise ValueError(
                f"state_dir: expected a path that leaves at most {LONGEST_SOCKET_PATH} bytes for "
                f"{self.control_socket.name} in it, got {longest}"
            )
        return self

    @property
    def bird_conf(self) -> Path:
        return self.state_dir / "bird.conf"

    @property
    def bird_pid(self) -> Path:
        return self.state_dir / "bird.pid"

    @property
    def control_socket(self) -> Path:
        """BIRD's own control socket."""
        return self.state_dir / "bird.ctl"

    @property
    def routes_file(self) -> Path:
        """What the node writes for the speaker."""
        return self.state_dir / "routes.json"

    @property
    def status_file(self) -> Path:
        """What the speaker writes for the node."""
        return self.state_dir / "speaker.json"
