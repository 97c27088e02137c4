"""What became of an attempt to tell somebody, and whether trying again can help."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Literal

SAID_BYTES = 500
LONGEST_RETRY_AFTER_S = 3600.0
# What passes by itself (RFC 9110, 8470, 6585). Every other 4xx says that this very request will never be taken.
PASSING = frozenset({408, 425, 429})

Outcome = Literal["taken", "later", "refused", "gone"]
_WORST_LAST: tuple[Outcome, ...] = ("taken", "refused", "later", "gone")


@dataclass(frozen=True, slots=True)
class Answer:
    """`outcome`: taken; later (try again, not before `retry_after_s`); refused (for good); gone (nobody is there).

    `status`: HTTP or SMTP status, 0 for none. `said`: the first bytes of what the receiver said. `error`: what went
    wrong, in our words. No secret is in either.
    """

    outcome: Outcome
    status: int = 0
    said: str = ""
    error: str = ""
    retry_after_s: float | None = None


def of_http(status: int, headers: Mapping[str, str], said: str, now_s: float) -> Answer:
    """The answer in an HTTP response. `now_s`: seconds since 1970, for a Retry-After that is a date."""
    if 200 <= status < 300:
        return Answer("taken", status, said)
    error = f"HTTP {status}"
    if status == 410:
        return Answer("gone", status, said, f"{error}: the receiver is gone")
    if 400 <= status < 500 and status not in PASSING:
        return Answer("refused", status, said, error)
    return Answer("later", status, said, error, retry_after(headers.get("retry-after", ""), now_s))


def retry_after(text: str, now_s: float) -> float | None:
    """Seconds to wait, from seconds or an HTTP date, at most LONGEST_RETRY_AFTER_S; None when it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_RETRY_AFTER_S)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait, 0.0), LONGEST_RETRY_AFTER_S)


def worst(answers: Iterable[Answer]) -> Answer:
    """One answer for several requests: the one that asks for the most."""
    return max(answers, key=lambda a: _WORST_LAST.index(a.outcome), default=Answer("taken"))
