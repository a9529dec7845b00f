"""Files as blobs, read once for all clients that want them at the same time or soon after.

A blob is a sealed copy: the file may be replaced, cut or deleted while transfers of it run. The key is what tells one
content of a file from the next: device, inode, size and both time stamps. Anybody may set the time of modification
back (rsync, tar), and inode numbers are used again; the time of the inode's change is the kernel's own.
"""

import asyncio
import errno
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from weakref import WeakValueDictionary

from pxed._ext.blob import Blob

__all__ = ["BlobCache"]

# Memory for copies that nobody is reading at the moment: kernel, initramfs and boot programs of several systems.
CACHE_BYTES = 512 << 20
# Conversion to netascii needs copies, and nothing that is text is larger.
LARGEST_TEXT = 64 << 20

# Time stamps are as coarse as 2 s (FAT): a file changed within that time of its reading may change again unseen.
RACY_SECONDS = 2

# Threads that copy the files of one device: enough to keep it busy. One that hangs holds up no other device's files.
READERS = 4

# Device, inode, size, mtime and ctime in ns; converted to netascii.
_Key = tuple[int, int, int, int, int, bool]


class BlobCache:
    """Least recently used blobs, up to `limit` bytes. Beyond it blobs live on as long as somebody holds them, and are
    found again for as long.
    """

    def __init__(self, limit: int = CACHE_BYTES, clock: Callable[[], int] = time.time_ns) -> None:
        """`clock`: the time of the files' time stamps, ns."""
        self._limit = limit
        self._clock = clock
        self._alive: WeakValueDictionary[_Key, Blob] = WeakValueDictionary()
        self._blobs: OrderedDict[_Key, Blob] = OrderedDict()
        self._bytes = 0
        self._loading: dict[_Key, asyncio.Task[Blob]] = {}
        self._readers: dict[int, ThreadPoolExecutor] = {}

    async def load(self, fd: int, *, netascii: bool = False) -> Blob:
        """The content of the open file `fd`, converted if asked. The descriptor stays the caller's.

        A file larger than the whole cache is not copied: its transfers read it as they go.
        Raises OSError: EFBIG for a large file that is to be converted, no memory, or the errno of reading it.
        """
        size = os.fstat(fd).st_size
        if netascii and size > LARGEST_TEXT:
            raise OSError(errno.EFBIG, "too large for mode netascii: use mode octet")
        key = _key(fd, netascii=netascii)
        blob = self._alive.get(key)
        if blob is not None:
            self._keep(key, blob)
            return blob
        if size > self._limit and not netascii:
            blob = self._alive[key] = Blob.from_large_file(fd)
            return blob
        task = self._loading.get(key)
        if task is None:
            # The task reads from a descriptor of its own: whoever asked first may be cancelled before the others.
            task = asyncio.create_task(self._read(os.dup(fd), key))
            self._loading[key] = task
        return await asyncio.shield(task)

    async def _read(self, fd: int, key: _Key) -> Blob:
        try:
            copy = partial(_copy, fd, netascii=key[-1])
            blob = await asyncio.get_running_loop().run_in_executor(self._reader(key[0]), copy)
            after = _key(fd, netascii=key[-1])
        finally:
            os.close(fd)
            del self._loading[key]
        # A file that was written meanwhile is served as read this once, as any server would, and not kept.
        now = self._clock()
        if after == key and all(abs(now - changed) > RACY_SECONDS * 10**9 for changed in key[3:5]):
            self._alive[key] = blob
            self._keep(key, blob)
        return blob

    def _keep(self, key: _Key, blob: Blob) -> None:
        if key in self._blobs:
            self._blobs.move_to_end(key)
            return
        if len(blob) > self._limit:
            return
        self._blobs[key] = blob
        self._bytes += len(blob)
        while self._bytes > self._limit:
            _, oldest = self._blobs.popitem(last=False)
            self._bytes -= len(oldest)

    def _reader(self, device: int) -> ThreadPoolExecutor:
        if device not in self._readers:
            self._readers[device] = ThreadPoolExecutor(READERS, f"pxed-read-{device}")
        return self._readers[device]

    def close(self) -> None:
        """End the reading threads, those that read when they are through; nothing can be loaded afterwards."""
        for readers in self._readers.values():
            readers.shutdown(wait=not self._loading, cancel_futures=True)

    def statistics(self) -> dict[str, int]:
        """Gauges: files kept and their bytes, reads under way."""
        return {"cached": len(self._blobs), "cached_bytes": self._bytes, "loading": len(self._loading)}


def _key(fd: int, *, netascii: bool) -> _Key:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, netascii


def _copy(fd: int, *, netascii: bool) -> Blob:
    blob = Blob.from_fd(fd)
    return blob.netascii() if netascii else blob
