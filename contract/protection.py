"""What VIPs are protected by: rates, SYN cookies, lists of sources, the blacklist.

A prefix of a source list speaks of its own family alone: `::/0` is all of IPv6 and nothing of IPv4.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from contract.documents import Strict

Rate = Annotated[int, Field(ge=1, le=2**43)]
SynCookies = Literal["never", "flood", "always"]
Seconds = Annotated[int, Field(ge=1, le=86_400)]

LONGEST_LIST = 1_000_000
MOST_PROBLEMS = 10

# Prefixes stay text: a list may be a million long, and nodes read it themselves.
SourceLists = dict[
    Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")],
    Annotated[list[str], Field(max_length=LONGEST_LIST)],
]


class Blacklist(Strict):
    """An address (IPv6: a /64) that caused `events` drops within `window_s` at one worker loses new connections.

    Only drops count that a packet earns by itself (a port where nobody listens, flags or lengths that no stack sends,
    an acknowledgement of no cookie), never a VIP's limits. Established connections go on, and so does a client that
    answers a SYN cookie: an address can be forged.
    """

    events: Annotated[int, Field(ge=1, le=2**32 - 2)]
    window_s: Seconds
    ttl_s: Seconds


def is_prefix(text: str) -> bool:
    """Whether it is an address prefix such as 192.0.2.0/24, without bits behind its length."""
    address, _, length = text.partition("/")
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        number = int.from_bytes(socket.inet_pton(family, address))
    except (OSError, ValueError):
        return False
    if not (length.isascii() and length.isdigit() and len(length) <= 3 and int(length) <= bits):
        return False
    return number & ((1 << bits - int(length)) - 1) == 0


def list_problems(lists: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """What is wrong in the lists, with its path; of each list no more than a few."""
    for name, prefixes in lists.items():
        wrong = (i for i, text in enumerate(prefixes) if not is_prefix(text))
        for _, i in zip(range(MOST_PROBLEMS), wrong, strict=False):
            yield f"source_lists.{name}[{i}]: expected an address prefix such as 192.0.2.0/24, got {prefixes[i]!r}"
