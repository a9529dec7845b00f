"""GroupSender: multicast groups of RFC 2090. The rules are at the head of mtftp_groups.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.mtftp_members cimport Group, Member, Members, Step
from pxed._ext.mtftp_table cimport GroupTable
from pxed._ext.ring cimport Link
from pxed._ext.sender cimport Command, Sender
from pxed._ext.tftp_sender cimport OUTCOMES, Outcome
from pxed._ext.timers cimport Wheel

cdef enum DropReason:
    DROP_MALFORMED
    DROP_OPCODE                  # requests come by COMMAND_JOIN
    DROP_UNKNOWN_PEER
    DROP_STALE_ACK
    DROP_SLAVE_ACK               # normal: some clients acknowledge what they are told
    DROP_NO_MEMORY
    DROP_BUSY
    DROP_STRANGER                # too many at one address that never answers
    DROPS


cdef struct Counters:
    uint64_t joined
    uint64_t datagrams
    uint64_t bytes               # of files, retransmissions included
    uint64_t retransmits
    uint64_t timeouts
    uint64_t elections
    uint64_t silent_masters
    uint64_t slow_masters
    uint64_t deaf                # clients that take no multicast
    uint64_t unicast_bytes       # of files, to those
    uint64_t outcome[OUTCOMES]
    uint64_t drop[DROPS]


cdef class GroupSender(Sender):
    cdef Wheel wheel                         # of groups
    cdef Wheel trials                        # of strangers
    cdef Members members
    cdef GroupTable table
    cdef size_t limit
    cdef Link due
    cdef Counters counters

    # members
    cdef void _on_join(self, Command *command, uint64_t now) noexcept nogil
    cdef void _on_rejoin(self, Member *m, Command *command, uint64_t now) noexcept nogil
    cdef bint _may_join(self, Command *command, uint64_t now) noexcept nogil
    cdef void _end(self, uint64_t id, const pxed_path *path, Outcome outcome) noexcept nogil
    cdef void _finish(self, Member *m, Outcome outcome, uint32_t error, const uint8_t *text, size_t size,
                      uint64_t now) noexcept nogil
    cdef void _take_step(self, Member *m, Step step, uint64_t until, uint64_t now) noexcept nogil
    cdef void _give_up(self, Member *m, uint64_t now) noexcept nogil
    cdef void _on_list(self, size_t bucket, uint64_t now) noexcept nogil
    # groups
    cdef void _close_group(self, Group *g, uint64_t now) noexcept nogil
    cdef void _hand_over(self, Group *g, uint64_t now) noexcept nogil
    cdef void _tell_all(self, Group *g, uint64_t now) noexcept nogil
    cdef void _elect(self, Group *g, Member *m, uint64_t now) noexcept nogil
    cdef void _take_over(self, Group *g, Member *m, uint64_t block, uint64_t now) noexcept nogil
    cdef void _review(self, Group *g, uint64_t now) noexcept nogil
    cdef void _serve_alone(self, Member *m, uint64_t now) noexcept nogil
    # what comes in
    cdef void _on_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_first_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_slave_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_master_ack(self, Group *g, Member *m, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_error(self, Member *m, const uint8_t *data, size_t size, uint64_t now) noexcept nogil
    cdef void _on_timeout(self, Group *g, uint64_t now) noexcept nogil
    cdef void _request(self, Group *g, uint64_t block, uint64_t now) noexcept nogil
    cdef void _drop(self, DropReason reason) noexcept nogil
    # what goes out
    cdef void _tell(self, Member *m) noexcept nogil
    cdef void _enqueue(self, Group *g) noexcept nogil
    cdef void _wait(self, Group *g, uint64_t deadline) noexcept nogil
    cdef void _fill_oack(self, Member *m, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef void _fill_data(self, Group *g, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef uint64_t _patience(self, Group *g, uint64_t now) noexcept nogil
