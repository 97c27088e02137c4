"""Settings of the warehouse process, and of those who speak to a warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from contract.documents import Strict
from service.listen import Address
from warehouse.revisions import Identifier, Retention

MIN_PASSWORD = 16


class WarehouseSettings(Strict):
    """Where ClickHouse's HTTP protocol is spoken, and who we are there.

    The same for the embedded warehouse, a ClickHouse server and a cluster.
    """

    url: Annotated[str, Field(pattern=r"^https?://[^/@]+/?$")]
    user: str
    password_file: Path
    database: Identifier = "tgw"
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10.0


class User(Strict):
    """A user of the warehouse process; the password stands alone in its file."""

    name: str
    password_file: Path


class Settings(Strict):
    """The warehouse process's configuration file."""

    state_dir: Path
    # Every request carries a user and a password; off loopback both must be of MIN_PASSWORD characters.
    listen: Address = Address(port=8123)
    database: Identifier = "tgw"
    writer: User
    reader: User
    retention: Retention = Retention()
    max_body_bytes: Annotated[int, Field(ge=1 << 16)] = 256 << 20
    # As ClickHouse's max_query_size. The rows of an INSERT do not count.
    max_statement_chars: Annotated[int, Field(ge=1 << 10, le=1 << 24)] = 1 << 18
    # Above this a dashboard's query is ended, so that none can hold the machine.
    reader_seconds: Annotated[float, Field(gt=0, le=3600)] = 20.0
    # By how much all readers together may let the process grow.
    reader_bytes: Annotated[int, Field(ge=1 << 28)] = 1 << 30
    log_level: str = "INFO"
