"""Telling receivers that refuse, ask to wait, are gone or fail, over restarts and while somebody sets the clock."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.alerting import answer
from analyzer.alerting.alert import Alert
from analyzer.alerting.answer import Answer
from analyzer.alerting.deliver import Delivery
from analyzer.alerting.notice import word
from analyzer.alerting.receivers.alertmanager import Alertmanager
from analyzer.region import SECOND
from analyzer.store import Store
from tests.analyzer.desk import Desk, T, alert, mitigated, over, receiver, words

A1, A2, B1 = alert("node_down", "ld-a1"), alert("node_down", "ld-a2"), alert("node_down", "ld-b1", "clb-b")
HOUR = 3600.0


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "taken"), (202, "taken"), (204, "taken"), (302, "later"), (400, "refused"), (401, "refused"),
     (403, "refused"), (404, "refused"), (413, "refused"), (422, "refused"), (408, "later"), (425, "later"),
     (429, "later"), (410, "gone"), (500, "later"), (501, "later"), (503, "later")],
)  # fmt: skip
def test_what_a_status_means(status: int, outcome: str) -> None:
    found = answer.of_http(status, {}, "because", 0.0)
    assert (found.outcome, found.status, found.said) == (outcome, status, "because")
    assert bool(found.error) is (outcome != "taken")


@pytest.mark.parametrize(
    ("text", "wait"),
    [("0", 0), ("7", 7), (" 120 ", 120), ("999999999999999999999", 3600), ("-5", None), ("1.5", None), ("soon", None),
     ("", None), ("٣", None), (format_datetime(datetime.fromtimestamp(1090, UTC), usegmt=True), 90),
     (format_datetime(datetime.fromtimestamp(10, UTC), usegmt=True), 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 3600),
     ("Fri, 99 Xxx 9999 23:59:59 GMT", None)],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_never_more_than_an_hour(text: str, wait: float | None) -> None:
    assert answer.retry_after(text, 1000.0) == wait


@given(st.text(max_size=60))
def test_no_retry_after_is_ever_an_error(text: str) -> None:
    found = answer.retry_after(text, 1000.0)
    assert found is None or 0 <= found <= answer.LONGEST_RETRY_AFTER_S


def test_tries_have_growing_pauses_and_the_same_id() -> None:
    desk = Desk()
    statuses = iter([500, 503, 429, 408, 200])
    desk.hook = lambda _: next(statuses)
    assert desk.run(A1, seconds=30) == ["firing ld-a1"]
    times = [t for t, _ in desk.tries]
    assert [round(b - a) for a, b in itertools.pairwise(times)] == [1, 2, 4, 8]
    assert len({n.id for _, n in desk.tries}) == 1
    (row,) = desk.rows()
    assert (row["state"], row["attempts"], row["status"]) == ("delivered", 5, 200)


def test_a_receiver_that_asks_to_wait_is_left_alone_for_so_long() -> None:
    desk = Desk()
    desk.hook = lambda _: Answer("later", 429, "slow down", "HTTP 429", 40.0) if desk.mono < 40 * SECOND else 200
    assert desk.run(A1, seconds=39) == []
    assert len(desk.tries) == 1
    (row,) = desk.rows()
    assert (row["state"], row["status"], row["said"]) == ("pending", 429, "slow down")
    assert desk.run(A1, seconds=8) == ["firing ld-a1"]


def test_a_refusal_is_one_try_is_shown_and_does_not_silence_the_group() -> None:
    """It was a day and 1,447 tries: everything of the group waited behind a body that was never taken."""
    desk = Desk()
    desk.hook = lambda d: Answer("refused", 400, "unknown field kind", "HTTP 400") if len(d.notice.alerts) == 1 else 200
    assert desk.run(A1, seconds=600) == []
    assert len(desk.tries) == 1
    (row,) = desk.rows()
    assert (row["state"], row["status"], row["said"], row["error"]) == (
        "refused", 400, "unknown field kind", "HTTP 400",
    )  # fmt: skip
    assert row["tried_ns"] == T
    assert desk.run(A1, A2, seconds=1) == ["firing ld-a1, firing ld-a2"]


def test_what_was_refused_is_tried_again_every_repeat_interval_and_at_the_next_start() -> None:
    desk = Desk(receiver(repeat_interval_s=600))
    desk.hook = lambda _: 400
    desk.run(A1, seconds=1801)
    assert [round(t) for t, _ in desk.tries] == [0, 600, 1200, 1800]
    desk.run(mitigated(A1), seconds=650)  # refused news is not "told once"
    assert [round(t) for t, _ in desk.tries[4:]] == [1805, 2405]
    desk.restart(5)  # somebody mended the settings
    desk.hook = lambda _: 200
    assert desk.run(mitigated(A1), seconds=9) == ["mitigated ld-a1"]


def test_a_refusal_of_one_group_holds_up_no_other() -> None:
    desk = Desk()
    desk.hook = lambda d: 400 if d.notice.group["cluster"] == "clb-a" else 200
    assert desk.run(A1, B1, seconds=2) == ["firing ld-b1"]


def test_a_group_is_told_its_present_state_and_no_old_one() -> None:
    desk = Desk()
    desk.hook = lambda _: 503
    desk.run(A1, seconds=20)
    desk.run(A1, A2, seconds=20)
    desk.run(over(A1), A2, seconds=120)
    desk.hook = lambda _: 200
    assert desk.run(over(A1), A2, seconds=90) == ["firing ld-a2, resolved ld-a1"]
    (row,) = desk.rows()  # one notification, tried with what was true each time
    assert (row["state"], row["attempts"]) == ("delivered", len(desk.tries))
    assert len({n.id for _, n in desk.tries}) == 3  # another content is another message
    assert {r["id"] for i in ("inc-ld-a1", "inc-ld-a2") for r in desk.store.deliveries(i)} == {row["id"]}


def test_what_began_and_ended_while_nobody_answered_is_told_once_as_over() -> None:
    desk = Desk()
    desk.hook = lambda _: 503
    desk.run(A1, seconds=20)
    desk.run(over(A1), seconds=20)
    desk.hook = lambda _: 200
    assert desk.run(over(A1), seconds=600) == ["resolved ld-a1"]


def test_a_refused_beginning_does_not_keep_the_end_from_being_told() -> None:
    desk = Desk()
    desk.hook = lambda d: 400 if d.notice.firing else 200
    assert desk.run(A1, seconds=20) == []
    assert desk.run(over(A1), seconds=20) == ["resolved ld-a1"]


def test_what_came_back_to_what_the_receiver_knows_is_not_said() -> None:
    desk = Desk(receiver(group_interval_s=0))
    assert desk.run(A1, seconds=1) == ["firing ld-a1"]
    desk.hook = lambda _: 503
    desk.run(over(A1), seconds=2)
    desk.run(A1, seconds=5)  # the same incident, open again before anybody heard that it was over
    desk.hook = lambda _: 200
    assert desk.run(A1, seconds=120) == []
    assert [r["state"] for r in desk.rows()] == ["dropped", "delivered"]
    assert desk.run(over(A1), seconds=1) == ["resolved ld-a1"]


def test_what_nobody_remembers_any_more_is_not_waited_for() -> None:
    desk = Desk()
    desk.hook = lambda _: 503
    desk.run(A1, seconds=3)
    assert desk.run(seconds=70) == []
    assert [r["state"] for r in desk.rows()] == ["dropped"]
    tries = len(desk.tries)
    desk.run(seconds=600)
    assert len(desk.tries) == tries


def test_a_receiver_that_is_gone_is_left_until_the_next_start_and_that_is_said() -> None:
    desk = Desk(receiver(repeat_interval_s=60), receiver(name="other", repeat_interval_s=60))
    desk.hook = lambda d: 410 if d.receiver == "ops" else 200
    assert desk.run(A1, B1, seconds=1) == ["firing ld-a1", "firing ld-b1"]
    assert "HTTP 410" in desk.gone["ops"]
    assert [n.receiver for _, n in desk.tries] == ["ops", "ops", "other", "other"]
    desk.hook = lambda _: 200
    assert {n.receiver for n in desk.told} == {"other"}
    desk.run(A1, A2, B1, seconds=150)
    assert {n.receiver for n in desk.told} == {"other"}
    assert "ops: HTTP 410: the receiver is gone; not told anything more until the next start" in [
        d["reason"] for d in desk.store.decisions(100, about="alert")
    ]
    assert {r["state"] for r in desk.rows() if r["receiver"] == "ops"} == {"refused"}
    desk.restart()
    desk.run(A1, A2, B1, seconds=1)
    assert "firing ld-a1, firing ld-a2" in [words(n) for n in desk.told if n.receiver == "ops"]


def test_an_outbox_survives_its_process() -> None:
    desk = Desk()
    seen: list[str] = []

    def killed(delivery: Delivery) -> Answer:
        seen.append(delivery.id)
        raise KeyboardInterrupt  # the process ends while it sends: rather twice than never

    desk.hook = killed
    with pytest.raises(KeyboardInterrupt):
        desk.run(A1)
    desk.restart(3)
    desk.hook = lambda _: 200
    assert desk.run(A1, seconds=1) == ["firing ld-a1"]
    assert desk.told[0].id == seen[0]
    assert [r["state"] for r in desk.rows()] == ["delivered"]


def test_what_an_earlier_analyzer_kept_is_understood() -> None:
    store = Store(":memory:")
    key = '{}:{cluster="clb-a", region="r"}'
    store.put("told", {f"ops {key}": {"firing": {A1.fingerprint: A1.starts_ns}, "at": T, "count": 3}})
    desk = Desk(store=store)
    assert desk.run(A1, seconds=9) == []
    assert desk.run(over(A1), seconds=9) == ["resolved ld-a1"]
    # What it had not delivered yet is owed again, from its queue of old bodies.
    store = Store(":memory:")
    store.put("told", {f"ops {key}": {"firing": {A1.fingerprint: A1.starts_ns}, "at": T, "count": 3}})
    store.enqueue("msg_old", "ops", key, ["inc-ld-a1"], "{}", T)
    desk = Desk(store=store)
    assert desk.run(A1, seconds=9) == ["firing ld-a1"]
    assert sorted(r["state"] for r in desk.rows()) == ["delivered", "dropped"]


def test_a_broken_memory_of_groups_tells_everything_again_rather_than_nothing() -> None:
    store = Store(":memory:")
    store.put("groups", [{"receiver": "ops"}, 7, None])
    desk = Desk(store=store)
    assert desk.run(A1) == ["firing ld-a1"]


@pytest.mark.parametrize("shift", [-HOUR, HOUR])
def test_a_step_of_the_clock_changes_no_interval(shift: float) -> None:
    """Tries, groups and repetitions go on within their times, whatever the wall clock says."""
    desk = Desk(receiver(group_interval_s=5, repeat_interval_s=120))
    statuses = iter([503, 503])
    desk.hook = lambda _: next(statuses, 200)
    desk.run(A1)
    desk.step(shift)
    assert desk.run(A1, seconds=4) == ["firing ld-a1"]
    desk.step(-shift)
    desk.step(shift)
    assert desk.run(A1, A2, seconds=6) == ["firing ld-a1, firing ld-a2"]
    desk.step(shift)
    assert desk.run(A1, A2, seconds=125) == ["firing ld-a1, firing ld-a2"]
    desk.step(-2 * shift)
    assert desk.run(over(A1, desk.wall), A2, seconds=6) == ["firing ld-a2, resolved ld-a1"]


def test_a_clock_that_was_set_back_between_two_lives_delays_nothing_for_long() -> None:
    desk = Desk(receiver(repeat_interval_s=400))
    desk.run(A1, seconds=1)
    desk.hook = lambda _: Answer("later", 503, error="HTTP 503")
    desk.run(A1, A2, seconds=30)
    desk.step(-HOUR)
    desk.restart(1)
    desk.hook = lambda _: 200
    assert desk.run(A1, A2, seconds=1200)[0] == "firing ld-a1, firing ld-a2"
    first = next(t for t, n in desk.tries if n is desk.told[1])
    assert first <= 16  # as long as the earlier life wanted to wait, and no longer
    repeats = [t for t, n in desk.tries if n in desk.told[1:]]
    assert all(b - a <= 401 for a, b in itertools.pairwise(repeats))


def test_alertmanager_hears_of_what_fires_within_its_keep_alive_and_no_row_is_written_for_it() -> None:
    own = Alertmanager.model_validate({"name": "am", "url": "http://127.0.0.1:9", "keep_alive_s": 30})
    desk = Desk(own)
    desk.run(A1, mitigated(A2), seconds=301)
    times = [t for t, _ in desk.tries]
    assert len(times) == 11
    assert all(29 <= b - a <= 31 for a, b in itertools.pairwise(times))
    assert {words(n) for n in desk.told} == {"firing ld-a1, mitigated ld-a2"}
    assert [r["attempts"] for r in desk.rows()] == [1]
    desk.hook = lambda _: 503
    desk.run(A1, mitigated(A2), seconds=40)
    assert [(r["state"], r["status"]) for r in desk.rows()] == [("pending", 503), ("delivered", 200)]
    desk.hook = lambda _: 200
    assert desk.run(over(A1), mitigated(A2), seconds=60)[0] == "mitigated ld-a2, resolved ld-a1"
    assert {words(n) for n in desk.told[-2:]} <= {"mitigated ld-a2, resolved ld-a1", "mitigated ld-a2"}


def test_a_keep_alive_is_not_an_event_and_puts_off_no_repetition() -> None:
    own = Alertmanager.model_validate(
        {"name": "am", "url": "http://127.0.0.1:9", "keep_alive_s": 30, "repeat_interval_s": 100}
    )
    desk = Desk(own)
    desk.run(A1, seconds=250)
    assert [r["state"] for r in desk.rows()] == ["delivered"] * 3


def test_a_group_that_does_not_fit_is_told_bit_by_bit_news_first() -> None:
    faults = [alert("node_down", f"ld-{i:03}") for i in range(250)]
    desk = Desk()
    desk.run(*faults, seconds=30)
    assert [len(n.alerts) for n in desk.told] == [100, 100, 100]
    assert [n.more for n in desk.told] == [150] * 3
    assert {a.fingerprint for n in desk.told for a in n.alerts} == {a.fingerprint for a in faults}
    assert desk.run(*faults, seconds=60) == []


def test_a_receiver_that_hangs_holds_few_attempts_open() -> None:
    desk = Desk()
    faults = [alert("node_down", f"ld-{i}", f"clb-{i}") for i in range(20)]
    desk.notifier.step(faults, [], desk.now)
    assert len(desk.outbox.due(desk.now)) == 4
    assert desk.outbox.due(desk.now) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_a_receiver_does_it_knows_the_present_state_in_the_end(seed: int) -> None:
    """Random lives of faults, random answers, restarts and steps of the clock: then everybody behaves for a while."""
    rng = random.Random(seed)
    desk = Desk(receiver(group_interval_s=5, repeat_interval_s=900))
    desk.hook = lambda _: rng.choice([200, 200, 503, 429, 400, 404])
    faults = [A1, A2, B1]
    now: dict[str, str] = {a.fingerprint: "unborn" for a in faults}

    def present() -> list[Alert]:
        out = []
        for fault in faults:
            state = now[fault.fingerprint]
            if state == "firing":
                out.append(fault)
            elif state == "mitigated":
                out.append(mitigated(fault))
            elif state == "over":
                out.append(over(fault))
        return out

    for _ in range(12):
        fault = rng.choice(faults)
        now[fault.fingerprint] = rng.choice(["firing", "mitigated", "over"])
        if now[fault.fingerprint] == "over" and rng.random() < 0.2:
            now[fault.fingerprint] = "firing"
        desk.run(*present(), seconds=rng.choice([1, 3, 10, 70]))
        if rng.random() < 0.2:
            desk.restart(rng.choice([0, 10, 1000]))
        if rng.random() < 0.3:
            desk.step(rng.choice([-HOUR, HOUR]))
    desk.hook = lambda _: 200
    desk.run(*present(), seconds=1000)
    believes = {a.fingerprint: word(a) for notice in desk.told for a in notice.alerts}
    for fault in faults:
        believed, true = believes.get(fault.fingerprint, "never heard"), now[fault.fingerprint]
        assert believed == {"over": "resolved", "unborn": "never heard"}.get(true, true) or (
            true == "over" and believed == "never heard"
        ), (seed, fault.fingerprint, believed, true)
    assert not [r for r in desk.rows() if r["state"] == "pending"]
