"""The tap file: what the native core writes, contract.tap reads, and the other way round."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract import records, tap
from contract.vocabulary import DropReason, Role

NOW = 1_700_000_000_000_000_000
BOOT = "00112233445566778899aabbccddeeff"


def fresh(capacity: int = 8, kind: int = records.POINT_KIND) -> tap.TapHeader:
    return tap.TapHeader(kind, 128, 2, capacity, bytes.fromhex(BOOT), "ld-a1", NOW, os.getpid(), int(Role.CLB))


def record(seq: int) -> bytes:
    return seq.to_bytes(8, "little") + bytes([seq % 251]) * 120


@given(st.integers(0, 5), st.lists(st.integers(-8, 8), max_size=60))
def test_is_a_bounded_queue(power: int, steps: list[int]) -> None:
    """Positive steps write that many records, the others make that many safe."""
    header = fresh(1 << power)
    buffer = bytearray(header.file_size)
    writer = tap.TapWriter(buffer, header)
    expected, read, lost = [], 0, 0
    for step in steps:
        for _ in range(step):
            one = record(writer.next_seq)
            if writer.write(one):
                expected.append(one)
            else:
                lost += 1
                assert len(expected) - read == header.capacity
        if step < 0:
            upto = min(len(expected), read - step)
            got = b"".join(bytes(run) for run in tap.read_records(buffer, header, read, upto))
            assert got == b"".join(expected[read:upto])
            tap.set_read_cursor(buffer, upto)
            read = upto
    state = tap.read_state(buffer)
    assert (state.write_cursor, state.read_cursor, state.lost) == (len(expected), read, lost)
    assert tap.read_header(buffer) == header


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [(0, b"X", "magic"), (8, b"\0\0\0\0", "layout"), (12, b"\7", "record_kind"), (24, b"\3", "capacity")],
)
def test_what_is_no_tap_is_refused_by_name(offset: int, value: bytes, field: str) -> None:
    buffer = bytearray(fresh().pack().ljust(fresh().file_size, b"\0"))
    buffer[offset : offset + len(value)] = value
    with pytest.raises(tap.TapError, match=field):
        tap.read_header(buffer)


def test_a_short_file_is_refused() -> None:
    whole = fresh().pack().ljust(fresh().file_size, b"\0")
    with pytest.raises(tap.TapError, match="size"):
        tap.read_header(whole[:-1])
    with pytest.raises(tap.TapError, match="size"):
        tap.read_header(whole[:100])


def test_python_reads_what_the_native_core_wrote(tmp_path: Path) -> None:
    dataplane = pytest.importorskip("gateway._dataplane")
    pipeline = dataplane.Pipeline("clb", tap_dir=tmp_path, node="ld-a1", tap_capacity=16, boot_id=BOOT)
    assert pipeline.tap_paths() == [str(tmp_path / f"ld-a1.{n}.00112233.tap") for n in (0, 1)]
    frames = [(0, b"\0" * 60)] * 20
    pipeline.process(frames, NOW)
    pipeline.beat(NOW + 5)
    with (tmp_path / "ld-a1.1.00112233.tap").open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        header = tap.read_header(view)
        assert header == tap.TapHeader(
            records.POINT_KIND,
            records.POINT_SIZE,
            1,
            16,
            bytes.fromhex(BOOT),
            "ld-a1",
            header.created_ns,
            os.getpid(),
            2,
        )
        state = tap.read_state(view)
        # Without tables everything is NO_CONFIG; the ring holds 16 of the 20 records and counts the rest.
        assert (state.write_cursor, state.lost, state.suppressed) == (16, 4, 0)
        assert (state.heartbeat_ns, state.closed) == (NOW + 5, False)
        counters = tap.read_counters(view)
        assert counters[records.COUNTERS["frames_in"]] == 20
        assert counters[records.DROP_BASE + DropReason.NO_CONFIG] == 20
        raw = b"".join(bytes(run) for run in tap.read_records(view, header, 0, 16))
        points = [records.POINT_STRUCT.unpack_from(raw, at) for at in range(0, len(raw), records.POINT_SIZE)]
        names = [name for name, *_ in records.POINT_FIELDS]
        first = dict(zip(names, points[0], strict=True))
        assert (first["ts_ns"], first["reason"], first["kind"], first["worker"]) == (NOW, DropReason.NO_CONFIG, 2, 1)
        assert [point[0] for point in points] == list(range(16))

        tap.set_read_cursor(view, 10)  # the native writer has room again
        pipeline.process(frames[:12], NOW + 10)
        state = tap.read_state(view)
        assert (state.write_cursor, state.lost) == (26, 6)
        pipeline.close(NOW + 20)
        assert tap.read_state(view).closed


def test_the_native_core_reads_what_python_wrote(tmp_path: Path) -> None:
    dataplane = pytest.importorskip("gateway._dataplane")
    header = fresh(8)
    buffer = bytearray(header.file_size)
    writer = tap.TapWriter(buffer, header)
    written = [record(n) for n in range(13)]
    for at, one in enumerate(written):
        tap.set_read_cursor(buffer, max(0, at - 3))
        assert writer.write(one)
    path = tmp_path / "python.tap"
    path.write_bytes(buffer)
    # The ring holds the last eight.
    assert dataplane.read_tap(path) == b"".join(written[-8:])
    path.write_bytes(buffer[:-1])
    with pytest.raises(OSError, match=r"python\.tap"):
        dataplane.read_tap(path)
    buffer[8] ^= 1
    path.write_bytes(buffer)
    with pytest.raises(ValueError, match="layout"):
        dataplane.read_tap(path)
