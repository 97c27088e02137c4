"""What the dashboards show of the story is what happened, and what is not known looks like nothing else."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from dashboards import build
from dashboards.nodes import CODES, DOWN, DROPPING, IDLE, PASSING, QUIET, UNSEEN
from dashboards.panels import BAD, CALM, GOOD, MIGRATIONS, NEUTRAL, ODD, OTHER, OUTCOMES, STATES, WARN
from dashboards.source import Range
from tests.dashboards import story
from tests.dashboards.conftest import Seeded
from tests.dashboards.frames import Frame, Line, ask, by_name, lines, mapped, urls

DOCUMENTS = build.documents()
FLEET, INCIDENT, PROBE = "tgw-fleet", "tgw-incident", "tgw-probe"


def panel(uid: str, title: str) -> dict[str, Any]:
    return next(p for p in DOCUMENTS[uid]["panels"] if p["title"] == title)


def until(seeded: Seeded, ago: float, length: float = story.BEGAN, interval_s: int = 10) -> Range:
    """A range that ended that many seconds before now."""
    end = seeded.now_ns // 1_000_000 - int(ago * 1000)
    return Range(from_ms=end - int(length * 1000), to_ms=end, interval_s=interval_s)


def show(seeded: Seeded, uid: str, title: str, span: Range | None = None, **variables: Any) -> Frame:
    sql = panel(uid, title)["targets"][0]["rawSql"]
    given = {"incident": story.INCIDENT, "probe": story.number(1, 100), **variables}
    return ask(seeded.reader, sql, span or until(seeded, 0), **given)


def drawn(seeded: Seeded, uid: str, title: str, span: Range | None = None, **variables: Any) -> dict[str, Line]:
    shown = lines(panel(uid, title), show(seeded, uid, title, span, **variables))
    assert len({line.name for line in shown}) == len(shown)
    return {line.name: line for line in shown}


def tile(seeded: Seeded, uid: str, title: str, span: Range | None = None, **variables: Any) -> tuple[Any, str | None]:
    """(value, colour) of a number."""
    ((value,),) = show(seeded, uid, title, span, **variables).rows
    return value, mapped(panel(uid, title), value)[1]


def ago(seeded: Seeded, at: datetime) -> float:
    return seeded.now_ns / 1e9 - at.replace(tzinfo=UTC).timestamp()


def test_a_gap_is_a_gap(seeded: Seeded) -> None:
    """Where nothing was collected, every chart breaks: there is a step, and it is empty."""
    for uid, title in (
        (FLEET, "Probes by outcome"),
        (FLEET, "Probes not answered, by home cluster"),
        (FLEET, "Round trip"),
        (FLEET, "What nodes do"),
        (INCIDENT, "Probes of its VIPs, by outcome"),
        (INCIDENT, "Coloured packets through its nodes"),
    ):
        for line in drawn(seeded, uid, title).values():
            inside = [v for at, v in line.points.items() if story.HOLE[1] + 10 <= ago(seeded, at) < story.HOLE[0] - 10]
            assert len(inside) >= 3, title
            assert set(inside) == {None}, (title, line.name)
        assert panel(uid, title)["fieldConfig"]["defaults"]["custom"].get("spanNulls", False) is False


def test_steps_are_whole_and_evenly_spaced(seeded: Seeded) -> None:
    for interval in (5, 10, 60):
        for line in drawn(seeded, FLEET, "Probes by outcome", until(seeded, 0, interval_s=interval)).values():
            times = [at.timestamp() for at in line.points]
            assert {b - a for a, b in pairwise(times)} == {interval}
            # The last one ended before what is still under way.
            newest = seeded.now_ns / 1e9 - (max(times) + interval)
            assert newest >= 0


def test_a_rate_does_not_change_with_the_zoom(seeded: Seeded) -> None:
    """Three VIPs, a probe to each every 5 s."""
    for interval in (10, 30, 60):
        span = until(seeded, story.DIED + 5, 150, interval)  # all answered
        line = drawn(seeded, FLEET, "Probes by outcome", span)["answered"]
        assert line.values() == pytest.approx([0.6] * len(line.points), abs=0.35 if interval == 10 else 0.15)
    assert panel(FLEET, "Probes by outcome")["fieldConfig"]["defaults"]["unit"] == "suffix:/s"


def test_silent_probes_are_there_in_their_own_colour(seeded: Seeded) -> None:
    line = drawn(seeded, FLEET, "Probes by outcome")["silent"]
    when = [ago(seeded, at) for at, value in line.points.items() if value]
    assert story.DIED + 10 >= max(when) > min(when) >= story.MOVED - 10
    for uid, title in ((FLEET, "Probes by outcome"), (INCIDENT, "Probes of its VIPs, by outcome")):
        rules = by_name(panel(uid, title))
        assert {name: rule["color"]["fixedColor"] for name, rule in rules.items()} == OUTCOMES


def test_single_drops_are_single(seeded: Seeded) -> None:
    """Four drops in eight minutes are four bars, neither a plateau nor a ramp."""
    for uid, title in ((FLEET, "Drop Points by node and reason"), (INCIDENT, "Drop Points in the region")):
        line = drawn(seeded, uid, title)["ld-b1 NO_ROUTE"]
        found = [(ago(seeded, at), value) for at, value in line.points.items() if value is not None]
        assert [value for _, value in found] == [0.1] * 4
        for (when, _), dropped in zip(found, story.DROPS, strict=True):
            assert when - 10 <= dropped <= when
        assert len(line.points) > 80
        custom = panel(uid, title)["fieldConfig"]["defaults"]["custom"]
        assert (custom["drawStyle"], custom["stacking"]["mode"]) == ("bars", "normal")


def test_what_nodes_do(seeded: Seeded) -> None:
    shown = drawn(seeded, FLEET, "What nodes do")
    at_the_end = {name: line.values()[-1] for name, line in shown.items()}
    assert at_the_end == {
        "eip-1": PASSING, "host-1": PASSING, "ld-a1": DOWN, "ld-a2": PASSING, "ld-b1": PASSING, "ld-x1": IDLE,
    }  # fmt: skip
    dying = shown["ld-a1"].points.items()
    for first, last, state in (
        (story.BEGAN - 10, story.HOLE[0] + 10, PASSING),
        (story.HOLE[1] - 10, story.DIED + 10, PASSING),
        (story.DIED - 10, 0, DOWN),  # also when its tap has been given up
    ):
        assert {value for at, value in dying if last + 10 < ago(seeded, at) < first} == {state}, state
    # A step of which the collector saw a moment alone, beside the hole, may have passed nothing.
    assert {DROPPING, PASSING, None} == set(shown["ld-b1"].values()) - {QUIET}
    assert set(shown["ld-x1"].values()) == {IDLE, None}
    # In a range that begins when nobody looks at it any more, that is all that is known.
    late = drawn(seeded, FLEET, "What nodes do", until(seeded, 0, story.RETIRED - 20))
    assert set(late["ld-a1"].values()) == {UNSEEN}


def test_a_node_whose_traffic_has_gone_is_quiet_and_one_that_never_had_any_idle(seeded: Seeded) -> None:
    """ld-a1 between its last packet and the moment when the collector found that it does not beat."""
    span = until(seeded, story.DIED - story.NOTICED - 6, 120, 5)
    values = [v for v in drawn(seeded, FLEET, "What nodes do", span)["ld-a1"].values() if v is not None]
    assert [state for i, state in enumerate(values) if i == 0 or values[i - 1] != state] in (
        [PASSING, QUIET, DOWN],
        [PASSING, QUIET],
    )
    assert len({colour for _, colour in CODES.values()}) == len({word for word, _ in CODES.values()}) == len(CODES)


def test_who_leaves_its_median_stands_out(seeded: Seeded) -> None:
    span = until(seeded, 0, interval_s=60)
    shown = drawn(seeded, FLEET, "Coloured packets against the node's own median", span)
    assert "ld-x1" not in shown
    line = shown["ld-a1"]
    # The collector looks at it for a while yet, so nothing passed is zero; then nothing is known.
    during = {v for at, v in line.points.items() if story.RETIRED + 60 <= ago(seeded, at) <= story.DIED}
    after = {v for at, v in line.points.items() if ago(seeded, at) < story.RETIRED}
    before = {v for at, v in line.points.items() if story.HOLE[0] + 60 < ago(seeded, at) < story.BEGAN - 60}
    assert (before, during, after) == ({1.0}, {0.0}, {None})


@pytest.mark.parametrize(
    ("title", "value", "colour"),
    [
        ("Open incidents", 1, BAD),
        ("Nodes alive", "5 of 6", WARN),
        ("Taps alive", "6 of 7", WARN),
        ("Records lost", 3, WARN),
    ],
)
def test_the_tiles_at_the_end(seeded: Seeded, title: str, value: object, colour: str) -> None:
    assert tile(seeded, FLEET, title) == (value, colour)


@pytest.mark.parametrize(
    ("title", "value", "colour"),
    [
        ("Open incidents", 0, GOOD),
        ("Nodes alive", "6 of 6", GOOD),
        ("Taps alive", "7 of 7", GOOD),
        ("Records lost", 0, GOOD),
        ("Probes answered", 1.0, GOOD),
    ],
)
def test_the_tiles_are_of_the_same_minute_as_the_rest(seeded: Seeded, title: str, value: object, colour: str) -> None:
    """Of a range that ended before the fault, they say that all was well."""
    assert tile(seeded, FLEET, title, until(seeded, 300, 90)) == (value, colour)


def test_they_all_say_nothing_of_a_minute_of_which_nothing_is_known(empty: Seeded, seeded: Seeded) -> None:
    inside = until(seeded, story.HOLE[1] + 1, 300)
    for title in ("Probes answered", "Records lost", "Nodes alive", "Open incidents", "Taps alive"):
        # The hole is shorter than the minute and what is before it: so a store that begins later is asked, too.
        assert tile(empty, FLEET, title) == (None, NEUTRAL), title
    value, _ = tile(seeded, FLEET, "Newest record", inside)
    assert value == pytest.approx(story.HOLE[0] - story.HOLE[1] - 1, abs=6)
    assert tile(empty, FLEET, "Newest record") == (None, NEUTRAL)


def test_the_newest_record_says_how_old_it_is(seeded: Seeded) -> None:
    value, _ = tile(seeded, FLEET, "Newest record")
    assert 0 <= value <= 10


def test_the_incidents_say_what_a_person_asks(seeded: Seeded) -> None:
    frame = show(seeded, FLEET, "Incidents", until(seeded, 0, story.OLD + 60))
    first, second = frame.records()
    assert (first["id"], first["state"], first["ended"]) == (story.INCIDENT, "mitigated", "still open")
    assert first["hits"] == "1 VIP: vip-01"
    assert first["done"].startswith("clb-a: failed, rail max_concurrent_migrations")
    assert first["summary"] == story.SUMMARY
    assert (second["id"], second["state"], second["done"]) == (story.CLOSED, "closed", "nothing yet")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", second["ended"])
    # A link to an incident shows its time, however old it is.
    opened = seeded.now_ns // 1_000_000 - story.OLD * 1000
    assert (int(second["from_ms"]), int(second["to_ms"])) == (opened - 600_000, opened + 90_000 + 600_000)
    assert first["to_ms"] == "now"
    assert int(first["from_ms"]) == seeded.now_ns // 1_000_000 - (story.DIED - 10 + 600) * 1000


def test_of_an_old_incident_its_dashboard_shows_the_old_time(seeded: Seeded) -> None:
    row = show(seeded, INCIDENT, "Incident", incident=story.CLOSED).records()[0]
    assert int(row["from_ms"]) < int(row["to_ms"]) < seeded.now_ns // 1_000_000 - 86_400_000
    assert [e["text"] for e in show(seeded, INCIDENT, "Timeline", incident=story.CLOSED).records()] == ["it drops"]
    assert any(
        "var-incident=${__data.fields.id}&from=${__data.fields.from_ms}&to=${__data.fields.to_ms}" in url
        for url in urls(panel(INCIDENT, "Incident"))
    )


def test_a_failed_migration_says_so(seeded: Seeded) -> None:
    (row,) = show(seeded, INCIDENT, "Actions").records()
    rule = by_name(panel(INCIDENT, "Actions"))["state"]
    assert mapped(panel(INCIDENT, "Actions"), row["state"], rule["mappings"]) == ("FAILED", BAD)
    assert row["detail"] == story.RAIL


def test_every_state_of_an_incident_and_of_a_migration_has_a_word_and_a_colour_of_its_own() -> None:
    from gateway.control.models import Migration

    assert len(set(STATES.values())) == len(STATES)
    assert STATES["mitigated"] == OTHER
    known = set(re.findall(r"'(\w+)'", str(Migration.model_fields["state"].annotation)))
    assert known
    assert known <= set(MIGRATIONS) | {"dry_run"}
    assert MIGRATIONS["failed"] != MIGRATIONS["done"]


def test_which_vips_are_hit_and_where_they_live(seeded: Seeded) -> None:
    (row,) = show(seeded, FLEET, "VIPs with the most probes not answered").records()
    assert (row["vip"], row["cluster"], row["failed"]) == ("vip-01", "clb-a", (story.DIED - story.MOVED) // 5)
    assert 0 < row["share"] < 1
    (row,) = show(seeded, INCIDENT, "Its VIPs").records()
    assert (row["vip"], row["cluster"]) == ("vip-01", "clb-a")


@pytest.mark.parametrize(
    ("chosen", "nodes", "answered"),
    [
        ({"node": "ld-a1"}, {"ld-a1"}, None),
        ({"node": ["ld-a1", "ld-b1"]}, {"ld-a1", "ld-b1"}, None),
        ({"cluster": "clb-b"}, {"ld-b1"}, 1.0),
        ({"az": "az-b"}, {"ld-b1", "ld-x1"}, 1.0),
        ({"role": "clb", "az": "az-a"}, {"ld-a1", "ld-a2"}, None),
        ({"vip": "vip-02"}, set(story.NODES), 1.0),
        ({"node": "nobody"}, set(), None),
    ],
)
def test_the_variables_choose(seeded: Seeded, chosen: dict[str, Any], nodes: set[str], answered: float | None) -> None:
    assert set(drawn(seeded, FLEET, "What nodes do", **chosen)) == nodes
    if answered is not None:
        assert tile(seeded, FLEET, "Probes answered", until(seeded, 60), **chosen)[0] == answered


def test_without_a_probe_the_probe_dashboard_says_so(seeded: Seeded) -> None:
    """0 is the number of all Drop Points of clients' packets; their hops are nobody's journey."""
    for number in ("0", "", "nonsense", "99999999999999999999999999"):
        for title in ("Journey", "What the prober saw"):
            assert show(seeded, PROBE, title, probe=number).rows == [], (title, number)
        for title in ("What became of it", "Hops passed", "Drop Points", "Time inside nodes"):
            assert tile(seeded, PROBE, title, probe=number) == (None, NEUTRAL), (title, number)
        assert panel(PROBE, "What became of it")["fieldConfig"]["defaults"]["noValue"].startswith("pick a probe")


def test_the_picker_begins_with_nothing_and_goes_on_with_the_newest_failure(seeded: Seeded) -> None:
    (variable,) = [v for v in DOCUMENTS[PROBE]["templating"]["list"] if v["name"] == "probe"]
    assert variable["current"]["value"] == "0"
    offered = ask(seeded.reader, variable["query"], until(seeded, 0)).rows
    assert offered[0] == ("0", "pick a probe")
    newest = story.number(1, story.MOVED + 5)
    failed = (story.DIED - story.MOVED) // 5
    assert offered[1][0] == str(newest)
    assert re.fullmatch(rf"silent \d\d:\d\d:\d\d prober-1 to vip-01 \({newest}\)", offered[1][1])
    assert [what.split()[0] for _, what in offered[1:]] == ["silent"] * failed + ["answered"] * (
        len(offered) - failed - 1
    )


@pytest.mark.parametrize(
    ("probe", "verdict", "colour"),
    [
        (story.number(2, 100), "answered in 2 ms", GOOD),
        (story.number(1, 100), "silent: last seen at eip-1, eip_in", BAD),
        (12345, "no record of this probe is in the warehouse", NEUTRAL),
    ],
)
def test_what_became_of_a_probe(seeded: Seeded, probe: int, verdict: str, colour: str) -> None:
    assert tile(seeded, PROBE, "What became of it", probe=probe) == (verdict, colour)


def test_the_journey_reads_in_order(seeded: Seeded) -> None:
    passed = show(seeded, PROBE, "Journey", probe=story.number(2, 100)).records()
    assert [(row["hop"], row["what"]) for row in passed] == [(hop, "passed") for hop, _ in story.HOPS]
    assert [row["node"] for row in passed] == ["eip-1", "ld-a2", "host-1", "host-1", "ld-a2", "eip-1"]
    assert (passed[0]["tunnel_from"], passed[0]["tunnel_to"]) == ("10.3.0.1", "10.3.0.2")
    assert passed[0]["real_server"] == "rs-1"
    assert [row["offset"] for row in passed] == pytest.approx([i * 1e-4 for i in range(1, 7)])


def tables() -> list[Any]:
    return [
        pytest.param(p, id=f"{uid}: {p['title']}")
        for uid, document in DOCUMENTS.items()
        for p in document["panels"]
        if p["type"] == "table"
    ]


@pytest.mark.parametrize("table", tables())
def test_what_matters_is_not_cut_off(seeded: Seeded, table: dict[str, Any]) -> None:
    """Sentences wrap; a probe's number is a text, in a column that is wide enough for 20 digits."""
    frame = ask(
        seeded.reader,
        table["targets"][0]["rawSql"],
        until(seeded, 0),
        incident=story.INCIDENT,
        probe=story.number(2, 50),
    )
    rules = by_name(table)
    fixed = 0
    for name, type_ in frame.columns:
        rule = rules.get(name, {})
        if rule.get("custom.hidden"):
            continue
        longest = max((len(str(v)) for v in frame.column(name)), default=0)
        if "String" in type_ and longest > 30:
            assert rule["custom.cellOptions"]["wrapText"] is True, name
        fixed += rule.get("custom.width", 90)
        if any(value in (None, "") for value in frame.column(name)):
            assert rule["noValue"] == "-", f"the panel's words for no rows would stand in an empty cell of {name}"
        if name == "probe":
            assert type_ == "String"
            assert rule["unit"] == "string"
            assert rule["custom.width"] >= 20 * 9 + 20
    assert fixed <= table["gridPos"]["w"] / 24 * 1600, "the columns fit into a screen of 1,600 pixels"


def test_no_colour_is_outside_the_palette() -> None:
    """Okabe and Ito's, and grey: for people with any kind of colour vision; Grafana's green and red are not."""
    text = json.dumps(DOCUMENTS)
    palette = {GOOD, WARN, BAD, CALM, NEUTRAL, ODD, OTHER}
    assert set(re.findall(r"#[0-9A-Fa-f]{6}", text)) <= palette
    assert set(re.findall(r'"(?:color|fixedColor|iconColor)": "([^"]*)"', text)) <= palette


def test_the_worst_come_first() -> None:
    for document in DOCUMENTS.values():
        for p in document["panels"]:
            if p["type"] == "timeseries":
                low = p["title"] == "Coloured packets against the node's own median"
                assert p["options"]["tooltip"]["sort"] == ("asc" if low else "desc")
                legend = p["options"]["legend"]
                assert (legend["sortBy"], legend["sortDesc"]) == (("Min", False) if low else ("Max", True))
                assert p["interval"] in ("5s", "1m")  # a probe is sent every 5 s: in less, a gap would be an accident


def test_there_is_a_way_to_everything_and_back() -> None:
    for document in DOCUMENTS.values():
        kinds = {(link["type"], *link["tags"]) for link in document["links"]}
        assert ("dashboards", "tgw") in kinds
    found = {
        uid: [u for p in document["panels"] if p["type"] != "row" for u in urls(p)]
        for uid, document in DOCUMENTS.items()
    }
    for what, where in {
        "var-node=": (FLEET, INCIDENT, PROBE),
        "var-cluster=": (FLEET, INCIDENT, PROBE),
        "var-vip=": (FLEET, INCIDENT, PROBE),
        "var-incident=": (FLEET, INCIDENT),
        "var-probe=": (FLEET, INCIDENT, PROBE),
        "${control:raw}/v1/migrations/": (INCIDENT,),
        "${analyzer:raw}/v1/incidents/": (INCIDENT,),
    }.items():
        for uid in where:
            assert [u for u in found[uid] if what in u], (what, uid)
