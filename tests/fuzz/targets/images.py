"""Images and disks of strangers: manifests, layouts, chunk frames, partition tables."""

import struct
import zlib
from itertools import pairwise

from fuzz.source import Source
from pxed.agent.plan import make_plan
from pxed.images.chunk import CHUNK, MAX_STORED, ChunkError, Compressor, Decompressor, digest_of
from pxed.images.manifest import Manifest, ManifestError, Partition, PartitionTable, image_id
from pxed.images.partitions import GPT_HEADER, detect_sector, read_table, stated_size

MANIFEST, PARTS, FRAME, DISK = range(4)
SIZE = 96 << 20  # bytes of the disk whose table is read
EDGE = 40 * 512  # bytes at its beginning and at its end that the fuzzer writes
RAW = b"pxed" * 256
RAW_DIGEST = digest_of(RAW)
GUID = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
WORDS = (
    b"EFI PART\0\0\1\0\x5c\0\0\0",
    b"\x55\xaa",
    GUID,
    b"\xee\xff\xff\xff",
    b"NTFS",
    b"\x28\xb5\x2f\xfd",
    b"\x05\0\0\0",
)
_decompressor = Decompressor()


def seeds() -> dict[str, bytes]:
    """A manifest, its parts, a frame, and disks with each kind of table."""
    table = PartitionTable("gpt", "d" * 8, (Partition(1, 1 << 20, 5 << 20, "ef00", "u-1", "EFI"),))
    manifest = Manifest.build(5 * CHUNK - 512, 512, table, [0, 4], digest_of(b"a") + digest_of(b"b"))
    frame = Compressor().compress(RAW)
    gpt = bytearray(EDGE)
    gpt[446:462] = bytes((0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF)) + struct.pack("<II", 1, SIZE // 512 - 1)
    gpt[510:512] = b"\x55\xaa"
    entry = struct.pack("<16s16sQQQ72s", GUID, b"u" * 16, 2048, 4095, 0, "EFI".encode("utf-16-le"))
    gpt[1024 : 1024 + 128] = entry
    gpt[512 : 512 + GPT_HEADER.size] = GPT_HEADER.pack(
        b"EFI PART", b"\0\0\1\0", 92, 0, 1, SIZE // 512 - 1, 34, SIZE // 512 - 34, b"d" * 16, 2, 128, 128, 0
    )
    mbr = bytearray(EDGE)
    mbr[446:478] = struct.pack("<BBHBBHII", 0x80, 0, 0, 0x83, 0, 0, 2048, 100) + struct.pack(
        "<BBHBBHII", 0, 0, 0, 5, 0, 0, 20, 19
    )
    mbr[510:512] = mbr[20 * 512 + 510 : 20 * 512 + 512] = b"\x55\xaa"
    mbr[20 * 512 + 446 : 20 * 512 + 462] = struct.pack("<BBHBBHII", 0, 0, 0, 0x83, 0, 0, 1, 5)
    return {
        "manifest": bytes((MANIFEST,)) + manifest.encode(),
        "parts": bytes((PARTS, 0, 4, 7, 1, 2, 0, 4)) + struct.pack("<II", 100, 200),
        "full": bytes((PARTS, 1, 0, 0, 9, 0, 1, 1, 1)) + struct.pack("<I", MAX_STORED) * 3,
        "frame": bytes((FRAME, 4, 0)) + frame,
        "raw-frame": bytes((FRAME, 4, 0)) + Compressor(1).compress(RAW),
        "gpt": bytes((DISK, 1, 0)) + bytes(gpt),
        "gpt-4k": bytes((DISK, 1, 1)) + bytes(gpt[:512]).ljust(4096, b"\0") + bytes(gpt[512:]),
        "gpt-unfixed": bytes((DISK, 0, 0)) + bytes(gpt),
        "mbr": bytes((DISK, 0, 0)) + bytes(mbr),
        "fat": bytes((DISK, 0, 0)) + bytes(54) + b"FAT16   ".ljust(456, b"\0") + b"\x55\xaa",
    }


def one(data: bytes) -> None:
    """One of the four readers."""
    source = Source(data)
    source.pick((_manifest, _parts, _frame, _disk))(source)


def _manifest(source: Source) -> None:
    """Bytes of a server are a manifest in its one form, or refused."""
    data = source.rest()
    try:
        manifest = Manifest.decode(data)
    except ManifestError as error:
        assert str(error)
        return
    assert manifest.encode() == data and manifest.id == image_id(data)
    if manifest.chunks < 100_000:
        _covers(manifest)


def _parts(source: Source) -> None:
    """Sizes, chunk numbers and layouts of any kind make a manifest and a plan, or are refused."""
    size, sector = (source.number(1) << 20) + source.number(2) * 512, source.pick((512, 4096, 1024))
    count = source.number(1) % 12
    indexes = sorted({source.number(1) for _ in range(count)})
    chunks = -(-size // CHUNK)
    if indexes and indexes[-1] >= chunks:
        return
    names = b"".join(digest_of(bytes((index,))) for index in indexes)
    try:
        manifest = Manifest.build(size, sector, PartitionTable(), indexes, names)
        assert list(manifest.indexes()) == indexes and Manifest.decode(manifest.encode(), manifest.id) == manifest
        _covers(manifest)
        plan = make_plan(manifest, source.rest())
    except ManifestError:
        return
    pieces = [plan.piece(ordinal) for ordinal in range(plan.count)]
    assert [piece.index for piece in pieces] == indexes
    assert all(first.stored_at + first.stored == second.stored_at for first, second in pairwise(pieces))
    assert plan.stored == sum(piece.stored for piece in pieces)


def _covers(manifest: Manifest) -> None:
    """Chunks and zero runs are the whole disk, without a gap."""
    runs = [(index * CHUNK, manifest.chunk_length(index)) for index in manifest.indexes()]
    end = 0
    for offset, length in sorted([*runs, *manifest.zero_runs()]):
        assert offset == end and length > 0
        end += length
    assert end == manifest.size


def _frame(source: Source) -> None:
    """Only the right frame gives the chunk; no other gives anything."""
    length = source.number(2)
    try:
        assert _decompressor.decompress(source.rest(), length, RAW_DIGEST) == RAW
    except ChunkError as error:
        assert str(error)


def _disk(source: Source) -> None:
    """Any disk has a table that lies within it, or none; and an image of it has one form."""
    mend, large_sectors = source.number(1) & 1, source.number(1) & 1
    sector = 4096 if large_sectors else 512
    head = bytearray(source.take(EDGE).ljust(EDGE, b"\0"))
    tail = bytearray(source.take(EDGE).rjust(EDGE, b"\0"))
    if mend:
        _mend_checksums(head, sector)

    def read(offset: int, length: int) -> bytes:
        assert offset >= 0 and 0 <= length <= 8 << 20
        length = max(0, min(length, SIZE - offset))
        out = bytearray(head[offset : offset + length].ljust(length, b"\0"))
        first = max(offset, SIZE - EDGE)
        if first < offset + length:
            out[first - offset :] = tail[first - SIZE + EDGE : offset + length - SIZE + EDGE]
        return bytes(out)

    assert detect_sector(read, SIZE) in (512, 4096)
    assert stated_size(read, sector) >= 0
    table = read_table(read, SIZE, sector)
    assert table.label in ("", "gpt", "dos")
    for part in table.partitions:
        assert part.start >= 0 and part.size > 0 and part.start + part.size <= SIZE
    numbers = [part.number for part in table.partitions]
    assert len(set(numbers)) == len(numbers) <= 1024
    manifest = Manifest.build(SIZE, sector, table, [], b"")
    assert Manifest.decode(manifest.encode()) == manifest


def _mend_checksums(head: bytearray, sector: int) -> None:
    """Make the primary header's checksums right: guessing them is no fuzzer's business."""
    (size,) = struct.unpack_from("<I", head, sector + 12)
    lba, count, entry = struct.unpack_from("<QII", head, sector + 72)
    if lba * sector < EDGE and count * entry <= SIZE:
        entries = bytes(head[lba * sector :][: count * entry]).ljust(count * entry, b"\0")
        struct.pack_into("<I", head, sector + 88, zlib.crc32(entries))
    head[sector + 16 : sector + 20] = bytes(4)
    struct.pack_into("<I", head, sector + 16, zlib.crc32(bytes(head[sector : sector + min(size, sector)])))
