"""The manifest: one canonical form, checked field by field, compact."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed.images.chunk import CHUNK, MAX_STORED, digest_of
from pxed.images.manifest import Manifest, ManifestError, Partition, PartitionTable, image_id, parse_layout

TABLE = PartitionTable("gpt", "d" * 8, (Partition(1, 1 << 20, 5 << 20, "ef00", "u-1", "EFI"),))


def make(size: int, indexes: list[int]) -> Manifest:
    names = b"".join(digest_of(b"%d" % index) for index in indexes)
    return Manifest.build(size, 512, TABLE, indexes, names)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    size = draw(st.integers(1, 300 * 2048)) * 512
    chunks = -(-size // CHUNK)
    return make(size, sorted(draw(st.sets(st.integers(0, chunks - 1)))))


@given(manifests())
def test_round_trip_and_what_it_says(manifest: Manifest) -> None:
    data = manifest.encode()
    assert Manifest.decode(data, image_id(data)) == manifest
    assert manifest.id == image_id(data) and len(manifest.id) == 64
    indexes = list(manifest.indexes())
    assert indexes == [index for index in range(manifest.chunks) if manifest.stored[index >> 3] >> (index & 7) & 1]
    assert [manifest.digest(k) for k in range(manifest.stored_chunks)] == [digest_of(b"%d" % i) for i in indexes]
    covered = [(i * CHUNK, manifest.chunk_length(i)) for i in indexes] + list(manifest.zero_runs())
    end = 0
    for offset, length in sorted(covered):
        assert offset == end and length > 0
        end += length
    assert end == manifest.size


def test_a_terabyte_is_compact() -> None:
    empty = Manifest.build(1 << 40, 512, PartitionTable(), [], b"")
    assert len(empty.encode()) < 132_000
    full = Manifest.build(1 << 40, 512, PartitionTable(), range(1 << 20), random.Random(1).randbytes(32 << 20))
    assert len(full.encode()) < (32 << 20) + 132_000
    assert len(Manifest.decode(full.encode()).indexes()) == 1 << 20


def test_another_image_is_refused() -> None:
    data = make(10 * CHUNK, [1, 2]).encode()
    with pytest.raises(ManifestError, match="not that of image"):
        Manifest.decode(data, "0" * 64)


def test_truncated_or_damaged_bytes_never_pass_for_another_manifest() -> None:
    manifest = make(10 * CHUNK, [1, 2])
    data = manifest.encode()
    for position in range(len(data)):
        with pytest.raises(ManifestError):
            Manifest.decode(data[:position])
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(ManifestError):
            Manifest.decode(bytes(damaged), manifest.id)
    with pytest.raises(ManifestError):
        Manifest.decode(data + b"\0")


def test_only_the_canonical_form_is_taken() -> None:
    fields = msgspec.structs.asdict(make(10 * CHUNK, [1]))
    for other in ({**fields, "extra": 1}, dict(reversed(fields.items()))):
        with pytest.raises(ManifestError, match="canonical"):
            Manifest.decode(msgspec.msgpack.encode(other))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format 2"),
        ({"chunk": 4096}, "chunks of 4096"),
        ({"size": 0}, "a disk of 0 bytes"),
        ({"size": -512}, "a disk of -512 bytes"),
        ({"size": 10 * CHUNK + 100}, "does not exist"),
        ({"size": 1 << 60}, "larger than an image can be"),
        ({"sector": 520}, "sectors of 520"),
        ({"stored": b"\2"}, "bitmap"),
        ({"stored": b"\2\xfc"}, "bitmap"),
        ({"stored": b"\6\0"}, "names"),
        ({"names": b""}, "names"),
        ({"names": digest_of(bytes(CHUNK))}, "all zero"),
    ],
)
def test_fields_that_do_not_agree_are_refused(change: dict[str, object], reason: str) -> None:
    fields = msgspec.structs.asdict(make(10 * CHUNK, [1]))
    with pytest.raises(ManifestError, match=reason):
        Manifest.decode(msgspec.msgpack.encode({**fields, **change}))


def test_a_short_last_chunk_of_zeros_is_refused_too() -> None:
    with pytest.raises(ManifestError, match="all zero"):
        Manifest.build(CHUNK + 512, 512, PartitionTable(), [1], digest_of(bytes(512)))


def test_layout() -> None:
    manifest = make(10 * CHUNK, [1, 2])
    assert list(parse_layout(b"\1\0\0\0\0\2\0\0", manifest)) == [1, 512]
    with pytest.raises(ManifestError, match="does not fit"):
        parse_layout(b"\1\0\0\0", manifest)
    for length in (0, MAX_STORED + 1):
        with pytest.raises(ManifestError, match="no chunk has"):
            parse_layout(b"\1\0\0\0" + length.to_bytes(4, "little"), manifest)
