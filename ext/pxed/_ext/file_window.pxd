"""Declarations of file_window.h: files that are read as a transfer comes to them."""

from libc.stdint cimport uint8_t, uint64_t

cdef extern from "file_window.h" nogil:
    enum: PXED_WINDOW_READY
    enum: PXED_WINDOW_BUSY
    enum: PXED_WINDOW_LATER
    enum: PXED_WINDOW_FAILED

    ctypedef struct pxed_window:
        uint8_t *data

    int pxed_window_read(pxed_window *window, int fd, uint64_t offset, size_t size, uint64_t serial)
    const uint8_t *pxed_window_slice(const pxed_window *window, uint64_t offset)
