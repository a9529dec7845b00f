"""Whose turn it is to send, on each line. The rules are in lines.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from pxed._ext.linux_net cimport pxed_path
from pxed._ext.pacer cimport pxed_pacer
from pxed._ext.ring cimport Link

cdef enum:
    LINES = 64


# Part of what sends; all zero at first.
cdef struct Share:
    Link link            # of the line's ring; first, so that a Share is found by it
    uint32_t debt        # datagrams sent beyond one a turn
    bint queued


cdef struct Line:
    pxed_pacer *pacer    # NULL: no limit
    Link ready
    uint64_t blocked_until


cdef class Lines:
    cdef Line line[LINES]
    cdef size_t count
    cdef size_t turn                 # the line that is asked next
    cdef uint32_t of_socket[LINES]
    cdef pxed_pacer *whole           # of all lines together; NULL: no limit
    cdef uint64_t blocked_until      # all of them
    cdef uint64_t blocks             # times a line or all had to wait

    # Before anything is sent. What `pacer` points to must live as long.
    cdef void pace(self, uint32_t socket, pxed_pacer *pacer) noexcept nogil
    # It has something to send.
    cdef void add(self, Share *share, void *owner, uint32_t socket) noexcept nogil
    cdef void remove(self, Share *share) noexcept nogil
    # A new batch: another line goes first.
    cdef void rotate(self) noexcept nogil
    # Whose turn it is (it leaves its ring, to be added again if one turn is not enough); NULL: nobody may send now.
    cdef void *next(self, uint64_t now) noexcept nogil
    # What it sent in its turn.
    cdef void charge(self, Share *share, unsigned int datagrams) noexcept nogil
    # Its turn came to nothing, as `may_send` refused: it keeps it.
    cdef void put_back(self, Share *share, void *owner, uint32_t socket) noexcept nogil
    # Whether a datagram with so many bytes of payload may leave now; it counts as sent then.
    cdef bint may_send(self, const pxed_path *path, size_t payload, uint64_t now) noexcept nogil
    cdef bint idle(self) noexcept nogil
    # When a line that waits for its pacer may go on; UINT64_MAX for none.
    cdef uint64_t wake_at(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef Line *_of(self, uint32_t socket) noexcept nogil
    cdef void *_next_of(self, Line *line) noexcept nogil
