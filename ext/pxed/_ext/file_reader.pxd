"""Files that are read as their transfers go: file_reader.h, and where a batch has their bytes."""

from libc.stdint cimport uint8_t, uint64_t

from pxed._ext.blob cimport pxed_blob

cdef extern from "file_reader.h" nogil:
    enum: PXED_READ_LATER    # a reader fetches the bytes
    enum: PXED_READ_FAILED   # the file has become shorter, or an error of the disk

    ctypedef struct pxed_fetch:
        pass


cdef class Scratch:
    cdef uint8_t *bytes
    cdef size_t used

    # For a new batch: what was read for the last one is gone.
    cdef void clear(self) noexcept nogil
    cdef bint has_room(self, size_t size) noexcept nogil
    # Where the next `read` puts its bytes.
    cdef const uint8_t *at(self) noexcept nogil
    # At least `least` bytes of a file, at most `size`, for which there must be room: how many, or PXED_READ_*.
    cdef int read(self, pxed_blob *blob, pxed_fetch **fetch, uint64_t offset, size_t least, size_t size) noexcept nogil
    # What a transfer that ends had asked for; may be NULL.
    cdef void forget(self, pxed_fetch *fetch) noexcept nogil
