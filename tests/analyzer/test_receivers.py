"""What each kind of receiver is sent, held to what is published of it, and the seam that all kinds are made by."""

from __future__ import annotations

import json
import re
import tomllib
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest

from analyzer.alerting.receivers import DEFAULT_KIND, KINDS, AnyReceiver
from analyzer.alerting.receivers.base import Mail, Post, Receiver
from analyzer.alerting.sign import headers
from analyzer.region import SECOND
from contract.documents import DocumentError, Strict, check
from tests.analyzer.desk import T, alert
from tests.analyzer.receivers import FIRING, MITIGATED, OVER, nasty, notice

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "alerts.md"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS = {
    "secret_file": WHSEC,
    "token_file": "t0ken",
    "password_file": "pa55word",
    "routing_key_file": "R" * 32,
    "api_key_file": "eb243592-faa2-4ba2-a551",
    "url_file": "https://hooks.example.net/services/T0/B0/XXXX",
}
STRING: dict[str, Any] = {"type": "string"}
LABELS = {"type": "object", "additionalProperties": STRING}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}


class Several(Strict):
    """A settings file's receivers."""

    receivers: list[AnyReceiver]


def example(kind: str) -> Receiver:
    """The receiver of a kind's own example."""
    (found,) = check(tomllib.loads(KINDS[kind].EXAMPLE), Several, "example").receivers
    return found


def posts(kind: str, *alerts: Any, **options: Any) -> list[Post]:
    receiver = example(kind)
    needed = {k: SECRETS[k] for k in receiver.secret_files()}
    found = list(receiver.render(notice(*alerts, **options), needed))
    out = [p for p in found if isinstance(p, Post)]
    assert len(out) == len(found)
    return out


def body(post: Post) -> Any:
    return json.loads(post.body)


# api/v2/openapi.yaml of prometheus/alertmanager (definitions postableAlerts, alert, labelSet), and what its handler
# checks beyond it: a label set that is not empty, names of labels, a start before the end.
ALERTMANAGER = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["labels"],
        "additionalProperties": False,
        "properties": {
            "labels": LABELS | {"minProperties": 1, "propertyNames": {"pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}},
            "annotations": LABELS,
            "startsAt": TIME,
            "endsAt": TIME,
            "generatorURL": {"type": "string", "format": "uri"},
        },
    },
}
# template.Data and webhook.Message of prometheus/alertmanager, as its documentation shows them.
WEBHOOK_V4 = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels",
        "commonAnnotations", "externalURL", "alerts",
    ],
    "properties": {
        "version": {"const": "4"},
        "groupKey": STRING,
        "truncatedAlerts": {"type": "integer", "minimum": 0},
        "status": {"enum": ["firing", "resolved"]},
        "receiver": STRING,
        "groupLabels": LABELS,
        "commonLabels": LABELS,
        "commonAnnotations": LABELS,
        "externalURL": STRING,
        "alerts": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint"],
                "properties": {
                    "status": {"enum": ["firing", "resolved"]},
                    "labels": LABELS,
                    "annotations": LABELS,
                    "startsAt": TIME,
                    "endsAt": TIME,
                    "generatorURL": STRING,
                    "fingerprint": STRING,
                },
            },
        },
    },
}  # fmt: skip
# reference/events-v2/openapiv3.json of PagerDuty/api-schema (POST /enqueue), with the lengths that its documentation
# gives: routing_key 32, dedup_key 255, summary 1024; an event of 512 KB at the most.
PAGERDUTY = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "acknowledge", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": STRING,
        "client_url": {"type": "string", "format": "uri"},
        "links": {
            "type": "array",
            "items": {"type": "object", "required": ["href"], "properties": {"href": STRING, "text": STRING}},
        },
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "maxLength": 1024, "pattern": r"^[^\r\n]+$"},
                "severity": {"enum": ["critical", "warning", "error", "info"]},
                "source": STRING,
                "timestamp": TIME,
                "component": STRING,
                "group": STRING,
                "class": STRING,
                "custom_details": {"type": "object"},
            },
        },
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}
# definitions/alert.yaml of opsgenie/opsgenie-oas (CreateAlertPayload), with the limits of its Alert API page.
OPSGENIE = {
    "type": "object",
    "required": ["message"],
    "additionalProperties": False,
    "properties": {
        "message": {"type": "string", "minLength": 1, "maxLength": 130},
        "alias": {"type": "string", "maxLength": 512},
        "description": {"type": "string", "maxLength": 15000},
        "entity": {"type": "string", "maxLength": 512},
        "source": {"type": "string", "maxLength": 100},
        "priority": {"enum": ["P1", "P2", "P3", "P4", "P5"]},
        "tags": {"type": "array", "maxItems": 20, "items": {"type": "string", "maxLength": 50}},
        "details": LABELS,
    },
}
# docs.slack.dev, reference/block-kit: header (plain_text, 150), section (text, 3000), 50 blocks a message.
SLACK = {
    "type": "object",
    "required": ["text", "blocks"],
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 40000},
        "blocks": {
            "type": "array",
            "maxItems": 50,
            "items": {
                "oneOf": [
                    {
                        "properties": {
                            "type": {"const": "header"},
                            "text": {
                                "required": ["type", "text"],
                                "properties": {
                                    "type": {"const": "plain_text"},
                                    "text": {"type": "string", "minLength": 1, "maxLength": 150},
                                },
                            },
                        },
                        "required": ["type", "text"],
                    },
                    {
                        "properties": {
                            "type": {"const": "section"},
                            "text": {
                                "required": ["type", "text"],
                                "properties": {
                                    "type": {"const": "mrkdwn"},
                                    "text": {"type": "string", "minLength": 1, "maxLength": 3000},
                                },
                            },
                        },
                        "required": ["type", "text"],
                    },
                ]
            },
        },
    },
}
# adaptivecards.io/schemas/adaptive-card.json, version 1.4: the parts in use; learn.microsoft.com for the message.
_RUN = {
    "type": "object",
    "required": ["type", "text"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "TextRun"},
        "text": STRING,
        "size": {"enum": ["default", "small", "medium", "large", "extraLarge"]},
        "weight": {"enum": ["default", "lighter", "bolder"]},
        "color": {"enum": ["default", "dark", "light", "accent", "good", "warning", "attention"]},
    },
}
TEAMS = {
    "type": "object",
    "required": ["type", "attachments"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "message"},
        "attachments": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["contentType", "content"],
                "properties": {
                    "contentType": {"const": "application/vnd.microsoft.card.adaptive"},
                    "contentUrl": {"type": "null"},
                    "content": {
                        "type": "object",
                        "required": ["type", "version", "body"],
                        "properties": {
                            "type": {"const": "AdaptiveCard"},
                            "version": {"enum": ["1.0", "1.1", "1.2", "1.3", "1.4"]},
                            "body": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["type", "inlines"],
                                    "properties": {
                                        "type": {"const": "RichTextBlock"},
                                        "inlines": {"type": "array", "items": _RUN},
                                    },
                                },
                            },
                            "actions": {
                                "type": "array",
                                "maxItems": 6,
                                "items": {
                                    "type": "object",
                                    "required": ["type", "url"],
                                    "properties": {"type": {"const": "Action.OpenUrl"}, "url": {"format": "uri"}},
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
# github.com/standard-webhooks: spec/standard-webhooks.md, "payload structure".
STANDARD = {
    "type": "object",
    "required": ["type", "timestamp", "data"],
    "additionalProperties": False,
    "properties": {
        "type": {"type": "string", "pattern": r"^[a-zA-Z0-9_]+(\.[a-zA-Z0-9_]+)*$"},
        "timestamp": TIME,
        "data": {"type": "object"},
    },
}
# How many bytes each takes at the most, where that is known.
LIMITS = {"teams": 28_000, "pagerduty": 512_000, "slack": 40_000}


SCHEMAS: dict[str, dict[str, Any]] = {
    "alertmanager": ALERTMANAGER,
    "alertmanager-webhook": WEBHOOK_V4,
    "pagerduty": PAGERDUTY,
    "opsgenie": OPSGENIE,
    "slack": SLACK,
    "teams": TEAMS,
    "webhook": STANDARD,
}


def _schema_of(kind: str, post: Post) -> dict[str, Any]:
    if kind == "opsgenie" and not post.url.endswith("/v2/alerts"):
        return {"type": "object", "properties": {"priority": {"enum": ["P1", "P3", "P5"]}, "source": STRING}}
    return SCHEMAS[kind]


HTTP_KINDS = [k for k in KINDS if k != "email"]


@pytest.mark.parametrize("kind", HTTP_KINDS)
@pytest.mark.parametrize(
    "alerts",
    [(FIRING,), (OVER,), (MITIGATED,), (FIRING, MITIGATED, OVER), (nasty(),), tuple([nasty()] * 30)],
    ids=["firing", "over", "mitigated", "all", "nasty", "many"],
)
def test_what_is_sent_keeps_to_the_published_schema(kind: str, alerts: tuple[Any, ...]) -> None:
    found = posts(kind, *alerts, more=7)
    assert found
    for post in found:
        jsonschema_rs.validate(_schema_of(kind, post), body(post), validate_formats=True)
        assert len(post.body) <= LIMITS.get(kind, 1 << 24)
        assert post.headers["content-type"] == "application/json"


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_render_is_pure(kind: str) -> None:
    receiver = example(kind)
    needed = {k: SECRETS[k] for k in receiver.secret_files()}

    def shown() -> list[str]:
        return [
            repr((m.url, m.body, dict(m.headers), m.method)) if isinstance(m, Post) else m.message.as_string()
            for m in receiver.render(notice(), needed)
        ]

    assert shown() == shown()


@pytest.mark.parametrize("kind", list(KINDS))
def test_no_secret_is_in_a_repr(kind: str) -> None:
    receiver = example(kind)
    needed = {k: SECRETS[k] for k in receiver.secret_files()}
    shown = repr(receiver) + str(receiver) + receiver.target
    shown += "".join(repr(m) for m in receiver.render(notice(), needed))
    assert not [s for s in needed.values() if s in shown]


# The seam: what somebody who adds a kind may forget.


def test_every_kind_is_complete() -> None:
    """A kind has a file by its name, an example that is understood, docs, and a schema or a test of its own here."""
    text = DOCS.read_text()
    tests = Path(__file__).read_text()
    for kind, cls in KINDS.items():
        assert cls.__module__.rpartition(".")[2] == kind.replace("-", "_")
        assert get_args(cls.model_fields["kind"].annotation) == (kind,)
        assert example(kind).kind == kind
        assert cls.__doc__
        assert f"### `{kind}`" in text, f"docs/alerts.md says nothing of {kind}"
        assert cls.EXAMPLE in text, f"docs/alerts.md: the example of {kind} is not that of its class"
        assert f'"{kind}"' in tests, f"no test here names {kind}"
        fields = set(cls.model_fields) - set(Receiver.model_fields)
        said = text[text.index(f"### `{kind}`") :].partition("\n### ")[0]
        missing = [f for f in fields if (cls.model_fields[f].alias or f) not in said]
        assert not missing, f"docs/alerts.md: {kind} has {missing} too"
    assert not set(re.findall(r"^### `([a-z-]+)`$", text, re.M)) - set(KINDS)


def test_the_general_settings_of_receivers_are_documented() -> None:
    text = DOCS.read_text()
    assert not [f for f in Receiver.model_fields if f"`{f}`" not in text]


def test_settings_without_a_kind_are_alertmanagers_webhook_as_ever() -> None:
    old = {"receivers": [{"name": "ops", "url": "http://127.0.0.1:9/x", "secret": WHSEC}]}
    (found,) = check(old, Several, "x").receivers
    assert (found.kind, found.secrets()) == (DEFAULT_KIND, {"secret_file": WHSEC})
    assert WHSEC not in repr(found)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"kind": "pigeon"}, "kind: expected one of alertmanager, alertmanager-webhook, email"),
        ({"kind": "slack", "url": "https://hooks.slack.com/services/T0/B0/s3cret"}, "url_file"),
        ({"kind": "email", "host": "mail.example.net", "tls": "none", "from": "a@b", "to": ["c@d"]}, "tls: expected"),
        ({"kind": "email", "host": "h", "from": "a@b\r\nBcc: x@y", "to": ["c@d"]}, "from"),
        ({"kind": "webhook", "url": "https://me:s3cret@example.net/ x", "secret": WHSEC}, "secret_file"),
        ({"kind": "alertmanager", "url": "http://x", "user": "u"}, "user and password_file together"),
        ({"url": "http://x", "token_file": "/t", "user": "u", "password_file": "/p"}, "not both"),
        ({"url": "http://x", "secret": "whsec_no"}, "expected"),
    ],
)
def test_wrong_settings_are_named_and_show_no_secret(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(DocumentError) as raised:
        check({"receivers": [{"name": "ops", **table}]}, Several, "settings")
    assert expected in str(raised.value)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "b\x00d"])
def test_a_secret_file_that_holds_no_secret_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    receiver = KINDS["pagerduty"].model_validate({"name": "p", "routing_key_file": path})
    with pytest.raises(ValueError, match=r"routing_key_file: .*key: expected one line"):
        receiver.secrets()
    path.unlink()
    with pytest.raises(OSError, match="key"):
        receiver.secrets()


def test_a_url_file_holds_a_url_or_is_named_without_it(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("hooks.slack.com/services/s3cret")
    for kind in ("slack", "teams"):
        receiver = KINDS[kind].model_validate({"name": "p", "url_file": path})
        with pytest.raises(ValueError, match="expected a URL") as raised:
            receiver.secrets()
        assert "s3cret" not in str(raised.value)


# Each kind by itself


def test_alertmanagers_webhook_is_that_of_version_4() -> None:
    (post,) = posts("alertmanager-webhook", FIRING, OVER)
    found = body(post)
    assert (found["status"], found["groupLabels"]) == ("firing", {"region": "r", "cluster": "clb-a"})
    assert "subject" not in found["commonLabels"]
    assert found["commonLabels"]["cluster"] == "clb-a"
    assert [a["status"] for a in found["alerts"]] == ["firing", "resolved"]
    assert [a["endsAt"] for a in found["alerts"]] == ["0001-01-01T00:00:00Z", "2027-01-15T08:00:00.000Z"]
    assert body(posts("alertmanager-webhook", OVER)[0])["status"] == "resolved"
    expected = headers(WHSEC, "msg_1", T // SECOND + 1, post.body)["webhook-signature"]
    assert post.headers["webhook-signature"] == expected
    assert post.headers["authorization"] == "Bearer t0ken"


def test_alertmanagers_api_is_given_an_end_ahead_of_what_fires() -> None:
    (post,) = posts("alertmanager", FIRING, MITIGATED, OVER)
    assert post.url == "https://alertmanager-1.example.net:9093/api/v2/alerts"
    firing, still, gone = body(post)
    assert firing["endsAt"] == still["endsAt"] == "2027-01-15T08:04:01.000Z"  # 4 * 60 s after the notice
    assert gone["endsAt"] > gone["startsAt"]
    assert gone["endsAt"] < "2027-01-15T08:00:01.000Z"


def test_pagerduty_gets_one_event_for_each_alert_that_is_news() -> None:
    found = [body(p) for p in posts("pagerduty", FIRING, MITIGATED, OVER)]
    assert [e["event_action"] for e in found] == ["trigger", "trigger", "resolve"]
    assert [e.get("payload", {}).get("severity") for e in found] == ["critical", "warning", None]
    assert found[0]["dedup_key"] == "tgw/r/node_down-ld-a1"
    assert len(posts("pagerduty", FIRING, MITIGATED, fresh=frozenset({MITIGATED.fingerprint}))) == 1
    assert body(posts("pagerduty", FIRING)[0])["dedup_key"] == found[0]["dedup_key"]


def test_opsgenie_alerts_are_opened_and_closed_by_their_alias() -> None:
    found = posts("opsgenie", FIRING, MITIGATED, OVER)
    paths = [(p.method, p.url.removeprefix("https://api.eu.opsgenie.com/v2/alerts")) for p in found]
    assert paths == [
        ("POST", ""),
        ("PUT", "/tgw%2Fr%2Fnode_down-ld-a1/priority?identifierType=alias"),
        ("POST", ""),
        ("PUT", "/tgw%2Fr%2Fnode_down-ld-a2/priority?identifierType=alias"),
        ("POST", "/tgw%2Fr%2Fnode_down-ld-a2/notes?identifierType=alias"),
        ("POST", "/tgw%2Fr%2Fcluster_down-clb-a/close?identifierType=alias"),
    ]
    assert [body(p).get("priority") for p in found] == ["P1", "P1", "P3", "P3", None, None]
    assert {p.headers["authorization"] for p in found} == {f"GenieKey {SECRETS['api_key_file']}"}


def test_slack_shows_words_as_they_are() -> None:
    (post,) = posts("slack", FIRING, nasty())
    assert post.url == SECRETS["url_file"]
    texts = [b["text"]["text"] for b in body(post)["blocks"]]
    assert texts[0] == "[2 FIRING] clb-a r"
    assert "&lt;b&gt; &amp; *c*" in texts[2]
    assert "<b>" not in texts[2]
    assert body(posts("slack", *[FIRING] * 12, more=3)[0])["blocks"][-1]["text"]["text"] == "and 5 more"


def test_teams_shows_words_as_they_are() -> None:
    (post,) = posts("teams", MITIGATED, nasty())
    runs = [r for e in body(post)["attachments"][0]["content"]["body"] for r in e["inlines"]]
    assert runs[1] == {"type": "TextRun", "text": "mitigated, warning: TgwNodeDown ld-a2", "weight": "bolder",
                       "color": "warning"}  # fmt: skip
    assert runs[4]["text"].startswith("a <b> & *c* _d_ [e](f) `g`")


def test_a_plain_webhook_is_signed_as_standard_webhooks_says() -> None:
    (post,) = posts("webhook", FIRING, OVER, fresh=frozenset({OVER.fingerprint}))
    signed = headers(WHSEC, "msg_1", T // SECOND + 1, post.body)
    assert {k: post.headers[k] for k in signed} == signed
    found = body(post)
    assert found["type"] == "tgw.alerts.firing"
    assert [(a["state"], a["news"]) for a in found["data"]["alerts"]] == [("firing", False), ("resolved", True)]
    assert body(posts("webhook", FIRING, test=True)[0])["type"] == "tgw.alerts.test"


def mail(*alerts: Any, **options: Any) -> Any:
    (found,) = example("email").render(notice(*alerts, **options), {"password_file": "x"})
    assert isinstance(found, Mail)
    return message_from_bytes(found.message.as_bytes(), policy=policy.default)


def test_a_mail_says_what_is_wrong_and_its_texts_stay_in_its_body() -> None:
    found = mail(FIRING)
    assert found["Subject"] == "[FIRING] TgwNodeDown ld-a1 (clb-a r)"
    assert (found["From"], found["To"]) == ("tgw@example.net", "ops@example.net")
    assert found["Auto-Submitted"] == "auto-generated"
    assert "ld-a1 is in trouble" in found.get_content()
    assert found["Message-ID"] != mail(FIRING, id="msg_2")["Message-ID"]
    assert found["References"] == mail(OVER)["References"]  # one thread
    evil = mail(nasty())
    assert evil["Bcc"] is None
    assert len(evil["Subject"]) <= 200
    name = alert("node_down", "x\r\nBcc: x@example.net")
    assert mail(name)["Bcc"] is None


def test_no_list_names_the_kinds() -> None:
    """Adding one takes its file, its docs and its test: what is in the package is found."""
    source = (ROOT / "analyzer/alerting/receivers/__init__.py").read_text()
    assert [k for k in KINDS if f'"{k}"' in source] == [DEFAULT_KIND]
