"""Each way a probe can end, by the clock alone."""

from __future__ import annotations

from dataclasses import replace

from contract.vocabulary import Outcome
from prober.judge import Judge, Probe
from prober.receive import Answer, Kind, mapped

MS = 1_000_000
WALL = 1_700_000_000_000_000_000
A, V = mapped(b"\xc6\x12\x01\x01"), mapped(b"\xcb\x00\x71\x01")
PROBE = Probe(7, A, 5000, V, 80, 1234, WALL)


def judge() -> Judge:
    made = Judge(timeout_ns=600 * MS, settle_ns=100 * MS)
    made.sent(PROBE, 0)
    return made


def answer(kind: Kind, isn: int = 1234) -> Answer:
    return Answer(kind, A, 5000, V, 80, isn, 61)


def test_an_answered_probe_closes_after_it_settled_with_its_first_round_trip_and_repeats() -> None:
    j = judge()
    assert j.answered(answer(Kind.SYN_ACK), 5 * MS, WALL + 4 * MS)
    assert j.answered(answer(Kind.SYN_ACK), 30 * MS, WALL + 29 * MS)
    assert j.next_deadline() == 105 * MS
    assert j.expired(104 * MS, WALL + 104 * MS) == []
    (closed,) = j.expired(105 * MS, WALL + 105 * MS)
    assert (closed.outcome, closed.rtt_ns, closed.retransmits, closed.reply_ttl) == (Outcome.ANSWERED, 4 * MS, 1, 61)
    assert closed.closed_ns == WALL + 4 * MS
    assert len(j) == 0
    assert j.expired(10**12, WALL) == []


def test_a_refused_probe_closes_at_once() -> None:
    j = judge()
    j.answered(answer(Kind.RESET), 5 * MS, WALL + 4 * MS)
    (closed,) = j.expired(5 * MS, WALL + 5 * MS)
    assert (closed.outcome, closed.rtt_ns) == (Outcome.REFUSED, 4 * MS)


def test_an_unanswered_probe_is_silent_at_its_time_out_and_not_before() -> None:
    j = judge()
    assert j.expired(600 * MS - 1, WALL) == []
    (closed,) = j.expired(600 * MS, WALL + 600 * MS)
    assert (closed.outcome, closed.rtt_ns, closed.closed_ns) == (Outcome.SILENT, 0, WALL + 600 * MS)


def test_unreachable_is_counted_and_the_probe_goes_on() -> None:
    j = judge()
    assert j.answered(answer(Kind.UNREACHABLE), 5 * MS, WALL + 5 * MS)
    assert j.counts["unreachable"] == 1
    assert j.undecided == 1
    assert [c.outcome for c in j.expired(600 * MS, WALL)] == [Outcome.SILENT]


def test_an_answer_that_came_too_late_does_not_save_the_probe() -> None:
    j = judge()
    assert j.answered(answer(Kind.SYN_ACK), 700 * MS, WALL + 601 * MS)
    assert j.counts["late"] == 1
    assert [c.outcome for c in j.expired(700 * MS, WALL)] == [Outcome.SILENT]


def test_a_prober_held_up_judges_by_when_the_kernel_took_the_answer() -> None:
    j = judge()
    j.answered(answer(Kind.SYN_ACK), 5000 * MS, WALL + 3 * MS)
    assert j.expired(5000 * MS, WALL) == []
    assert [c.outcome for c in j.expired(5100 * MS, WALL)] == [Outcome.ANSWERED]


def test_only_the_whole_tuple_and_the_isn_name_a_probe() -> None:
    j = judge()
    right = answer(Kind.SYN_ACK)
    for wrong in (
        replace(right, isn=1235),
        replace(right, source_port=5001),
        replace(right, vip_port=81),
        replace(right, vip=A),
        replace(right, source=V),
    ):
        assert not j.answered(wrong, 1, WALL)
    assert j.undecided == 1


def test_a_reset_after_the_answer_does_not_change_the_outcome() -> None:
    j = judge()
    j.answered(answer(Kind.SYN_ACK), MS, WALL + MS)
    j.answered(answer(Kind.RESET), 2 * MS, WALL + 2 * MS)
    assert j.counts["reset_after_answer"] == 1
    assert [(c.outcome, c.retransmits) for c in j.expired(101 * MS, WALL)] == [(Outcome.ANSWERED, 0)]


def test_a_stop_closes_what_is_known_and_invents_nothing() -> None:
    j = judge()
    j.sent(replace(PROBE, isn=99), 0)
    j.answered(answer(Kind.SYN_ACK), MS, WALL + MS)
    assert [c.probe.isn for c in j.settle()] == [1234]
    assert j.undecided == 1
