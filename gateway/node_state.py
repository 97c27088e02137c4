"""The node's decisions without its threads, sockets and files: which desired state is taken, and what it becomes."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from contract.documents import Problem, Strict
from gateway.node_ports import Port
from service.listen import Listen


class ServerPort(Strict):
    """[[server_port]]: the real server with this tunnel key is behind this port, at this MAC.

    `id` names a server that has no key.
    """

    key: int | None = Field(default=None, ge=0, le=2**32 - 1)
    id: int | None = Field(default=None, ge=1, le=2**32 - 1)
    port: int = Field(ge=1, le=65535)
    mac: str = Field(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.key is None) == (self.id is None):
            raise ValueError("expected either a key or an id")
        return self

    @property
    def name(self) -> tuple[str, int]:
        """What the tables call the server by: ("key", its key) or ("id", its id)."""
        return ("key", self.key) if self.key is not None else ("id", self.id or 0)


class NodeSettings(Strict):
    """node.toml."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    role: Literal["eip", "clb", "vswitch"]
    state_dir: Path
    tap_dir: Path
    api: Listen
    tap_capacity: int = Field(default=65536, ge=1, le=2**24)
    flow_capacity: int = Field(default=65536, ge=1, le=2**28)
    ring_capacity: int = Field(default=1024, ge=1, le=65536)
    workers: int | None = Field(default=None, ge=1, le=64)
    # Of a CLB: threads that receive for the workers (default 1); 0: its one worker does it itself.
    dispatchers: int | None = Field(default=None, ge=0, le=16)
    allow_faults: bool = False
    port: list[Port] = Field(min_length=1)
    server_port: list[ServerPort] = Field(default_factory=list)
    refresh_s: float = Field(default=30.0, ge=1.0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Refused(ValueError):
    """A desired state is refused, and nothing of it is applied."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(map(str, problems)))


class Stale(ValueError):
    """A desired state is older than the applied one."""


@dataclass(slots=True)
class Desired:
    """What the node was told last, and by which ports it acts."""

    settings: NodeSettings
    epoch: int | None = None
    document: dict[str, Any] = field(default_factory=dict)
    ports: list[dict[str, Any]] = field(default_factory=list)

    def check(self, document: Any) -> dict[str, Any]:
        """The document with this host's server ports in it. Refused or Stale."""
        problems = []
        if not isinstance(document, dict):
            raise Refused([Problem("", "expected an object", type(document).__name__)])
        for key, expected in (("node", self.settings.name), ("role", self.settings.role)):
            if document.get(key) != expected:
                problems.append(Problem(key, f"expected {expected!r}, this node's own", repr(document.get(key))[:80]))
        epoch = document.get("epoch")
        if not isinstance(epoch, int) or isinstance(epoch, bool) or not 0 < epoch < 2**63:
            problems.append(Problem("epoch", "expected a number from 1 up", repr(epoch)[:80]))
        for key in ("routes", "edge_routes"):
            routes = document.get(key, [])
            if not isinstance(routes, list) or not all(isinstance(route, str) for route in routes):
                problems.append(Problem(key, "expected a list of prefixes", repr(routes)[:80]))
        try:
            merged = copy.deepcopy(document)
        except RecursionError:
            raise Refused([Problem("", "expected a document that is not nested so deeply", "object")]) from None
        problems += self._merge_servers(merged)
        if problems:
            raise Refused(problems)
        if self.epoch is not None and merged["epoch"] < self.epoch:
            raise Stale(f"epoch {merged['epoch']} is older than the applied epoch {self.epoch}")
        return merged

    def tables(self, merged: dict[str, Any], ports: list[dict[str, Any]]) -> str:
        """What the native core is given."""
        return json.dumps({**merged, "ports": ports})

    def took(self, merged: dict[str, Any], ports: list[dict[str, Any]]) -> None:
        """The native core acts by these."""
        self.epoch, self.document, self.ports = merged["epoch"], merged, ports

    def routes(self, boot_id: str, pid: int, taps: list[str], announce: bool = True) -> dict[str, Any]:
        """routes.json: what the speaker may announce. Nothing before the first tables, nor with `announce` false."""
        shown = self.document if announce else {}
        return {
            "epoch": self.epoch or 0,
            "boot_id": boot_id,
            "pid": pid,
            "routes": shown.get("routes", []),
            "edge_routes": shown.get("edge_routes", []),
            "taps": taps,
        }

    def _merge_servers(self, document: dict[str, Any]) -> list[Problem]:
        section = document.get("vswitch")
        if not isinstance(section, dict) or not isinstance(section.get("servers"), list):
            return []  # the native core says what is wrong with it
        local = {mine.name: mine for mine in self.settings.server_port}
        problems = []
        for at, server in enumerate(section["servers"]):
            if not isinstance(server, dict):
                continue
            field = "id" if server.get("key") is None and "id" in server else "key"
            named = server.get(field)
            mine = local.get((field, named)) if isinstance(named, int) else None
            if mine is None:
                known = ", ".join(f"{kind} {number}" for kind, number in sorted(local)) or "none"
                path = f"vswitch.servers[{at}].{field}"
                problems.append(Problem(path, f"expected a [[server_port]] of this host ({known})", repr(named)[:80]))
            else:
                server["port"], server["mac"] = mine.port, mine.mac
        return problems
