"""The image library: everything that can be done with images, over one store directory.

Several processes may use the same directory at once: each import takes a pack of its own, readers see an image from
the moment that it exists. Methods are synchronous and may be called from any thread; those that take a `progress`
run as long as the disk is large.
"""

import difflib
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

from pxed.errors import GoneError, NotFoundError, OperatorError, RefusedError
from pxed.images.chunk import DEFAULT_LEVEL
from pxed.images.ingest import Ingest
from pxed.images.manifest import Manifest
from pxed.images.pipeline import Progress, thread_count
from pxed.images.proving import Verified, export, read_manifest_bytes, verify
from pxed.images.reading import DataMaps, ImageData, Packs
from pxed.images.reclaim import reclaim
from pxed.images.source import open_source
from pxed.images.store import Store

__all__ = ["Image", "Imported", "Library", "Removed"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_SELECT_IMAGES = (
    "SELECT i.id, n.name, created, size, sector, label, partitions, chunks, stored_chunks, data_size, source, format "
    "FROM image i LEFT JOIN name n ON n.image = i.number "
)
# Of so many images the layouts are kept: 2 MB for each 500 GB of disk, and every machine of a class asks for the same.
_LAYOUTS = 4
_ID = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"[0-9a-f]{4,64}")


class Image(Struct, frozen=True):
    """One image under one name. An image with several names is listed once for each, one without any has ""."""

    id: str  # hex BLAKE3 root of its manifest
    name: str
    created: float  # seconds since the epoch
    size: int  # bytes of the disk
    sector: int  # bytes of its logical sector
    label: str  # "gpt", "dos" or ""
    partitions: int
    chunks: int  # of 1 MiB, zero ones included
    stored_chunks: int  # of them, those that are not all zero
    data_size: int  # bytes of their frames: what a machine fetches
    source: str  # file name that it was imported from
    format: str  # format of that file


Images = list[Image]  # within Library, `list` is a method


class Imported(Struct, frozen=True):
    """What an import did."""

    image: Image
    new_chunks: int  # chunks that the store did not have before
    written: int  # bytes that they take
    replaced: str = ""  # id of the image that had the name before


class Removed(Struct, frozen=True):
    """What a removal did."""

    id: str  # of the image
    names: tuple[str, ...]  # that it still has; without any it is gone
    freed: int | None  # bytes given back; None: the next removal gives them back, an import runs or there is `trouble`
    trouble: str = ""  # why the space could not be given back now, a sentence


class Library:
    """The images in one directory, which is made when it does not exist."""

    def __init__(self, directory: str | Path) -> None:
        self.store = Store(Path(directory))
        self._maps = DataMaps(self.store)
        self._layout = lru_cache(_LAYOUTS)(lambda number, _created: self.store.layout(number))

    def close(self) -> None:
        """Close the index. Nothing else may be called afterwards."""
        self.store.close()

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- looking -----------------------------------------------------------------------------------------------------

    def list(self) -> Images:
        """All images, by name; those without a name last, oldest first."""
        return self._images("ORDER BY n.name IS NULL, n.name, i.created")

    def get(self, key: str) -> Image:
        """The image of a name, an id, or the unique beginning (4 digits or more) of an id.

        Raises NotFoundError, which tells the nearest name, or RefusedError when the beginning is not unique.
        """
        found = self._images("WHERE n.name = ?", key)
        if not found and _ID_PREFIX.fullmatch(key):
            found = self._images("WHERE i.id >= ? AND i.id < ? ORDER BY i.id, n.name", key, key + "g")
            if len({image.id for image in found}) > 1:
                raise RefusedError(f"{len(found)} images begin with {key}: give more digits.")
        if not found:
            near = difflib.get_close_matches(key, [image.name for image in self.list() if image.name], 1, 0.5)
            raise NotFoundError(f"There is no image {key}" + (f"; did you mean {near[0]}?" if near else "."))
        return found[0]

    def has(self, image_id: str) -> bool:
        """Whether there is an image of this (whole) id."""
        return self.store.row("SELECT 1 FROM image WHERE id = ?", image_id) is not None

    def give(self, uid: int, gid: int) -> None:
        """Give the store's files to a user, who can then change it. Root only. Raises OperatorError."""
        self.store.give(uid, gid)

    def manifest_bytes(self, image_id: str) -> bytes:
        """The canonical bytes of an image's manifest. `image_id` is the whole id."""
        self._number(image_id)
        return read_manifest_bytes(self.store, image_id)

    def manifest(self, image_id: str) -> Manifest:
        """An image's manifest, proved against its id. Raises ManifestError when it is damaged."""
        return Manifest.decode(self.manifest_bytes(image_id), image_id)

    def open_manifest(self, image_id: str) -> int:
        """A descriptor of the file that has the manifest's bytes; the caller's own. Raises GoneError, OperatorError."""
        self._number(image_id)
        path = self.store.manifest_path(image_id)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise GoneError(f"{path} is missing, the image store is damaged.") from None
        except OSError as error:
            raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None

    def layout(self, image_id: str) -> bytes:
        """The stored length of each stored chunk by ordinal, u32 little-endian."""
        found = self.store.row("SELECT number, created FROM image WHERE id = ?", image_id)
        # An image that was removed and imported again may be compressed otherwise, under the same number.
        return self._layout(*found) if found is not None else self.store.layout(self._number(image_id))

    def data_size(self, image_id: str) -> int:
        """Bytes of an image's data: the sum of its layout."""
        return self._maps.get(self._number(image_id)).size

    def open_data(self, image_id: str) -> ImageData:
        """An image's data, open for ranges until its `close`.

        The first call for an image reads a row for each stored chunk (about a second for each 500 GB of full disk);
        later ones are answered from memory.
        """
        return ImageData(self.store, self._maps.get(self._number(image_id)))

    def frames(self, image_id: str) -> Iterator[tuple[int, int, int]]:
        """(descriptor, offset, length) of each stored frame, by ordinal. Descriptors are good until the iteration ends.

        Raises GoneError when a pack is missing, OperatorError when it cannot be opened now.
        """
        with Packs(self.store) as packs:
            for place in self.store.places(self._number(image_id)):
                yield packs.descriptor(place.pack), place.offset, place.stored

    # -- changing ----------------------------------------------------------------------------------------------------

    def import_image(
        self,
        path: str | Path,
        name: str,
        progress: Progress | None = None,
        *,
        image_format: str | None = None,
        sector: int | None = None,
        replace: bool = False,
        level: int = DEFAULT_LEVEL,
    ) -> Imported:
        """Import a disk file under a name.

        `image_format` None: found out; `sector` None: by the GPT, else 512. An image of the same content is not
        stored twice: it gets one more name. With `replace` the name may be in use: it then means the new image, and
        the former one stays, by its id. Raises OperatorError and RefusedError with the reason; after any failure
        there is no image, and the chunks stored so far are used by the next attempt.
        """
        self._check_name(name, replace)
        with self.store.importing():
            source = open_source(Path(path), image_format, thread_count())
            try:
                if sector is not None and (sector not in (512, 4096) or source.size % sector):
                    raise OperatorError(
                        f"The {source.size} bytes of {path} are not a disk with sectors of {sector} bytes."
                    )
                ingest = Ingest(self.store, source, sector, level, progress or _silent)
                done = ingest.run()
            finally:
                source.close()
            former = self._check_name(name, replace)  # again: another import may have taken it meanwhile
            image_id = ingest.commit(done.manifest, name, replace)
        image = next(image for image in self._images("WHERE i.id = ?", image_id) if image.name == name)
        return Imported(image, done.new, done.written, former if former != image_id else "")

    def remove(self, key: str) -> Removed:
        """Remove a name; with its last name, or named by its id, the image goes too, and its space is given back.

        Raises OperatorError when the store cannot be written, and nothing has changed. Trouble with giving the space
        back is in the answer: the image is gone then, and the next removal does the rest.
        """
        image = self.get(key)
        self.store.check_writable()
        with self.store.transaction() as db:
            number = self._number(image.id)
            if image.name == key:
                db.execute("DELETE FROM name WHERE name = ?", (key,))
            else:
                db.execute("DELETE FROM name WHERE image = ?", (number,))
            left = tuple(row[0] for row in db.execute("SELECT name FROM name WHERE image = ? ORDER BY 1", (number,)))
            if not left:
                db.execute("DELETE FROM image_chunk WHERE image = ?", (number,))
                db.execute("DELETE FROM image WHERE number = ?", (number,))
        if left:
            return Removed(image.id, left, 0)
        try:
            return Removed(image.id, left, reclaim(self.store))
        except OperatorError as error:
            return Removed(image.id, left, None, str(error))

    def reclaim(self) -> int | None:
        """Give back the space that no image needs: the bytes freed, or None when an import runs."""
        return reclaim(self.store)

    # -- reading back ------------------------------------------------------------------------------------------------

    def verify(self, key: str | None = None, progress: Progress | None = None) -> Verified:
        """Prove every stored chunk and the manifest of one image, or of all. Damage is in the answer, not raised."""
        chosen = [self.get(key)] if key is not None else [*{image.id: image for image in self.list()}.values()]
        with self.store.importing():
            images = [(self._number(image.id), image.id, image.name) for image in chosen]
            return verify(self.store, images, key is None, progress or _silent)

    def export(self, key: str, path: str | Path, progress: Progress | None = None, *, replace: bool = False) -> None:
        """Write an image to a sparse raw file. Raises RefusedError when it exists, unless `replace`."""
        image = self.get(key)
        with self.store.importing():
            export(self.store, self._number(image.id), image.id, Path(path), replace, progress or _silent)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _images(self, where: str, *values: str) -> Images:
        rows = self.store.rows(_SELECT_IMAGES + where, *values)
        return [Image(row[0], row[1] or "", *row[2:]) for row in rows]

    def _number(self, image_id: str) -> int:
        found = self.store.row("SELECT number FROM image WHERE id = ?", image_id)
        if found is None:
            raise NotFoundError(f"There is no image {image_id}.")
        return int(found[0])

    def _check_name(self, name: str, replace: bool) -> str:
        """The id of the image that has the name, or ""; RefusedError when the name cannot be given."""
        if not _NAME.fullmatch(name) or _ID.fullmatch(name):
            raise RefusedError(
                f"{name} is not a name for an image: a name is 1 to 128 letters, digits and . _ + -, "
                "begins with a letter or digit and does not look like an image id."
            )
        found = self.store.row("SELECT i.id FROM name n JOIN image i ON i.number = n.image WHERE n.name = ?", name)
        if found is not None and not replace:
            raise RefusedError(f"There is an image {name} already: say --replace to give the name to the new one.")
        return str(found[0]) if found else ""


def _silent(_done: int, _total: int, _stored: int) -> None:
    """No progress is wanted."""
