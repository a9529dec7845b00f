"""CastSource: where the frames of an image lie, for cast senders to send from there without a copy."""

import os

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno

cimport cython


@cython.final
@cython.no_gc
cdef class CastSource:
    """The stored frames of one image, by ordinal. Add them all, then give it to sessions (cast_events.open_session).

    With `read_ahead` a thread of its own brings frames into memory before they are sent; without, whoever sends waits
    for the disk (tests in virtual time). Raises MemoryError.
    """

    def __cinit__(self, *, bint read_ahead=True):
        self.c = pxed_cast_source_new(read_ahead)
        if self.c is NULL:
            raise MemoryError
        self.packs = {}

    def __dealloc__(self):
        pxed_cast_source_unref(self.c)

    def add(self, int fd, uint64_t offset, uint32_t length) -> None:
        """The next frame: `length` bytes at `offset` of a pack. The pack is mapped as long as it is when it is first
        named; its descriptor stays the caller's, and must mean the same file until the last `add`.

        Raises OSError: ENODATA when the pack ends before the frame does, EINVAL when it is no regular file or empty,
        ENOMEM; RuntimeError once a session has the source.
        """
        if self.sealed:
            raise RuntimeError("a session has it already")
        if length == 0:
            raise ValueError("a frame has a length")
        pack = self.packs.get(fd)
        if pack is None:
            pack = pxed_cast_add_pack(self.c, fd)
            if pack < 0:
                raise OSError(errno, os.strerror(errno))
            self.packs[fd] = pack
        if pxed_cast_add_frame(self.c, pack, offset, length) < 0:
            raise OSError(errno, os.strerror(errno))

    @property
    def size(self) -> int:
        """Bytes of all frames."""
        return self.c.bytes

    def __len__(self) -> int:
        return self.c.frames

    def frame(self, uint32_t ordinal) -> bytes:
        """A copy of a frame. Raises IndexError, and OSError: ENODATA when its pack has been cut off, else the
        disk's.
        """
        if ordinal >= self.c.frames:
            raise IndexError(ordinal)
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, pxed_cast_frame_stored(self.c, ordinal))
        cdef int error
        cdef uint8_t *into = <uint8_t *><char *>copy
        with nogil:
            error = pxed_cast_frame_read(self.c, ordinal, into)
        if error:
            raise OSError(error, os.strerror(error))
        return copy
