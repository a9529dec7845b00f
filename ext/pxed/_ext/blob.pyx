"""Blob: immutable bytes for senders: a sealed copy of a file, or bytes made for one machine.

The copy is why no change of the file, truncation included, can harm a transfer or the process (no SIGBUS): see blob.h.
"""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport ENOMEM, errno
from libc.string cimport memcpy

cimport cython

# Copies up to this size are not worth a look at the free memory.
CHECKED_SIZE = 16 << 20
# What a copy must leave to the rest of the host.
RESERVE = 256 << 20


def _available_memory() -> int:
    # MemAvailable: what can be had without swapping, in bytes.
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


@cython.final
@cython.no_gc
cdef class Blob:
    """Immutable: a copy of a bytes-like object. Supports len() and the (read-only) buffer protocol.

    Raises OSError when there is no memory.
    """

    def __cinit__(self, data=b""):
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.c = pxed_blob_new(view.len)
            if self.c is NULL:
                raise OSError(errno, os.strerror(errno))
            if view.len:
                memcpy(<void *>self.c.data, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)
        if pxed_blob_seal(self.c, self.c.size) < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        pxed_blob_unref(self.c)

    @staticmethod
    def from_fd(int fd, size_t limit=1 << 40) -> Blob:
        """Copy a whole regular file; the descriptor's position is left alone, and it stays the caller's.

        Takes as long as the read: the GIL is free meanwhile, so call it from a worker thread. A file that is cut
        while it is read gives a shorter blob. Raises OSError: EFBIG above `limit` bytes, EINVAL when `fd` is not a
        regular file, ENOMEM when less than the file's size and RESERVE is available, else the errno of the read.
        """
        cdef pxed_blob *c
        cdef int error = 0
        cdef size_t room
        size = os.fstat(fd).st_size
        if size > CHECKED_SIZE:
            # The kernel would rather kill somebody than refuse a memfd its pages.
            room = max(0, _available_memory() - RESERVE)
            if room < size <= limit:
                raise OSError(ENOMEM, os.strerror(ENOMEM))
        with nogil:
            c = pxed_blob_read(fd, limit)
            if c is NULL:
                error = errno
        return _wrap(c, error)

    @staticmethod
    def from_bytes(data) -> Blob:
        """The same as Blob(data)."""
        return Blob(data)

    @staticmethod
    def from_large_file(int fd) -> Blob:
        """The regular file itself, without a copy; `fd` stays the caller's. Has no buffer, and is for transfers only.

        Transfers read it as they go. A change of the file shows in them; one that has become shorter ends them with an
        error. Raises OSError: EINVAL when `fd` is not a regular file, or out of descriptors.
        """
        cdef pxed_blob *c = pxed_blob_file(fd)
        return _wrap(c, errno)

    def netascii(self) -> Blob:
        """A copy converted for TFTP mode netascii (RFC 1350): LF to CR LF, CR to CR NUL. Raises OSError: no memory."""
        cdef pxed_blob *c
        cdef int error = 0
        if self.c.fd >= 0:
            raise ValueError("a file without a copy is not converted")
        with nogil:
            c = pxed_blob_netascii(self.c)
            if c is NULL:
                error = errno
        return _wrap(c, error)

    def __len__(self) -> int:
        return self.c.size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.c.fd >= 0:
            raise BufferError("a file without a copy has no buffer")
        PyBuffer_FillInfo(buffer, self, <void *>self.c.data, self.c.size, 1, flags)


cdef Blob _wrap(pxed_blob *c, int error):
    # A C blob as an object, or its errno as an exception.
    cdef Blob blob
    if c is NULL:
        raise OSError(error, os.strerror(error))
    blob = Blob()
    pxed_blob_unref(blob.c)
    blob.c = c
    return blob
