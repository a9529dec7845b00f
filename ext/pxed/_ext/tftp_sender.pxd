"""TftpSender: all TFTP transfers of one engine, in one table. The rules are at the head of tftp_sender.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.file_reader cimport Scratch
from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.ring cimport Link
from pxed._ext.sender cimport Command, Sender
from pxed._ext.tftp_admission cimport Admission
from pxed._ext.tftp_control cimport Control
from pxed._ext.tftp_flow cimport BlockSizes
from pxed._ext.tftp_tids cimport Tids
from pxed._ext.tftp_table cimport Table, Transfer
from pxed._ext.timers cimport Wheel

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
    OUTCOME_MOVED         # another sender answers it
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
    DROP_STRANGER        # a request from an address that has left very many answers unanswered
    DROPS


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
    cdef Table table
    cdef Admission admission
    cdef Tids tids
    cdef size_t asked            # transfers that wait for the control plane
    cdef size_t limit
    cdef Link unheard            # ring of those that were sent something and have acknowledged nothing, oldest first
    cdef Transfer *ended
    cdef Scratch scratch
    cdef Control control
    cdef Counters counters

    # beginnings and ends
    cdef Transfer *_new(self, const pxed_path *path, uint64_t now) noexcept nogil
    cdef bint _make_room(self, const pxed_path *path, uint64_t request_hash, uint64_t now) noexcept nogil
    cdef void _begin(self, Transfer *t, uint64_t now) noexcept nogil
    cdef void _is_no_stranger(self, Transfer *t) noexcept nogil
    cdef void _admit(self, uint64_t now) noexcept nogil
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
    cdef void _go_on(self, Transfer *t, uint64_t now) noexcept nogil
    cdef void _fill_options(self, Transfer *t, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef void _wait(self, Transfer *t, uint64_t deadline) noexcept nogil
    cdef void _go_back(self, Transfer *t, bint by_ack, uint64_t now) noexcept nogil
    cdef void _send_error(self, const pxed_path *path, uint32_t code, const uint8_t *text, size_t size) noexcept nogil
    cdef const uint8_t *_read(self, Transfer *t, uint64_t *last, uint64_t now) noexcept nogil
    cdef bint _fill_from(self, Transfer *t, pxed_batch *batch, uint64_t now) noexcept nogil
