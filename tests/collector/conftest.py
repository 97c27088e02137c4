"""Taps, disk and warehouse in memory, any of which can be the moment at which the collector is killed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from collector.core import Collector
from collector.settings import Intervals
from collector.ship import Schedule, deliver
from collector.spool import SUFFIX
from contract import records, tap
from contract.records import PointRecord, ProbeRecord
from contract.tap import TapHeader, TapWriter
from warehouse.client import Unavailable

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Killed(BaseException):
    """The collector was killed here."""


class Fate:
    """Counts the moments at which a kill can strike (before and after every effect), and strikes at one of them."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.passed = 0

    def step(self) -> None:
        self.passed += 1
        if self.left is not None:
            if self.left == 0:
                self.left = None
                raise Killed
            self.left -= 1


class MemoryStore:
    """A spool in memory: puts are whole or not at all."""

    def __init__(self, fate: Fate) -> None:
        self.blobs: dict[str, bytes] = {}
        self.aside: dict[str, bytes] = {}
        self.broken = False
        self._fate = fate

    def names(self) -> list[str]:
        return sorted(n for n in self.blobs if n.endswith(SUFFIX))

    def used(self) -> int:
        return sum(len(self.blobs[n]) for n in self.names())

    def get(self, name: str) -> bytes:
        return self.blobs[name]

    def put(self, name: str, data: bytes) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self._fate.step()
        self.blobs[name] = data
        self._fate.step()

    def delete(self, name: str) -> None:
        self._fate.step()
        self.blobs.pop(name, None)
        self._fate.step()

    def set_aside(self, name: str) -> None:
        self._fate.step()
        self.aside[name] = self.blobs.pop(name)
        self._fate.step()


class MemoryBuffer:
    """A tap file in memory; each time it is touched (a cursor stored, say) is a moment like any other."""

    def __init__(self, data: bytearray, fate: Fate) -> None:
        self.data = data
        self._fate = fate
        self.size = len(data)
        self.short = False

    @property
    def view(self) -> memoryview:
        self._fate.step()
        return memoryview(self.data)

    def current(self) -> bool:
        return not self.short

    def close(self) -> None:
        pass


class MemoryDirectory:
    """Tap files in memory."""

    def __init__(self, fate: Fate) -> None:
        self.files: dict[str, MemoryBuffer] = {}
        self._fate = fate

    def names(self) -> dict[str, object]:
        self._fate.step()
        return {name: id(buffer) for name, buffer in self.files.items()}

    def open(self, name: str) -> MemoryBuffer:
        return self.files[name]

    def remove(self, name: str) -> None:
        self._fate.step()
        self.files.pop(name, None)
        self._fate.step()


class PlainSetWarehouse:
    """A fake: plain lists of rows, and a set of the tokens it has seen. Down when told so."""

    def __init__(self, fate: Fate) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.tokens: set[str] = set()
        self.inserts = 0
        self.down = False
        self._fate = fate

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        if self.down:
            raise Unavailable("down")
        self._fate.step()
        self.inserts += 1
        if token not in self.tokens:
            self.tokens.add(token)
            self.rows.setdefault(table, []).extend(rows.to_pylist())
        self._fate.step()

    def names_of(self, *tables: str) -> list[tuple[str, str, int]]:
        """(node, boot id, seq) of every record in these tables, sorted."""
        found = [(r.get("node") or r["prober"], r["boot_id"], r["seq"]) for t in tables for r in self.rows.get(t, [])]
        return sorted(found)


class Writer:
    """A node or prober that writes records into a tap in memory."""

    def __init__(self, world: World, node: str, *, kind: int, capacity: int, boot: int, worker: int = 0) -> None:
        role = 2 if kind == records.POINT_KIND else 0
        header = TapHeader(kind, 128, worker, capacity, bytes([boot]) * 16, node, world.now, 1000 + boot, role)
        self.data = bytearray(header.file_size)
        self.kind = kind
        self.header = header
        self.writer = TapWriter(self.data, header)
        self.name = f"{node}.{worker}.{header.boot_id.hex()[:8]}.tap"
        self.alive = True
        self.written: list[tuple[str, str, int]] = []
        world.directory.files[self.name] = MemoryBuffer(self.data, world.fate)
        world.writers.append(self)

    def write(self, count: int = 1, reason: int = 0) -> None:
        for _ in range(count):
            seq = self.writer.next_seq
            if self.kind == records.POINT_KIND:
                data = point(seq, reason)
            else:
                data = ProbeRecord(
                    seq, START + seq, 5, 1, 4, 6, 0, 9, bytes(16), bytes(16), 1, 2, 3, START, 7, 64
                ).pack()
            if self.writer.write(data):
                self.written.append((self.header.node, self.header.boot_id.hex(), seq))

    @property
    def state(self) -> tap.TapState:
        return tap.read_state(self.data)


def point(seq: int, reason: int = 0) -> bytes:
    drop = reason > 0
    return PointRecord(
        seq, START + seq, 77, 2 if drop else 1, 2, reason, 2 if drop else 1, 4, 6, 2, 1,
        bytes(16), bytes(16), 1, 2, 300, bytes(16), bytes(16), 4, 5, 60, 0, 6, 7,
    ).pack()  # fmt: skip


class World:
    """Everything around a collector, at virtual time. The collector may be killed and started again."""

    def __init__(self, spool_max_bytes: int = 1 << 24, intervals: Intervals | None = None) -> None:
        self.now = START
        self.fate = Fate()
        self.store = MemoryStore(self.fate)
        self.directory = MemoryDirectory(self.fate)
        self.warehouse = PlainSetWarehouse(self.fate)
        self.writers: list[Writer] = []
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.spool_max_bytes = spool_max_bytes
        self.intervals = intervals or Intervals(poll_s=0.25, retire_after_s=1)
        self.collector: Collector | None = None
        self.schedule = Schedule(random.Random(1))

    def writer(
        self, node: str = "ld1", *, kind: int = records.POINT_KIND, capacity: int = 64, boot: int = 1, worker: int = 0
    ) -> Writer:
        return Writer(self, node, kind=kind, capacity=capacity, boot=boot, worker=worker)

    def start(self) -> Collector:
        self.collector = Collector(
            self.directory,
            self.store,
            spool_max_bytes=self.spool_max_bytes,
            intervals=self.intervals,
            alive=lambda pid, created: any(w.header.pid == pid and w.alive for w in self.writers),
            say=lambda event, **facts: self.said.append((event, facts)),
            now_ns=self.now,
        )
        self.schedule = Schedule(random.Random(1))
        return self.collector

    def step(self) -> None:
        """One turn, and every delivery that is due."""
        collector = self.collector or self.start()
        collector.turn(self.now)
        while (name := self.schedule.next(collector.pending(), self.now)) is not None:
            data = collector.load(name)
            if data is None:
                continue
            try:
                deliver(data, self.warehouse.insert)
            except Unavailable:
                self.schedule.unavailable(self.now)
                return
            collector.shipped(name)
            self.schedule.shipped(name)

    def run(self, seconds: float, each: Callable[[], None] | None = None) -> None:
        """Steps of 50 ms of virtual time."""
        for _ in range(round(seconds / 0.05)):
            if each is not None:
                each()
            self.step()
            self.now += SECOND // 20

    def kill_after(self, moments: int) -> bool:
        """Step once with a kill at the given moment; whether it struck. The collector's memory is gone then."""
        self.fate.left = moments
        try:
            self.step()
        except Killed:
            self.collector = None
            return True
        finally:
            self.fate.left = None
        return False

    def records(self) -> list[tuple[str, str, int]]:
        return self.warehouse.names_of("trace_points", "drop_points", "probes")

    def written(self) -> list[tuple[str, str, int]]:
        return sorted(record for writer in self.writers for record in writer.written)

    def losses(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for row in self.warehouse.rows.get("losses", []):
            out[row["cause"]] = out.get(row["cause"], 0) + row["count"]
        return out

    def spooled_state(self) -> dict[str, int]:
        return dict(json.loads(self.store.blobs.get("state.json", b"{}")))


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def new_world() -> Callable[..., World]:
    return World
