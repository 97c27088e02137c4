"""The Native format as newer clients ask for it (`client_protocol_version`): the engine writes it without their extras.

Since revision 1 every block starts with its block info; since 54454 every column says whether its serialization is a
custom one. Grafana's plugin (clickhouse-go) cannot read a block without them. To put them in, one must know where a
column ends, so this file knows the layout of the types that stand in tgw's tables and what can be computed from them.
"""

from __future__ import annotations

import re

BLOCK_INFO_REVISION = 1
CUSTOM_SERIALIZATION_REVISION = 54454
# Fields 1 (is an overflow: no) and 2 (bucket: -1), then the end.
_BLOCK_INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
_WIDTHS = {
    "Bool": 1, "UInt8": 1, "Int8": 1, "Enum8": 1, "Nothing": 1,
    "UInt16": 2, "Int16": 2, "Enum16": 2, "Date": 2, "BFloat16": 2,
    "UInt32": 4, "Int32": 4, "Float32": 4, "Date32": 4, "DateTime": 4, "IPv4": 4, "Decimal32": 4, "Time": 4,
    "UInt64": 8, "Int64": 8, "Float64": 8, "DateTime64": 8, "Decimal64": 8, "Time64": 8,
    "UInt128": 16, "Int128": 16, "UUID": 16, "IPv6": 16, "Decimal128": 16,
    "UInt256": 32, "Int256": 32, "Decimal256": 32,
}  # fmt: skip
_NAMED = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*|`(?:[^`\\]|\\.)*`)\s+(?=[A-Z])")


class UnsupportedType(Exception):
    """A column of this type cannot be framed."""


class _Reader:
    """Walks over the data. IndexError or UnsupportedType when it is not what its types say."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise IndexError("the block ends inside a column")

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def u64(self) -> int:
        self.skip(8)
        return int.from_bytes(self.data[self.at - 8 : self.at], "little")

    def text(self) -> str:
        size = self.varint()
        self.skip(size)
        return self.data[self.at - size : self.at].decode()


def _parsed(kind: str) -> tuple[str, list[str]]:
    """`Array(Nullable(String))` -> ("Array", ["Nullable(String)"])."""
    name, open_, rest = kind.partition("(")
    if not open_:
        return name.strip(), []
    arguments, depth, quoted, start = [], 0, False, 0
    inner = rest.rstrip()[:-1]
    for i, character in enumerate(inner):
        if character == "'" and (i == 0 or inner[i - 1] != "\\"):
            quoted = not quoted
        elif not quoted and character in "()":
            depth += 1 if character == "(" else -1
        elif not quoted and character == "," and depth == 0:
            arguments.append(inner[start:i].strip())
            start = i + 1
    return name.strip(), [*arguments, inner[start:].strip()]


def _elements(name: str, arguments: list[str]) -> list[str]:
    if name == "Map":
        return arguments
    return [_NAMED.sub("", a, count=1) if _NAMED.match(a) else a for a in arguments]


def _prefix(kind: str, reader: _Reader) -> None:
    """What stands before a column's data, once per block."""
    name, arguments = _parsed(kind)
    if name == "LowCardinality":
        reader.skip(8)
    elif name in ("Array", "Nullable", "SimpleAggregateFunction"):
        _prefix(arguments[-1], reader)
    elif name in ("Tuple", "Map"):
        for element in _elements(name, arguments):
            _prefix(element, reader)


def _column(kind: str, rows: int, reader: _Reader) -> None:
    name, arguments = _parsed(kind)
    if (width := _WIDTHS.get(name)) is not None:
        reader.skip(width * rows)
    elif name.startswith("Interval"):
        reader.skip(8 * rows)
    elif name == "Decimal":
        digits = int(arguments[0])
        reader.skip((4 if digits <= 9 else 8 if digits <= 18 else 16 if digits <= 38 else 32) * rows)
    elif name == "FixedString":
        reader.skip(int(arguments[0]) * rows)
    elif name == "String":
        for _ in range(rows):
            reader.skip(reader.varint())
    elif name == "Nullable":
        reader.skip(rows)
        _column(arguments[0], rows, reader)
    elif name == "SimpleAggregateFunction":
        _column(arguments[-1], rows, reader)
    elif name == "LowCardinality":
        if rows:
            index = reader.u64()
            key, inner = _parsed(arguments[0])
            _column(inner[0] if key == "Nullable" else arguments[0], reader.u64(), reader)
            reader.skip((1 << (index & 0xFF)) * reader.u64())
    elif name in ("Array", "Map"):
        reader.skip(8 * rows)
        total = int.from_bytes(reader.data[reader.at - 8 : reader.at], "little") if rows else 0
        for element in _elements(name, arguments):
            _column(element, total, reader)
    elif name == "Tuple":
        for element in _elements(name, arguments):
            _column(element, rows, reader)
    else:
        raise UnsupportedType(f"a column of type {kind} cannot be sent to this client in the Native format")


class Framer:
    """Native blocks as the engine writes them -> as a client of `revision` reads them, as they come."""

    def __init__(self, revision: int) -> None:
        self._revision = revision
        self._held = b""
        self._enough = 0

    def feed(self, chunk: bytes) -> bytes:
        """The blocks that are whole after this chunk; may be empty. UnsupportedType."""
        if self._revision < BLOCK_INFO_REVISION:
            return chunk
        self._held += chunk
        # A block is walked over from its start each time: only when twice as much is there is it worth another try.
        if len(self._held) < self._enough:
            return b""
        return self._walk()

    def finish(self) -> bytes:
        """The rest. UnsupportedType when it is no whole block."""
        out = self._walk()
        if self._held:
            raise UnsupportedType(f"the answer's last block is cut off, {len(self._held)} bytes after its start")
        return out

    def _walk(self) -> bytes:
        out: list[bytes] = []
        reader, done = _Reader(self._held), 0
        try:
            while reader.at < len(self._held):
                out.append(_block(reader, self._revision))
                done = reader.at
        except IndexError:
            pass
        self._held = self._held[done:]
        self._enough = 2 * len(self._held)
        return b"".join(out)


def _block(reader: _Reader, revision: int) -> bytes:
    """One block. IndexError when it is not all there."""
    out, done = [_BLOCK_INFO], reader.at
    columns, rows = reader.varint(), reader.varint()
    for _ in range(columns):
        reader.text()
        kind = reader.text()
        if revision >= CUSTOM_SERIALIZATION_REVISION:
            out += [reader.data[done : reader.at], b"\0"]
            done = reader.at
        if rows:
            _prefix(kind, reader)
            _column(kind, rows, reader)
    out.append(reader.data[done : reader.at])
    return b"".join(out)


def framed(data: bytes, revision: int) -> bytes:
    """All blocks at once. UnsupportedType."""
    framer = Framer(revision)
    return framer.feed(data) + framer.finish()


def header(columns: list[tuple[str, str]]) -> bytes:
    """The block of no rows that says which columns an empty result has. `columns`: (name, type)."""
    out = [_varint(len(columns)), b"\0"]
    for column in columns:
        for text in column:
            raw = text.encode()
            out += [_varint(len(raw)), raw]
    return b"".join(out)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
