"""Reading an image back: `verify` proves every chunk, `export` writes the disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from pxed.errors import GoneError, OperatorError, PeerError, RefusedError
from pxed.images.chunk import CHUNK, ChunkError
from pxed.images.manifest import Manifest
from pxed.images.pipeline import Progress, Tools, ordered, thread_count
from pxed.images.reading import Packs
from pxed.images.store import Place, Store

__all__ = ["BadChunk", "BadImage", "Verified", "export", "read_manifest_bytes", "verify"]


class BadChunk(Struct, frozen=True):
    """A damaged chunk of an image."""

    index: int  # of the chunk on the disk, from 0
    offset: int  # bytes from the disk's beginning
    partition: int  # number of the partition that it lies in or begins in; 0: none
    digest: str  # its name, hex
    reason: str


class BadImage(Struct, frozen=True):
    """An image that cannot be restored whole. `reason` is set when its manifest itself is damaged."""

    id: str
    name: str
    chunks: tuple[BadChunk, ...] = ()
    reason: str = ""


class Verified(Struct, frozen=True):
    """What a verification read, and what it found wrong."""

    images: int
    chunks: int  # different ones
    stored: int  # bytes of their frames
    bad: tuple[BadImage, ...] = ()


def verify(store: Store, images: list[tuple[int, str, str]], everything: bool, progress: Progress) -> Verified:
    """Prove the chunks and the manifests of `images` (number, id, name); with `everything`, of the whole store.

    Damaged chunks are marked, so that the next import that brings their bytes stores them anew.
    """
    tools = Tools()
    numbers = [number for number, _, _ in images]
    total = store.stored_bytes(None if everything else numbers)
    chunks = stored = 0
    bad: dict[bytes, str] = {}
    with Packs(store) as packs:

        def prove(place: Place) -> tuple[Place, str]:
            try:
                tools.decompressor.decompress(packs.frame(place), place.length, place.digest)
            except (ChunkError, OperatorError) as error:
                return place, str(error)
            return place, ""

        for place, reason in ordered(prove, _all_once(store, None if everything else numbers), thread_count()):
            chunks += 1
            stored += place.stored
            if reason:
                bad[place.digest] = reason
            if bool(reason) != bool(place.bad):
                store.mark_bad([place.chunk], bool(reason))
            progress(min(stored, total), total, stored)
    if stored == 0:
        progress(0, 0, 0)
    found = [_examine(store, number, image_id, name, bad) for number, image_id, name in images]
    return Verified(len(images), chunks, stored, tuple(image for image in found if image is not None))


def _all_once(store: Store, images: list[int] | None) -> Iterator[Place]:
    """Every chunk of these images, or of the store, once; in an order that reads the packs from front to back."""
    if images is None:
        for pack in store.packs():
            yield from store.pack_places(pack)
        return
    seen = {place.chunk: place for image in images for place in store.places(image)}
    yield from sorted(seen.values(), key=lambda place: (place.pack, place.offset))


def _examine(store: Store, number: int, image_id: str, name: str, bad: dict[bytes, str]) -> BadImage | None:
    """Hold an image's manifest against its id and against the index; None when all is well."""
    try:
        manifest = Manifest.decode(read_manifest_bytes(store, image_id), image_id)
    except (OperatorError, PeerError) as error:
        return BadImage(image_id, name, reason=str(error))
    places = store.places(number)
    if b"".join(place.digest for place in places) != manifest.names:
        return BadImage(image_id, name, reason="the index does not hold the chunks that the manifest names")
    chunks = tuple(
        BadChunk(index, index * CHUNK, _partition(manifest, index), place.digest.hex(), bad[place.digest])
        for index, place in zip(manifest.indexes(), places, strict=True)
        if place.digest in bad
    )
    return BadImage(image_id, name, chunks) if chunks else None


def _partition(manifest: Manifest, index: int) -> int:
    """The number of the first partition that a chunk touches, 0 when it touches none."""
    start, end = index * CHUNK, index * CHUNK + manifest.chunk_length(index)
    touched = (p.number for p in manifest.table.partitions if p.start < end and start < p.start + p.size)
    return next(touched, 0)


def read_manifest_bytes(store: Store, image_id: str) -> bytes:
    """The bytes of an image's manifest, unproved. Raises GoneError, or OperatorError when it cannot be read now."""
    path = store.manifest_path(image_id)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise GoneError(f"{path} is missing, the image store is damaged.") from None
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None


def export(store: Store, number: int, image_id: str, path: Path, replace: bool, progress: Progress) -> None:
    """Write an image's disk to a sparse raw file; it has its name only once it is whole and synced.

    Raises RefusedError when the file exists (unless `replace`), OperatorError when a chunk is damaged.
    """
    if path.exists() and (not replace or not path.is_file()):
        raise RefusedError(f"{path} exists already." if path.is_file() else f"{path} is not a regular file.")
    manifest = Manifest.decode(read_manifest_bytes(store, image_id), image_id)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("xb") as file:
            os.ftruncate(file.fileno(), manifest.size)
            _write_chunks(store, number, manifest, file.fileno(), progress)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_chunks(store: Store, number: int, manifest: Manifest, descriptor: int, progress: Progress) -> None:
    tools = Tools()
    done = stored = 0
    with Packs(store) as packs:

        def write(item: tuple[int, Place]) -> tuple[int, int]:
            index, place = item
            try:
                raw = tools.decompressor.decompress(packs.frame(place), place.length, place.digest)
            except ChunkError as error:
                raise OperatorError(
                    f"Chunk {index} of the disk is damaged in the store, nothing was exported: {error}."
                ) from None
            view, offset = memoryview(raw), index * CHUNK
            while view:
                count = os.pwrite(descriptor, view, offset)
                view, offset = view[count:], offset + count
            return index, place.stored

        pairs = zip(manifest.indexes(), store.places(number), strict=True)
        for index, length in ordered(write, pairs, thread_count()):
            stored += length
            done = min((index + 1) * CHUNK, manifest.size)
            progress(done, manifest.size, stored)
    if done < manifest.size:  # the disk's end is zero
        progress(manifest.size, manifest.size, stored)
