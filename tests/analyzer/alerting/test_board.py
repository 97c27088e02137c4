"""The link in an alert leads to the incident's dashboard, at the incident's time."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from analyzer.alerting import alert
from analyzer.alerting.board import board
from analyzer.alerting.receivers.alertmanager_webhook import body
from analyzer.incident import Incident
from contract.incidents import OPEN
from dashboards import build, links, sql
from tests.analyzer.receivers import notice

SECOND = 1_000_000_000
OPENED = 1_700_000_000 * SECOND


def incident(closed_ns: int, identity: str = "inc-1700000000000-deadbeef") -> Incident:
    return Incident(
        id=identity, fingerprint="f", family="jitter", kind="jitter", subject="ld-a1", subject_type="node",
        severity="critical", region="r", az="", cluster="", named_nodes=["ld-a1"], vips=[], probers=[], seen_by_vips=[],
        summary="", state=OPEN, first_seen_ns=OPENED, opened_ns=OPENED, updated_ns=OPENED, last_seen_ns=OPENED,
        closed_ns=closed_ns,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("closed_ns", "until"), [(0, "now"), (OPENED + 90 * SECOND, str(1_700_000_090_000 + sql.AROUND_S * 1000))]
)
def test_it_is_the_link_that_the_dashboards_have(closed_ns: int, until: str) -> None:
    parts = urlsplit(board("https://grafana.example/g/", incident(closed_ns)))
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "grafana.example", f"/g/d/{links.INCIDENT}")
    ours = urlsplit(links.OF_INCIDENT)
    assert parts.path.endswith(ours.path)
    assert set(parse_qs(parts.query)) == set(parse_qs(ours.query))
    assert parse_qs(parts.query) == {
        "var-incident": ["inc-1700000000000-deadbeef"],
        "from": [str(1_700_000_000_000 - sql.AROUND_S * 1000)],
        "to": [until],
    }
    assert links.INCIDENT in build.documents()


def test_nothing_in_an_id_gets_out_of_its_place() -> None:
    hostile = "x&to=0#'\"/../"
    assert parse_qs(urlsplit(board("http://g", incident(0, hostile))).query)["var-incident"] == [hostile]


def test_every_link_in_a_notification_leads_there_when_there_is_a_grafana() -> None:
    found = incident(0)
    grafana = "https://grafana.example"
    told = body(notice(alert.of(found, "http://analyzer.example", grafana)))["alerts"][0]
    assert told["generatorURL"] == told["annotations"]["dashboard"] == board(grafana, found)
    told = body(notice(alert.of(found, "http://analyzer.example")))["alerts"][0]
    assert "dashboard" not in told["annotations"]
    assert told["generatorURL"] == f"http://analyzer.example.net/v1/incidents/{found.id}"
