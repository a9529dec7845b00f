"""Reading an image's data from the packs: ranges for senders, and whole chunks for verify and export."""

import os
import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from pxed.errors import GoneError, OperatorError
from pxed.images.store import Place, Store

__all__ = ["DataMap", "DataMaps", "ImageData", "Packs"]

MAX_CACHED_RUNS = 1 << 20
"""Runs kept in memory over all images, 20 bytes each. A fresh import of any size is a few runs; an image that shares
half of its chunks with others can have one run for each chunk."""


class DataMap:
    """Where an image's data lies: runs of frames that are neighbours both in the data and in a pack.

    generation: the store's, when it was so.
    """

    def __init__(self, places: Sequence[Place], generation: int = 0) -> None:
        self.generation = generation
        self._starts = array("Q")  # of each run within the data
        self._packs = array("I")
        self._offsets = array("Q")  # of each run within its pack
        self.size = 0
        pack, end = -1, -1
        for place in places:
            if place.pack != pack or place.offset != end:
                self._starts.append(self.size)
                self._packs.append(place.pack)
                self._offsets.append(place.offset)
                pack = place.pack
            end = place.offset + place.stored
            self.size += place.stored

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._starts)

    def locate(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(pack, offset, length) of the data from `start` to before `stop`, clipped to the data."""
        found = []
        stop = min(stop, self.size)
        run = bisect_right(self._starts, start) - 1
        while start < stop:
            end = self._starts[run + 1] if run + 1 < len(self._starts) else self.size
            length = min(end, stop) - start
            found.append((self._packs[run], self._offsets[run] + start - self._starts[run], length))
            start += length
            run += 1
        return found


class DataMaps:
    """The data maps of the images asked for lately, bounded in memory; used by several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._maps: OrderedDict[int, DataMap] = OrderedDict()
        self._generation = store.generation

    def get(self, image: int) -> DataMap:
        """The data map of an image, by number. The first time it reads a row for each stored chunk."""
        with self._lock:
            generation = self._store.generation
            if generation != self._generation:  # chunks have moved
                self._maps.clear()
                self._generation = generation
            found = self._maps.get(image)
            if found is None:
                found = self._maps[image] = DataMap(self._store.places(image), generation)
                while len(self._maps) > 1 and sum(known.runs for known in self._maps.values()) > MAX_CACHED_RUNS:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(image)
            return found


class Packs:
    """Pack files opened for reading, each once. Closes them at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._open: dict[int, int] = {}

    def descriptor(self, pack: int) -> int:
        """The descriptor of a pack; it stays ours. Raises GoneError, or OperatorError when it cannot be opened now."""
        with self._lock:
            if pack not in self._open:
                path = self._store.pack_path(pack)
                try:
                    self._open[pack] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                except FileNotFoundError:
                    raise GoneError(
                        f"{path} is missing, the image store is damaged: `pxed image verify` tells what is lost."
                    ) from None
                except OSError as error:
                    raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None
            return self._open[pack]

    def frame(self, place: Place) -> bytes:
        """The stored bytes of a chunk; fewer when its pack has been cut off."""
        try:
            return os.pread(self.descriptor(place.pack), place.stored, place.offset)
        except OSError as error:
            raise OperatorError(f"{self._store.pack_path(place.pack)} cannot be read: {error.strerror}.") from None

    def close(self) -> None:
        """Close every descriptor."""
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()

    def __enter__(self) -> "Packs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ImageData:
    """An image's data, open for sending: the concatenation of its frames in manifest order.

    What it opened stays readable until `close`, also when the image is removed meanwhile.
    """

    def __init__(self, store: Store, data_map: DataMap) -> None:
        self._store = store
        self._map = data_map
        self._packs = Packs(store)

    @property
    def size(self) -> int:
        """Bytes of the whole data."""
        return self._map.size

    def segments(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """(descriptor, offset, length) of the data from `start` to before `stop`, clipped to its size.

        The descriptors are this object's and valid until `close`. Raises GoneError when a pack is missing or cut off,
        and OperatorError when asking again may help: it cannot be opened now, or its chunks have just moved.
        """
        try:
            return [self._segment(*stretch) for stretch in self._map.locate(start, stop)]
        except GoneError as error:
            if self._store.generation != self._map.generation:
                raise OperatorError("The image's chunks have just moved to another place in the store.") from error
            raise

    def _segment(self, pack: int, offset: int, length: int) -> tuple[int, int, int]:
        descriptor = self._packs.descriptor(pack)
        if os.fstat(descriptor).st_size < offset + length:
            path = self._store.pack_path(pack)
            raise GoneError(f"{path} has been cut off, the image store is damaged: `pxed image verify` tells more.")
        return descriptor, offset, length

    def intact(self) -> bool:
        """Packs are only appended to."""
        return True

    def close(self) -> None:
        """Close its descriptors. Closing twice is harmless."""
        self._packs.close()
