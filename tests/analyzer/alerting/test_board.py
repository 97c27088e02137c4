"""The link in an alert leads to the incident's dashboard, at the incident's time."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from analyzer.alerting.board import board
from analyzer.incident import OPEN, Incident
from dashboards import build, links, sql

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
