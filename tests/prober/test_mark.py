"""No two probes of one epoch share source end and ISN, and every ISN is a cookie."""

from __future__ import annotations

import random
from ipaddress import ip_address

import pytest

from contract import colour
from prober.mark import Exhausted, Marker

KEY = bytes(range(16))
NOW = 1_700_000_000_000_000_000
SOURCE = ip_address("198.18.1.1")


def test_every_isn_is_a_cookie_of_its_time() -> None:
    marker = Marker(KEY, random.Random(1))
    assert all(colour.is_cookie(KEY, marker.isn(SOURCE, 1000 + n, NOW), NOW) for n in range(50))


def test_a_source_end_gets_each_nonce_once_and_then_no_more() -> None:
    marker = Marker(KEY, random.Random(1))
    isns = [marker.isn(SOURCE, 1000, NOW) for _ in range(4096)]
    assert len(set(isns)) == 4096
    with pytest.raises(Exhausted, match="port 1000"):
        marker.isn(SOURCE, 1000, NOW)
    assert marker.isn(SOURCE, 1001, NOW)
    assert marker.isn(SOURCE, 1000, NOW + 64 * 10**9)


def test_sources_that_share_their_low_bits_share_nonces() -> None:
    marker = Marker(KEY, random.Random(1))
    twin = ip_address("2001:db8:18:1::c612:101")
    assert int(twin) & 0xFFFF == int(SOURCE) & 0xFFFF
    isns = [marker.isn(s, 1000, NOW) for _ in range(100) for s in (SOURCE, twin)]
    assert len({colour.probe_id(SOURCE, 1000, i) for i in isns}) == 200


def test_lives_start_at_different_nonces() -> None:
    starts = {Marker(KEY, random.Random(seed)).isn(SOURCE, 1000, NOW) for seed in range(20)}
    assert len(starts) > 15
