"""Tap files as the collector sees them: found in a directory, mapped into memory, read by range."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from contract import tap
from contract.tap import TapError, TapHeader, TapState

# node, boot id (hexadecimal), worker: names the life of one tap.
TapKey = tuple[str, str, int]


def key_of(header: TapHeader) -> TapKey:
    """The name of a tap's life."""
    return header.node, header.boot_id.hex(), header.worker


class Buffer(Protocol):
    """The bytes of one tap file. `current` is False once the file is shorter than it was: reading it would fault."""

    @property
    def view(self) -> memoryview: ...
    def current(self) -> bool: ...
    def close(self) -> None: ...


class Directory(Protocol):
    """Where taps appear and vanish."""

    def names(self) -> dict[str, object]:
        """Name of each tap file, with a stamp that changes when the file is another one."""

    def open(self, name: str) -> Buffer:
        """Map a file; OSError."""

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone is no error."""


class MappedFile:
    """A tap file mapped for reading its records and storing the read cursor."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._size = os.fstat(self._file).st_size
            self._map = mmap.mmap(self._file, self._size) if self._size else None
        except BaseException:
            os.close(self._file)
            raise
        self._view = memoryview(self._map) if self._map is not None else memoryview(bytearray())

    @property
    def view(self) -> memoryview:
        return self._view

    def current(self) -> bool:
        return os.fstat(self._file).st_size >= self._size

    def close(self) -> None:
        view, mapped = self._view, self._map
        self._view, self._map = memoryview(b""), None
        # Somebody may still hold a part of it (the traceback of an error does): then it is unmapped when he lets go.
        with contextlib.suppress(BufferError):
            view.release()
            if mapped is not None:
                mapped.close()
        os.close(self._file)


class TapDirectory:
    """The `*.tap` files of a directory on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> dict[str, object]:
        try:
            with os.scandir(self._path) as entries:
                return {e.name: e.inode() for e in entries if e.name.endswith(".tap") and not e.name.startswith(".")}
        except FileNotFoundError:
            return {}

    def open(self, name: str) -> Buffer:
        return MappedFile(self._path / name)

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Piece:
    """Records first .. first + count of a tap. `raw`: those that carry their own number, `bad`: how many do not."""

    first: int
    count: int
    raw: bytes
    bad: int


class Tap:
    """One tap file in use. TapError when it is no tap of this layout."""

    def __init__(self, name: str, buffer: Buffer) -> None:
        self.name = name
        self.header = tap.read_header(buffer.view)
        self.key = key_of(self.header)
        self._buffer = buffer
        self.cursor = self.state().read_cursor

    def state(self) -> TapState:
        """Cursors, losses, heartbeat. TapError when they contradict each other or the file was cut short."""
        if not self._buffer.current():
            raise TapError("size: the file was cut short while in use")
        state = tap.read_state(self._buffer.view)
        if not 0 <= state.write_cursor - state.read_cursor <= self.header.capacity:
            raise TapError(
                f"cursors: expected 0 <= write - read <= {self.header.capacity}, "
                f"got write {state.write_cursor}, read {state.read_cursor}"
            )
        return state

    def counters(self) -> npt.NDArray[np.uint64]:
        """All counters, by index."""
        return np.array(tap.read_counters(self._buffer.view), dtype=np.uint64)

    def read(self, end: int) -> Piece:
        """Copy the records from our cursor to `end`."""
        first = self.cursor
        raw = b"".join(tap.read_records(self._buffer.view, self.header, first, end))
        size = self.header.record_size
        # Every record starts with its own number (seq).
        numbers = np.ndarray((end - first,), dtype="<u8", buffer=raw, strides=(size,)) if raw else np.zeros(0, "<u8")
        good = numbers == np.arange(first, end, dtype=np.uint64)
        if not good.all():
            table = np.frombuffer(raw, dtype=np.uint8).reshape(-1, size)
            raw = table[good].tobytes()
        return Piece(first, end - first, raw, int((~good).sum()))

    def advance(self, cursor: int) -> None:
        """Everything before `cursor` is safe."""
        self.cursor = cursor
        tap.set_read_cursor(self._buffer.view, cursor)

    def close(self) -> None:
        """Unmap."""
        self._buffer.close()


def process_alive(pid: int, created_ns: int) -> bool:
    """Whether the process that made a tap at `created_ns` still runs (and `pid` is not another's by now)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    if fields[0] in ("Z", "X"):
        return False
    started_ns = _boot_ns() + int(fields[19]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return started_ns <= created_ns + 1_000_000_000


def _boot_ns() -> int:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) * 1_000_000_000
    return 0


Alive = Callable[[int, int], bool]
