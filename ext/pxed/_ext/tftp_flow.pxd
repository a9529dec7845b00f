"""What a transfer learns about the way to its client. The rules are in tftp_flow.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.linux_net cimport pxed_path

cdef struct Rto:
    uint64_t timeout             # ns, with back-off
    uint64_t srtt                # ns, 0 = no measurement yet (RFC 6298)
    uint64_t rttvar

cdef void rto_start(Rto *rto, uint32_t client_timeout) noexcept nogil
cdef void rto_measure(Rto *rto, uint64_t rtt) noexcept nogil
cdef void rto_progress(Rto *rto) noexcept nogil
cdef void rto_back_off(Rto *rto) noexcept nogil


cdef struct Burst:
    uint16_t size                # datagrams sent in one go
    uint16_t sent                # of these, since the last pause or acknowledgement
    uint16_t taken               # blocks that the client took of the last windows it did not take whole
    uint16_t calm                # whole windows since the size changed
    uint16_t patience            # such windows until a larger size is tried
    uint8_t times                # windows in a row of which it took that much

# Returns whether the burst became smaller.
cdef bint burst_progress(Burst *burst, uint64_t taken, uint16_t window, bint whole) noexcept nogil


cdef enum:
    REMEMBERED = 4096            # clients, per engine

cdef struct Limit:
    uint64_t client              # hash of its address
    uint64_t until               # ns
    uint16_t blksize             # 0: none

cdef class BlockSizes:
    cdef Limit limits[REMEMBERED]
    cdef uint64_t seed

    cdef Limit *_at(self, const pxed_path *path, uint64_t *client) noexcept nogil
    # The largest block to offer this client.
    cdef uint16_t largest(self, const pxed_path *path, uint64_t now) noexcept nogil
    # Blocks of this size do not reach it; True when there is a smaller one.
    cdef bint lower(self, const pxed_path *path, uint16_t blksize, uint64_t now) noexcept nogil
    # They did after all.
    cdef void forget(self, const pxed_path *path) noexcept nogil
