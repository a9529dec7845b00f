"""Token buckets for everything that sends blocks: `take` before each datagram, come back at `ready_at` if refused."""

from libc.stdint cimport uint64_t

cdef extern from "pacer.h" nogil:
    ctypedef struct pxed_pacer:
        uint64_t rate
        uint64_t depth       # ns; pxed_pacer_set_rate sets it

    void pxed_pacer_set_rate(pxed_pacer *pacer, uint64_t rate)
    uint64_t pxed_pacer_burst(const pxed_pacer *pacer)
    bint pxed_pacer_take(pxed_pacer *pacer, uint64_t bytes, uint64_t now)
    void pxed_pacer_give_back(pxed_pacer *pacer, uint64_t bytes)
    uint64_t pxed_pacer_ready_at(const pxed_pacer *pacer)


cdef enum:
    # What a datagram costs on the line besides its payload: preamble 8, Ethernet 14, checksum 4, gap 12, IP, UDP 8.
    LINE_COST_V4 = 66
    LINE_COST_V6 = 86


cdef class Pacer:
    cdef pxed_pacer c
