"""Scratch: the bytes that a batch sends of files without a copy in memory. One for all transfers of a sender, so that a
large file costs them nothing.
"""

from libc.stdlib cimport free, malloc

cimport cython

# Called only here: the readers and what they are asked are variables of this module.
cdef extern from "file_reader.h" nogil:
    void pxed_fetch_release(pxed_fetch *fetch)
    int pxed_file_read(pxed_blob *blob, pxed_fetch **fetch, uint64_t offset, uint8_t *into, size_t least, size_t size)

cdef enum:
    # What a few turns of windows need, or a block of each message of a batch.
    SIZE = 256 << 10


@cython.final
@cython.no_gc
cdef class Scratch:
    """Allocated by the first read."""

    def __dealloc__(self):
        free(self.bytes)

    cdef void clear(self) noexcept nogil:
        self.used = 0

    cdef bint has_room(self, size_t size) noexcept nogil:
        return self.used + size <= SIZE

    cdef const uint8_t *at(self) noexcept nogil:
        if self.bytes is NULL:
            self.bytes = <uint8_t *>malloc(SIZE)
        return self.bytes + self.used

    cdef int read(self, pxed_blob *blob, pxed_fetch **fetch, uint64_t offset, size_t least, size_t size) noexcept nogil:
        cdef int n = 0
        if self.bytes is NULL:
            return PXED_READ_LATER  # no memory now
        if size != 0:
            n = pxed_file_read(blob, fetch, offset, self.bytes + self.used, least, size)
        if n > 0:
            self.used += n
        return n

    cdef void forget(self, pxed_fetch *fetch) noexcept nogil:
        pxed_fetch_release(fetch)
