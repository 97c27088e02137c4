"""The tap file: layout helpers over a buffer that the caller opened (a memory map, bytes, a bytearray).

One writer, one reader; see contract/records.toml for the protocol. Nothing here does I/O. The Python writer serves
the prober, whose rate is some tens of records a second; nodes write with the native core.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from contract import records

WritableBuffer = bytearray | memoryview | mmap.mmap
Buffer = bytes | WritableBuffer

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_PREFIX = struct.Struct("<8sIIIIQ16s64sQII")


class TapError(ValueError):
    """The buffer is no tap file of this layout; the message says which field and what was expected."""


@dataclass(frozen=True, slots=True)
class TapHeader:
    """The part of the header that never changes while the writer lives."""

    record_kind: int
    record_size: int
    worker: int
    capacity: int
    boot_id: bytes
    node: str
    created_ns: int
    pid: int
    role: int

    @property
    def file_size(self) -> int:
        return records.TAP_HEADER_SIZE + self.capacity * self.record_size

    def pack(self) -> bytes:
        """A whole fresh header, TAP_HEADER_SIZE bytes, cursors and counters zero."""
        name = self.node.encode()
        if not 0 < len(name) <= 64:
            raise TapError(f"node: expected 1 to 64 bytes of UTF-8, got {len(name)}")
        if self.capacity <= 0 or self.capacity & (self.capacity - 1):
            raise TapError(f"capacity: expected a power of two, got {self.capacity}")
        prefix = _PREFIX.pack(
            records.TAP_MAGIC,
            records.LAYOUT,
            self.record_kind,
            self.record_size,
            self.worker,
            self.capacity,
            self.boot_id,
            name,
            self.created_ns,
            self.pid,
            self.role,
        )
        return prefix.ljust(records.TAP_HEADER_SIZE, b"\0")


@dataclass(frozen=True, slots=True)
class TapState:
    """What the writer and the reader keep changing."""

    write_cursor: int
    read_cursor: int
    lost: int
    suppressed: int
    heartbeat_ns: int
    closed: bool


def read_header(buffer: Buffer) -> TapHeader:
    """The fixed header; TapError when the buffer is no tap of this layout or shorter than it says."""
    # No view of our own stays behind in the error's traceback: whoever catches it must be able to close the buffer.
    length = len(buffer)
    if length < records.TAP_HEADER_SIZE:
        raise TapError(f"size: expected at least {records.TAP_HEADER_SIZE} bytes, got {length}")
    magic, layout, kind, size, worker, capacity, boot_id, node, created, pid, role = _PREFIX.unpack_from(buffer)
    if magic != records.TAP_MAGIC:
        raise TapError(f"magic: expected {records.TAP_MAGIC!r}, got {magic!r}")
    if layout != records.LAYOUT:
        raise TapError(f"layout: expected {records.LAYOUT:#010x}, got {layout:#010x}")
    sizes = {records.POINT_KIND: records.POINT_SIZE, records.PROBE_KIND: records.PROBE_SIZE}
    if sizes.get(kind) != size:
        raise TapError(f"record_kind {kind} with record_size {size}: expected one of {sizes}")
    if capacity == 0 or capacity & (capacity - 1):
        raise TapError(f"capacity: expected a power of two, got {capacity}")
    if worker >= 1 << 16:
        raise TapError(f"worker: expected a number below {1 << 16}, got {worker}")
    name = node.rstrip(b"\0").decode(errors="replace")
    if not name:
        raise TapError("node: expected a name, got none")
    header = TapHeader(kind, size, worker, capacity, boot_id, name, created, pid, role)
    if length < header.file_size:
        raise TapError(f"size: expected {header.file_size} bytes, got {length}")
    return header


def read_state(buffer: Buffer) -> TapState:
    """Cursors, losses and the heartbeat. Eight-byte aligned loads: consistent one by one, not together."""
    return TapState(
        write_cursor=_U64.unpack_from(buffer, records.TAP_AT_WRITE_CURSOR)[0],
        read_cursor=_U64.unpack_from(buffer, records.TAP_AT_READ_CURSOR)[0],
        lost=_U64.unpack_from(buffer, records.TAP_AT_LOST)[0],
        suppressed=_U64.unpack_from(buffer, records.TAP_AT_SUPPRESSED)[0],
        heartbeat_ns=_U64.unpack_from(buffer, records.TAP_AT_HEARTBEAT_NS)[0],
        closed=_U64.unpack_from(buffer, records.TAP_AT_CLOSED)[0] == 1,
    )


def read_counters(buffer: Buffer) -> list[int]:
    """All counters, by index (records.COUNTERS, and records.DROP_BASE + reason)."""
    count = records.TAP_COUNTERS_COUNT
    return list(struct.unpack_from(f"<{count}Q", buffer, records.TAP_COUNTERS_OFFSET))


def read_records(buffer: Buffer, header: TapHeader, start: int, end: int) -> Iterator[memoryview]:
    """The raw records start..end (sequence numbers) as at most two runs of contiguous bytes, oldest first.

    The caller must have seen write_cursor >= end, and keeps end - start <= capacity.
    """
    while start < end:
        slot = start % header.capacity
        run = min(end - start, header.capacity - slot)
        offset = records.TAP_HEADER_SIZE + slot * header.record_size
        yield memoryview(buffer)[offset : offset + run * header.record_size]
        start += run


def set_read_cursor(buffer: WritableBuffer, cursor: int) -> None:
    """The reader's word that every record before `cursor` is safe."""
    _U64.pack_into(buffer, records.TAP_AT_READ_CURSOR, cursor)


class TapWriter:
    """Writes records into a tap buffer of header.file_size bytes. Single writer; not for the packet path."""

    def __init__(self, buffer: WritableBuffer, header: TapHeader) -> None:
        if len(buffer) != header.file_size:
            raise TapError(f"size: expected {header.file_size} bytes, got {len(buffer)}")
        self._buffer = buffer
        self._header = header
        self._written = 0
        self._lost = 0
        buffer[: records.TAP_HEADER_SIZE] = header.pack()

    @property
    def next_seq(self) -> int:
        """The sequence number that the next record must carry."""
        return self._written

    def write(self, record: bytes) -> bool:
        """Publish one record; False (and counted as lost) when the ring is full."""
        if len(record) != self._header.record_size:
            raise TapError(f"record: expected {self._header.record_size} bytes, got {len(record)}")
        read = _U64.unpack_from(self._buffer, records.TAP_AT_READ_CURSOR)[0]
        if self._written - read >= self._header.capacity:
            self._lost += 1
            _U64.pack_into(self._buffer, records.TAP_AT_LOST, self._lost)
            return False
        offset = records.TAP_HEADER_SIZE + self._written % self._header.capacity * self._header.record_size
        self._buffer[offset : offset + len(record)] = record
        self._written += 1
        _U64.pack_into(self._buffer, records.TAP_AT_WRITE_CURSOR, self._written)
        return True

    def beat(self, now_ns: int) -> None:
        """Store the heartbeat."""
        _U64.pack_into(self._buffer, records.TAP_AT_HEARTBEAT_NS, now_ns)

    def close(self) -> None:
        """Mark an end in good order."""
        _U64.pack_into(self._buffer, records.TAP_AT_CLOSED, 1)
