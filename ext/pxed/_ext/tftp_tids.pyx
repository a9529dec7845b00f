"""Tids: ports of transfers (RFC 1350 section 4, transfer identifiers).

Usually one port serves all transfers: a client port has one at a time, and asking for something else ends it. With
ports of their own a transfer's packets leave from the next of a few sockets in turn, from the first reply on. A client
port may then have several transfers, each on another port of ours; a request that is sent again is known by its bytes.
"""

from pxed._ext.linux_net cimport pxed_path_same_ends

cimport cython

cdef enum:
    # Sockets tried for one client port. That many transfers at a time are more than any client has from one port.
    TRIES = 4


@cython.final
@cython.no_gc
cdef class Tids:
    """All zero is single-port."""

    cdef void give(self, uint32_t asked, uint32_t first, uint32_t count) noexcept nogil:
        cdef uint32_t i
        self.first[asked] = first
        self.count[asked] = count
        for i in range(first, first + count):
            self.own[i] = True

    cdef bint takes_requests(self, uint32_t socket) noexcept nogil:
        return not self.own[socket % TID_SOCKETS]

    cdef Transfer *known(self, Table table, const pxed_path *path, uint64_t request_hash) noexcept nogil:
        cdef Transfer *t
        if self.count[path.socket % TID_SOCKETS] == 0:
            return table.find(path)
        t = table.first_of(path)
        while t is not NULL and not (t.request_hash == request_hash and pxed_path_same_ends(&t.path, path)):
            t = t.chain
        return t

    cdef bint assign(self, Table table, pxed_path *path) noexcept nogil:
        cdef uint32_t asked = path.socket % TID_SOCKETS
        cdef int _attempt
        if self.count[asked] == 0:
            return True
        for _attempt in range(TRIES):
            self.turn += 1
            path.socket = self.first[asked] + self.turn % self.count[asked]
            if table.find(path) is NULL:
                return True
        return False
