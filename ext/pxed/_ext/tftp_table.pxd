"""Transfers, and the table of them: found by path and by id in O(1)."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.file_reader cimport pxed_fetch
from pxed._ext.lines cimport Share
from pxed._ext.linux_net cimport pxed_path
from pxed._ext.ring cimport Link
from pxed._ext.tftp_admission cimport Turn
from pxed._ext.tftp_flow cimport Burst, Rto
from pxed._ext.timers cimport Timer

cdef enum State:
    STATE_ASKED         # the control plane has not answered yet
    STATE_QUEUED        # waits for its first answer until there is a place for it
    STATE_OPTIONS       # OACK is (to be) sent, ACK 0 awaited
    STATE_SENDING       # DATA
    STATE_ENDED         # waits for the next fill to be freed; names: tftp_figures.pyx


cdef struct Transfer:
    pxed_path path
    uint64_t id
    uint64_t request_hash
    Transfer *chain              # of its bucket
    Share share
    Turn turn
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
    uint64_t patience            # ns; how long it waits for a first answer
    Rto rto
    Burst burst                  # of a window
    pxed_fetch *fetch            # of a file without a copy: what a reader has been asked for
    uint32_t options             # asked for and acceptable (tftp.pxd: Option)
    uint32_t tries               # times the packet or window in flight was sent since the last progress
    uint16_t blksize
    uint16_t windowsize
    uint16_t client_timeout      # s
    uint8_t state
    bint listening               # nothing more is sent before it answers
    bint heard                   # it acknowledged anything
    bint gone_back               # since the last progress
    bint pausing                 # between two bursts of a window, or two turns of one that is kept alive
    uint8_t reads                # times its disk was asked since it last gave something
    bint lowered                 # its block size is held to be too large


cdef enum:
    SLOT_BITS = 20

cdef class Table:
    cdef Transfer **buckets
    cdef size_t bucket_mask
    cdef Transfer **slots        # by the low bits of the id
    cdef uint32_t *free_slots
    cdef size_t slot_count
    cdef size_t free_count
    cdef size_t count            # transfers
    cdef uint64_t serial
    cdef uint64_t seed

    cdef Transfer *find(self, const pxed_path *path) noexcept nogil
    # The first of the bucket where all transfers of this path's client port are; follow `chain`.
    cdef Transfer *first_of(self, const pxed_path *path) noexcept nogil
    cdef Transfer *by_id(self, uint64_t id) noexcept nogil
    # A new one, all zero but for its path, id and the owner of its timer; NULL without memory.
    cdef Transfer *add(self, const pxed_path *path) noexcept nogil
    # It is the caller's then.
    cdef void remove(self, Transfer *t) noexcept nogil
    cdef bint _grow(self) noexcept nogil
