"""Silences: people's word that they know. Matchers on labels, a time span, an author and a reason."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

from pydantic import Field, model_validator

from analyzer.alerting.alert import Alert
from contract.documents import Strict

MOST_REPEATS = 3
_REPEAT = re.compile(r"[*+?{]")
_REPEATED_GROUP = re.compile(r"\)[*+?{]")


# No labels, as they change while an incident lives, but people silence by them.
ALSO = ("kind", "state")


class Matcher(Strict):
    """One label, or `kind` or `state`, and what it must be; `regex`: the value is a pattern for all of it."""

    label: str = Field(min_length=1, max_length=64)
    value: str = Field(max_length=256)
    regex: bool = False

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.regex:
            try:
                re.compile(self.value)
            except re.error as error:
                raise ValueError(f"value: expected a regular expression: {error}") from None
            # Such a pattern can take for ever on a short label, and every look would wait for it, also after a restart.
            if len(_REPEAT.findall(self.value)) > MOST_REPEATS or _REPEATED_GROUP.search(self.value):
                raise ValueError(f"value: expected at most {MOST_REPEATS} of * + ? {{ and none after a group")
        return self

    def matches(self, alert: Alert) -> bool:
        """Whether the alert carries such a label."""
        found = alert.labels.get(self.label) or (alert.annotations.get(self.label, "") if self.label in ALSO else "")
        return re.fullmatch(self.value, found) is not None if self.regex else found == self.value


class NewSilence(Strict):
    """What a person asks for. Every matcher must match; times in ns since 1970."""

    matchers: list[Matcher] = Field(min_length=1, max_length=16)
    ends_ns: int = Field(gt=0, lt=2**63)
    starts_ns: int | None = Field(default=None, ge=0, lt=2**63)
    created_by: str = Field(min_length=1, max_length=128)
    comment: str = Field(min_length=1, max_length=1024)


class Silence(Strict):
    """A silence that is kept."""

    id: str
    matchers: list[Matcher]
    starts_ns: int
    ends_ns: int
    created_by: str
    comment: str
    created_ns: int

    def active(self, now_ns: int) -> bool:
        """Whether it holds now."""
        return self.starts_ns <= now_ns < self.ends_ns


def silenced(alert: Alert, silences: Iterable[Silence], now_ns: int) -> str | None:
    """Why an alert is silenced; None when it is not."""
    for silence in silences:
        if silence.active(now_ns) and all(m.matches(alert) for m in silence.matchers):
            return f"silence {silence.id} by {silence.created_by}: {silence.comment}"
    return None
