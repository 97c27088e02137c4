"""Who is told what: grouping, inhibition, silences, payloads, signatures, retries."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from pydantic import ValidationError

from analyzer.alerting.alert import Alert
from analyzer.alerting.deliver import GIVE_UP_NS, Outbox
from analyzer.alerting.inhibit import inhibited
from analyzer.alerting.notify import Notifier
from analyzer.alerting.payload import alertmanager, rfc3339
from analyzer.alerting.receivers import Receiver
from analyzer.alerting.sign import headers, key_of
from analyzer.alerting.silence import Matcher, Silence, silenced
from analyzer.region import SECOND
from analyzer.store import Store
from tests.analyzer.model import fleet
from tests.analyzer.story import Story

T = 1_800_000_000 * SECOND
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def alert(family: str, subject: str, cluster: str = "clb-a", ends: int = 0, nodes: tuple[str, ...] = ()) -> Alert:
    name = {"node_down": "TgwNodeDown", "cluster_down": "TgwClusterDown"}.get(family, "TgwOther")
    labels = {"alertname": name, "region": "r", "cluster": cluster, "subject": subject, "severity": "critical"}
    return Alert(f"inc-{subject}", f"{family}-{subject}", family, labels, {"summary": "s"}, nodes, (1,), T, ends)


def receiver(**options: object) -> Receiver:
    return Receiver.model_validate({"name": "ops", "url": "http://127.0.0.1:9/x", **options})


def bodies(store: Store) -> list[dict[str, object]]:
    return [json.loads(r["body"]) for r in store.pending()]


def test_a_cluster_speaks_for_its_nodes_only() -> None:
    cluster = alert("cluster_down", "clb-a")
    assert "whole cluster" in (inhibited(alert("node_down", "ld-a1"), [cluster]) or "")
    assert inhibited(alert("node_down", "ld-b1", "clb-b"), [cluster]) is None
    assert inhibited(cluster, [cluster, alert("node_down", "ld-a1")]) is None
    down = alert("node_down", "host-1", "hosts", nodes=("host-1",))
    assert inhibited(alert("real_server_dead", "rs-1", "hosts", nodes=("host-1",)), [down])
    assert inhibited(alert("prober_lost", "p"), [alert("collector_outage", "collector")])


def test_inhibited_alerts_are_not_sent_and_the_reason_is_kept() -> None:
    store = Store(":memory:")
    Notifier([receiver()], store, "u").step([alert("cluster_down", "clb-a"), alert("node_down", "ld-a1")], [], T)
    (body,) = bodies(store)
    assert [a["labels"]["subject"] for a in body["alerts"]] == ["clb-a"]  # type: ignore[attr-defined]
    assert [d["decision"] for d in store.decisions(10, about="alert")] == ["notified", "inhibited"]


def test_alerts_of_one_group_share_a_notification_and_wait_for_the_interval() -> None:
    store = Store(":memory:")
    notifier = Notifier([receiver(group_interval_s=5)], store, "u")
    first, second = alert("node_down", "ld-a1"), alert("node_down", "ld-a2")
    assert len(notifier.step([first], [], T)) == 1
    assert notifier.step([first, second], [], T + SECOND) == []
    assert len(notifier.step([first, second], [], T + 5 * SECOND)) == 1
    assert notifier.step([first, second], [], T + 6 * SECOND) == []
    one, two = bodies(store)
    assert (len(one["alerts"]), len(two["alerts"])) == (1, 2)  # type: ignore[arg-type]
    assert one["groupKey"] == two["groupKey"] == '{}:{cluster="clb-a", region="r"}'


def test_resolved_is_told_to_whom_it_was_told() -> None:
    store = Store(":memory:")
    notifier = Notifier([receiver(group_interval_s=0)], store, "u")
    assert notifier.step([alert("node_down", "ld-a1", ends=T + 1)], [], T + 2) == []
    notifier.step([alert("node_down", "ld-a1")], [], T)
    # A new analyzer on the same store knows what was said.
    again = Notifier([receiver(group_interval_s=0)], store, "u")
    assert again.step([alert("node_down", "ld-a1")], [], T + SECOND) == []
    assert len(again.step([alert("node_down", "ld-a1", ends=T + 2 * SECOND)], [], T + 3 * SECOND)) == 1
    assert again.step([alert("node_down", "ld-a1", ends=T + 2 * SECOND)], [], T + 9 * SECOND) == []
    assert [b["status"] for b in bodies(store)] == ["firing", "resolved"]


def test_a_firing_group_is_repeated_after_its_interval() -> None:
    store = Store(":memory:")
    notifier = Notifier([receiver(repeat_interval_s=60)], store, "u")
    notifier.step([alert("node_down", "x")], [], T)
    assert notifier.step([alert("node_down", "x")], [], T + 59 * SECOND) == []
    assert len(notifier.step([alert("node_down", "x")], [], T + 60 * SECOND)) == 1


def test_silences_hold_while_they_last() -> None:
    matcher = Matcher(label="subject", value="ld-.*", regex=True)
    silence = Silence(id="s", matchers=[matcher], starts_ns=T, ends_ns=T + 10, created_by="me", comment="work",
                      created_ns=T)  # fmt: skip
    assert silenced(alert("node_down", "ld-a1"), [silence], T + 5) == "silence s by me: work"
    assert silenced(alert("node_down", "host-1"), [silence], T + 5) is None
    assert silenced(alert("node_down", "ld-a1"), [silence], T + 10) is None
    store = Store(":memory:")
    notifier = Notifier([receiver()], store, "u")
    assert notifier.step([alert("node_down", "ld-a1")], [silence], T + 5) == []
    assert len(notifier.step([alert("node_down", "ld-a1")], [silence], T + 10)) == 1
    with pytest.raises(ValidationError, match="regular expression"):
        Matcher(label="a", value="(", regex=True)


@pytest.mark.parametrize("value", ["(a+)+$", "(a|a)*b", "(x?){30}y", ".*.*.*.*z", "(a|ab){9}", "a?a?a?a?aaaa"])
def test_patterns_that_could_take_for_ever_are_refused(value: str) -> None:
    with pytest.raises(ValidationError, match="none after a group"):
        Matcher(label="a", value=value, regex=True)
    assert Matcher(label="a", value=value).value == value  # as plain text it is harmless
    assert Matcher(label="subject", value="(ld|host)-[a-z]+[0-9]*", regex=True).matches(alert("node_down", "ld-a1"))


def test_the_payload_is_alertmanagers() -> None:
    firing, over = alert("node_down", "a"), alert("node_down", "b", ends=T + SECOND)
    body = alertmanager("ops", {"cluster": "clb-a"}, [firing, over], "http://x")
    assert body["version"] == "4"
    assert body["status"] == "firing"
    assert body["groupLabels"] == {"cluster": "clb-a"}
    assert "subject" not in body["commonLabels"]
    assert body["commonLabels"]["cluster"] == "clb-a"
    assert [a["status"] for a in body["alerts"]] == ["firing", "resolved"]
    assert [a["endsAt"] for a in body["alerts"]] == ["0001-01-01T00:00:00Z", rfc3339(T + SECOND)]
    assert rfc3339(T) == "2027-01-15T08:00:00.000Z"
    assert alertmanager("ops", {}, [over], "u")["status"] == "resolved"
    required = {"version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
                "commonAnnotations", "externalURL", "alerts"}  # fmt: skip
    assert set(body) == required


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


def outbox(*identities: str) -> tuple[Store, Outbox]:
    store = Store(":memory:")
    for identity in identities:
        assert store.enqueue(identity, "ops", "g", ["inc"], "{}", T)
    return store, Outbox(store)


def test_the_outbox_tries_again_with_growing_pauses_and_the_same_id() -> None:
    store, box = outbox("m1")
    now, pauses = T, []
    for status in (500, 0, 429, 503, 200):
        (delivery,) = box.due(now)
        assert delivery.id == "m1"
        assert box.due(now) == []  # under way
        box.done(delivery, status, "refused", now)
        if status != 200:
            (row,) = store.pending()
            pauses.append((row["next_ns"] - now) / SECOND)
            assert box.due(row["next_ns"] - 1) == []
            now = row["next_ns"]
    assert pauses == [1, 2, 4, 8]
    assert store.pending() == []
    assert store.deliveries("inc")[0]["attempts"] == 5


def test_a_group_hears_things_in_order() -> None:
    _, box = outbox("firing", "resolved")
    (first,) = box.due(T)
    assert first.id == "firing"
    box.done(first, 500, "", T)
    assert box.due(T) == []
    (first,) = box.due(T + SECOND)
    box.done(first, 200, "", T + SECOND)
    assert [d.id for d in box.due(T + SECOND)] == ["resolved"]


def test_an_outbox_survives_its_process_and_gives_up_after_a_day() -> None:
    store, box = outbox("m1")
    box.due(T)
    (again,) = Outbox(store).due(T)  # the first process died while sending: rather twice than never
    assert again.id == "m1"
    assert Outbox(store).done(again, 500, "", T + GIVE_UP_NS + 1) == "given_up"
    assert not store.enqueue("m1", "ops", "g", [], "{}", T)


def test_a_receiver_that_fails_for_a_while_gets_everything_once_it_answers() -> None:
    story = Story(fleet())
    story.run(40)
    down_until = story.model.now + 30 * SECOND
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
