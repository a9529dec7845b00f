"""One chunk's frame: what goes in comes out, and nothing else comes out."""

import random

import pytest
import zstandard

from pxed.images.chunk import CHUNK, MAX_STORED, ChunkError, Compressor, Decompressor, digest_of, is_zero


def random_bytes(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


@pytest.mark.parametrize("raw", [b"x", bytes(512), b"ab" * 1000, bytes(CHUNK - 1) + b"!", random_bytes(CHUNK)])
def test_round_trip(raw: bytes) -> None:
    frame = Compressor().compress(raw)
    assert len(frame) <= MAX_STORED
    assert Decompressor().decompress(frame, len(raw), digest_of(raw)) == raw


def test_incompressible_bytes_are_a_frame_too() -> None:
    frame = Compressor().compress(random_bytes(CHUNK))
    assert CHUNK < len(frame) <= MAX_STORED
    assert frame[:4] == b"\x28\xb5\x2f\xfd"


def test_zero_test_looks_at_every_byte() -> None:
    assert is_zero(bytes(CHUNK)) and is_zero(bytearray(512))
    assert not is_zero(bytes(CHUNK - 1) + b"\1") and not is_zero(b"\1" + bytes(511))


def test_damage_at_any_byte_is_found() -> None:
    raw = b"pxed " * 100
    frame, digest = Compressor().compress(raw), digest_of(raw)
    decompressor = Decompressor()
    for position in range(len(frame)):
        damaged = bytearray(frame)
        damaged[position] ^= 0x41
        try:
            assert decompressor.decompress(damaged, len(raw), digest) == raw  # a bit without a meaning
        except ChunkError as error:
            assert digest.hex() in str(error)
        with pytest.raises(ChunkError):
            decompressor.decompress(frame[:position], len(raw), digest)


def test_another_chunk_under_this_name_is_refused() -> None:
    with pytest.raises(ChunkError, match="not those that its name stands for"):
        Decompressor().decompress(Compressor().compress(b"one" * 99), 297, digest_of(b"two" * 99))


def test_bomb_is_refused_before_it_is_opened() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
    with pytest.raises(ChunkError, match="its frame states 1073741824 bytes, expected 1048576"):
        Decompressor().decompress(bomb, CHUNK, digest_of(bytes(CHUNK)))


def test_frame_of_unstated_size_is_refused() -> None:
    raw = b"pxed" * 100
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(raw)
    with pytest.raises(ChunkError):
        Decompressor().decompress(frame, len(raw), digest_of(raw))


def test_bytes_after_the_frame_are_refused() -> None:
    raw = b"pxed" * 100
    with pytest.raises(ChunkError):
        Decompressor().decompress(Compressor().compress(raw) + b"\0", len(raw), digest_of(raw))


@pytest.mark.parametrize("length", [0, -1, CHUNK + 1])
def test_impossible_lengths_are_refused(length: int) -> None:
    with pytest.raises(ChunkError, match="out of bounds"):
        Decompressor().decompress(Compressor().compress(b"x"), length, digest_of(b"x"))
