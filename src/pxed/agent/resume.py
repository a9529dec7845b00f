"""What is on the disk already, told to the next start by the disk itself.

While a restore runs, the first chunk of the disk is empty: it belongs to the seal and comes last. Beyond its first
64 KiB, where neither firmware nor partition table nor boot loader is looked for, stands the *record*: which stored
chunks are written. Two slots are written in turn, so that a cut in the middle of one leaves the other.

    0  8 bytes   MAGIC
    8  32 bytes  BLAKE3 of everything behind it
    40 u64       number of the record: the higher of two slots is newer
    48 32 bytes  id of the image
    80 u32       stored chunks of the image
    84 u32       chunks for each bit of the bitmap (1, on disks of more than 3 TB a power of two)
    88 bitmap    bit i of byte i // 8, least significant first: chunks i * n and what follows are on the disk

Little-endian. The record is a hint about where to look and nothing else: every chunk that it names is read and hashed
before it counts. The end of a restore writes over it. Runs of zeros are not in it: to prove one by
reading takes as long as to write it, and longer on disks that zero by themselves.
"""

import struct
import time
from collections.abc import Callable

from pxed.agent.target import ALIGNMENT, Target, aligned_buffer
from pxed.images.chunk import CHUNK, digest_of

__all__ = ["RECORD_BEGIN", "RECORD_END", "Record"]

MAGIC = b"pxedres1"
RECORD_BEGIN = 64 << 10  # what boots a machine, or names its partitions, lies before
SLOT = 448 << 10
RECORD_END = RECORD_BEGIN + 2 * SLOT
_HASH = struct.Struct("<8s32s")
_HEAD = struct.Struct("<Q32sII")
_BITMAP_AT = _HASH.size + _HEAD.size
MAX_BITS = 8 * (SLOT - _BITMAP_AT)

# A record is written at most so often, and takes at most one fiftieth of the disk's time.
SHORTEST, SHARE = 0.5, 50.0


class Record:
    """The record of one image on one target. One thread at a time."""

    def __init__(self, target: Target, image: str, chunks: int, now: Callable[[], float] = time.monotonic) -> None:
        """`chunks`: stored ones."""
        self._target, self._image, self._chunks, self._now = target, bytes.fromhex(image), chunks, now
        self._group = 1
        while -(-chunks // self._group) > MAX_BITS:
            self._group *= 2
        self._number = 0
        self._written = b""
        self._due = 0.0
        self._buffer = aligned_buffer(SLOT)

    @property
    def possible(self) -> bool:
        """Whether it has a place that the end of the restore overwrites: not when image or disk is one chunk."""
        return self._target.size > CHUNK and self._chunks > 1

    def load(self) -> list[int]:
        """Ordinals that the newest record of this image claims to be on the disk, ascending. Raises AgentFailure."""
        best = b""
        for slot in (0, 1):
            self._target.read(RECORD_BEGIN + slot * SLOT, self._buffer)
            number, bitmap = self._parse(bytes(self._buffer))
            if number > self._number:
                self._number, best = number, bitmap
        return [
            ordinal
            for position, byte in enumerate(best)
            if byte
            for bit in range(position * 8, position * 8 + 8)
            if byte >> (bit & 7) & 1
            for ordinal in range(bit * self._group, min((bit + 1) * self._group, self._chunks))
        ]

    def _parse(self, slot: bytes) -> tuple[int, bytes]:
        magic, proof = _HASH.unpack_from(slot)
        number, image, chunks, group = _HEAD.unpack_from(slot, _HASH.size)
        if (magic, image, chunks, group) != (MAGIC, self._image, self._chunks, self._group):
            return 0, b""
        end = _BITMAP_AT + self._bytes
        return (number, slot[_BITMAP_AT:end]) if digest_of(slot[_HASH.size : end]) == proof else (0, b"")

    @property
    def _bytes(self) -> int:
        return (-(-self._chunks // self._group) + 7) // 8

    def save(self, bitmap: Callable[[int], bytes], *, now: bool = False) -> None:
        """Write the record, if it is time (or `now`) and there is news. `bitmap(n)`: a bit for each n stored chunks.

        Raises AgentFailure when the disk refuses.
        """
        begun = self._now()
        if begun < self._due and not now:
            return
        bits = bitmap(self._group)
        if bits == self._written:
            return
        self._number += 1
        body = _HEAD.pack(self._number, self._image, self._chunks, self._group) + bits
        record = _HASH.pack(MAGIC, digest_of(body)) + body
        length = -(-len(record) // ALIGNMENT) * ALIGNMENT
        self._buffer[: len(record)] = record
        self._target.write_through(RECORD_BEGIN + (self._number & 1) * SLOT, self._buffer[:length])
        self._written = bits
        ended = self._now()
        self._due = ended + max(SHORTEST, (ended - begun) * SHARE)
