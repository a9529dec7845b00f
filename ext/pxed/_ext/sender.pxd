"""The one interface of everything that sends blocks, and the records that pass between a sender and its engine.

A sender is sans-I/O: datagrams and the time come in as arguments, datagrams leave through `fill`. It is driven by one
thread, without the GIL; only `events` and `commands` are handed to another thread, whole lists at a time.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.lines cimport Lines
from pxed._ext.linux_net cimport pxed_batch, pxed_path

cdef enum EventKind:
    EVENT_REQUEST      # somebody asks for a file; `data` is the raw request
    EVENT_FINISHED     # a transfer ended; `data` is the peer's error text, if any
    EVENT_LISTING      # the answer to COMMAND_LIST; `data` is an array of the sender's own records, `id` where to go on
    EVENT_OWN          # one that only this kind of sender has: `data` is its own record (Sender.record)


cdef struct Event:
    Event *next
    EventKind kind
    uint64_t id
    pxed_path path
    # EVENT_FINISHED:
    uint32_t outcome       # the sender's own enumeration
    uint32_t error         # the error code sent or received
    uint64_t bytes         # of the file, as far as the peer acknowledged it
    uint64_t blocks
    uint64_t retransmits   # datagrams sent more than once
    uint64_t duration      # ns since the request
    uint64_t answered      # ns from the request to the first acknowledgement; 0: there was none
    uint64_t whole         # bytes of the file; 0 when there was none
    uint16_t blksize
    uint16_t windowsize
    uint16_t burst         # datagrams sent in one go at the end
    size_t size            # of data
    uint8_t data[1]        # `size` bytes follow


cdef enum CommandKind:
    COMMAND_SEND       # answer request `id` with `blob` (the command's reference passes to the sender)
    COMMAND_REFUSE     # answer request `id` with an error
    COMMAND_LIST       # tell what runs, from place `id` of the table on: some of it, so that nothing waits for it
    COMMAND_FORGET     # request `id` gets no answer from this sender
    COMMAND_JOIN       # serve `blob`, as `id`, to the client at `path`, whose request another sender received
    COMMAND_OWN        # one that only this kind of sender knows: `text` is its own record, with `thing`


cdef struct Command:
    Command *next
    CommandKind kind
    uint64_t id
    pxed_blob *blob
    pxed_path path         # of the client, or (COMMAND_SEND) of the group that it listens to, for senders with groups
    uint32_t options       # of the request (tftp.pxd: Option); this and the next two for COMMAND_JOIN
    uint16_t blksize
    uint16_t client_timeout
    uint16_t quiet         # COMMAND_SEND to a group: s for which nothing follows
    uint32_t error
    void *thing            # of COMMAND_OWN: a counted reference, NULL when a sender has taken it over
    void (*release)(void *thing) noexcept nogil
    size_t size            # of text
    uint8_t text[1]        # `size` bytes follow


cdef class Sender:
    cdef Event *first_event        # oldest
    cdef Event *last_event
    cdef Lines lines               # those with something to send

    # A datagram for it. Bytes from anybody: every check is the sender's.
    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil
    # An order from the control plane; the caller frees the command afterwards.
    cdef void command(self, Command *command, uint64_t now) noexcept nogil
    # Call when `next_timer` is due.
    cdef void on_timer(self, uint64_t now) noexcept nogil
    # Deadline in ns, UINT64_MAX for none.
    cdef uint64_t next_timer(self) noexcept nogil
    # Append datagrams to an empty batch; True when there is more to send than fitted. Data slices stay valid until the
    # next call of `fill`.
    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil
    # The kernel could not read the data of some datagrams of the last `fill`: they have not left, and will not.
    cdef void unsent(self, const pxed_batch *batch) noexcept nogil
    # End everything; no event is made.
    cdef void close(self) noexcept nogil

    # Counters since the beginning, and gauges.
    cdef dict statistics(self)
    # What an EVENT_OWN tells the control plane. Called by its thread.
    cdef object record(self, Event *event)

    cdef Event *take_events(self) noexcept nogil
    cdef Event *add_event(self, EventKind kind, uint64_t id, const pxed_path *path, const uint8_t *data, size_t size
                          ) noexcept nogil


cdef Command *new_command(CommandKind kind, uint64_t id, const uint8_t *text, size_t size) noexcept nogil
cdef void free_command(Command *command) noexcept nogil
# A whole list of them.
cdef void free_events(Event *event) noexcept nogil
