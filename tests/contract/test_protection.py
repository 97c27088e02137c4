"""Source lists and what else protects VIPs."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.protection import MOST_PROBLEMS, is_prefix, list_problems


def is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return "/" in text and text.rpartition("/")[2].isdigit()


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "192.0.2.0/24", "2001:db8::/32", "2001:db8::1/128"])
def test_prefixes(text: str) -> None:
    assert is_prefix(text)


@pytest.mark.parametrize(
    "text",
    ["", "/", "/8", "192.0.2.0", "192.0.2.0/", "192.0.2.1/24", "10.0.0.0/33", "::/129", "10/8", "::/+1", "\0::/8"],
)
def test_no_prefixes(text: str) -> None:
    assert not is_prefix(text)


@given(st.ip_addresses(), st.integers(-1, 130), st.booleans())
def test_as_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, length: int, cut: bool
) -> None:
    text = f"{address}/{length}"
    if cut and 0 <= length <= address.max_prefixlen:
        text = str(ipaddress.ip_network(text, strict=False))
    assert is_prefix(text) == is_network(text)


def test_a_wrong_list_does_not_drown_the_others() -> None:
    problems = list(list_problems({"a": ["x"] * 1000, "b": ["::/0", "y"]}))
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[0].startswith("source_lists.a[0]: ")
    assert problems[-1].startswith("source_lists.b[1]: ")


def test_a_million_prefixes_are_checked_in_time() -> None:
    prefixes = [f"{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}.0/24" for i in range(1_000_000)]
    start = time.monotonic()
    assert list(list_problems({"long": prefixes})) == []
    assert time.monotonic() - start < 20
