"""The manifest: what an image is. Its canonical bytes, hashed with BLAKE3, are the image's id.

The agent imports this module: only msgspec, `chunk` and the error types may be imported here.

The bytes are the msgpack of a `Manifest`: a map in field order, shortest forms, nothing else. One disk content has
one manifest and so one id, on every site: bytes that decode but are not the canonical form are refused.

Compact at any size: a bitmap (bit i, least significant first, set = chunk i is stored) and the names of the stored
chunks in disk order, 32 bytes each. 1 TB of full disk is 32 MB, an empty one 128 KB.

How long a stored chunk is differs from store to store, so it is not here but in the store's *layout*: a u32,
little-endian, for each stored chunk in disk order (its *ordinal*). An image's *data* is the concatenation of those
frames; a chunk that an image holds twice is there twice.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from pxed.errors import PeerError
from pxed.images.chunk import CHUNK, DIGEST, MAX_STORED, digest_of

__all__ = ["FORMAT", "Manifest", "ManifestError", "Partition", "PartitionTable", "image_id", "parse_layout"]

FORMAT = 1
"""The version of the image format."""

MAX_CHUNKS = 1 << 26
"""64 TiB of disk: its manifest would hold 2 GiB of names. More is taken for damage."""


class ManifestError(PeerError):
    """Bytes that are no manifest, or not the manifest that was asked for."""


class Partition(Struct, frozen=True):
    """One partition. `start` and `size` are bytes."""

    number: int
    start: int
    size: int
    type: str  # GPT: type GUID in lower case; MBR: two hex digits
    uuid: str = ""
    name: str = ""


class PartitionTable(Struct, frozen=True):
    """A summary of the partition table. `label` is "gpt" or "dos", or empty when the disk has none."""

    label: str = ""
    id: str = ""  # disk GUID, or the MBR's disk signature as eight hex digits
    partitions: tuple[Partition, ...] = ()


class Manifest(Struct, frozen=True):
    """An image: a disk's size and shape, and the name of every 1 MiB of it that is not zero."""

    format: int
    chunk: int  # CHUNK in this format
    size: int  # bytes of the disk
    sector: int  # bytes of its logical sector: 512 or 4096
    table: PartitionTable
    stored: bytes  # bitmap of the chunks that are not zero
    names: bytes  # BLAKE3 of the raw bytes of each stored chunk, in disk order

    @classmethod
    def build(cls, size: int, sector: int, table: PartitionTable, indexes: Iterable[int], names: bytes) -> "Manifest":
        """The manifest of a disk whose chunks are zero but for those at `indexes`, ascending, called `names`."""
        bitmap = bytearray((_count(size) + 7) // 8)
        for index in indexes:
            bitmap[index >> 3] |= 1 << (index & 7)
        manifest = cls(FORMAT, CHUNK, size, sector, table, bytes(bitmap), names)
        manifest._check()
        return manifest

    @classmethod
    def decode(cls, data: bytes, image: str | None = None) -> "Manifest":
        """The manifest that canonical bytes stand for; with `image`, only if they are that image's.

        Raises ManifestError for anything else.
        """
        if image is not None and image_id(data) != image:
            raise ManifestError(f"the manifest is not that of image {image}: its root is {image_id(data)}")
        try:
            manifest = _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ManifestError(f"not a manifest: {error}") from None
        manifest._check()
        if manifest.encode() != data:
            raise ManifestError("the manifest is not in its canonical form")
        return manifest

    def encode(self) -> bytes:
        """The canonical bytes."""
        return _encoder.encode(self)

    @property
    def id(self) -> str:
        """The image's id: 64 hex digits. Hashes the whole manifest: keep it rather than ask twice."""
        return image_id(self.encode())

    @property
    def chunks(self) -> int:
        """Chunks of the disk, zero ones included."""
        return _count(self.size)

    @property
    def stored_chunks(self) -> int:
        """Chunks that are stored, which is the number of ordinals."""
        return len(self.names) // DIGEST

    def chunk_length(self, index: int) -> int:
        """Raw bytes of chunk `index`; only the disk's last chunk is shorter than CHUNK."""
        return min(CHUNK, self.size - index * CHUNK)

    def digest(self, ordinal: int) -> bytes:
        """The name of the stored chunk `ordinal`."""
        return self.names[ordinal * DIGEST : (ordinal + 1) * DIGEST]

    def indexes(self) -> "array[int]":
        """The disk index of every stored chunk, by ordinal. A chunk's place on the disk is index * CHUNK."""
        found = array("I")
        for position, byte in enumerate(self.stored):
            if byte:
                found.extend([position * 8 + bit for bit in _BITS[byte]])
        return found

    def zero_runs(self) -> Iterator[tuple[int, int]]:
        """(offset, length) in bytes of every run of zero chunks, in disk order."""
        start = 0
        for index in self.indexes():
            if index > start:
                yield start * CHUNK, (index - start) * CHUNK
            start = index + 1
        if start < self.chunks:
            yield start * CHUNK, self.size - start * CHUNK

    def _check(self) -> None:
        """Raise ManifestError unless the fields agree with each other and with this format."""
        if self.format != FORMAT or self.chunk != CHUNK:
            raise ManifestError(f"image format {self.format} with chunks of {self.chunk} bytes is not known here")
        if self.sector not in (512, 4096) or self.size <= 0 or self.size % self.sector:
            raise ManifestError(f"a disk of {self.size} bytes with sectors of {self.sector} bytes does not exist")
        if self.chunks > MAX_CHUNKS:
            raise ManifestError(f"a disk of {self.size} bytes is larger than an image can be")
        bits = int.from_bytes(self.stored, "little")
        if len(self.stored) != (self.chunks + 7) // 8 or bits >> self.chunks:
            raise ManifestError("the manifest's bitmap does not fit its disk")
        if len(self.names) != bits.bit_count() * DIGEST:
            raise ManifestError("the manifest's names do not fit its bitmap")
        self._check_no_zero_chunk(bool(bits >> (self.chunks - 1)))

    def _check_no_zero_chunk(self, last_stored: bool) -> None:
        """A stored chunk must not be all zero: that would be a second manifest of the same disk."""
        found = self.names.find(_ZERO_CHUNK)
        while found >= 0:
            if found % DIGEST == 0:
                raise ManifestError("the manifest stores a chunk that is all zero")
            found = self.names.find(_ZERO_CHUNK, found + 1)
        tail = self.chunk_length(self.chunks - 1)
        if last_stored and self.names[-DIGEST:] == digest_of(bytes(tail)):
            raise ManifestError("the manifest stores a chunk that is all zero")


def image_id(data: bytes) -> str:
    """The id of the image whose canonical manifest bytes these are."""
    return digest_of(data).hex()


def parse_layout(data: bytes, manifest: Manifest) -> "array[int]":
    """The stored length of each chunk by ordinal, from a layout's bytes. Raises ManifestError if it cannot fit."""
    if len(data) != 4 * manifest.stored_chunks:
        raise ManifestError(f"a layout of {len(data)} bytes does not fit {manifest.stored_chunks} stored chunks")
    lengths = array("I")
    lengths.frombytes(data)
    if sys.byteorder == "big":
        lengths.byteswap()
    if lengths and not 0 < min(lengths) <= max(lengths) <= MAX_STORED:
        raise ManifestError("the layout holds a stored length that no chunk has")
    return lengths


def _count(size: int) -> int:
    return -(-size // CHUNK)


_BITS = [tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256)]
_ZERO_CHUNK = digest_of(bytes(CHUNK))
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)
