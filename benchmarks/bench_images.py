"""What images cost on the way: manifests, plans, chunks, tables. `pytest benchmarks/bench_images.py --benchmark-only`.

A whole import, beside zstd and BLAKE3 alone, is image_import.py.
"""

import random

import pytest

from pxed.agent.plan import make_plan
from pxed.images.chunk import CHUNK, Compressor, Decompressor, digest_of, is_zero
from pxed.images.manifest import Manifest, PartitionTable
from pxed.images.partitions import read_table
from support.disks import MIB

DISK = 64 << 30  # bytes; every second chunk is stored


@pytest.fixture(scope="module")
def manifest():
    indexes = range(0, DISK // CHUNK, 2)
    return Manifest.build(DISK, 512, PartitionTable(), indexes, random.Random(1).randbytes(32 * len(indexes)))


@pytest.fixture(scope="module")
def chunk():
    """A megabyte that is half text-like and half noise, as program files are."""
    noise = random.Random(2).randbytes(MIB // 2)
    return noise + b"".join(b"line %d of a log file\n" % number for number in range(30_000))[: MIB // 2]


def test_manifest_encode(benchmark, manifest):
    assert benchmark(manifest.encode)


def test_manifest_decode(benchmark, manifest):
    data, image = manifest.encode(), manifest.id
    assert benchmark(Manifest.decode, data, image) == manifest


def test_plan(benchmark, manifest):
    layout = (500_000).to_bytes(4, "little") * manifest.stored_chunks
    assert benchmark(make_plan, manifest, layout).stored == 500_000 * manifest.stored_chunks


def test_chunk_hash(benchmark, chunk):
    assert len(benchmark(digest_of, chunk)) == 32


def test_chunk_is_zero(benchmark):
    assert benchmark(is_zero, bytearray(CHUNK))


def test_chunk_compress(benchmark, chunk):
    assert len(benchmark(Compressor().compress, chunk)) < len(chunk)


def test_chunk_decompress_and_prove(benchmark, chunk):
    frame, digest = Compressor().compress(chunk), digest_of(chunk)
    assert benchmark(Decompressor().decompress, frame, len(chunk), digest) == chunk


def test_no_partition_table(benchmark):
    assert benchmark(read_table, lambda _offset, length: bytes(length), DISK, 512) == PartitionTable()
