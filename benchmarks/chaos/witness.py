"""The ground truth: a copy of every record, taken from the taps themselves before anyone may write over it."""

from __future__ import annotations

import mmap
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from contract import tap
from contract.records import TAP_HEADER_SIZE
from contract.tap import TapError, TapHeader

# A ring of the lab holds many seconds of records.
PERIOD_S = 0.05


@dataclass(slots=True)
class Life:
    """One tap from its creation on: `raw` holds records 0 .. `count`, as they were written.

    `acknowledged`: how many the collector has said are safe. `lost`: how many the writer could not write.
    """

    header: TapHeader
    raw: bytearray
    count: int = 0
    acknowledged: int = 0
    lost: int = 0
    # Records that were written over before they could be copied: must stay 0, or there is no ground truth.
    missed: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """Node, boot id and worker, as the warehouse's rows name a tap."""
        return self.header.node, self.header.boot_id.hex(), self.header.worker


class _Open:
    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self.inode = os.fstat(file.fileno()).st_ino
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        try:
            self.life = Life(tap.read_header(self._map), bytearray())
        except BaseException:
            self._map.close()
            raise

    def look(self) -> None:
        life, header = self.life, self.life.header
        before = tap.read_state(self._map)
        end = before.write_cursor
        first = max(life.count, end - header.capacity)
        life.missed += first - life.count
        life.raw += b"\0" * ((first - life.count) * header.record_size)
        for run in tap.read_records(self._map, header, first, end):
            life.raw += run
            run.release()
        # What is not yet acknowledged is never written over: had it been, a record copied now could be a later one.
        life.missed += max(0, tap.read_state(self._map).write_cursor - header.capacity - first)
        life.count, life.lost = end, before.lost
        life.acknowledged = max(life.acknowledged, before.read_cursor)

    @property
    def drained(self) -> bool:
        state = tap.read_state(self._map)
        return state.read_cursor == state.write_cursor == self.life.count

    def close(self) -> None:
        self._map.close()


class Witness:
    """Looks into every tap of a directory, again and again, in a thread of its own. Used as a context manager."""

    def __init__(self, taps: Path) -> None:
        self._taps = taps
        self._open: dict[int, _Open] = {}
        self._lives: list[Life] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)
        for one in self._open.values():
            one.close()
        self._open.clear()

    def look(self) -> None:
        """Copy what is new."""
        with self._lock:
            found: dict[int, Path] = {}
            for entry in os.scandir(self._taps):
                if entry.name.endswith(".tap") and not entry.name.startswith("."):
                    found[entry.inode()] = Path(entry.path)
            for inode, path in found.items():
                if inode not in self._open:
                    self._begin(path)
            for inode, one in list(self._open.items()):
                one.look()
                if inode not in found:
                    one.close()
                    del self._open[inode]

    def lives(self) -> list[Life]:
        """Every tap seen so far."""
        with self._lock:
            return list(self._lives)

    def acknowledged(self) -> int:
        """Records that the collector has said are safe, over all taps."""
        with self._lock:
            return sum(life.acknowledged for life in self._lives)

    def drained(self) -> bool:
        """Whether everything in the taps that are there is acknowledged."""
        self.look()
        with self._lock:
            return all(one.drained for one in self._open.values())

    def _begin(self, path: Path) -> None:
        try:
            if path.stat().st_size < TAP_HEADER_SIZE:
                return
            one = _Open(path)
        except (FileNotFoundError, TapError):
            return  # deleted, or not whole yet
        self._open[one.inode] = one
        self._lives.append(one.life)

    def _run(self) -> None:
        while not self._end.wait(PERIOD_S):
            try:
                self.look()
            except BaseException as error:
                self.error = error
                return
