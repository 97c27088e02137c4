"""The Python side of the tap file: header, ring, cursors; a plain list is the oracle."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import records, tap
from contract.tap import TapError, TapHeader, TapWriter

HEADER = TapHeader(records.POINT_KIND, records.POINT_SIZE, 3, 8, bytes(range(16)), "ld-a1", 123, 456, 2)


def fresh(header: TapHeader = HEADER) -> tuple[bytearray, TapWriter]:
    buffer = bytearray(header.file_size)
    return buffer, TapWriter(buffer, header)


def record(n: int) -> bytes:
    return n.to_bytes(8, "little").ljust(records.POINT_SIZE, b"r")


def test_a_fresh_tap_says_who_writes_it() -> None:
    buffer, _ = fresh()
    assert tap.read_header(buffer) == HEADER
    assert tap.read_state(buffer) == tap.TapState(0, 0, 0, 0, 0, False)
    assert tap.read_counters(buffer) == [0] * records.TAP_COUNTERS_COUNT


@given(
    st.lists(st.one_of(st.integers(1, 12).map(lambda n: ("write", n)), st.integers(1, 12).map(lambda n: ("read", n))))
)
def test_the_ring_against_a_list(steps: list[tuple[str, int]]) -> None:
    buffer, writer = fresh()
    waiting: list[bytes] = []
    written = lost = read = 0
    for what, count in steps:
        if what == "write":
            for _ in range(count):
                ok = writer.write(record(written))
                assert ok == (len(waiting) < HEADER.capacity)
                if ok:
                    waiting.append(record(written))
                    written += 1
                else:
                    lost += 1
        else:
            end = min(read + count, written)
            runs = list(tap.read_records(buffer, HEADER, read, end))
            assert len(runs) <= 2
            assert b"".join(runs) == b"".join(waiting[: end - read])
            del waiting[: end - read]
            read = end
            tap.set_read_cursor(buffer, read)
        state = tap.read_state(buffer)
        assert (state.write_cursor, state.read_cursor, state.lost) == (written, read, lost)
        assert writer.next_seq == written


def test_heartbeat_and_close() -> None:
    buffer, writer = fresh()
    writer.beat(77)
    assert tap.read_state(buffer).heartbeat_ns == 77
    writer.close()
    assert tap.read_state(buffer).closed


def change(offset: int, value: bytes) -> bytearray:
    buffer, _ = fresh()
    buffer[offset : offset + len(value)] = value
    return buffer


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (bytearray(100), "size: expected at least 4096"),
        (change(records.TAP_AT_MAGIC, b"X"), "magic: expected"),
        (change(records.TAP_AT_LAYOUT, b"\0\0\0\0"), "layout: expected"),
        (change(records.TAP_AT_RECORD_KIND, b"\x09"), "record_kind 9"),
        (change(records.TAP_AT_RECORD_SIZE, b"\x40"), "record_size 64"),
        (change(records.TAP_AT_CAPACITY, b"\x07"), "capacity: expected a power of two, got 7"),
        (change(records.TAP_AT_CAPACITY, b"\x00"), "capacity: expected a power of two, got 0"),
        (change(records.TAP_AT_CAPACITY, b"\x10"), "size: expected 6144 bytes"),
    ],
)
def test_what_is_no_tap_of_this_layout_is_refused(buffer: bytearray, message: str) -> None:
    with pytest.raises(TapError, match=message):
        tap.read_header(buffer)


@given(st.binary(max_size=300), st.integers(0, 4096))
def test_a_header_of_any_bytes_never_raises_anything_else(noise: bytes, at: int) -> None:
    buffer, _ = fresh()
    buffer[at : at + len(noise)] = noise[: max(0, len(buffer) - at)]
    with contextlib.suppress(TapError):
        tap.read_header(buffer)


@pytest.mark.parametrize(("field", "value"), [("node", ""), ("node", "x" * 65), ("capacity", 6), ("capacity", 0)])
def test_a_header_that_cannot_be_written_is_refused(field: str, value: object) -> None:
    values = {name: getattr(HEADER, name) for name in HEADER.__slots__} | {field: value}
    with pytest.raises(TapError, match=field):
        TapHeader(**values).pack()


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(TapError, match="expected 5120 bytes, got 10"):
        TapWriter(bytearray(10), HEADER)
    _, writer = fresh()
    with pytest.raises(TapError, match="record: expected 128 bytes, got 5"):
        writer.write(b"short")
