"""CastSource: the frames of an image for cast senders. C users hold a pxed_cast_source, counted without the GIL.

`pxed_cast_frame_data` is for the kernel alone (iovec): user space takes `pxed_cast_frame_read`. See cast_source.h.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "cast_source.h" nogil:
    enum:
        PXED_FRAME_COLD
        PXED_FRAME_ASKED
        PXED_FRAME_READY
        PXED_FRAME_BAD

    ctypedef struct pxed_cast_source:
        int read_ahead
        uint32_t frames
        uint64_t bytes

    pxed_cast_source *pxed_cast_source_new(bint read_ahead)
    pxed_cast_source *pxed_cast_source_ref(pxed_cast_source *source)
    void pxed_cast_source_unref(pxed_cast_source *source)
    int pxed_cast_add_pack(pxed_cast_source *source, int fd)
    int pxed_cast_add_frame(pxed_cast_source *source, uint32_t pack, uint64_t offset, uint32_t stored)

    const uint8_t *pxed_cast_frame_data(const pxed_cast_source *source, uint32_t i)
    uint32_t pxed_cast_frame_stored(const pxed_cast_source *source, uint32_t i)
    int pxed_cast_frame_state(const pxed_cast_source *source, uint32_t i)
    int pxed_cast_frame_ask(pxed_cast_source *source, uint32_t i)
    int pxed_cast_frame_read(const pxed_cast_source *source, uint32_t i, uint8_t *into)
    void pxed_cast_frame_sent(pxed_cast_source *source, uint32_t i)
    void pxed_cast_frame_failed(pxed_cast_source *source, uint32_t i, int error)
    int pxed_cast_frame_faulted(pxed_cast_source *source, uint32_t i)
    int pxed_cast_frame_error(const pxed_cast_source *source, uint32_t i)


cdef class CastSource:
    cdef pxed_cast_source *c   # this object's own reference; senders take more
    cdef dict packs            # by the caller's descriptor
    cdef bint sealed           # a sender has it: no more frames
