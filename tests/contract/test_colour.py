"""The colour of a probe, and the vectors that hold the Python and the Rust side together.

`PYTHONPATH=. python tests/contract/test_colour.py` writes colour_vectors.json anew; the Rust side reads it in
gateway/dataplane/contract/src/colour.rs.
"""

from __future__ import annotations

import ipaddress
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import colour

VECTORS = Path(__file__).with_name("colour_vectors.json")
EPOCH_NS = colour.EPOCH_SECONDS * 1_000_000_000


def make_vectors() -> dict[str, list[dict[str, Any]]]:
    """The vectors, the same at each call. probe_id as text: JSON numbers end at 2**53 elsewhere."""
    rng = random.Random(20)
    cookies, checks, probe_ids = [], [], []
    for _ in range(40):
        key = rng.randbytes(colour.KEY_BYTES)
        nonce = rng.choice([0, 4095, rng.randrange(4096)])
        epoch = rng.choice([0, 1, rng.randrange(1 << 28)])
        isn = colour.cookie(key, nonce, epoch)
        cookies.append({"key": key.hex(), "nonce": nonce, "epoch": epoch, "isn": isn})
        for step in (-2, -1, 0, 1, 2):
            if epoch + step >= 0:
                now_ns = (epoch + step) * EPOCH_NS + rng.randrange(EPOCH_NS)
                checks.append(_check(key, isn, now_ns))
        checks.append(_check(key, isn ^ 1 << rng.randrange(32), epoch * EPOCH_NS))
    for text in ("198.18.3.4", "198.18.255.255", "2001:db8:18::1", "2001:db8:18:a:b:c:d:e"):
        port, isn = rng.randrange(65536), rng.getrandbits(32)
        name = colour.probe_id(ipaddress.ip_address(text), port, isn)
        probe_ids.append({"source": text, "source_port": port, "isn": isn, "probe_id": str(name)})
    return {"cookies": cookies, "checks": checks, "probe_ids": probe_ids}


def _check(key: bytes, isn: int, now_ns: int) -> dict[str, Any]:
    return {"key": key.hex(), "isn": isn, "now_ns": now_ns, "is_cookie": colour.is_cookie(key, isn, now_ns)}


def test_the_vectors_are_fresh() -> None:
    assert json.loads(VECTORS.read_text()) == make_vectors(), "run PYTHONPATH=. python tests/contract/test_colour.py"


def test_the_vectors_hold_both_answers() -> None:
    answers = [check["is_cookie"] for check in make_vectors()["checks"]]
    assert answers.count(True) > 50
    assert answers.count(False) > 50


@given(
    st.binary(min_size=16, max_size=16),
    st.integers(0, 4095),
    st.integers(1, 1 << 30),
    st.integers(-1, 1),
    st.integers(0, EPOCH_NS - 1),
)
def test_a_cookie_is_known_within_an_epoch(key: bytes, nonce: int, epoch: int, step: int, within: int) -> None:
    isn = colour.cookie(key, nonce, epoch)
    assert isn >> colour.MAC_BITS == nonce
    assert colour.is_cookie(key, isn, (epoch + step) * EPOCH_NS + within)


def test_a_random_number_is_hardly_ever_a_cookie() -> None:
    rng = random.Random(3)
    hits = sum(colour.is_cookie(b"k" * 16, rng.getrandbits(32), 10**18) for _ in range(20_000))
    assert hits <= 3  # expected 0.06


@pytest.mark.parametrize(("key", "nonce"), [(b"short", 0), (b"k" * 16, 4096), (b"k" * 16, -1)])
def test_wrong_arguments_are_refused(key: bytes, nonce: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        colour.cookie(key, nonce, 1)


def test_a_probe_id_names_source_port_and_number() -> None:
    name = colour.probe_id(ipaddress.ip_address("198.18.1.2"), 4000, 0xDEADBEEF)
    assert name == 0x0102_0FA0_DEADBEEF


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(make_vectors(), indent=1) + "\n")
