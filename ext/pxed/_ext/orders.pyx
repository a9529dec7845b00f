"""What the control plane tells a sender, as commands (sender.pxd)."""

from libc.stdint cimport uint8_t, uint16_t

from pxed._ext.blob cimport pxed_blob_ref
from pxed._ext.linux_net cimport pxed_path_parse
from pxed._ext.sender cimport (
    COMMAND_FORGET, COMMAND_JOIN, COMMAND_LIST, COMMAND_OWN, COMMAND_REFUSE, COMMAND_SEND, CommandKind, free_command,
    new_command,
)
from pxed._ext.tftp cimport OPT_BLKSIZE, OPT_MULTICAST, OPT_TIMEOUT, OPT_TSIZE

cimport cython


cdef Command *_new(CommandKind kind, uint64_t id, bytes text) except NULL:
    cdef Command *command = new_command(kind, id, text, len(text))
    if command is NULL:
        raise MemoryError
    return command


cdef Command *_toward(Command *command, tuple peer, str local) except NULL:
    address, port = peer
    cdef bytes remote = address.encode()
    cdef bytes ours = local.encode()
    if pxed_path_parse(&command.path, remote, <uint16_t>port, ours) < 0:
        free_command(command)
        raise ValueError(f"not addresses of one family: {address!r}, {local!r}")
    return command


cdef Command *send_command(uint64_t id, Blob blob, tuple group, uint16_t quiet) except NULL:
    cdef Command *command = _new(COMMAND_SEND, id, b"")
    command.blob = pxed_blob_ref(blob.c)
    command.quiet = quiet
    return command if group is None else _toward(command, group, "")


cdef Command *refuse_command(uint64_t id, uint32_t code, str text) except NULL:
    cdef Command *command = _new(COMMAND_REFUSE, id, text.encode("utf-8", "replace"))
    command.error = code
    return command


cdef Command *forget_command(uint64_t id) except NULL:
    return _new(COMMAND_FORGET, id, b"")


cdef Command *list_command(uint64_t first) except NULL:
    return _new(COMMAND_LIST, first, b"")


cdef Command *join_command(uint64_t id, object request, Blob blob, uint32_t socket) except NULL:
    cdef Command *command = _new(COMMAND_JOIN, id, b"")
    command.blob = pxed_blob_ref(blob.c)
    _toward(command, request.peer, request.local_address)
    command.path.socket = socket
    options = request.options
    command.blksize = options.get("blksize", 512)
    command.client_timeout = options.get("timeout", 0)
    for name, bit in (("blksize", OPT_BLKSIZE), ("tsize", OPT_TSIZE), ("timeout", OPT_TIMEOUT),
                      ("multicast", OPT_MULTICAST)):
        if name in options:
            command.options |= bit
    return command


@cython.final
@cython.no_gc
cdef class Order:
    """A command for a certain kind of sender, ready to be posted, once. Made by functions of that sender's modules."""

    def __dealloc__(self):
        if self.command is not NULL:
            free_command(self.command)

    cdef Command *take(self) except NULL:
        cdef Command *command = self.command
        if command is NULL:
            raise ValueError("an order is posted once")
        self.command = NULL
        return command


cdef Order own_order(const void *data, size_t size):
    cdef Order order = Order()
    order.command = new_command(COMMAND_OWN, 0, <const uint8_t *>data, size)
    if order.command is NULL:
        raise MemoryError
    return order
