"""What to fetch, what to zero, and in which order the disk is laid down. Pure.

The first megabyte of the disk and the chunks that hold the backup GPT are the *seal*: they are emptied before anything
is written and come last, so that a disk that was not finished has neither boot sector nor partition table.
"""

from array import array
from collections.abc import Iterable
from itertools import accumulate

from msgspec import Struct

from pxed.agent.failure import AgentFailure
from pxed.images.chunk import CHUNK
from pxed.images.manifest import Manifest, parse_layout
from pxed.types import Step

__all__ = ["Piece", "Plan", "make_plan", "stretches"]

ZERO_SLICE = 256 << 20  # zeroed by one call: the job can be stopped, and is seen to move, between two
BACKUP_TABLE = 34  # sectors at the end of the disk that a GPT takes with the usual 128 entries (512-byte sectors)


class Piece(Struct, frozen=True):
    """One stored chunk: where it lies in the image's data and on the disk, and what it must be."""

    ordinal: int  # among the stored chunks
    index: int  # of the chunk, on the disk
    offset: int  # on the disk
    length: int  # raw bytes
    digest: bytes
    stored_at: int  # in the image's data
    stored: int  # bytes there


class Plan:
    """The whole restore. A piece is made when it is asked for: a terabyte has a million of them."""

    def __init__(self, manifest: Manifest, lengths: "array[int]") -> None:
        self.manifest = manifest
        self.size = manifest.size  # bytes of the image's disk
        self.lengths = lengths  # stored bytes, by ordinal
        self._indexes = manifest.indexes()
        self._starts = array("Q", accumulate(lengths, initial=0))
        sealed = _sealed(manifest)
        edges = {*range(min(1, self.count)), *range(max(0, self.count - len(sealed)), self.count)}
        self.seal = tuple(ordinal for ordinal in sorted(edges) if self._indexes[ordinal] in sealed)
        """Ordinals of the seal's stored chunks, in disk order."""
        self.empty_head = 0 if self.count and not self._indexes[0] else manifest.chunk_length(0)
        """Bytes of the disk's first chunk when it is zero; it belongs to the seal then too, and is in no zero run."""
        self.zeros = tuple(
            (start, min(ZERO_SLICE, offset + length - start))
            for offset, length in _after(self.empty_head, manifest.zero_runs())
            for start in range(offset, offset + length, ZERO_SLICE)
        )
        """(offset, length) of what is zeroed, each at most ZERO_SLICE."""

    @property
    def count(self) -> int:
        """Stored chunks."""
        return len(self.lengths)

    @property
    def stored(self) -> int:
        """Bytes of the image's data."""
        return self._starts[-1]

    @property
    def raw(self) -> int:
        """Bytes of disk that stored chunks take."""
        return sum(self.manifest.chunk_length(index) for index in self._indexes[-1:]) + max(0, self.count - 1) * CHUNK

    def piece(self, ordinal: int) -> Piece:
        """A stored chunk."""
        index = self._indexes[ordinal]
        return Piece(
            ordinal,
            index,
            index * CHUNK,
            self.manifest.chunk_length(index),
            self.manifest.digest(ordinal),
            self._starts[ordinal],
            self.lengths[ordinal],
        )


def make_plan(manifest: Manifest, layout: bytes) -> Plan:
    """The plan for an image as one store holds it. Raises ManifestError when the layout is not this image's."""
    return Plan(manifest, parse_layout(layout, manifest))


def stretches(pieces: Iterable[Piece]) -> list[tuple[int, int]]:
    """[start, stop) of the image's data that pieces in ascending order take, neighbours as one."""
    found: list[tuple[int, int]] = []
    for piece in pieces:
        stop = piece.stored_at + piece.stored
        if found and found[-1][1] == piece.stored_at:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((piece.stored_at, stop))
    return found


def _after(head: int, runs: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Runs of (offset, length) without the first `head` bytes of the disk."""
    for offset, length in runs:
        if offset + length > head:
            start = max(offset, head)
            yield start, offset + length - start


def _sealed(manifest: Manifest) -> set[int]:
    first_of_backup = (manifest.size - BACKUP_TABLE * manifest.sector) // CHUNK
    return {0, *range(max(0, first_of_backup), manifest.chunks)}


def check_fits(manifest: Manifest, size: int) -> None:
    """Raise AgentFailure unless a disk of `size` bytes holds the image: the last look before the first write."""
    if size < manifest.size:
        raise AgentFailure(Step.TARGET, f"The disk is too small: it has {size} bytes, the image needs {manifest.size}.")
