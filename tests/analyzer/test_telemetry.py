"""Rows of the warehouse as the analyzer takes them: what the vocabulary does not have is left out."""

from __future__ import annotations

from analyzer.feeds import Feeds
from analyzer.journey import of
from analyzer.ledger import Ledger
from analyzer.region import SECOND, Region
from analyzer.rows import DROP, TRACE
from analyzer.surges import Surges
from analyzer.telemetry import known_points, known_probes
from tests.analyzer.model import fleet

T = 1_800_000_000 * SECOND


def row(seq: int, hop: str, reason: str, kind: int) -> tuple[object, ...]:
    return ("ld-a1", 1, "b", seq, T, 7, hop, reason, 2, "198.18.0.1", "::ffff:10.3.0.1", "::", 1, 0, 5, kind)


def test_records_that_the_vocabulary_does_not_know_are_left_out_and_harm_nothing() -> None:
    rows = [
        row(1, "clb_in", "", TRACE),
        row(2, "unknown-9", "", TRACE),
        row(3, "", "", TRACE),
        row(4, "clb_in", "NO_VIP", DROP),
        row(5, "clb_in", "unknown-200", DROP),
        row(6, "clb_in", "", DROP),
        row(7, "unknown-9", "NO_VIP", DROP),
    ]
    points = known_points(rows)
    assert [p.seq for p in points] == [1, 4]
    ledger, surges = Ledger(Region(fleet()), Feeds()), Surges()
    for point in points:
        assert ledger.add_point(point, T)
        surges.add(point)
    entry = ledger.get(7)
    assert entry is not None
    assert len(of(entry)["hops"]) == 2


def test_probes_of_an_unknown_outcome_are_left_out() -> None:
    probes = [
        ("p", "b", n, T, T, n, name, 1, 1, 2, 80) for n, name in enumerate(("answered", "unknown-9", "", "silent"))
    ]
    assert [p.seq for p in known_probes(probes)] == [0, 3]
