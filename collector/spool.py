"""Batches on local disk: one file each, whole or not at all, with a checksum.

File: magic (8) | BLAKE2s-128 of the header | BLAKE2s-128 of the records | header length u32 | header (JSON) | records.
The name says the order and how many records are inside: <number>-<records>.batch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from service.files import make_directory, sync_directory

_MAGIC = b"TGWSPL1\n"
_PREFIX = struct.Struct("<8s16s16sI")
SUFFIX = ".batch"
_NAME = re.compile(r"[0-9]{20}-[0-9]{1,9}\.batch")
STATE = "state.json"


class SpoolError(ValueError):
    """A spool file is torn. `segments`: what was in it, when its header can still be read."""

    def __init__(self, message: str, segments: tuple[Segment, ...] | None = None) -> None:
        super().__init__(message)
        self.segments = segments


@dataclass(frozen=True, slots=True)
class Segment:
    """A range of records of one tap: first .. first + count, of which `kept` are in the batch."""

    node: str
    boot_id: str
    worker: int
    role: int
    kind: int
    first: int
    count: int
    kept: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What one turn of the collector made safe.

    `rows`: table name -> rows (in the column order of collector.columns) of what is not records. `lost`: per tap name
    of life "node/boot/worker", the ring losses that are reported up to and including this batch. `torn`: the torn
    files whose loss it reports.
    """

    created_ns: int
    segments: tuple[Segment, ...] = ()
    raw: bytes = b""
    rows: dict[str, list[list[Any]]] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    torn: tuple[str, ...] = ()

    @property
    def records(self) -> int:
        return sum(s.kept for s in self.segments)

    def encode(self) -> bytes:
        """The spool file's bytes."""
        header = json.dumps(
            {
                "created_ns": self.created_ns,
                "segments": [asdict(s) for s in self.segments],
                "rows": self.rows,
                "lost": self.lost,
                "torn": self.torn,
            },
            separators=(",", ":"),
        ).encode()
        return _PREFIX.pack(_MAGIC, _sum(header), _sum(self.raw), len(header)) + header + self.raw


def decode(data: bytes) -> Batch:
    """The batch of a spool file; SpoolError when the file is torn."""
    if len(data) < _PREFIX.size:
        raise SpoolError(f"expected at least {_PREFIX.size} bytes, got {len(data)}")
    magic, header_sum, raw_sum, length = _PREFIX.unpack_from(data)
    header, raw = data[_PREFIX.size : _PREFIX.size + length], data[_PREFIX.size + length :]
    if magic != _MAGIC:
        raise SpoolError(f"expected the magic {_MAGIC!r}, got {magic!r}")
    if _sum(header) != header_sum:
        raise SpoolError("the header's checksum is wrong")
    try:
        document = json.loads(header)
        segments = tuple(Segment(**s) for s in document["segments"])
        batch = Batch(
            document["created_ns"], segments, raw, document["rows"], document["lost"], tuple(document["torn"])
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SpoolError(f"the header is not of this version: {error!r}") from None
    if _sum(raw) != raw_sum:
        raise SpoolError("the records' checksum is wrong", segments)
    return batch


def token_of(data: bytes) -> str:
    """The deduplication token of a spool file: equal for equal contents (tap ranges included), and for those alone."""
    return hashlib.blake2s(data[: _PREFIX.size], digest_size=16).hexdigest()


def _sum(data: bytes) -> bytes:
    return hashlib.blake2s(data, digest_size=16).digest()


def records_of(name: str) -> int:
    """The number of records a file's name promises."""
    try:
        return int(name.removesuffix(SUFFIX).partition("-")[2])
    except ValueError:
        return 0


def name_of(number: int, records: int) -> str:
    """A file name; names sort like their numbers."""
    return f"{number:020d}-{records}{SUFFIX}"


class Store(Protocol):
    """Durable named blobs. `put` returns when the blob would survive a power cut; it appears whole or not at all."""

    def names(self) -> list[str]:
        """Names of the batches, sorted."""

    def used(self) -> int:
        """Bytes held by batches."""

    def get(self, name: str) -> bytes:
        """The blob; KeyError."""

    def put(self, name: str, data: bytes) -> None:
        """Store a blob; OSError when there is no room, and then nothing is stored."""

    def delete(self, name: str) -> None:
        """Forget a blob; one that is gone is no error."""

    def set_aside(self, name: str) -> None:
        """Take a torn batch out of the queue; it stays for a person to look at."""


class DirectoryStore:
    """A spool directory on local disk. One process at a time: OSError while another holds it."""

    def __init__(self, path: Path) -> None:
        make_directory(path)
        self._path = path
        self._lock = (path / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._sizes: dict[str, int] = {}
        self.unfinished = 0
        for entry in os.scandir(path):
            if entry.name.endswith(".new"):
                # Killed while writing: the records are still in their taps.
                os.unlink(entry.path)
                self.unfinished += 1
            elif _NAME.fullmatch(entry.name):  # anything else is not ours
                self._sizes[entry.name] = entry.stat().st_size

    def names(self) -> list[str]:
        return sorted(self._sizes)

    def used(self) -> int:
        return sum(self._sizes.values())

    def get(self, name: str) -> bytes:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            raise KeyError(name) from None

    def put(self, name: str, data: bytes) -> None:
        temporary = self._path / f"{name}.new"
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(self._path / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(self._path)
        if name.endswith(SUFFIX):
            self._sizes[name] = len(data)

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)
        self._sizes.pop(name, None)

    def set_aside(self, name: str) -> None:
        (self._path / name).rename(self._path / f"{name}.torn")
        self._sizes.pop(name, None)

    def close(self) -> None:
        """Let another process have the directory."""
        self._lock.close()
