"""What the control API answers and takes, beside the documents of contract and gateway.control.models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.control.models import AuditEntry, Migration, Who, Why


class Answer(BaseModel):
    """Base of answers."""

    model_config = ConfigDict(frozen=True)


class Health(Answer):
    """`fleet_epoch` 0: no document yet. `nodes_behind`: live nodes that have not acknowledged what is wanted.

    `problems`: why it is degraded. While control holds still, nodes keep the tables and routes that they have.
    """

    status: Literal["ok", "degraded"] = "ok"
    problems: list[str] = []
    fleet_epoch: int
    nodes: int
    nodes_up: int
    nodes_behind: int


class Epoch(Answer):
    """The epoch of the fleet document in force."""

    epoch: int


class ProblemAnswer(Answer):
    """One fault of a document or a request."""

    path: str
    expected: str
    found: str


class Refused(Answer):
    """Why a request is refused; nothing of it was applied."""

    detail: str
    problems: list[ProblemAnswer] = []


class RefusedByRail(Answer):
    """Which rail refused a migration, and why. `id`: the refused migration, kept for the record."""

    detail: str
    rail: str
    id: str


class NodeAnswer(Answer):
    """One node as control sees it. `forwarding_alive` null: its speaker has not said, or too long ago."""

    name: str
    cluster: str
    role: Literal["eip", "clb", "vswitch"]
    az: str
    state: Literal["up", "unreachable", "maintenance", "unknown"]
    reachable: bool
    epoch_wanted: int | None
    epoch_acked: int | None
    boot_id: str | None
    last_seen_ns: int | None
    forwarding_alive: bool | None
    announced: list[str]
    edge_announced: list[str]
    error: str | None


class ClusterAnswer(Answer):
    """One cluster. `capacity_live`: of its live nodes; `demand`: of the VIPs there and on their way there."""

    name: str
    role: Literal["eip", "clb", "vswitch"]
    az: str
    purpose: Literal["serving", "buffer"]
    nodes: list[str]
    nodes_live: list[str]
    capacity_total: float
    capacity_live: float
    demand: float
    vips: list[int]


class MaintenanceChange(BaseModel):
    """Take a node out of the routes (`on`), or back in."""

    model_config = ConfigDict(extra="forbid")

    on: bool
    by: Who
    reason: Why


class RailsChange(BaseModel):
    """The fields of the rails to change, and who changes them. What the values may be is checked as a whole policy."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    actions_enabled: bool | None = None
    dry_run: bool | None = None
    buffer_clusters: int | None = None
    cooldown_s: float | None = None
    min_probers: int | None = None
    min_vips: int | None = None
    max_nodes_out_share: float | None = None
    on_crash: str | None = None
    on_jitter: str | None = None
    verify_timeout_s: float | None = None
    by: Who = "unnamed"
    reason: Why = ""


class MigrationPage(Answer):
    """Some migrations. `next`: what to ask for the following page by (`before`, or `since`); null: there is none.

    With `since` there is always a next: the number to ask by from then on. `store` names the store whose numbers these
    are: with another one, begin anew.
    """

    items: list[Migration]
    next: int | None
    store: str


class AuditPage(Answer):
    """Some audit entries, latest first. `next`: what to ask for the following page by (`before`); null: no more."""

    items: list[AuditEntry]
    next: int | None


PageLimit = Annotated[int, Field(ge=1, le=1000)]
Cursor = Annotated[int, Field(ge=0, lt=2**63)]
