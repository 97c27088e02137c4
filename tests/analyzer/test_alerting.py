"""Who is told what: grouping, inhibition, silences, signatures, what is repeated and what is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from pydantic import ValidationError

from analyzer.alerting.alert import Alert
from analyzer.alerting.inhibit import inhibited
from analyzer.alerting.receivers.alertmanager_webhook import body
from analyzer.alerting.sign import headers, key_of
from analyzer.alerting.silence import Matcher, Silence, silenced
from analyzer.region import SECOND
from tests.analyzer.desk import Desk, T, alert, mitigated, over, receiver
from tests.analyzer.model import fleet
from tests.analyzer.story import Story

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
A1, A2 = alert("node_down", "ld-a1", nodes=("ld-a1",)), alert("node_down", "ld-a2", nodes=("ld-a2",))
CLUSTER = alert("cluster_down", "clb-a", nodes=("ld-a1", "ld-a2"))


def test_a_cluster_speaks_for_its_nodes_only() -> None:
    assert "whole cluster" in (inhibited(A1, [CLUSTER]) or "")
    assert inhibited(alert("node_down", "ld-b1", "clb-b"), [CLUSTER]) is None
    assert inhibited(CLUSTER, [CLUSTER, A1]) is None
    down = alert("node_down", "host-1", "hosts", nodes=("host-1",))
    assert inhibited(alert("real_server_dead", "rs-1", "hosts", nodes=("host-1",)), [down])
    assert inhibited(alert("prober_lost", "p"), [alert("collector_outage", "collector")])


@pytest.mark.parametrize(
    ("held", "by"),
    [
        ("node_down", "cluster_down"), ("jitter", "cluster_down"), ("feed_lost", "cluster_down"),
        ("vip_missing", "cluster_down"), ("attack", "cluster_down"), ("feed_lost", "node_down"),
        ("jitter", "node_down"), ("vip_missing", "node_down"), ("real_server_dead", "node_down"),
        ("feed_lost", "collector_outage"), ("prober_lost", "collector_outage"),
    ],
)  # fmt: skip
def test_each_rule_of_inhibition_holds_by_itself_and_ends_when_the_greater_fault_is_mitigated(
    held: str, by: str
) -> None:
    small = alert(held, "small", nodes=("ld-a1",))
    great = alert(by, "clb-a" if by == "cluster_down" else "great", nodes=("ld-a1",))
    assert (inhibited(small, [great]) or "").startswith("inc-")
    # What a mitigated fault still explains: that its own nodes are silent, and no more.
    explains = held in ("node_down", "feed_lost", "real_server_dead")
    assert bool(inhibited(small, [mitigated(great)])) is explains
    elsewhere = alert(held, "small", cluster="clb-b", nodes=("ld-b1",))
    assert inhibited(elsewhere, [mitigated(great)]) is None


def test_inhibited_alerts_are_not_sent_and_the_reason_is_kept() -> None:
    desk = Desk()
    assert desk.run(CLUSTER, A1) == ["firing clb-a"]
    assert desk.decisions() == ["notified", "inhibited"]


def test_what_people_were_told_stays_true_until_it_ends() -> None:
    """A node was told of, then its cluster fell: the node is not taken back as if it were well."""
    desk = Desk()
    assert desk.run(A1) == ["firing ld-a1"]
    assert desk.run(A1, CLUSTER, seconds=6) == ["firing clb-a, firing ld-a1"]
    assert desk.run(over(A1), CLUSTER, seconds=6) == ["firing clb-a, resolved ld-a1"]


def test_alerts_of_one_group_share_a_notification_and_wait_for_the_interval() -> None:
    desk = Desk(receiver(group_interval_s=5))
    assert desk.run(A1) == ["firing ld-a1"]
    assert desk.run(A1, A2, seconds=4) == []
    assert desk.run(A1, A2, seconds=1) == ["firing ld-a1, firing ld-a2"]
    assert desk.run(A1, A2, seconds=60) == []
    one, two = (body(n) for n in desk.told)
    assert one["groupKey"] == two["groupKey"] == '{}:{cluster="clb-a", region="r"}'


def test_resolved_is_told_to_whom_it_was_told_also_after_a_restart() -> None:
    desk = Desk(receiver(group_interval_s=0))
    assert desk.run(over(A1)) == []
    assert desk.run(A1) == ["firing ld-a1"]
    desk.restart()
    assert desk.run(A1, seconds=3) == []
    assert desk.run(over(A1), seconds=9) == ["resolved ld-a1"]


def test_a_receiver_that_wants_no_end_hears_of_none_and_of_the_next_fault() -> None:
    desk = Desk(receiver(group_interval_s=0, send_resolved=False))
    assert desk.run(A1, seconds=1) == ["firing ld-a1"]
    assert desk.run(over(A1), seconds=9) == []
    assert desk.decisions()[0] == "not sent"
    assert desk.run(alert("node_down", "ld-a1", starts=T + 99), seconds=9) == ["firing ld-a1"]


def test_a_firing_group_is_repeated_after_its_interval_and_a_mitigated_one_is_told_once() -> None:
    desk = Desk(receiver(repeat_interval_s=60))
    assert desk.run(A1, seconds=59) == ["firing ld-a1"]
    assert desk.run(A1, seconds=1) == ["firing ld-a1"]
    assert desk.run(mitigated(A1), seconds=600) == ["mitigated ld-a1"]
    assert desk.run(A1, seconds=1) == ["firing ld-a1"]


def test_silences_hold_while_they_last() -> None:
    matcher = Matcher(label="subject", value="ld-.*", regex=True)
    silence = Silence(id="s", matchers=[matcher], starts_ns=T, ends_ns=T + 10 * SECOND, created_by="me",
                      comment="work", created_ns=T)  # fmt: skip
    assert silenced(A1, [silence], T + 5) == "silence s by me: work"
    assert silenced(alert("node_down", "host-1"), [silence], T + 5) is None
    assert silenced(A1, [silence], T + 10 * SECOND) is None
    desk = Desk()
    desk.silences = [silence]
    assert desk.run(A1, seconds=9) == []
    assert desk.run(A1, seconds=1) == ["firing ld-a1"]
    with pytest.raises(ValidationError, match="regular expression"):
        Matcher(label="a", value="(", regex=True)


def test_people_may_silence_by_what_is_no_label() -> None:
    """By the state: what is mitigated is quiet until it is felt again. Other annotations are no matchers."""
    state = Matcher(label="state", value="mitigated")
    assert (state.matches(A1), state.matches(replace(A1, annotations={"state": "mitigated"}))) == (False, True)
    assert Matcher(label="kind", value="crash").matches(replace(A1, annotations={"kind": "crash"}))
    assert not Matcher(label="summary", value=".+", regex=True).matches(A1)


@pytest.mark.parametrize("value", ["(a+)+$", "(a|a)*b", "(x?){30}y", ".*.*.*.*z", "(a|ab){9}", "a?a?a?a?aaaa"])
def test_patterns_that_could_take_for_ever_are_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="none after a group"):
        Matcher(label="a", value=value, regex=True)
    assert Matcher(label="a", value=value).value == value  # as plain text it is harmless
    assert Matcher(label="subject", value="(ld|host)-[a-z]+[0-9]*", regex=True).matches(A1)


def test_signatures_are_those_of_standard_webhooks() -> None:
    # The vector of the specification's own reference libraries.
    signed = headers(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = hmac.new(key, b"a.1.x", hashlib.sha256).digest()
    assert headers(SECRET, "a", 1, b"x")["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    assert "webhook-signature" not in headers(None, "a", 1, b"x")


@pytest.mark.parametrize("secret", ["plain", "whsec_???", "whsec_c2hvcnQ="])
def test_bad_secrets_are_refused_when_read(secret: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        key_of(secret)
    with pytest.raises(ValidationError):
        receiver(secret=secret)


def test_a_receiver_that_fails_for_a_while_gets_the_present_state_once_it_answers() -> None:
    story = Story(fleet())
    story.run(40)
    down_until = story.model.now + 12 * SECOND
    story.hook = lambda _: 503 if story.model.now < down_until else 200
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(70)
    assert story.told() == ["firing", "mitigated"]
    first = [i for _, i in story.attempts if i == story.delivered_ids[0]]
    assert len(first) > 3
    (incident,) = story.incidents()
    assert [d["state"] for d in story.store.deliveries(incident.id)] == ["delivered", "delivered"]
    assert story.delivered[0]["alerts"][0]["fingerprint"] == incident.fingerprint
    assert story.delivered[0]["alerts"][0]["annotations"]["incident"] == incident.id


def test_labels_hold_nothing_that_changes() -> None:
    """A crash that turns out to be a hang, gets mitigated and fires again is one alert to whoever goes by labels."""
    story = Story(fleet())
    seen: dict[str, set[tuple[tuple[str, str], ...]]] = {}

    def look() -> None:
        for group in story.engine.groups:
            for each in group.current or ():
                seen.setdefault(each.incident_id, set()).add(tuple(sorted(each.labels.items())))

    story.run(40)
    story.model.kill("ld-a1")
    for _ in range(45):
        story.run(1)
        look()
    (incident,) = story.incidents()
    assert incident.state == "mitigated"
    incident.kind = "hang"
    node = story.model.nodes["ld-a1"]
    node.routed_from, node.routed_until = story.model.now, 1 << 62
    for _ in range(20):
        story.run(1)
        look()
    assert incident.reopened == 1
    assert {i: len(labels) for i, labels in seen.items()} == {incident.id: 1}
    (labels,) = seen[incident.id]
    assert dict(labels)["severity"] == "critical"
    assert not {"kind", "state"} & {k for k, _ in labels}


def test_the_alert_says_what_changes_in_its_annotations() -> None:
    story = Story(fleet())
    story.run(40)
    story.model.kill("ld-a1")
    story.run(45)
    kinds = [a["annotations"]["kind"] for d in story.delivered for a in d["alerts"]]
    now = [a["annotations"]["severity_now"] for d in story.delivered for a in d["alerts"]]
    assert (set(kinds), now) == ({"crash"}, ["critical", "warning"])


def test_an_alert_has_a_name_for_every_family() -> None:
    from analyzer.alerting.alert import ALERT_NAMES
    from analyzer.findings import FAMILY
    from analyzer.incident import SEVERITY

    assert set(ALERT_NAMES) == set(FAMILY.values()) == set(SEVERITY)
    assert isinstance(A1, Alert)
