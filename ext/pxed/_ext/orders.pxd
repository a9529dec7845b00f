"""Commands for senders, made of Python values."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport Blob
from pxed._ext.sender cimport Command

# Raise MemoryError; send and join also ValueError for addresses that are none. The caller frees the command.
cdef Command *send_command(uint64_t id, Blob blob, tuple group, uint16_t quiet) except NULL
cdef Command *refuse_command(uint64_t id, uint32_t code, str text) except NULL
cdef Command *forget_command(uint64_t id) except NULL
cdef Command *list_command(uint64_t first) except NULL
cdef Command *join_command(uint64_t id, object request, Blob blob, uint32_t socket) except NULL


# A command of a kind that only some senders know, made by a module of theirs, on its way through `Engine.post`.
cdef class Order:
    cdef Command *command          # NULL when it was posted

    # For the caller to pass on or to free. Raises ValueError the second time.
    cdef Command *take(self) except NULL

# With a copy of `size` bytes of the sender's own record. Raises MemoryError.
cdef Order own_order(const void *data, size_t size)
