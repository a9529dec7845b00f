"""Blob: immutable bytes that senders slice without copying. C users hold a pxed_blob, counted without the GIL."""

from libc.stdint cimport uint8_t

cdef extern from "blob.h" nogil:
    ctypedef struct pxed_blob:
        const uint8_t *data
        size_t size
        int fd               # of a file without a copy (then data is NULL), else -1

    pxed_blob *pxed_blob_new(size_t size)
    pxed_blob *pxed_blob_ref(pxed_blob *blob)
    void pxed_blob_unref(pxed_blob *blob)
    int pxed_blob_seal(pxed_blob *blob, size_t size)
    pxed_blob *pxed_blob_read(int fd, size_t limit)
    pxed_blob *pxed_blob_file(int fd)
    pxed_blob *pxed_blob_netascii(const pxed_blob *blob)


cdef class Blob:
    cdef pxed_blob *c  # this object's own reference; senders take more
    cdef object __weakref__
