"""How probes close: every kind of verdict, late and repeated rows, feeds that lost records."""

from __future__ import annotations

import random

import pytest

from analyzer.feeds import Feeds
from analyzer.ledger import Ledger
from analyzer.region import SECOND, ControlView, Region, Situation
from analyzer.rows import Feed, Point, Probe
from contract.vocabulary import DropReason, Hop, Outcome
from tests.analyzer.model import ANYCAST, START, fleet

REGION = Region(fleet(vips=4, eips=1, clusters=1, lds=2, buffers=1, hosts=1))
SITUATION = Situation(REGION, ControlView())
TUNNEL = {n.name: str(n.tunnel_address) for n in REGION.fleet.nodes}
PATH = [
    ("eip-1", Hop.EIP_IN, "", "10.4.0.1"),
    ("ld-a1", Hop.CLB_IN, TUNNEL["eip-1"], TUNNEL["host-1"]),
    ("host-1", Hop.VSW_IN, TUNNEL["ld-a1"], ""),
    ("host-1", Hop.VSW_OUT, "", TUNNEL["ld-a1"]),
    ("ld-a1", Hop.CLB_OUT, TUNNEL["host-1"], ANYCAST),
    ("eip-1", Hop.EIP_OUT, TUNNEL["ld-a1"], ""),
]


def points(count: int = 6, skip: tuple[int, ...] = (), probe_id: int = 7) -> list[Point]:
    """Trace Points of the first `count` hops, but for those skipped."""
    return [
        Point(n, 0, f"b-{n}", i, START + i * 1000, probe_id, 1, int(h), 0, 2, "198.18.0.1", a, b, 1, 1, 5)
        for i, (n, h, a, b) in enumerate(PATH[:count])
        if i not in skip
    ]


def drop(node: str, hop: Hop, reason: DropReason, toward: str = "") -> Point:
    return Point(
        node, 0, f"b-{node}", 50, START + 9000, 7, 2, int(hop), int(reason), 2, "198.18.0.1", "", toward, 1, 0, 5
    )


def record(outcome: Outcome, closed_ns: int = START + 2 * SECOND, seq: int = 0) -> Probe:
    return Probe("prober-1", "p", seq, START, closed_ns, 7, int(outcome), 0, 1, 4000, 80)


def feeds_landed(at_ns: int = START + 60 * SECOND, lost: int = 0, but: str = "") -> Feeds:
    """Every node's feed is whole up to a time; `lost` records of ld-a2 went missing just after START."""
    feeds = Feeds()
    for name in REGION.nodes:
        if name == but:
            continue
        for ts in (START - SECOND, at_ns):
            gone = lost if name == "ld-a2" and ts == at_ns else 0
            feeds.add(Feed(ts, name, 0, 2, f"b-{name}", ts, 10, 10, gone, True))
    return feeds


def closed(rows: list[Point], probe: Probe, feeds: Feeds | None = None, now_s: float = 4.0) -> str:
    """The verdict `kind` after a while, and its text."""
    ledger = Ledger(REGION, feeds or feeds_landed())
    for point in rows:
        ledger.add_point(point, START + SECOND)
    ledger.add_probe(probe, START + SECOND)
    ledger.close(START + int(now_s * SECOND), SITUATION)
    entry = ledger.get(7)
    assert entry is not None
    return entry.verdict.kind if entry.verdict else "open"


def test_answered_with_every_hop() -> None:
    assert closed(points(), record(Outcome.ANSWERED)) == "answered"


@pytest.mark.parametrize("hole", range(6))
def test_answered_with_a_hole_is_unexplained_and_accuses_the_feed(hole: int) -> None:
    ledger = Ledger(REGION, feeds_landed())
    for point in points(skip=(hole,)):
        ledger.add_point(point, START)
    ledger.add_probe(record(Outcome.ANSWERED), START)
    ledger.close(START + 4 * SECOND, SITUATION)
    verdict = ledger.get(7).verdict  # type: ignore[union-attr]
    assert verdict is not None
    assert verdict.kind == "unexplained"
    accused = [h.node for h in verdict.holes]
    # The last hop goes to an anycast address: any EIP node may have had it.
    assert accused == ([""] if hole == 5 else [PATH[hole][0]])


def test_a_hole_of_a_node_without_feed_is_unknown() -> None:
    feeds = feeds_landed(but="ld-a1")
    feeds.add(Feed(START - SECOND, "ld-a1", 0, 2, "b-ld-a1", START - SECOND, 10, 10, 0, True))
    assert closed(points(skip=(1,)), record(Outcome.ANSWERED), feeds) == "unknown_feed"


@pytest.mark.parametrize("seen", range(1, 7))
def test_silent_after_the_last_trace_point(seen: int) -> None:
    ledger = Ledger(REGION, feeds_landed())
    for point in points(seen):
        ledger.add_point(point, START)
    ledger.add_probe(record(Outcome.SILENT), START)
    ledger.close(START + 4 * SECOND, SITUATION)
    verdict = ledger.get(7).verdict  # type: ignore[union-attr]
    assert verdict is not None
    node, hop, _, toward = PATH[seen - 1]
    assert (verdict.kind, verdict.node, verdict.hop, verdict.toward) == ("silent", node, int(hop), toward)


def test_silent_without_any_record_is_unexplained() -> None:
    assert closed([], record(Outcome.SILENT)) == "unexplained"


def test_dropped_names_node_hop_and_reason() -> None:
    ledger = Ledger(REGION, feeds_landed())
    for point in [*points(1), drop("ld-a1", Hop.CLB_IN, DropReason.TUNNEL_ENCAP_FAIL)]:
        ledger.add_point(point, START)
    ledger.add_probe(record(Outcome.SILENT), START)
    ledger.close(START + 4 * SECOND, SITUATION)
    verdict = ledger.get(7).verdict  # type: ignore[union-attr]
    assert verdict is not None
    assert (verdict.kind, verdict.node, verdict.reason) == ("dropped", "ld-a1", DropReason.TUNNEL_ENCAP_FAIL)


def test_a_lost_reset_of_the_prober_is_no_drop_of_the_probe() -> None:
    reset = drop("ld-a1", Hop.CLB_IN, DropReason.NO_FLOW)._replace(tcp_flags=4)
    assert closed([*points(), reset], record(Outcome.ANSWERED)) == "answered"
    assert closed([*points(1), reset], record(Outcome.SILENT)) == "silent"


def test_refused_and_unsent() -> None:
    assert closed(points(), record(Outcome.REFUSED)) == "refused"
    assert closed([], record(Outcome.UNSENT)) == "unsent"


def test_silence_proves_nothing_when_the_next_hop_lost_records() -> None:
    assert closed(points(1), record(Outcome.SILENT), feeds_landed(lost=3)) == "unknown_feed"


def test_silence_waits_for_feeds_that_lag_and_gives_up_at_last() -> None:
    lagging = feeds_landed(at_ns=START + SECOND)
    assert closed(points(1), record(Outcome.SILENT), lagging, now_s=4) == "open"
    assert closed(points(1), record(Outcome.SILENT), lagging, now_s=12) == "unknown_feed"


def test_a_probe_is_not_closed_before_its_grace() -> None:
    assert closed(points(1), record(Outcome.SILENT), now_s=2.9) == "open"
    assert closed(points(), record(Outcome.ANSWERED, START + SECOND), now_s=1.0) == "answered"


def test_a_late_record_corrects_the_verdict_and_the_totals() -> None:
    ledger = Ledger(REGION, feeds_landed())
    for point in points(skip=(4,)):
        ledger.add_point(point, START)
    ledger.add_probe(record(Outcome.ANSWERED), START)
    ledger.close(START + 4 * SECOND, SITUATION)
    assert ledger.totals["unexplained"] == 1
    ledger.add_point(points()[4], START + 5 * SECOND)
    ledger.close(START + 6 * SECOND, SITUATION)
    assert +ledger.totals == {"answered": 1}


def test_order_and_repetition_change_nothing() -> None:
    rng = random.Random(5)
    rows: list[Point | Probe] = [*points(), *points(), record(Outcome.ANSWERED), record(Outcome.ANSWERED)]
    for _ in range(50):
        rng.shuffle(rows)
        ledger = Ledger(REGION, feeds_landed())
        for row in rows:
            if isinstance(row, Point):
                ledger.add_point(row, START)
            else:
                ledger.add_probe(row, START)
            ledger.close(START + 4 * SECOND, SITUATION)
        assert +ledger.totals == {"answered": 1}
        entry = ledger.get(7)
        assert entry is not None
        assert len(entry.points) == 6


def test_a_probe_is_counted_once_over_a_restart() -> None:
    first = Ledger(REGION, feeds_landed())
    for seq in range(3):
        first.add_probe(record(Outcome.UNSENT, seq=seq)._replace(probe_id=100 + seq), START)
    first.close(START + 4 * SECOND, SITUATION)
    second = Ledger(REGION, feeds_landed())
    second.load_counted(first.dump_counted(), dict(first.totals))
    for seq in range(5):
        second.add_probe(record(Outcome.UNSENT, seq=seq)._replace(probe_id=100 + seq), START)
    second.close(START + 4 * SECOND, SITUATION)
    assert second.totals["unsent"] == 5


def test_old_probes_are_forgotten() -> None:
    ledger = Ledger(REGION, feeds_landed())
    ledger.add_point(points(1)[0], START)
    ledger.close(START + 3600 * SECOND, SITUATION)
    assert ledger.get(7) is None
    assert ledger.orphans == 1


def test_probes_from_before_the_beginning_are_looked_at_but_not_counted() -> None:
    ledger = Ledger(REGION, feeds_landed())
    ledger.since_ns = START + 1
    ledger.add_probe(record(Outcome.SILENT), START)
    ledger.close(START + 4 * SECOND, SITUATION)
    entry = ledger.get(7)
    assert entry is not None
    assert entry.verdict is not None
    assert entry.verdict.kind == "unexplained"
    assert +ledger.totals == {}
    for point in points(1):
        ledger.add_point(point, START + 5 * SECOND)
    ledger.close(START + 6 * SECOND, SITUATION)
    assert entry.verdict.kind == "silent"
    assert +ledger.totals == {}
