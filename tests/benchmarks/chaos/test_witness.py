"""The witness has every record of every tap, also of one that is gone, and says what it could not see."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.chaos.witness import Witness
from tests.benchmarks.chaos.taps import File, header, point


def test_every_record_is_copied_while_the_ring_goes_round(tmp_path: Path) -> None:
    file = File(tmp_path / "a.tap", header())
    witness = Witness(tmp_path)
    for _ in range(7):
        file.write(11)
        witness.look()
        file.take()
    (life,) = witness.lives()
    assert bytes(life.raw) == b"".join(point(seq).pack() for seq in range(77))
    assert (life.count, life.missed) == (77, 0)
    assert not witness.drained() or life.acknowledged == 77
    witness.look()
    assert (life.acknowledged, witness.acknowledged()) == (77, 77)
    assert witness.drained()
    file.write(1)
    assert not witness.drained()


def test_a_tap_that_is_deleted_is_copied_to_its_end_and_what_comes_in_its_place_is_another(tmp_path: Path) -> None:
    file = File(tmp_path / "a.tap", header())
    witness = Witness(tmp_path)
    file.write(3)
    witness.look()
    file.write(2)
    file.path.unlink()
    again = File(tmp_path / "b.tap", header(boot=2))
    again.write(1)
    witness.look()
    assert [(x.key[1][:2], x.count) for x in witness.lives()] == [("01", 5), ("02", 1)]


def test_what_was_written_over_before_it_was_seen_is_said(tmp_path: Path) -> None:
    file = File(tmp_path / "a.tap", header())
    witness = Witness(tmp_path)
    file.write(2)
    witness.look()
    for _ in range(3):
        file.take()
        file.write(10)
    witness.look()
    (life,) = witness.lives()
    assert (life.count, life.missed) == (32, 14)
    assert len(life.raw) == 32 * 128
    assert bytes(life.raw[16 * 128 :]) == b"".join(point(seq).pack() for seq in range(16, 32))


def test_records_that_found_no_room_are_counted_and_no_tap_is_passed_by(tmp_path: Path) -> None:
    file = File(tmp_path / "a.tap", header())
    file.write(16)
    assert not file.writer.write(point(16).pack())
    (tmp_path / "b.tap").write_bytes(b"not yet whole")
    (tmp_path / "c.tap").write_bytes(bytes(100_000))
    witness = Witness(tmp_path)
    witness.look()
    (life,) = witness.lives()
    assert (life.count, life.lost) == (16, 1)


def test_the_thread_looks_by_itself(tmp_path: Path) -> None:
    with Witness(tmp_path) as witness:
        File(tmp_path / "a.tap", header()).write(5)
        end = time.monotonic() + 10
        while not any(x.count == 5 for x in witness.lives()):
            assert time.monotonic() < end
            time.sleep(0.01)
    assert witness.error is None
