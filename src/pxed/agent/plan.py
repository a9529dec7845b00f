"""What to fetch, what to zero, and in which order the disk is laid down. Pure.

The first megabyte of the disk and the chunks that hold the backup GPT are the *seal*: they are emptied before anything
is written and come last, so that a disk that was not finished has neither boot sector nor partition table.
"""

from itertools import accumulate

from msgspec import Struct

from pxed.agent.failure import AgentFailure
from pxed.images.chunk import CHUNK
from pxed.images.manifest import Manifest, parse_layout
from pxed.types import Step

__all__ = ["BATCH", "Batch", "Piece", "Plan", "make_plan"]

BATCH = 8  # chunks in one request: large enough to keep a disk streaming, small enough to lose in an outage
ZERO_SLICE = 256 << 20  # zeroed by one call: the job can be stopped, and is seen to move, between two
BACKUP_TABLE = 34  # sectors at the end of the disk that a GPT takes with the usual 128 entries (512-byte sectors)


class Piece(Struct, frozen=True):
    """One stored chunk: where it lies in the image's data and on the disk, and what it must be."""

    index: int  # of the chunk, on the disk
    offset: int  # on the disk
    length: int  # raw bytes
    digest: bytes
    stored_at: int  # in the image's data
    stored: int  # bytes there


class Batch(Struct, frozen=True):
    """Chunks whose frames follow each other in the image's data: one request."""

    pieces: tuple[Piece, ...]

    @property
    def start(self) -> int:
        """First byte in the image's data."""
        return self.pieces[0].stored_at

    @property
    def stored(self) -> int:
        """Bytes in the image's data."""
        return self.pieces[-1].stored_at + self.pieces[-1].stored - self.start


class Plan(Struct, frozen=True):
    """The whole restore."""

    size: int  # bytes of the image's disk
    zeros: tuple[tuple[int, int], ...]  # (offset, length), each at most ZERO_SLICE
    batches: tuple[Batch, ...]  # everything stored but the seal
    seal: tuple[Piece, ...]  # stored chunks of the seal, in disk order

    @property
    def fetched(self) -> int:
        """Bytes that come over the network."""
        return sum(batch.stored for batch in self.batches) + sum(piece.stored for piece in self.seal)


def make_plan(manifest: Manifest, layout: bytes) -> Plan:
    """The plan for an image as one store holds it. Raises ManifestError when the layout is not this image's."""
    lengths = parse_layout(layout, manifest)
    sealed = _sealed(manifest)
    batches: list[Batch] = []
    seal: list[Piece] = []
    open_batch: list[Piece] = []

    def close_batch() -> None:
        if open_batch:
            batches.append(Batch(tuple(open_batch)))
            open_batch.clear()

    starts = accumulate(lengths, initial=0)
    for ordinal, (index, stored_at, stored) in enumerate(zip(manifest.indexes(), starts, lengths, strict=False)):
        length = manifest.chunk_length(index)
        piece = Piece(index, index * CHUNK, length, manifest.digest(ordinal), stored_at, stored)
        if index in sealed:
            seal.append(piece)
            close_batch()
            continue
        open_batch.append(piece)
        if len(open_batch) == BATCH:
            close_batch()
    close_batch()
    zeros = tuple(
        (start, min(ZERO_SLICE, offset + length - start))
        for offset, length in manifest.zero_runs()
        for start in range(offset, offset + length, ZERO_SLICE)
    )
    return Plan(manifest.size, zeros, tuple(batches), tuple(seal))


def _sealed(manifest: Manifest) -> set[int]:
    first_of_backup = (manifest.size - BACKUP_TABLE * manifest.sector) // CHUNK
    return {0, *range(max(0, first_of_backup), manifest.chunks)}


def check_fits(manifest: Manifest, size: int) -> None:
    """Raise AgentFailure unless a disk of `size` bytes holds the image: the last look before the first write."""
    if size < manifest.size:
        raise AgentFailure(Step.TARGET, f"The disk is too small: it has {size} bytes, the image needs {manifest.size}.")
