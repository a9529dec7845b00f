"""GroupSender: multicast groups of RFC 2090. The rules are at the head of mtftp_groups.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.lines cimport Share
from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.ring cimport Link
from pxed._ext.sender cimport Command, Sender
from pxed._ext.tftp_flow cimport Rto
from pxed._ext.tftp_sender cimport OUTCOMES, Outcome
from pxed._ext.timers cimport Timer, Wheel

cdef enum:
    BUCKETS = 4096               # for members; longer chains still work
    LARGEST_RANGE = 1024         # group addresses
    DEAF_REMEMBERED = 1024       # clients that take no multicast

cdef enum DropReason:
    DROP_MALFORMED
    DROP_OPCODE                  # requests come by COMMAND_JOIN
    DROP_UNKNOWN_PEER
    DROP_STALE_ACK
    DROP_SLAVE_ACK               # normal: some clients acknowledge what they are told
    DROP_NO_MEMORY
    DROP_BUSY
    DROPS


cdef struct Member:
    pxed_path path
    uint64_t id
    Member *chain                # of its bucket
    Link age                     # ring of its group, oldest first
    Link due                     # ring of those that get an OACK
    Link fresh                   # ring of those whose OACK is to be repeated
    Group *group
    uint64_t started
    uint64_t answered            # ns from the request to the first answer, 0 = never
    uint64_t answered_at         # ns, the last answer
    uint64_t asked               # the last block that it acknowledged
    uint64_t asked_at            # ns, when it first did
    uint64_t pace                # ns per block while it was master, 0 = unknown
    uint64_t retransmits
    uint32_t options
    uint16_t client_timeout      # s
    uint8_t failures             # in a row, when it was to be master and did not answer


cdef struct Group:
    pxed_path to                 # where DATA goes
    Group *after                 # in the list of all groups, or of those that ended
    Share share
    Link members
    Link fresh
    Timer timer
    uint64_t deadline
    pxed_blob *blob
    Member *master
    uint64_t blocks              # the last one is short, maybe empty
    uint64_t block               # in flight, or due
    uint64_t sent_at             # ns; DATA, or the OACK of an election
    uint64_t told_at             # ns; when all were told that it lives
    uint64_t term_at             # ns; since then the master's pace is measured,
    uint64_t term_blocks         # by so many blocks
    Rto rto
    uint32_t tries               # times the block in flight was sent
    uint32_t address             # number in the range
    uint16_t blksize
    bint private                 # of one client that is served by unicast
    bint electing                # the master was told, and has not answered yet


cdef struct Deaf:
    uint64_t client              # hash of its address
    uint64_t until               # ns


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
    cdef Wheel wheel
    cdef Member *buckets[BUCKETS]
    cdef Deaf deaf[DEAF_REMEMBERED]
    cdef uint64_t free_at[LARGEST_RANGE]     # ns; UINT64_MAX while a group uses the address
    cdef uint32_t first_address
    cdef uint32_t address_count
    cdef uint32_t next_address
    cdef uint16_t port
    cdef size_t members
    cdef size_t limit
    cdef uint64_t seed
    cdef Group *groups
    cdef Group *ended
    cdef Link due
    cdef Counters counters

    # members
    cdef Member **_slot(self, const pxed_path *path) noexcept nogil
    cdef void _on_join(self, Command *command, uint64_t now) noexcept nogil
    cdef void _on_rejoin(self, Member *m, Command *command, uint64_t now) noexcept nogil
    cdef void _end(self, uint64_t id, const pxed_path *path, Outcome outcome) noexcept nogil
    cdef void _finish(self, Member *m, Outcome outcome, uint32_t error, const uint8_t *text, size_t size,
                      uint64_t now) noexcept nogil
    cdef void _give_up(self, Member *m, uint64_t now) noexcept nogil
    cdef void _on_list(self, size_t bucket, uint64_t now) noexcept nogil
    # groups
    cdef Group *_group_for(self, Command *command, bint private, uint64_t now) noexcept nogil
    cdef Group *_new_group(self, pxed_blob *blob, uint16_t blksize, const pxed_path *to, bint private, uint64_t now
                           ) noexcept nogil
    cdef void _close_group(self, Group *g, uint64_t now) noexcept nogil
    cdef void _hand_over(self, Group *g, uint64_t now) noexcept nogil
    cdef void _elect(self, Group *g, Member *m, uint64_t now) noexcept nogil
    cdef void _review(self, Group *g, uint64_t now) noexcept nogil
    cdef void _serve_alone(self, Member *m, uint64_t now) noexcept nogil
    # what comes in
    cdef void _on_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil
    cdef void _on_error(self, Member *m, const uint8_t *data, size_t size, uint64_t now) noexcept nogil
    cdef void _on_timeout(self, Group *g, uint64_t now) noexcept nogil
    cdef void _remind(self, Group *g, uint64_t now) noexcept nogil
    cdef void _request(self, Group *g, uint64_t block, uint64_t now) noexcept nogil
    cdef void _drop(self, DropReason reason) noexcept nogil
    # what goes out
    cdef void _tell(self, Member *m) noexcept nogil
    cdef void _enqueue(self, Group *g) noexcept nogil
    cdef void _wait(self, Group *g, uint64_t deadline) noexcept nogil
    cdef void _fill_oack(self, Member *m, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef void _fill_data(self, Group *g, pxed_batch *batch, uint64_t now) noexcept nogil
