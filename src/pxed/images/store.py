"""The chunk store: append-only pack files, and an SQLite index of what lies where.

    DIR/index.sqlite        chunks, images, names
    DIR/packs/00000001      zstd frames, one after the other (a pack is itself a valid .zst file)
    DIR/manifests/ID        canonical manifest bytes
    DIR/lock                shared: an import runs; exclusive: space is being reclaimed

Rules that keep it whole when a process dies at any point:

1. A frame is written and synced before its row is committed. Bytes of a pack past its row's `end` are nobody's: the
   next writer cuts them off. `end` only grows, so bytes that a row ever named are never written over.
2. A pack has one writer: it holds an exclusive flock on the file. A second import takes another pack.
3. An image's rows are committed in one transaction, after its chunks and its manifest. Until then it does not exist,
   and its chunks are merely there to be reused.
4. Chunks go only when no import runs (the lock file), for an import counts on every chunk that it found in the index.
   Packs and manifests without a row are removed at the same occasion.
"""

import fcntl
import json
import os
import sqlite3
import sys
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from pxed.errors import OperatorError
from pxed.images.owning import give, make_directory, open_file, settle

__all__ = ["PACK_LIMIT", "PackWriter", "Place", "Store", "sync_directory"]

PACK_LIMIT = 1 << 30
"""A pack that has grown past this gets no more frames. Small enough to be rewritten when most of it is dead, large
enough that a server of terabytes keeps few files open."""

BATCH = 64 << 20
"""Frames are synced and committed after this many bytes: what a kill can cost, against what a sync costs."""

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE pack (id INTEGER PRIMARY KEY AUTOINCREMENT, end INTEGER NOT NULL DEFAULT 0);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    pack INTEGER NOT NULL REFERENCES pack (id),
    offset INTEGER NOT NULL,
    stored INTEGER NOT NULL,
    length INTEGER NOT NULL,
    bad INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX chunk_place ON chunk (pack, offset);
CREATE TABLE image (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    size INTEGER NOT NULL,
    sector INTEGER NOT NULL,
    label TEXT NOT NULL,
    partitions INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    stored_chunks INTEGER NOT NULL,
    data_size INTEGER NOT NULL,
    source TEXT NOT NULL,
    format TEXT NOT NULL
);
CREATE TABLE image_chunk (
    image INTEGER NOT NULL REFERENCES image (number),
    ordinal INTEGER NOT NULL,
    chunk INTEGER NOT NULL REFERENCES chunk (id),
    PRIMARY KEY (image, ordinal)
) WITHOUT ROWID;
CREATE TABLE name (name TEXT PRIMARY KEY, image INTEGER NOT NULL REFERENCES image (number));
CREATE TABLE meta (generation INTEGER NOT NULL);
INSERT INTO meta VALUES (0);
"""


class Place(Struct, frozen=True):
    """Where a chunk's frame lies, and what it must decompress to."""

    chunk: int
    digest: bytes
    pack: int
    offset: int
    stored: int
    length: int
    bad: int  # 1: its bytes were found damaged


class Store:
    """The index and the packs of one directory. One object may be used by several threads.

    All figures are bytes. Methods raise OperatorError when the file system or the index fails (full, read-only,
    not ours).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.RLock()
        self._index = directory / "index.sqlite"
        try:
            for part in ("packs", "manifests"):
                make_directory(directory / part)
            new = not self._index.exists()
            self._db = sqlite3.connect(self._index, isolation_level=None, check_same_thread=False, timeout=60)
            # Before anything is written: SQLite gives its other files the owner and the mode of this one.
            for name in ("index.sqlite", "index.sqlite-wal", "index.sqlite-shm"):
                settle(directory / name, directory, new)
        except OSError as error:
            raise OperatorError(f"The image store cannot be opened: {error.filename}: {error.strerror}.") from None
        except sqlite3.Error as error:
            raise OperatorError(f"The image index {self._index} cannot be opened: {error}.") from None
        try:
            self._prepare()
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.Error):
                raise OperatorError(f"The image index {self._index} cannot be opened: {error}.") from None
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA foreign_keys = ON")
        if self._version() == 0:
            with self.transaction() as db:
                if self._version() == 0:  # nobody else made it meanwhile
                    for statement in _SCHEMA.split(";"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        if self._version() != SCHEMA_VERSION:
            raise OperatorError(
                f"The image store {self.directory} is of version {self._version()}, this pxed knows {SCHEMA_VERSION}."
            )

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def close(self) -> None:
        """Close the index."""
        with self._lock:
            self._db.close()

    # -- the index ---------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: committed at the end of the block, rolled back when it raises."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
                if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                    raise  # a mistake of ours
                raise OperatorError(f"The image index {self._index} cannot be written: {error}.") from None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                raise OperatorError(f"The image index {self._index} cannot be read: {error}.") from None

    def row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        found = self.rows(statement, *values)
        return found[0] if found else None

    def state(self, digest: bytes) -> str:
        """ "present", "bad" (its bytes were found damaged) or "absent": is a chunk stored?"""
        found = self.row("SELECT bad FROM chunk WHERE hash = ?", digest)
        return "absent" if found is None else "bad" if found[0] else "present"

    def places(self, image: int) -> list[Place]:
        """Where each stored chunk of an image lies, by ordinal. `image` is its number."""
        return self._places(
            "SELECT c.id, hash, pack, offset, stored, length, bad FROM image_chunk i JOIN chunk c ON c.id = i.chunk "
            "WHERE image = ? ORDER BY ordinal",
            image,
        )

    def pack_places(self, pack: int) -> list[Place]:
        """Every chunk in a pack, in the order in which they lie there."""
        return self._places(
            "SELECT id, hash, pack, offset, stored, length, bad FROM chunk WHERE pack = ? ORDER BY offset", pack
        )

    def packs(self) -> list[int]:
        """The ids of all packs."""
        return [row[0] for row in self.rows("SELECT id FROM pack ORDER BY id")]

    def stored_bytes(self, images: list[int] | None) -> int:
        """Bytes that the frames of these images (by number) take, shared ones once; of the whole store for None."""
        if images is None:
            found = self.row("SELECT coalesce(sum(stored), 0) FROM chunk")
        else:
            found = self.row(
                "SELECT coalesce(sum(stored), 0) FROM chunk WHERE id IN (SELECT chunk FROM image_chunk "
                "WHERE image IN (SELECT value FROM json_each(?)))",
                json.dumps(images),
            )
        return int(found[0]) if found else 0

    def _places(self, statement: str, *values: Any) -> list[Place]:
        return [Place(*row) for row in self.rows(statement, *values)]

    def layout(self, image: int) -> bytes:
        """The stored length of each chunk of an image by ordinal, u32 little-endian."""
        rows = self.rows(
            "SELECT stored FROM image_chunk i JOIN chunk c ON c.id = i.chunk WHERE image = ? ORDER BY ordinal", image
        )
        lengths = array("I", (row[0] for row in rows))
        if sys.byteorder == "big":
            lengths.byteswap()
        return lengths.tobytes()

    @property
    def generation(self) -> int:
        """Grows whenever a chunk has moved: what was read of places before is then out of date."""
        found = self.row("SELECT generation FROM meta")
        return int(found[0]) if found else 0

    def measure(self, db: sqlite3.Connection, image: int | None = None) -> None:
        """Set the data size of an image, or of all, from its chunks. `db` is the transaction that it is part of."""
        db.execute(
            "UPDATE image SET data_size = (SELECT coalesce(sum(stored), 0) FROM image_chunk i "
            "JOIN chunk c ON c.id = i.chunk WHERE i.image = number) WHERE :image IS NULL OR number = :image",
            {"image": image},
        )

    def mark_bad(self, chunks: list[int], bad: bool) -> None:
        """Remember that chunks (by id) are damaged, or found good again. A damaged one is stored anew by the next
        import that brings its bytes."""
        with self.transaction() as db:
            db.executemany("UPDATE chunk SET bad = ? WHERE id = ?", [(bad, chunk) for chunk in chunks])

    # -- files -------------------------------------------------------------------------------------------------------

    def pack_path(self, pack: int) -> Path:
        """The file of a pack."""
        return self.directory / "packs" / f"{pack:08d}"

    def manifest_path(self, image_id: str) -> Path:
        """The file of an image's manifest."""
        return self.directory / "manifests" / image_id

    def open_file(self, path: Path, flags: int) -> int:
        """A descriptor of a file of the store, made if it does not exist, that belongs to the store's owner."""
        return open_file(path, flags, self.directory)

    def give(self, uid: int, gid: int) -> None:
        """Give the store to a user, who can then write all of it. Root only."""
        try:
            give(self.directory, uid, gid)
        except OSError as error:
            raise OperatorError(f"{error.filename} cannot be given to user {uid}: {error.strerror}.") from None

    def check_writable(self) -> None:
        """Raise OperatorError unless files can be added to and removed from the store."""
        os.close(self._open_lock())
        for path in (self.directory, self.directory / "packs", self.directory / "manifests", self._index):
            if not os.access(path, os.W_OK | (os.X_OK if path != self._index else 0)):
                raise OperatorError(f"The image store cannot be written: {path} is not for user {os.geteuid()}.")

    def write_manifest(self, image_id: str, data: bytes) -> None:
        """Put a manifest in its place, whole and synced."""
        path = self.manifest_path(image_id)
        temporary = path.with_name(f"{image_id}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            with os.fdopen(self.open_file(temporary, os.O_WRONLY | os.O_TRUNC), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_directory(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OperatorError(f"{path} cannot be written: {error.strerror}.") from None

    @contextmanager
    def importing(self) -> Iterator[None]:
        """While this holds, no chunk goes away. Waits for a reclaim that is under way."""
        descriptor = self._open_lock()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no import runs; if so, none begins while this holds."""
        descriptor = self._open_lock()
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        try:
            return self.open_file(self.directory / "lock", os.O_RDWR)
        except OSError as error:
            raise OperatorError(f"The image store {self.directory} cannot be written: {error.strerror}.") from None


class PackWriter:
    """Appends frames to a pack of its own. Used by one thread.

    Nothing that was added is in the index before `flush`, which syncs and commits it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fd = -1
        self._pack = 0
        self._end = 0  # where the next frame goes
        self._committed = 0  # where the index says that the pack ends
        self._rows: list[tuple[bytes, int, int, int, int]] = []

    def add(self, digest: bytes, frame: bytes, length: int) -> None:
        """Append the frame of a chunk whose raw bytes are `length` long."""
        if self._fd < 0 or self._end >= PACK_LIMIT:
            self._next_pack()
        position = self._end
        view = memoryview(frame)
        try:
            while view:
                written = os.pwrite(self._fd, view, self._end)
                self._end += written
                view = view[written:]
        except OSError as error:
            path = self._store.pack_path(self._pack)
            self._end = position
            raise OperatorError(f"{path} cannot be written: {error.strerror}.") from None
        self._rows.append((digest, self._pack, position, len(frame), length))
        if self._end - self._committed >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Sync the frames added so far and commit their rows."""
        if not self._rows:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            path = self._store.pack_path(self._pack)
            self._rows.clear()  # what a failed sync left on the disk is unknown
            raise OperatorError(f"{path} cannot be written: {error.strerror}.") from None
        with self._store.transaction() as db:
            # A row that is there already is another import's, which was quicker; unless its bytes are damaged.
            repaired = db.executemany(
                "UPDATE chunk SET pack = ?, offset = ?, stored = ?, length = ?, bad = 0 WHERE hash = ? AND bad",
                [(*place, digest) for digest, *place in self._rows],
            ).rowcount
            db.executemany(
                "INSERT OR IGNORE INTO chunk (hash, pack, offset, stored, length) VALUES (?, ?, ?, ?, ?)", self._rows
            )
            if repaired:
                db.execute("UPDATE meta SET generation = generation + 1")
                self._store.measure(db)
            db.execute("UPDATE pack SET end = ? WHERE id = ?", (self._end, self._pack))
        self._committed = self._end
        self._rows.clear()

    def close(self) -> None:
        """Let the pack go. What was not flushed is cut off."""
        if self._fd >= 0:
            os.ftruncate(self._fd, self._committed)
            os.close(self._fd)
            self._fd = -1
        self._rows.clear()

    def _next_pack(self) -> None:
        """Take a pack that has room and no writer, or begin one."""
        if self._fd >= 0:
            self.flush()
            self.close()
        for (pack,) in self._store.rows("SELECT id FROM pack WHERE end < ? ORDER BY id DESC", PACK_LIMIT):
            if self._take(pack):
                return
        while True:  # once, unless another import takes the new pack before we do
            with self._store.transaction() as db:
                pack = db.execute("INSERT INTO pack DEFAULT VALUES").lastrowid
            if pack is not None and self._take(pack):
                return

    def _take(self, pack: int) -> bool:
        path = self._store.pack_path(pack)
        try:
            descriptor = self._store.open_file(path, os.O_RDWR)
        except OSError as error:
            raise OperatorError(f"{path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        # Asked only now: the writer before us may have moved it since we chose the pack.
        found = self._store.row("SELECT end FROM pack WHERE id = ?", pack)
        size = os.fstat(descriptor).st_size
        if found is None or found[0] >= PACK_LIMIT or size < found[0]:  # gone, full, or cut off by somebody else
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, found[0])
        sync_directory(path.parent)
        self._fd, self._pack = descriptor, pack
        self._end = self._committed = int(found[0])
        return True


def sync_directory(path: Path) -> None:
    """Make new names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
