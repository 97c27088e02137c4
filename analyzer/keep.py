"""How much of the past the analyzer keeps."""

from __future__ import annotations

from pydantic import Field

from contract.documents import Strict


class Keep(Strict):
    """How much of the past is kept: so many of each at most, and none older than `days`.

    What is open, or still to be sent, is kept whatever these say. `events_of_one`: of one incident's timeline.
    """

    days: float = Field(default=90.0, gt=0, le=36_500)
    incidents: int = Field(default=10_000, ge=1, le=1_000_000)
    events_of_one: int = Field(default=2_000, ge=10, le=1_000_000)
    decisions: int = Field(default=20_000, ge=1, le=10_000_000)
    notifications: int = Field(default=10_000, ge=1, le=1_000_000)
    silences: int = Field(default=1_000, ge=1, le=100_000)
