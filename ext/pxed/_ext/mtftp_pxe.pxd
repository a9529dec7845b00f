"""PassSender: MTFTP as PXE 2.1 has it, and as iPXE does it. The rules are at the head of mtftp_pxe.pyx."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.lines cimport Share
from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.sender cimport Command, Sender
from pxed._ext.tftp_flow cimport Rto
from pxed._ext.tftp_sender cimport OUTCOMES, Outcome
from pxed._ext.timers cimport Timer, Wheel

cdef enum:
    ASKERS = 1024            # clients whose second request is known for one

cdef enum PassState:
    PASS_ASKED               # the control plane has not answered yet
    PASS_SENDING
    PASS_QUIET               # over; what was sent there is remembered for a while
    PASS_ENDED               # waits for the next fill to be freed

cdef enum DropReason:
    DROP_MALFORMED
    DROP_OPCODE
    DROP_UNKNOWN_PEER
    DROP_STALE_ACK
    DROP_MERGED              # a request for what is being sent: who asked will hear it
    DROP_GROUP_TAKEN         # by another file, or another content of this one
    DROP_BUSY
    DROP_NO_MEMORY
    DROPS


cdef struct Pass:
    Pass *after
    pxed_path opener         # who asked, and acknowledges
    pxed_path to             # the group; or the opener, when it is served alone
    uint64_t id
    uint64_t name            # hash of the file's name
    uint64_t client          # hash of the opener's address
    Share share
    Timer timer
    uint64_t deadline
    pxed_blob *blob
    uint64_t blocks          # the last one is short, maybe empty
    uint64_t block           # in flight, or due
    uint64_t quiet           # ns of silence after it
    uint64_t quiet_until
    uint64_t started
    uint64_t answered        # ns from the request to the first acknowledgement, 0 = none
    uint64_t answered_at
    uint64_t sent_at
    uint64_t sent            # DATA to the group
    uint64_t retransmits
    Rto rto
    uint32_t tries           # times the block in flight was sent
    uint32_t repeats         # requests of the opener that brought block 1 once more
    uint8_t state
    uint8_t former           # passes of the same content just before it, as far as they matter
    bint alone               # of a client that no multicast reaches
    bint missed              # a listener asked so soon after it that it knows what it misses
    bint doubled             # each block goes to the group twice


cdef struct Asker:
    uint64_t client          # hash of its address
    uint64_t asked           # id of the pass that it asked to hear,
    uint64_t sent            # and how much of it had been sent then
    uint64_t deaf_until      # ns; 0: it may take multicast


cdef struct Counters:
    uint64_t requests
    uint64_t passes
    uint64_t datagrams
    uint64_t bytes           # of files, sent to groups, retransmissions included
    uint64_t unicast_bytes   # of files, to clients that are served alone
    uint64_t retransmits
    uint64_t timeouts
    uint64_t deaf            # clients that no multicast reaches
    uint64_t outcome[OUTCOMES]
    uint64_t drop[DROPS]


cdef class PassSender(Sender):
    cdef Wheel wheel
    cdef Asker askers[ASKERS]
    cdef Pass *passes
    cdef Pass *ended
    cdef size_t count
    cdef uint64_t serial
    cdef uint64_t seed
    cdef bint any_order
    cdef Counters counters

    # passes
    cdef Pass *_by_opener(self, const pxed_path *path) noexcept nogil
    cdef Pass *_by_id(self, uint64_t id) noexcept nogil
    cdef Pass *_by_group(self, const Pass *other) noexcept nogil
    cdef Pass *_of_file(self, uint64_t name, const pxed_path *path) noexcept nogil
    cdef Pass *_alone_of(self, uint64_t client, const pxed_path *path) noexcept nogil
    cdef void _finish(self, Pass *p, Outcome outcome, uint32_t error, const uint8_t *text, size_t size, uint64_t now
                      ) noexcept nogil
    cdef void _give_up(self, Pass *p, uint64_t now) noexcept nogil
    cdef void _remove(self, Pass *p) noexcept nogil
    cdef void _free_ended(self) noexcept nogil
    # requests
    cdef void _on_request(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil
    cdef bint _makes_way(self, Pass *p, uint64_t client, const pxed_path *path, uint64_t now) noexcept nogil
    cdef bint _asks_in_vain(self, const Pass *p, uint64_t client, uint64_t now) noexcept nogil
    cdef void _note_deaf(self, uint64_t client, uint64_t now) noexcept nogil
    cdef void _new_pass(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t name, bint alone,
                        uint64_t now) noexcept nogil
    # the control plane's answers
    cdef void _on_send(self, Pass *p, Command *command, uint64_t now) noexcept nogil
    cdef void _on_list(self, uint64_t now) noexcept nogil
    # what comes in while it sends
    cdef void _on_ack(self, Pass *p, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_error(self, Pass *p, const uint8_t *data, size_t size, uint64_t now) noexcept nogil
    cdef void _on_timeout(self, Pass *p, uint64_t now) noexcept nogil
    cdef void _drop(self, DropReason reason) noexcept nogil
    # what goes out
    cdef void _enqueue(self, Pass *p) noexcept nogil
    cdef void _wait(self, Pass *p, uint64_t deadline) noexcept nogil
    cdef void _fill_data(self, Pass *p, pxed_batch *batch, uint64_t now) noexcept nogil
