"""HTTP's content encodings, both ways and as a stream: gzip, deflate, LZ4 (its frame format) and ZSTD."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import lz4.frame

from warehouse.framing import BlockUnpacker, PackedDataError, too_large

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# How much is unpacked at a time [bytes].
PIECE = 1 << 20
# In a server's order of preference, as far as they are spoken here; it would take brotli before LZ4.
ENCODINGS = ("lz4", "gzip", "deflate", "zstd")


class Packer(Protocol):
    """Packs a stream. Whatever `feed` keeps comes out of `finish`."""

    def feed(self, chunk: bytes) -> bytes:
        """The packed bytes that are ready after this chunk; may be empty."""

    def finish(self) -> bytes:
        """The rest."""


class Unpacker(Protocol):
    """Unpacks a stream; PackedDataError for broken data and for more than its limit."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What is unpacked after this chunk, in pieces."""

    def finish(self) -> None:
        """PackedDataError when the stream ends too early."""


def chosen(accept: str) -> str | None:
    """The encoding of an answer to `Accept-Encoding: accept`; None for none of ours.

    Weights are not weighed, as on a server, but q=0 is a no.
    """
    offered = set()
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        if not weight.strip("0."):
            continue
        offered.add(name)
    return next((name for name in ENCODINGS if name in offered), None)


class EncodingPacker:
    """Packs an answer by a content encoding of ENCODINGS. `level`: of gzip and deflate."""

    def __init__(self, encoding: str, level: int = 3) -> None:
        self._first = b""
        match encoding:
            case "gzip":
                self._stream: Any = zlib.compressobj(level, wbits=31)
            case "deflate":
                self._stream = zlib.compressobj(level)
            case "lz4":
                self._stream = lz4.frame.LZ4FrameCompressor()
                self._first = self._stream.begin()
            case "zstd":
                self._stream = zstd.ZstdCompressor(level=1)
            case _:
                raise ValueError(f"no such encoding: {encoding}")

    def feed(self, chunk: bytes) -> bytes:
        """The packed bytes that are ready after this chunk."""
        first, self._first = self._first, b""
        packed: bytes = self._stream.compress(chunk)
        return first + packed

    def finish(self) -> bytes:
        """The rest of the stream."""
        first, self._first = self._first, b""
        packed: bytes = self._stream.flush()
        return first + packed


class EncodingUnpacker:
    """Unpacks a request's body by its Content-Encoding. `limit`: what it may come to [bytes].

    Streams that follow each other are one body. PackedDataError, also for an unknown encoding.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        if encoding not in ENCODINGS:
            raise PackedDataError(36, "BAD_ARGUMENTS", f"Unknown compression method: {encoding}")
        self._encoding, self._limit, self._total = encoding, limit, 0
        self._stream = self._new()
        self._begun = False

    def _new(self) -> Any:
        match self._encoding:
            case "gzip":
                return zlib.decompressobj(wbits=31)
            case "deflate":
                return zlib.decompressobj()
            case "lz4":
                return lz4.frame.LZ4FrameDecompressor()
        return zstd.ZstdDecompressor()

    def _piece(self, data: bytes) -> tuple[bytes, bytes]:
        """(a piece of at most PIECE bytes, the data that the stream did not take)."""
        if self._encoding in ("gzip", "deflate"):
            out = self._stream.decompress(data, PIECE)
            return out, self._stream.unconsumed_tail or self._stream.unused_data
        out = self._stream.decompress(data, max_length=PIECE)
        # These keep what they did not take, until the stream's end.
        return out, self._stream.unused_data or b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """What is unpacked after this chunk, in pieces of at most PIECE bytes."""
        try:
            while True:
                if self._stream.eof:
                    if not chunk:
                        return
                    self._stream, self._begun = self._new(), False
                self._begun = self._begun or bool(chunk)
                piece, chunk = self._piece(chunk)
                self._total += len(piece)
                if self._total > self._limit:
                    raise too_large(self._limit)
                if piece:
                    yield piece
                if not chunk and len(piece) < PIECE:
                    return
        except (RuntimeError, OSError, EOFError, ValueError, zlib.error, zstd.ZstdError) as error:
            raise PackedDataError(271, "CANNOT_DECOMPRESS", f"the body is no valid {self._encoding}: {error}") from None

    def finish(self) -> None:
        """PackedDataError when the body ends inside a stream."""
        if self._begun and not self._stream.eof:
            raise PackedDataError(271, "CANNOT_DECOMPRESS", f"the body is no valid {self._encoding}: it ends too early")


def unpackers(encoding: str, blocks: bool, limit: int) -> list[Unpacker]:
    """What a body goes through, first to last: its Content-Encoding, then its blocks (`decompress=1`)."""
    found: list[Unpacker] = []
    encoding = encoding.strip().lower()
    if encoding not in ("", "identity"):
        found.append(EncodingUnpacker(encoding, limit))
    if blocks:
        found.append(BlockUnpacker(limit))
    return found


def unpack(chunks: Iterable[bytes], steps: list[Unpacker]) -> Iterator[bytes]:
    """The body's pieces after all steps; PackedDataError."""
    if not steps:
        yield from chunks
        return
    first, rest = steps[0], steps[1:]

    def pieces() -> Iterator[bytes]:
        for chunk in chunks:
            yield from first.feed(chunk)
        first.finish()

    yield from unpack(pieces(), rest)


def pack(chunks: Iterable[bytes], steps: list[Packer]) -> Iterator[bytes]:
    """An answer's chunks after all steps: its blocks first, then its Content-Encoding."""
    if not steps:
        yield from chunks
        return
    first, rest = steps[0], steps[1:]

    def pieces() -> Iterator[bytes]:
        for chunk in chunks:
            if packed := first.feed(chunk):
                yield packed
        if packed := first.finish():
            yield packed

    yield from pack(pieces(), rest)
