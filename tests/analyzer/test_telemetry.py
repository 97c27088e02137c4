"""Rows of the warehouse as the analyzer takes them: what the vocabulary does not have is left out."""

from __future__ import annotations

import re
from typing import Any

from analyzer.feeds import Feeds
from analyzer.journey import of
from analyzer.ledger import Ledger
from analyzer.region import SECOND, Region
from analyzer.rows import DROP, TRACE, Rows
from analyzer.surges import Surges
from analyzer.telemetry import MARGIN_US, Telemetry, records
from tests.analyzer.model import fleet

T = 1_800_000_000 * SECOND


def row(seq: int, hop: str, reason: str, kind: int) -> tuple[object, ...]:
    head = (kind, "ld-a1", 1, "b", seq, T, 7, hop, reason, 2, "198.18.0.1", "::ffff:10.3.0.1", "::", 1, 0, 5)
    return (*head, 0, 0, 0)


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
    points = records(rows, Rows()).points
    assert [p.seq for p in points] == [1, 4]
    ledger, surges = Ledger(Region(fleet()), Feeds()), Surges()
    for point in points:
        assert ledger.add_point(point, T)
        surges.add(point)
    entry = ledger.get(7)
    assert entry is not None
    assert len(of(entry)["hops"]) == 2


def test_probes_of_an_unknown_outcome_are_left_out() -> None:
    words = ("answered", "unknown-9", "", "silent")
    rows = [(3, "p", 0, "b", n, T, n, "", name, 0, "", "", "", 1, 0, 1, T, 2, 80) for n, name in enumerate(words)]
    assert [p.seq for p in records(rows, Rows()).probes] == [0, 3]


class Landing(Telemetry):
    """A warehouse whose feeds landed as told; what was asked for is kept."""

    def __init__(self) -> None:
        self._heard_us = {}
        self.feeds: list[tuple[str, int]] = []
        self.asked: list[str] = []

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        self.asked.append(sql)
        if "FROM feeds" not in sql:
            return []
        return [(1, T, node, 0, "clb", "b", T, 5, 5, 0, 1, us) for node, us in self.feeds]

    def since_us(self, feeds: list[tuple[str, int]]) -> int | None:
        """From when on the reading after these reports looks; None: by the records' own time."""
        self.feeds = feeds
        self.read(0)
        found = re.search(r"landed >= least\(fromUnixTimestamp64Micro\((\d+)\)", self.asked[-1])
        return int(found[1]) if found else None


def test_a_slow_collector_is_waited_for_and_one_that_is_gone_is_not() -> None:
    at = Landing()
    second = 1_000_000
    assert at.since_us([("a", 100 * second), ("b", 100 * second)]) is None
    # The batch of b's collector is under way since just after its last feeds, and a's goes on.
    assert at.since_us([("a", 101 * second)]) == 100 * second - MARGIN_US
    assert at.since_us([("a", 105 * second)]) == 100 * second - MARGIN_US
    assert at.since_us([("b", 105 * second)]) == 100 * second - MARGIN_US
    assert at.since_us([("a", 106 * second), ("b", 106 * second)]) == 105 * second - MARGIN_US
    assert at.since_us([("a", 117 * second)]) == 106 * second - MARGIN_US
    assert at.since_us([("a", 118 * second)]) == 117 * second - MARGIN_US


def test_a_reading_is_two_statements() -> None:
    at = Landing()
    at.read(0)
    assert len(at.asked) == 2
