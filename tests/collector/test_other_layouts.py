"""Real files in the taps' directory that are no taps of this layout: named once, counted, and the others go on."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from collector.core import Collector
from collector.settings import Intervals
from collector.ship import deliver
from collector.taps import TapDirectory
from contract import records
from contract.tap import TapHeader, TapWriter
from tests.collector.conftest import SECOND, START, Fate, MemoryStore, PlainSetWarehouse, point
from tests.collector.test_process import FileTap, Start, spooled, start, until

__all__ = ["start"]  # a fixture


def whole_tap(node: str = "ld1", count: int = 5) -> bytes:
    header = TapHeader(records.POINT_KIND, records.POINT_SIZE, 0, 16, os.urandom(16), node, START, 1, 2)
    data = bytearray(header.file_size)
    writer = TapWriter(data, header)
    for number in range(count):
        assert writer.write(point(number))
    writer.beat(START)
    return bytes(data)


class Place:
    """A collector over a real directory, at virtual time."""

    def __init__(self, taps: Path) -> None:
        self.taps = taps
        self.number = 0
        self.now = START
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.warehouse = PlainSetWarehouse(Fate())
        self.collector = Collector(
            TapDirectory(taps),
            MemoryStore(Fate()),
            spool_max_bytes=1 << 28,
            intervals=Intervals(poll_s=0.25),
            alive=lambda pid, created: pid == os.getpid(),
            say=lambda event, **facts: self.said.append((event, facts)),
            now_ns=self.now,
        )

    def put(self, data: bytes) -> None:
        """Put a file in place whole, instead of the one before, under another name (its inode may be the same)."""
        self.number += 1
        (self.taps / f"ld1.{self.number - 1}.tap").unlink(missing_ok=True)
        (self.taps / "new").write_bytes(data)
        (self.taps / "new").rename(self.taps / f"ld1.{self.number}.tap")

    def turn(self, seconds: float = 0.25) -> None:
        self.now += round(seconds * SECOND)
        self.collector.turn(self.now, at_once=True)

    def ship(self) -> None:
        for name in list(self.collector.pending()):
            data = self.collector.load(name)
            assert data is not None
            deliver(data, self.warehouse.insert)
            self.collector.shipped(name)

    def refused(self) -> list[str]:
        return [facts["problem"] for event, facts in self.said if event == "tap refused"]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_prefix_of_a_tap_is_refused_and_another_tap_goes_on(place: Place) -> None:
    good = FileTap(place.taps, "good", capacity=16384)
    data = whole_tap()
    lengths = [*range(0, 400), *range(400, len(data), 7), *range(len(data) - 130, len(data))]
    for number, length in enumerate(lengths, start=1):
        place.put(data[:length])
        good.write(1)
        place.turn()
        assert len(place.refused()) == number, length
        assert place.refused()[-1].startswith("size: expected"), length
    assert place.collector.counts["taps_refused"] == len(lengths)
    assert good.read_cursor == good.writer.next_seq == len(lengths)
    place.put(data)
    place.turn()
    place.ship()
    assert [n for n in place.warehouse.names_of("trace_points") if n[0] == "ld1"] == [
        ("ld1", data[32:48].hex(), n) for n in range(5)
    ]


def test_whatever_a_header_says_nothing_ends_and_what_is_spooled_can_be_shipped(place: Place) -> None:
    data = whole_tap()
    rng = random.Random(1)
    places = [*range(0, 8 * 208, 3), *(rng.randrange(8 * 208, 8 * records.TAP_HEADER_SIZE) for _ in range(100))]
    for bit in places:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        place.put(bytes(flipped))
        place.turn(1)  # feeds are due
        if bit % 64 == 0:
            place.ship()
    for byte in range(208):
        wild = bytearray(data)
        wild[byte : byte + 8] = b"\xff" * 8
        place.put(bytes(wild))
        place.turn(1)
    place.ship()
    assert place.warehouse.rows["trace_points"]


def test_a_later_version_is_named_once_and_taken_when_it_is_valid(place: Place) -> None:
    data = whole_tap()
    later = bytearray(data)
    later[8:12] = b"\1\2\3\4"
    (place.taps / "ld1.tap").write_bytes(later)
    (place.taps / "empty.tap").write_bytes(b"")
    (place.taps / "noise.tap").write_bytes(os.urandom(10_000))
    for _ in range(400):
        place.turn()
    assert len(place.refused()) == place.collector.counts["taps_refused"] == 3
    with (place.taps / "ld1.tap").open("r+b") as file:  # the same file, as its writer goes on
        file.write(data)
    place.turn(31)
    place.turn()
    place.ship()
    assert len(place.warehouse.rows["trace_points"]) == 5
    assert [e for e, _ in place.said if e == "tap taken after all"] == ["tap taken after all"]


def test_the_process_starts_beside_such_files_and_goes_on(start: Start, tmp_path: Path) -> None:
    taps = tmp_path / "taps"
    later = bytearray(whole_tap())
    later[8] ^= 1
    (taps / "later.0.1.tap").write_bytes(later)
    (taps / "short.0.1.tap").write_bytes(later[:5000])
    (taps / "noise.0.1.tap").write_bytes(os.urandom(70_000))
    good = FileTap(taps, "ld1")
    good.write(9)
    process = start()
    until(lambda: good.read_cursor == 9, 20, "the good one is not read")
    assert process.poll() is None
    assert spooled(tmp_path) == {"ld1": list(range(9))}
    log = (tmp_path / "log").read_text()
    assert log.count("tap refused") == 3
    assert "Traceback" not in log
