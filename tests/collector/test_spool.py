"""Spool files are whole or noticed, and their tokens name their contents."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.spool import (
    _MAGIC,
    _PREFIX,
    Batch,
    DirectoryStore,
    Segment,
    SpoolError,
    _sum,
    decode,
    name_of,
    records_of,
    token_of,
)

BATCH = Batch(
    5,
    (Segment("ld1", "ab" * 16, 0, 2, 1, 10, 3, 2),),
    bytes(range(256)),
    {"feeds": [[5, "ld1", "ab", 0, "clb", 4, 3, 2, 1, 0, 1]]},
    {"ld1/ab/0": 4},
    ("x",),
)


def test_what_is_spooled_is_read_back() -> None:
    assert decode(BATCH.encode()) == BATCH
    assert decode(Batch(1).encode()) == Batch(1)


@given(st.data())
def test_any_flipped_bit_and_any_cut_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(BATCH.encode())
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SpoolError):
        decode(bytes(whole))


def test_a_torn_tail_still_tells_what_was_inside() -> None:
    with pytest.raises(SpoolError) as error:
        decode(BATCH.encode()[:-1])
    assert error.value.segments == BATCH.segments


def test_equal_contents_have_equal_tokens_and_others_do_not() -> None:
    other = Batch(BATCH.created_ns, BATCH.segments, BATCH.raw[:-1] + b"\0", BATCH.rows, BATCH.lost, BATCH.torn)
    assert token_of(BATCH.encode()) == token_of(BATCH.encode())
    assert token_of(BATCH.encode()) != token_of(other.encode())
    assert token_of(BATCH.encode()) != token_of(Batch(6, BATCH.segments, BATCH.raw).encode())


def test_names_sort_like_numbers_and_say_how_many_records() -> None:
    assert name_of(9, 1) < name_of(10, 1)
    assert records_of(name_of(9, 123)) == 123
    assert records_of("nonsense.batch") == 0


def test_a_directory_keeps_batches_over_a_restart_and_drops_what_was_never_finished(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "spool")
    store.put(name_of(2, 0), b"two")
    store.put(name_of(1, 0), b"one")
    store.put("state.json", b"{}")
    (tmp_path / "spool" / "00-1.batch.new").write_bytes(b"half")
    store.close()
    store = DirectoryStore(tmp_path / "spool")
    assert store.unfinished == 1
    assert store.names() == [name_of(1, 0), name_of(2, 0)]
    assert (store.used(), store.get(name_of(1, 0)), store.get("state.json")) == (6, b"one", b"{}")
    store.delete(name_of(1, 0))
    store.delete(name_of(1, 0))
    store.set_aside(name_of(2, 0))
    assert (store.names(), store.used()) == ([], 0)
    left = {p.name for p in (tmp_path / "spool").iterdir()}
    assert left == {"lock", f"{name_of(2, 0)}.torn", "state.json"}
    with pytest.raises(KeyError):
        store.get(name_of(1, 0))


def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    with pytest.raises(OSError, match="temporarily unavailable"):
        DirectoryStore(tmp_path)
    store.close()
    DirectoryStore(tmp_path).close()


def test_a_put_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        store.put("taken", b"x")
    assert not list(tmp_path.glob("*.new"))


def test_a_put_that_cannot_even_begin_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(tmp_path)

    def full(self: Path, mode: str = "r") -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        store.put(name_of(1, 0), b"x")
    assert caught.value.errno == errno.ENOSPC, "that there is nothing to clean up is no error of its own"
    assert store.names() == []


def test_a_put_is_on_the_disk_before_its_name_is_and_its_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        size = path.stat().st_size if path.is_file() else 0
        done.append(f"sync {path.name} {size}" if path.is_file() else f"sync directory {path.name}")
        fsync(handle)

    def renamed(self: Path, to: Path) -> Path:
        done.append(f"rename to {to.name}")
        return rename(self, to)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    store = DirectoryStore(tmp_path / "spool")
    assert done == [f"sync directory {tmp_path.name}"]
    done.clear()
    name = name_of(1, 0)
    store.put(name, b"12345")
    assert done == [f"sync {name}.new 5", f"rename to {name}", "sync directory spool"]


def test_files_that_are_not_ours_do_not_end_the_collector(tmp_path: Path) -> None:
    for name in ("x.batch", "-.batch", "12-x.batch", f"{name_of(1, 0)}x"):
        (tmp_path / name).write_text("x")
    assert DirectoryStore(tmp_path).names() == []


@pytest.mark.parametrize("change", [("kept", "newer"), ("created_ns", "at_ns"), ("[{", "[7,{")])
def test_a_batch_of_another_version_is_torn_not_the_end(change: tuple[str, str]) -> None:
    data = BATCH.encode()
    header = data[44:-256].replace(change[0].encode(), change[1].encode(), 1)
    with pytest.raises(SpoolError, match="version"):
        decode(_PREFIX.pack(_MAGIC, _sum(header), _sum(BATCH.raw), len(header)) + header + BATCH.raw)
