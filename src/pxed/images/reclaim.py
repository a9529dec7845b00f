"""Giving space back: chunks that no image holds, packs that are mostly dead, files that no row knows.

Runs only while no import does (`Store.alone`). Every step leaves a whole store behind when it is the last one:
a rewritten pack is synced before the one transaction that moves its chunks, and the old file goes after that.
Whoever still reads an old pack keeps it through the descriptor.
"""

import os

from pxed.errors import OperatorError
from pxed.images.store import Store, sync_directory

__all__ = ["reclaim"]

MOSTLY_DEAD = 0.5
"""A pack is rewritten when less than this share of it is live: copying then costs less than it gives back."""


def reclaim(store: Store) -> int | None:
    """Free what nobody holds; the bytes freed, or None when an import runs and nothing was done."""
    with store.alone() as alone:
        if not alone:
            return None
        before = _used(store)
        with store.transaction() as db:
            db.execute("DELETE FROM chunk WHERE id NOT IN (SELECT chunk FROM image_chunk)")
            db.execute("DELETE FROM pack WHERE id NOT IN (SELECT pack FROM chunk)")
        _remove_strangers(store)
        for pack, end, live in store.rows(
            "SELECT pack.id, end, sum(stored) FROM pack JOIN chunk ON chunk.pack = pack.id GROUP BY pack.id"
        ):
            if live < end * MOSTLY_DEAD and not _rewrite(store, pack):
                break
        _remove_strangers(store)
        return max(0, before - _used(store))


def _rewrite(store: Store, pack: int) -> bool:
    """Copy the live frames of a pack to a new one and drop the old; False when there is no room for that now."""
    with store.transaction() as db:
        new = db.execute("INSERT INTO pack DEFAULT VALUES").lastrowid or 0
    moved: list[tuple[int, int, int]] = []
    end = 0
    try:
        fresh = os.O_WRONLY | os.O_EXCL
        with (
            store.pack_path(pack).open("rb") as source,
            os.fdopen(store.open_file(store.pack_path(new), fresh), "wb") as target,
        ):
            for place in store.pack_places(pack):
                source.seek(place.offset)
                frame = source.read(place.stored)
                if len(frame) < place.stored:  # cut off: keeps its place in the index, to be found by verify
                    frame = frame.ljust(place.stored, b"\0")
                target.write(frame)
                moved.append((new, end, place.chunk))
                end += place.stored
            target.flush()
            os.fsync(target.fileno())
        sync_directory(store.pack_path(new).parent)
    except OSError:
        with store.transaction() as db:
            db.execute("DELETE FROM pack WHERE id = ?", (new,))
        return False
    with store.transaction() as db:
        db.executemany("UPDATE chunk SET pack = ?, offset = ? WHERE id = ?", moved)
        db.execute("UPDATE pack SET end = ? WHERE id = ?", (end, new))
        db.execute("DELETE FROM pack WHERE id = ?", (pack,))
        db.execute("UPDATE meta SET generation = generation + 1")
    return True


def _remove_strangers(store: Store) -> None:
    """Remove packs and manifests that no row knows: left by a process that was killed, or just dropped."""
    known = {store.pack_path(pack).name for pack in store.packs()}
    known.update(row[0] for row in store.rows("SELECT id FROM image"))
    for part in ("packs", "manifests"):
        for path in (store.directory / part).iterdir():
            if path.name not in known:
                try:
                    path.unlink()
                except OSError as error:
                    raise OperatorError(f"{path} cannot be removed: {error.strerror}.") from None


def _used(store: Store) -> int:
    return sum(path.stat().st_size for part in ("packs", "manifests") for path in (store.directory / part).iterdir())
