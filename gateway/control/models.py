"""What control remembers and tells: migrations, placements, audit entries, rails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

# Whom a person or a process says it is, and why it asks.
Who = Annotated[str, Field(min_length=1, max_length=200)]
Why = Annotated[str, Field(max_length=2000)]
Count = Annotated[int, Field(ge=0, le=2**53)]

Kind = Literal["dispersed", "return"]
State = Literal[
    "planned", "configuring", "announcing", "verifying", "done", "failed", "rolled_back", "refused", "dry_run"
]
Rail = Literal[
    "control_starting",
    "unknown_cluster",
    "buffer_cluster_source",
    "nothing_to_move",
    "migration_running",
    "actions_disabled",
    "dry_run",
    "too_few_probers",
    "too_few_vips",
    "cooldown",
    "nodes_out_share",
    "no_buffer_capacity",
]


class Frozen(BaseModel):
    """Base: values do not change, unknown keys are refused, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Evidence(Frozen):
    """How many probers and VIPs agree on the fault."""

    probers: Count
    vips: Count


class Request(Frozen):
    """A migration that is asked for. `force`: a person answers for it; see gateway/control/rails.py."""

    cluster: Annotated[str, Field(min_length=1, max_length=100)]
    kind: Kind = "dispersed"
    incident_id: Annotated[str, Field(max_length=200)] | None = None
    reason: Why
    requested_by: Who
    dry_run: bool = False
    force: bool = False
    evidence: Evidence | None = None


class Move(Frozen):
    """One VIP from one cluster to another."""

    vip_id: int
    source: str = Field(validation_alias=AliasChoices("from", "source"), serialization_alias="from")
    to: str


class Verdict(Frozen):
    """What fresh probes of the moved VIPs say: `checked` of them were looked at, `silent` got no answer."""

    clean: bool
    checked: Count
    silent: Count


class Migration(Frozen):
    """A migration and how far it is. Times are ns since 1970, None when not reached.

    `settling`: it has failed and its VIPs are on their way back. `deadline_ns`: when the present state is given up.
    `nodes_out`: nodes that worked when they were relieved of their VIPs. `replans`: targets replaced so far.
    """

    id: str
    cluster: str
    kind: Kind
    state: State
    moves: list[Move] = []
    requested_ns: int
    started_ns: int | None = None
    announced_ns: int | None = None
    finished_ns: int | None = None
    incident_id: str | None = None
    reason: str = ""
    requested_by: str = ""
    refused_by: Rail | None = None
    detail: str = ""
    verification: Verdict | None = None
    evidence: Evidence | None = None
    force: bool = False
    nodes_out: list[str] = []
    settling: bool = False
    deadline_ns: int | None = None
    replans: int = 0

    @property
    def active(self) -> bool:
        """Whether it still changes what nodes are told."""
        return self.state in ("planned", "configuring", "announcing", "verifying") or self.settling

    @property
    def vip_ids(self) -> list[int]:
        return [m.vip_id for m in self.moves]


class Placement(Frozen):
    """Where a VIP is: its home in the fleet document, and the cluster that serves it now."""

    vip_id: int
    name: str
    home: str
    current: str
    since_ns: int
    migration: str | None = None


class AuditEntry(Frozen):
    """Who did what to which subject, why, and what came of it."""

    seq: int
    ts_ns: int
    who: str
    what: str
    subject: str
    why: str
    result: str


class Maintenance(Frozen):
    """A person's word on a node; it stands over the fleet document's."""

    node: str
    on: bool
    by: str
    reason: str
    since_ns: int
