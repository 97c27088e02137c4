"""ClickHouse's blocks and HTTP's encodings: what goes in comes out, broken data is named, nothing expands too far."""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
import zlib
from collections.abc import Iterator

import lz4.block
import lz4.frame
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from warehouse import encoding, framing
from warehouse.framing import LZ4, NONE, ZSTD, BlockPacker, BlockUnpacker, PackedDataError, block


def cut(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = next(sizes)
        yield data[at : at + size]
        at += size


def unpacked(data: bytes, steps: list[encoding.Unpacker], size: int = 1 << 16) -> bytes:
    return b"".join(encoding.unpack(cut(data, iter(lambda: size, None)), steps))


@given(data=st.binary(max_size=5000), method=st.sampled_from([NONE, LZ4, ZSTD]), seed=st.integers(0, 1 << 30))
@settings(max_examples=200, deadline=None)
def test_blocks_come_out_as_they_went_in_wherever_they_are_cut(data: bytes, method: int, seed: int) -> None:
    dice = random.Random(seed)
    sizes = iter(lambda: dice.randint(1, 700), None)
    packed = b"".join(encoding.pack(cut(data, sizes), [BlockPacker(method)]))
    assert b"".join(encoding.unpack(cut(packed, sizes), [BlockUnpacker(1 << 20)])) == data


def test_an_answer_is_cut_into_blocks_of_a_servers_size() -> None:
    packer = BlockPacker()
    out = packer.feed(b"x" * (framing.BLOCK * 2 + 5))
    blocks = out + packer.finish()
    sizes = []
    while blocks:
        _, packed, plain = struct.unpack_from("<BII", blocks, 16)
        sizes.append(plain)
        blocks = blocks[16 + packed :]
    assert sizes == [framing.BLOCK, framing.BLOCK, 5]


@given(noise=st.binary(min_size=1, max_size=200))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused_and_never_fails_otherwise(noise: bytes) -> None:
    with pytest.raises(PackedDataError):
        unpacked(noise, [BlockUnpacker(1 << 20)])


@given(data=st.binary(min_size=1, max_size=300), at=st.integers(0, 1 << 30), bit=st.integers(0, 7))
@settings(max_examples=200, deadline=None)
def test_one_flipped_bit_is_found(data: bytes, at: int, bit: int) -> None:
    packed = bytearray(block(data))
    packed[at % len(packed)] ^= 1 << bit
    with pytest.raises(PackedDataError):
        unpacked(bytes(packed), [BlockUnpacker(1 << 20)])


def sealed(method: int, packed: bytes, plain: int) -> bytes:
    body = struct.pack("<BII", method, 9 + len(packed), plain) + packed
    return framing._checksum(body) + body


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (block(b"abc")[:-1], 271),
        (block(b"abc") + b"\0", 271),
        (sealed(0x91, b"", 0), 89),
        (sealed(LZ4, lz4.block.compress(b"a" * 100, store_size=False), 99), 271),
        (sealed(LZ4, lz4.block.compress(b"a" * 100, store_size=False), 101), 271),
        (sealed(LZ4, b"\xff\xff\xff\xff", 100), 271),
        (sealed(ZSTD, zstd.compress(b"a" * 100), 99), 271),
        (sealed(ZSTD, zstd.compress(b"a" * 100), 101), 271),
        (sealed(ZSTD, zstd.compress(b"a" * 100)[:-3], 100), 271),
        (sealed(NONE, b"abc", 4), 271),
        (sealed(LZ4, b"x", framing.MAX_BLOCK + 1), 39),
        (sealed(LZ4, b"x" * 10, 50_000), 271),
        (b"\0" * 16 + block(b"abc")[16:], 40),
    ],
)
def test_a_broken_block_is_named(data: bytes, code: int) -> None:
    with pytest.raises(PackedDataError) as raised:
        unpacked(data, [BlockUnpacker(1 << 20)])
    assert raised.value.code == code
    assert raised.value.name in str(raised.value)


PACKERS = {"gzip": gzip.compress, "deflate": zlib.compress, "lz4": lz4.frame.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("name", encoding.ENCODINGS)
@given(data=st.binary(max_size=5000), seed=st.integers(0, 1 << 30))
@settings(max_examples=60, deadline=None)
def test_encodings_come_out_as_they_went_in(name: str, data: bytes, seed: int) -> None:
    dice = random.Random(seed)
    sizes = iter(lambda: dice.randint(1, 700), None)
    ours = b"".join(encoding.pack(cut(data, sizes), [encoding.EncodingPacker(name)]))
    for packed in (ours, PACKERS[name](data), PACKERS[name](data) + ours):
        expected = data + data if len(packed) > len(ours) and packed.endswith(ours) and packed != ours else data
        steps = encoding.unpackers(name, False, 1 << 20)
        assert b"".join(encoding.unpack(cut(packed, sizes), steps)) == expected


@pytest.mark.parametrize("name", encoding.ENCODINGS)
def test_a_body_that_ends_too_early_is_refused(name: str) -> None:
    whole = PACKERS[name](random.Random(7).randbytes(5000))
    for size in (1, 10, len(whole) // 2, len(whole) - 1):
        with pytest.raises(PackedDataError) as raised:
            unpacked(whole[:size], encoding.unpackers(name, False, 1 << 20))
        assert raised.value.code == 271


@pytest.mark.parametrize("name", encoding.ENCODINGS)
def test_large_bodies_in_one_chunk_come_out_whole(name: str) -> None:
    data = random.Random(3).randbytes(1 << 20) + b"y" * (5 << 20)
    assert unpacked(PACKERS[name](data), encoding.unpackers(name, False, 8 << 20), 1 << 30) == data


def test_both_ways_at_once() -> None:
    data = random.Random(4).randbytes(3 << 20)
    packed = b"".join(encoding.pack([data], [BlockPacker(ZSTD), encoding.EncodingPacker("gzip")]))
    assert unpacked(packed, encoding.unpackers("gzip", True, 4 << 20)) == data


def bombs() -> dict[str, bytes]:
    zeros = bytes(64 << 20)
    found = {name: pack(zeros) for name, pack in PACKERS.items()}
    return found | {"blocks": block(bytes(framing.MAX_BLOCK), ZSTD) * 4, "blocks of LZ4": block(bytes(32 << 20)) * 4}


@pytest.mark.parametrize("name", [*PACKERS, "blocks", "blocks of LZ4"])
def test_a_bomb_takes_no_memory(name: str) -> None:
    bomb = bombs()[name]
    assert len(bomb) < 1 << 20
    steps = (
        encoding.unpackers("", True, 1 << 20) if name.startswith("blocks") else encoding.unpackers(name, False, 1 << 20)
    )
    tracemalloc.start()
    try:
        with pytest.raises(PackedDataError) as raised:
            unpacked(bomb, steps, 1 << 30)
        assert raised.value.code == 241
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("deflate", "deflate"),
        ("lz4,br,zstd", "lz4"),
        ("zstd", "zstd"),
        ("gzip;q=0, zstd;q=0.5", "zstd"),
        ("GZIP;q=1.0", "gzip"),
        ("xgzip", None),
    ],
)
def test_which_encoding_answers(accept: str, expected: str | None) -> None:
    assert encoding.chosen(accept) == expected


@pytest.mark.parametrize("name", ["br", "snappy", "nonsense", "gzip, gzip"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(PackedDataError) as raised:
        encoding.unpackers(name, False, 1)
    assert raised.value.code == 36
