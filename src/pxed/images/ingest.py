"""An import: a disk file becomes chunks in the store, a manifest, and at the very end an image.

Threads read, look for zeros, hash, ask the index, compress; the calling thread appends what is new in disk order,
so that an image's data lies in long runs that one sendfile serves.
"""

import threading
import time
from array import array
from pathlib import Path

from msgspec import Struct

from pxed.errors import InternalError, OperatorError
from pxed.images.chunk import CHUNK, digest_of, is_zero
from pxed.images.manifest import Manifest, PartitionTable
from pxed.images.partitions import detect_sector, read_table, stated_size
from pxed.images.pipeline import Progress, Tools, ordered, thread_count
from pxed.images.source import Source
from pxed.images.store import PackWriter, Store

__all__ = ["Ingest", "Ingested"]


class Ingested(Struct, frozen=True):
    """What an import did. Bytes are raw bytes of disk unless said otherwise."""

    manifest: Manifest
    new: int  # chunks that the store did not have
    written: int  # bytes that their frames take


class _Piece(Struct, frozen=True):
    index: int
    digest: bytes | None  # None: all zero
    frame: bytes | None  # None: nothing to store


class Ingest:
    """One import from `source` into `store`. The caller holds `store.importing()` from before until the commit."""

    def __init__(self, store: Store, source: Source, sector: int | None, level: int, progress: Progress) -> None:
        self._store = store
        self._source = source
        self._sector = sector or detect_sector(self._read, source.size)
        self._tools = Tools(level)
        self._progress = progress
        self._claim = threading.Lock()
        self._claimed: set[bytes] = set()

    def run(self) -> Ingested:
        """Store the chunks and return the manifest. The image itself is not committed: see `commit`."""
        size = self._source.size
        table = self._read_table()
        indexes, names = array("I"), bytearray()
        done = new = written = 0
        writer = PackWriter(self._store)
        try:
            for piece in ordered(self._examine, self._source.chunk_indexes(), thread_count()):
                if piece.digest is not None:
                    indexes.append(piece.index)
                    names += piece.digest
                    if piece.frame is not None:
                        writer.add(piece.digest, piece.frame, self._length(piece.index))
                        new += 1
                        written += len(piece.frame)
                done = min((piece.index + 1) * CHUNK, size)
                self._progress(done, size, written)
        finally:
            # Also when it fails: what was read is of use to the next attempt.
            try:
                writer.flush()
            finally:
                writer.close()
        self._source.check_unchanged()
        if done < size:  # the disk's end is a hole
            self._progress(size, size, written)
        return Ingested(Manifest.build(size, self._sector, table, indexes, bytes(names)), new, written)

    def commit(self, manifest: Manifest, name: str, replace: bool) -> str:
        """Make the image: the one transaction that lets it exist, and gives it its name. The image's id."""
        data = manifest.encode()
        image_id = digest_of(data).hex()
        self._store.write_manifest(image_id, data)
        with self._store.transaction() as db:
            found = db.execute("SELECT number FROM image WHERE id = ?", (image_id,)).fetchone()
            if found is None:
                number = db.execute(
                    "INSERT INTO image (id, created, size, sector, label, partitions, chunks, stored_chunks, "
                    "data_size, source, format) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                    (
                        image_id,
                        time.time(),
                        manifest.size,
                        manifest.sector,
                        manifest.table.label,
                        len(manifest.table.partitions),
                        manifest.chunks,
                        manifest.stored_chunks,
                        Path(self._source.path).name,
                        self._source.format,
                    ),
                ).lastrowid
                inserted = db.executemany(
                    "INSERT INTO image_chunk SELECT ?, ?, id FROM chunk WHERE hash = ?",
                    ((number, ordinal, manifest.digest(ordinal)) for ordinal in range(manifest.stored_chunks)),
                ).rowcount
                if inserted != manifest.stored_chunks:
                    raise InternalError(f"{manifest.stored_chunks - inserted} chunks of a new image are not stored")
                self._store.measure(db, number)
            else:
                number = found[0]
            verb = "INSERT OR REPLACE" if replace else "INSERT"
            db.execute(f"{verb} INTO name VALUES (?, ?)", (name, number))
        return image_id

    def _read_table(self) -> PartitionTable:
        """The partition table; refused when it was written for a larger disk, as in a download that was cut off."""
        source = self._source
        stated = stated_size(self._read, self._sector)
        if stated > source.size:
            raise OperatorError(
                f"The partition table of {source.path} was written for a disk of {stated} bytes, the file has "
                f"{source.size}: it is cut off. If its end is known to be empty, `truncate -s {stated}` mends that."
            )
        return read_table(self._read, source.size, self._sector)

    def _examine(self, index: int) -> _Piece:
        tools, length = self._tools, self._length(index)
        buffer = tools.buffer if length == CHUNK else bytearray(length)
        self._source.read_into(index * CHUNK, memoryview(buffer))
        if is_zero(buffer):
            return _Piece(index, None, None)
        digest = digest_of(buffer)
        with self._claim:  # the same bytes twice in one disk: stored by whoever sees them first
            if digest in self._claimed:
                return _Piece(index, digest, None)
            self._claimed.add(digest)
        if self._store.state(digest) == "present":
            return _Piece(index, digest, None)
        return _Piece(index, digest, tools.compressor.compress(buffer))

    def _length(self, index: int) -> int:
        return min(CHUNK, self._source.size - index * CHUNK)

    def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the disk, short at its end: for the partition table."""
        buffer = bytearray(max(0, min(length, self._source.size - offset)))
        if buffer:
            self._source.read_into(offset, memoryview(buffer))
        return bytes(buffer)
