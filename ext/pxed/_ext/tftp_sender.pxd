"""TftpSender: all TFTP transfers of one engine, in one table. The rules are at the head of tftp_sender.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.file_window cimport pxed_window
from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.ring cimport Link
from pxed._ext.sender cimport Command, Sender
from pxed._ext.tftp cimport ERROR_TEXT_LIMIT
from pxed._ext.tftp_flow cimport BlockSizes, Burst, Rto
from pxed._ext.timers cimport Timer, Wheel

cdef enum State:
    STATE_ASKED         # the control plane has not answered yet
    STATE_OPTIONS       # OACK is (to be) sent, ACK 0 awaited
    STATE_SENDING       # DATA
    STATE_ENDED         # waits for the next fill to be freed; names: tftp_figures.pyx

cdef enum Outcome:
    OUTCOME_OK            # the last block was acknowledged, or only the last window's acknowledgement is missing
    OUTCOME_PROBE         # the client wanted to know the size (EDK2: tsize, OACK, ERROR 8)
    OUTCOME_CLOSED        # the client ended it with ERROR 0 (GRUB closes files so)
    OUTCOME_CLIENT_ERROR  # the client ended it with another ERROR
    OUTCOME_TIMEOUT       # the client fell silent
    OUTCOME_NO_ANSWER     # the client never reacted to the first packet
    OUTCOME_REFUSED       # we sent an ERROR
    OUTCOME_SUPERSEDED    # the same client port asked for something else, or anew
    OUTCOME_ABANDONED     # the control plane gave no answer
    OUTCOME_EVICTED       # never heard, and the oldest such when a full table needed room
    OUTCOMES

cdef enum DropReason:
    DROP_MALFORMED       # cut, or no opcode
    DROP_OPCODE          # DATA, OACK or unknown: nothing for a server
    DROP_UNKNOWN_PEER    # ACK or ERROR of no transfer
    DROP_STALE_ACK       # of a block that is not in flight
    DROP_MERGED          # a request that is being answered
    DROP_BUSY            # too many requests wait for the control plane, or too many transfers run
    DROP_NO_MEMORY
    DROP_CONTROL_FULL    # an ERROR that could not be queued
    DROPS


cdef struct Transfer:
    pxed_path path
    uint64_t id
    uint64_t request_hash
    Transfer *chain              # of its bucket
    Link ready
    Link unheard
    Timer timer
    pxed_blob *blob
    uint64_t blocks              # the last one is short, maybe empty
    uint64_t acked               # all blocks up to this one
    uint64_t next                # block to send next
    uint64_t high                # one more than the highest block ever sent
    uint64_t recover             # `high` when we last went back
    uint64_t retransmits
    uint64_t timed               # block whose round trip is being measured, 0 = none
    uint64_t timed_at
    uint64_t started             # ns; the request
    uint64_t answered            # ns from there to the first acknowledgement
    uint64_t progress_at         # the last new acknowledgement
    uint64_t gone_back_at
    uint64_t deadline            # when waiting for an ACK ends; the timer may be armed for earlier
    Rto rto
    Burst burst                  # of a window
    pxed_window window           # of a file that has no copy in memory
    uint32_t options             # asked for and acceptable (tftp.pxd: Option)
    uint32_t tries               # times the packet or window in flight was sent since the last progress
    uint16_t blksize
    uint16_t windowsize
    uint16_t client_timeout      # s
    uint8_t state
    bint queued
    bint listening               # nothing more is sent before it answers
    bint heard                   # it acknowledged anything
    bint gone_back               # since the last progress
    bint pausing                 # between two bursts of a window
    bint lowered                 # its block size is held to be too large


cdef struct ControlPacket:
    pxed_path path
    uint16_t size
    uint8_t data[ERROR_TEXT_LIMIT + 5]

cdef enum:
    CONTROL_LIMIT = 256          # ERRORs that wait for the next batch; more at once are a flood

cdef struct Counters:
    uint64_t requests
    uint64_t datagrams
    uint64_t bytes               # of files, retransmissions included
    uint64_t retransmits
    uint64_t go_backs            # of windows, by an ACK
    uint64_t timeouts
    uint64_t bursts_shrunk       # of windows
    uint64_t blksize_lowered     # of clients, for their next request
    uint64_t writes_refused
    uint64_t outcome[OUTCOMES]
    uint64_t drop[DROPS]


cdef class TftpSender(Sender):
    cdef Wheel wheel
    cdef BlockSizes sizes
    cdef Transfer **buckets
    cdef size_t bucket_mask
    cdef Transfer **slots        # by the low bits of the id
    cdef uint32_t *free_slots
    cdef size_t slot_count
    cdef size_t free_count
    cdef size_t running          # transfers in the table
    cdef size_t asked            # of these, waiting for the control plane
    cdef size_t limit
    cdef uint64_t serial
    cdef uint64_t seed
    cdef Link ready              # ring of those with something to send
    cdef Link unheard            # ring of those that were sent something and have acknowledged nothing, oldest first
    cdef Transfer *ended
    cdef uint64_t batches        # filled
    cdef bint full               # nothing more may go into this batch
    cdef ControlPacket control[CONTROL_LIMIT]
    cdef size_t control_first
    cdef size_t control_count
    cdef Counters counters

    # the table
    cdef Transfer *_find(self, const pxed_path *path) noexcept nogil
    cdef Transfer *_by_id(self, uint64_t id) noexcept nogil
    cdef bint _grow(self) noexcept nogil
    cdef Transfer *_new(self, const pxed_path *path, uint64_t now) noexcept nogil
    cdef void _finish(self, Transfer *t, Outcome outcome, uint32_t error, const uint8_t *text, size_t size,
                      uint64_t now) noexcept nogil
    cdef void _reap(self) noexcept nogil
    cdef void _free(self, Transfer *t) noexcept nogil
    # what comes in
    cdef void _on_request(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil
    cdef void _on_ack(self, Transfer *t, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_progress(self, Transfer *t, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_error(self, Transfer *t, const uint8_t *data, size_t size, uint64_t now) noexcept nogil
    cdef void _on_timeout(self, Transfer *t, uint64_t now) noexcept nogil
    cdef void _drop(self, DropReason reason) noexcept nogil
    cdef bint _too_large(self, Transfer *t, uint64_t now) noexcept nogil
    cdef void _on_send(self, Transfer *t, pxed_blob *blob, uint64_t now) noexcept nogil
    cdef void _on_list(self, size_t first, uint64_t now) noexcept nogil
    cdef void _on_heard(self, Transfer *t, uint64_t now) noexcept nogil
    # what goes out
    cdef void _enqueue(self, Transfer *t) noexcept nogil
    cdef void _dequeue(self, Transfer *t) noexcept nogil
    cdef void _wait(self, Transfer *t, uint64_t deadline) noexcept nogil
    cdef void _go_back(self, Transfer *t) noexcept nogil
    cdef void _send_error(self, const pxed_path *path, uint32_t code, const uint8_t *text, size_t size) noexcept nogil
    cdef bint _fill_from(self, Transfer *t, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef dict statistics(self)
