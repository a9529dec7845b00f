"""From which of our ports a transfer is served. The rules are in tftp_tids.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from pxed._ext.linux_net cimport pxed_path
from pxed._ext.tftp_table cimport Table, Transfer

cdef enum:
    TID_SOCKETS = 64             # as many as an engine has


cdef class Tids:
    cdef uint32_t first[TID_SOCKETS]    # of the sockets of the transfers that are asked for at a socket
    cdef uint32_t count[TID_SOCKETS]    # 0: they are served from that socket itself
    cdef bint own[TID_SOCKETS]          # such sockets
    cdef uint32_t turn

    # Transfers asked for at socket `asked` leave from `count` sockets from `first` on.
    cdef void give(self, uint32_t asked, uint32_t first, uint32_t count) noexcept nogil
    # Whether requests may come to this socket.
    cdef bint takes_requests(self, uint32_t socket) noexcept nogil
    # The transfer that the same request has made before, or that a new one of this path replaces; NULL for none.
    cdef Transfer *known(self, Table table, const pxed_path *path, uint64_t request_hash) noexcept nogil
    # Sets the socket of a new transfer's path; False when this client port has transfers on all that were tried.
    cdef bint assign(self, Table table, pxed_path *path) noexcept nogil
