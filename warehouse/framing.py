"""ClickHouse's own compression, as `compress=1` and `decompress=1` ask for it: blocks, each with a checksum.

A block is CityHash128 (the version of 1.0.2) of all that follows it, 16 bytes; the method, 1 byte; the packed size with
these 9 bytes of header, 4 bytes; the size of what is packed, 4 bytes; the packed bytes. Integers are little-endian.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NONE, LZ4, ZSTD = 0x02, 0x82, 0x90
_CHECKSUM, _HEADER = 16, struct.Struct("<BII")
_HALVES = struct.Struct("<QQ")
# What an answer's block holds at most, as on a server.
BLOCK = 1 << 20
# What a request's block may hold at most. Clients write blocks of up to 10 MiB.
MAX_BLOCK = 64 << 20
# An LZ4 block cannot expand more than this: a larger claim is refused before memory is taken for it.
_LZ4_EXPANSION = 255


class PackedDataError(Exception):
    """Packed data that is broken or too large. `code`: ClickHouse's number; `name`: its name."""

    def __init__(self, code: int, name: str, text: str) -> None:
        self.code, self.name = code, name
        super().__init__(f"{text} ({name})")


def _broken(text: str) -> PackedDataError:
    return PackedDataError(271, "CANNOT_DECOMPRESS", text)


def too_large(limit: int) -> PackedDataError:
    """What is raised when unpacked data exceeds `limit` [bytes]."""
    return PackedDataError(241, "MEMORY_LIMIT_EXCEEDED", f"the unpacked body is larger than {limit} bytes")


def _checksum(data: bytes | memoryview) -> bytes:
    number = CityHash128(bytes(data))
    return _HALVES.pack(number >> 64, number & 0xFFFFFFFFFFFFFFFF)


def block(data: bytes, method: int = LZ4) -> bytes:
    """One block. `data`: at most MAX_BLOCK bytes."""
    match method:
        case 0x82:
            packed: bytes = lz4.block.compress(data, store_size=False)
        case 0x90:
            packed = zstd.compress(data, level=1)
        case 0x02:
            packed = data
        case _:
            raise ValueError(f"no such method: {method:#x}")
    body = _HEADER.pack(method, _HEADER.size + len(packed), len(data)) + packed
    return _checksum(body) + body


class BlockPacker:
    """An answer's chunks, packed into blocks. Holds BLOCK bytes at most."""

    def __init__(self, method: int = LZ4) -> None:
        self._method = method
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """The blocks that are full after this chunk; may be empty."""
        self._held += chunk
        out, done = [], 0
        while len(self._held) - done >= BLOCK:
            out.append(block(bytes(self._held[done : done + BLOCK]), self._method))
            done += BLOCK
        del self._held[:done]
        return b"".join(out)

    def finish(self) -> bytes:
        """The last block; nothing when nothing is left."""
        held, self._held = bytes(self._held), bytearray()
        return block(held, self._method) if held else b""


class BlockUnpacker:
    """A request's blocks, unpacked as they arrive. `limit`: what they may come to together [bytes].

    Holds one packed block and what it unpacks to.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._total = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What is in the blocks that are whole after this chunk; PackedDataError."""
        self._held += chunk
        at = 0
        try:
            while (size := self._whole(at)) is not None:
                yield self._unpacked(at, size)
                at += size
        finally:
            del self._held[:at]

    def finish(self) -> None:
        """PackedDataError when the data ends inside a block."""
        if self._held:
            raise _broken(f"the data ends inside a block, {len(self._held)} bytes after its start")

    def _whole(self, at: int) -> int | None:
        """The size of the block at `at`; None while not all of it is there."""
        there = len(self._held) - at
        if there < _CHECKSUM + _HEADER.size:
            return None
        method, packed, plain = _HEADER.unpack_from(self._held, at + _CHECKSUM)
        if method not in (NONE, LZ4, ZSTD):
            raise PackedDataError(
                89, "UNKNOWN_COMPRESSION_METHOD", f"expected a block of LZ4 (0x82) or ZSTD (0x90), got {method:#04x}"
            )
        if packed < _HEADER.size:
            raise _broken(f"a block's packed size is {packed} bytes, less than its own header")
        if packed > MAX_BLOCK or plain > MAX_BLOCK:
            raise PackedDataError(
                39,
                "TOO_LARGE_SIZE_COMPRESSED",
                f"a block of {packed} bytes that holds {plain}: the limit is {MAX_BLOCK}",
            )
        if self._total + plain > self._limit:
            raise too_large(self._limit)
        size = packed - _HEADER.size
        if (method == NONE and plain != size) or (method == LZ4 and plain > size * _LZ4_EXPANSION):
            raise _broken(f"a block of {size} packed bytes cannot hold {plain}")
        return _CHECKSUM + packed if there >= _CHECKSUM + packed else None

    def _unpacked(self, at: int, size: int) -> bytes:
        with memoryview(self._held) as held:
            body = bytes(held[at + _CHECKSUM : at + size])
            found = bytes(held[at : at + _CHECKSUM])
        if _checksum(body) != found:
            raise PackedDataError(40, "CHECKSUM_DOESNT_MATCH", "a block's checksum is not that of its bytes")
        method, _, plain = _HEADER.unpack_from(body)
        data = body[_HEADER.size :]
        try:
            if method == LZ4:
                out = lz4.block.decompress(data, uncompressed_size=plain) if plain else b""
            elif method == ZSTD:
                stream = zstd.ZstdDecompressor()
                out = stream.decompress(data, max_length=plain + 1)
                if not stream.eof:
                    raise _broken(f"a ZSTD block does not end after the {plain} bytes that it says it holds")
            else:
                out = data
        except (lz4.block.LZ4BlockError, zstd.ZstdError, ValueError) as error:
            raise _broken(f"a block cannot be unpacked: {error}") from None
        if len(out) != plain:
            raise _broken(f"a block says that it holds {plain} bytes, and holds {len(out)}")
        self._total += plain
        return bytes(out)
