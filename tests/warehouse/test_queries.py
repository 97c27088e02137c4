"""The named questions on records as the collector ships them."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import Any

import pytest

from collector import columns
from collector.spool import Batch, Segment
from contract.records import POINT_KIND, PROBE_KIND, PointRecord, ProbeRecord
from contract.vocabulary import Direction, DropReason, Hop, Outcome, Verdict
from warehouse.queries import ALL, IncidentSeen, Queries, moment

SECOND = 1_000_000_000
NOW = time.time_ns() // SECOND * SECOND - 60 * SECOND
PROBE = 0xFFEE_1234_89AB_CDEF
LOST = PROBE + 1
V4 = ipaddress.IPv6Address("::ffff:10.3.0.11").packed
NONE = bytes(16)


def point(seq: int, ts_ns: int, probe: int, hop: Hop, reason: DropReason | None = None) -> PointRecord:
    verdict = Verdict.DROPPED if reason else Verdict.FORWARDED
    return PointRecord(
        seq, ts_ns, probe, 2 if reason else 1, hop, reason or 0, verdict, 4, 6, 2,
        Direction.REQUEST, V4, V4, 1024, 80, 1500, NONE, V4, 3, 4, 60, 1, 5, 6,
    )  # fmt: skip


def probe(seq: int, ts_ns: int, name: int, outcome: Outcome) -> ProbeRecord:
    rtt = 700_000 if outcome is Outcome.ANSWERED else 0
    return ProbeRecord(seq, ts_ns, name, outcome, 4, 6, 0, rtt, V4, V4, 1024, 80, 77, ts_ns + 2 * SECOND, 3, 60)


POINTS = [
    point(0, NOW + 100, PROBE, Hop.EIP_IN),
    point(1, NOW + 200, PROBE, Hop.CLB_IN),
    point(2, NOW + SECOND, LOST, Hop.EIP_IN),
    point(3, NOW + SECOND + 50, LOST, Hop.CLB_IN, DropReason.TUNNEL_ENCAP_FAIL),
]
PROBES = [probe(0, NOW, PROBE, Outcome.ANSWERED), probe(1, NOW + SECOND, LOST, Outcome.SILENT)]


@pytest.fixture(scope="module")
def queries(warehouse: Any) -> Iterator[Queries]:
    """A seeded database, read by the reader."""
    writer = warehouse.connection()
    raw = b"".join(r.pack() for r in (*POINTS, *PROBES))
    segments = (
        Segment("q-ld-1", "aabb", 1, 2, POINT_KIND, 0, 4, 4),
        Segment("q-prober-1", "ccdd", 0, 0, PROBE_KIND, 0, 2, 2),
    )
    tap = [NOW, "q-ld-1", "aabb", 1]
    feed = [*tap, "clb", NOW - 5, 40, 38, 2, 0, 1]
    older = [NOW - SECOND, "q-ld-1", "aabb", 1, "clb", NOW - SECOND, 30, 30, 0, 0, 0]
    rows = {
        "feeds": [feed, older],
        "losses": [[*tap, 7, 2, "ring"]],
        "node_counters": [[*tap, "frames_in", 2**63 + 5]],
    }
    for table, arrow in columns.tables(Batch(NOW, segments, raw, rows), "seed"):
        writer.insert_arrow(table, arrow, f"seed-{table}")
    incident = [
        "id",
        "kind",
        "subject",
        "state",
        "severity",
        "summary",
        "named_nodes",
        "vips",
        "opened",
        "closed",
        "revision",
    ]
    for row in (
        ["q-1", "crash", "q-ld-1", "open", "critical", "s", ["q-ld-1"], [3], NOW, None, 1],
        ["q-1", "crash", "q-ld-1", "closed", "critical", "s", ["q-ld-1"], [3], NOW, NOW + 9, 2],
    ):
        writer.insert("incidents", incident, [row])
    reader = warehouse.connection("reader")
    yield Queries(reader)
    reader.close()
    writer.close()


def test_a_journey_is_in_order_and_ends_with_the_probers_word(queries: Queries) -> None:
    steps = queries.journey(PROBE)
    assert [(s.ts_ns - NOW, s.node, s.hop, s.what) for s in steps] == [
        (0, "q-prober-1", "", "sent"),
        (100, "q-ld-1", "eip_in", "forwarded"),
        (200, "q-ld-1", "clb_in", "forwarded"),
        (2 * SECOND, "q-prober-1", "", "answered"),
    ]
    assert steps[1].outer_dst == "::ffff:10.3.0.11"
    assert (steps[1].worker, steps[1].residence_ns, steps[1].vip_id, steps[1].server_id) == (1, 1500, 3, 4)


def test_a_lost_probes_journey_names_node_and_reason(queries: Queries) -> None:
    drop = queries.journey(LOST)[-2]
    assert (drop.node, drop.what, drop.reason) == ("q-ld-1", "dropped", "TUNNEL_ENCAP_FAIL")
    assert queries.journey(LOST)[-1].what == "silent"
    assert queries.journey(LOST, NOW + 9 * SECOND) == []
    assert queries.journey(0xDEAD) == []


def test_probes_by_vip_and_outcome(queries: Queries) -> None:
    mine = [p for p in queries.recent_probes(NOW) if p.prober == "q-prober-1"]
    assert [(p.probe_id, p.outcome, p.rtt_ns) for p in mine] == [(LOST, "silent", 0), (PROBE, "answered", 700_000)]
    assert {p.probe_id for p in queries.recent_probes(NOW, vip_id=3, outcome="silent")} == {LOST}
    assert queries.recent_probes(NOW, vip_id=999) == []
    assert len(queries.recent_probes(NOW, limit=1)) == 1


def test_points_by_node(queries: Queries) -> None:
    traces = [s for s in queries.trace_points(NOW, NOW + 2 * SECOND) if s.node == "q-ld-1"]
    assert {s.name: s.points for s in traces} == {"eip_in": 2, "clb_in": 1}
    drops = [s for s in queries.drop_points(NOW, NOW + 2 * SECOND) if s.node == "q-ld-1"]
    assert {s.name: s.points for s in drops} == {"TUNNEL_ENCAP_FAIL": 1}
    first = [s for s in queries.trace_points(NOW, NOW + SECOND) if s.node == "q-ld-1"]
    assert {s.name: s.points for s in first} == {"eip_in": 1, "clb_in": 1}


def test_the_latest_feed_wins(queries: Queries) -> None:
    (feed,) = [f for f in queries.feeds(NOW - 60 * SECOND) if f.node == "q-ld-1"]
    assert (feed.ts_ns, feed.heartbeat_ns, feed.write_cursor, feed.shipped, feed.lost) == (NOW, NOW - 5, 40, 38, 2)
    assert feed.alive is True


def test_the_latest_state_of_an_incident_wins(queries: Queries) -> None:
    assert [i for i in queries.incidents() if i.id == "q-1"] == [
        IncidentSeen("q-1", "crash", "q-ld-1", "closed", "critical", "s", ["q-ld-1"], NOW, NOW + 9)
    ]


def test_everything_the_collector_ships_is_in(warehouse: Any, queries: Queries) -> None:
    assert warehouse.rows("SELECT value FROM node_counters WHERE node = 'q-ld-1'") == [(2**63 + 5,)]
    assert warehouse.rows("SELECT first_seq, count, cause FROM losses WHERE node = 'q-ld-1'") == [(7, 2, "ring")]
    assert warehouse.rows("SELECT kind, rows, token FROM batches WHERE node LIKE 'q-%' ORDER BY kind") == [
        ("point", 4, "seed"), ("probe", 2, "seed"),
    ]  # fmt: skip
    (landed,) = warehouse.rows(
        "SELECT min(landed) > now() - 300 AND max(landed) <= now64(6) FROM probes WHERE vip_id = 3"
    )
    assert landed == (1,) or landed == (True,)


def test_a_probe_is_found_by_its_index(warehouse: Any, queries: Queries) -> None:
    for table in ("trace_points", "drop_points", "probes"):
        plan = "\n".join(r[0] for r in warehouse.rows(f"EXPLAIN indexes = 1 SELECT * FROM {table} WHERE probe_id = 5"))
        assert "by_probe" in plan


def test_no_query_is_built_from_values() -> None:
    assert len({q.name for q in ALL}) == len(ALL)
    assert moment(1_700_000_000_000_000_001) == "1700000000.000000001"
