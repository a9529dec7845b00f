"""Base of all senders: the interface with nothing behind it, and the list of events. See sender.pxd."""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from pxed._ext.blob cimport pxed_blob_unref
from pxed._ext.lines cimport Lines


cdef class Sender:
    """Abstract; `tftp_sender.TftpSender` is one. Only its C-level methods matter to an engine."""

    def __cinit__(self, *args, **kwargs):
        self.first_event = self.last_event = NULL
        self.lines = Lines()

    def __dealloc__(self):
        free_events(self.take_events())

    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        pass

    cdef void command(self, Command *command, uint64_t now) noexcept nogil:
        pass

    cdef void on_timer(self, uint64_t now) noexcept nogil:
        pass

    cdef uint64_t next_timer(self) noexcept nogil:
        return UINT64_MAX

    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil:
        return False

    cdef void unsent(self, const pxed_batch *batch) noexcept nogil:
        pass

    cdef void close(self) noexcept nogil:
        pass

    cdef dict statistics(self):
        return {}

    cdef object record(self, Event *event):
        return None

    cdef Event *take_events(self) noexcept nogil:
        """The events since the last call, oldest first; the caller frees each."""
        cdef Event *first = self.first_event
        self.first_event = self.last_event = NULL
        return first

    cdef Event *add_event(self, EventKind kind, uint64_t id, const pxed_path *path, const uint8_t *data, size_t size
                          ) noexcept nogil:
        """Append an event, for the caller to complete; NULL when there is no memory."""
        cdef Event *event = <Event *>calloc(1, sizeof(Event) + size)
        if event is NULL:
            return NULL
        event.kind = kind
        event.id = id
        event.path = path[0]
        event.size = size
        if size:
            memcpy(event.data, data, size)
        if self.last_event is NULL:
            self.first_event = event
        else:
            self.last_event.next = event
        self.last_event = event
        return event


cdef void free_events(Event *event) noexcept nogil:
    cdef Event *after
    while event is not NULL:
        after = event.next
        free(event)
        event = after


cdef Command *new_command(CommandKind kind, uint64_t id, const uint8_t *text, size_t size) noexcept nogil:
    cdef Command *command = <Command *>calloc(1, sizeof(Command) + size)
    if command is not NULL:
        command.kind = kind
        command.id = id
        command.size = size
        if size:
            memcpy(command.text, text, size)
    return command


cdef void free_command(Command *command) noexcept nogil:
    pxed_blob_unref(command.blob)
    if command.thing is not NULL:
        command.release(command.thing)
    free(command)
