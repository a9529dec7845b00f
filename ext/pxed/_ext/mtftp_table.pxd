"""The groups of a GroupSender and their addresses. The rules are in mtftp_table.pyx."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.linux_net cimport pxed_path
from pxed._ext.mtftp_members cimport Group

cdef enum:
    LARGEST_RANGE = 1024         # addresses

cdef class GroupTable:
    cdef Group *groups
    cdef Group *ended
    cdef uint64_t free_at[LARGEST_RANGE]     # ns; UINT64_MAX while a group uses the address
    cdef uint32_t first
    cdef uint32_t count
    cdef uint32_t next
    cdef uint16_t port

    # The group that sends this blob in blocks of this size to where `client` is, a new one, or NULL without memory.
    # Private when no address is free.
    cdef Group *group_for(self, pxed_blob *blob, uint16_t blksize, const pxed_path *client, uint64_t now) noexcept nogil
    # A new one that sends to the client alone, or NULL without memory.
    cdef Group *private_for(self, pxed_blob *blob, uint16_t blksize, const pxed_path *client, uint64_t now
                            ) noexcept nogil
    # It ends; slices of its blob may be in a batch until `reap`.
    cdef void end(self, Group *g, uint64_t now) noexcept nogil
    cdef void reap(self) noexcept nogil
    # How many have an address.
    cdef size_t public_count(self) noexcept nogil
    cdef int _take(self, uint64_t now) noexcept nogil
    cdef pxed_path _to(self, const pxed_path *client, int number) noexcept nogil
    cdef Group *_add(self, pxed_blob *blob, uint16_t blksize, const pxed_path *to, int address, uint64_t now
                     ) noexcept nogil
