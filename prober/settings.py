"""What a prober is told at its start."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from contract.colour import KEY_BYTES
from contract.documents import DocumentError, Problem, Strict
from contract.fleet import Name
from service.settings import read_text

ENVIRONMENT_PREFIX = "TGW_PROBER_"


class Limits(Strict):
    """Bounds that hold whatever the fleet document asks for."""

    probes_per_s: Annotated[float, Field(gt=0, le=100_000)] = 1000.0
    resets_per_s: Annotated[float, Field(gt=0, le=100_000)] = 2000.0
    source_port_low: Annotated[int, Field(ge=1024, le=65535)] = 10_000
    source_port_high: Annotated[int, Field(ge=1024, le=65535)] = 60_000
    addresses_per_network: Annotated[int, Field(ge=1, le=256)] = 4
    # Linux sends a SYN-ACK again after 1 s: a record that waits a little longer knows whether its RST arrived.
    settle_s: Annotated[float, Field(ge=0, le=30)] = 1.2

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.source_port_low >= self.source_port_high:
            raise ValueError("source_port_low: expected a port below source_port_high")
        return self


class Settings(Strict):
    """The prober's configuration file. `next_hop`: the edge router, by its link address (a neighbour of the kernel)."""

    name: Name
    interface: Annotated[str, Field(min_length=1, max_length=15)]
    next_hop: IPv4Address | None = None
    next_hop6: IPv6Address | None = None
    fleet: Path
    key_file: Path
    tap_dir: Path
    tap_capacity: Annotated[int, Field(ge=64, le=2**22)] = 16_384
    limits: Limits = Limits()
    log_level: str = "INFO"

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.next_hop is None and self.next_hop6 is None:
            raise ValueError("next_hop: expected next_hop, next_hop6 or both")
        if self.tap_capacity & (self.tap_capacity - 1):
            raise ValueError(f"tap_capacity: expected a power of two, got {self.tap_capacity}")
        return self


def read_key(path: Path) -> bytes:
    """The probe key of a key file: one line of hexadecimal digits. DocumentError otherwise."""
    text = read_text(path).strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise DocumentError(str(path), [Problem("", f"expected {2 * KEY_BYTES} hexadecimal digits", "(not shown)")])
    return key
