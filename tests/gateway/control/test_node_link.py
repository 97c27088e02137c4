"""One node as control sees it, at virtual time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.desired import Desired
from gateway.control.node_client import NodeError
from gateway.control.node_link import FIRST_RETRY_NS, LAST_RETRY_NS, NodeLink, Wanted

S = 1_000_000_000


def wanted(epoch: int, vips: Iterable[int] = (1,), routes: dict[int, str] | None = None) -> Wanted:
    return Wanted(
        epoch, Desired("n", {"node": "n", "routes": list((routes or {}).values())}, frozenset(vips), routes or {})
    )


def status(epoch: int = 0, /, boot: str = "b1", **speaker: Any) -> dict[str, Any]:
    return {"node": "n", "boot_id": boot, "epoch": epoch, "speaker": speaker or None}


def link(epoch: int = 3, **over: Any) -> NodeLink:
    made = NodeLink("n", **over)
    made.want(wanted(epoch))
    return made


def reach(n: NodeLink) -> str:
    """Read anew each time: the checker would keep the value of the first comparison."""
    return n.reach


def acknowledge(n: NodeLink) -> None:
    assert n.wanted is not None
    n.on_pushed(n.wanted)


def test_unreachable_after_three_misses_and_up_again_with_one_answer() -> None:
    n = link()
    assert reach(n) == "unknown"
    n.on_miss("x")
    n.on_miss("x")
    assert reach(n) == "unknown"
    n.on_miss("x")
    assert reach(n) == "unreachable"
    n.on_status(status(), S)
    assert (n.reach, n.last_seen_ns) == ("up", S)
    n.on_miss("x")
    n.on_miss("x")
    assert n.reach == "up", "a late answer is no failure"


def test_a_node_is_told_once() -> None:
    n = link()
    assert not n.must_push(0), "not before it has answered"
    n.on_status(status(0), 0)
    assert n.must_push(0)
    acknowledge(n)
    n.on_status(status(3), S)
    assert not n.must_push(S)
    assert n.acked
    assert n.vips_held == {1}


def test_a_node_that_comes_back_is_told_again() -> None:
    n = link()
    n.on_status(status(3), 0)
    assert not n.must_push(0)
    n.on_status(status(0, boot="b2"), S)
    assert n.must_push(S)
    assert n.vips_held == frozenset()


def test_after_a_restart_of_control_the_same_epoch_counts_as_held() -> None:
    n = link(3)
    n.on_status(status(3), 0)
    assert n.vips_held == {1}
    other = link(4)
    other.on_status(status(3), 0)
    assert other.vips_held == frozenset(), "what an earlier epoch held is not known any more"
    assert other.must_push(0)


def test_failed_pushes_wait_longer_each_time_and_a_new_text_does_not_wait() -> None:
    n = link()
    n.on_status(status(0), 0)
    waits = []
    for _ in range(8):
        n.on_push_failed("x", 0)
        waits.append(next(t for t in range(0, 10 * S, FIRST_RETRY_NS // 5) if n.must_push(t)))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (FIRST_RETRY_NS, LAST_RETRY_NS)
    n.want(wanted(4))
    assert n.must_push(0)
    n.on_push_failed("422", 0, refused=True)
    assert not n.must_push(LAST_RETRY_NS - 1), "what it refused once it refuses again"
    assert n.must_push(LAST_RETRY_NS)


def test_a_node_ahead_of_the_store_is_noticed_and_not_told_something_older() -> None:
    n = link(3)
    n.on_status(status(50), 0)
    assert n.ahead_of == 50
    assert not n.must_push(0)
    n.want(wanted(51))
    n.on_status(status(50), S)
    assert n.ahead_of is None
    assert n.must_push(S)


def test_the_speakers_word_is_unknown_when_old_or_from_a_silent_node() -> None:
    n = link(3, speaker_stale_ns=5 * S)
    n.want(wanted(4, (1, 2), {1: "10.4.0.1/32", 2: "10.4.0.2/32"}))
    word: dict[str, Any] = {"forwarding_alive": True, "announced": ["10.4.0.2/32"], "written_ns": 10 * S}
    n.on_status(status(4, **word), 10 * S)
    assert n.speaker(15 * S).forwarding_alive is True
    assert n.vips_announced(15 * S) == {2}
    assert n.speaker(15 * S + 1).forwarding_alive is None
    assert n.vips_announced(15 * S + 1) == frozenset()
    for _ in range(3):
        n.on_miss("x")
    assert n.speaker(10 * S).forwarding_alive is None


def test_an_earlier_word_of_the_speaker_proves_nothing() -> None:
    n = link()
    n.want(wanted(4, (1,), {1: "10.4.0.1/32"}))
    n.on_status(status(3, epoch=3, announced=["10.4.0.1/32"]), 0)
    assert n.vips_announced(0) == frozenset(), "not acknowledged yet"
    acknowledge(n)
    assert n.vips_announced(0) == frozenset(), "these are the routes of the epoch before"
    n.on_status(status(4, epoch=4, announced=["10.4.0.1/32"]), 0)
    assert n.vips_announced(0) == {1}


@pytest.mark.parametrize("answer", [None, [], {"node": "other", "epoch": 3}, {}, "up"])
def test_the_answer_of_somebody_else_is_a_miss(answer: Any) -> None:
    n = link()
    for _ in range(3):
        n.on_status(answer, 0)
    assert reach(n) == "unreachable"
    assert "expected the status of n" in (n.error or "")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_like, json_like, json_like, json_like)
def test_no_status_breaks_it(boot: Any, epoch: Any, announced: Any, alive: Any) -> None:
    n = link()
    speaker = {"announced": announced, "forwarding_alive": alive, "written_ns": boot}
    n.on_status({"node": "n", "boot_id": boot, "epoch": epoch, "speaker": speaker}, 0)
    n.must_push(0)
    n.vips_announced(0)
    assert n.reach == "up"


@pytest.mark.parametrize("epoch", [2**62, 2**63 - 1, 2**80])
def test_an_epoch_that_nobody_can_have_given_is_none(epoch: int) -> None:
    n = link()
    n.on_status(status(epoch), 0)
    assert (n.epoch_acked, n.ahead_of) == (None, None)


def test_half_surrogates_from_a_node_do_not_come_as_far_as_our_answers() -> None:
    n = link()
    n.on_status(status(3, boot="\ud800", announced=["\ud800", "10.4.0.1/32"]), 0)
    assert n.boot_id is None
    assert n.speaker(0).announced == ("10.4.0.1/32",)
    assert str(NodeError("status: 500 \ud800")).encode() == b"status: 500 \\ud800"
