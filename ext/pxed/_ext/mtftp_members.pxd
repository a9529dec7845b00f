"""Members: the clients of a GroupSender, who of them is there at all, and who hears. The rules are in
mtftp_members.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.blob cimport pxed_blob
from pxed._ext.lines cimport Share
from pxed._ext.linux_net cimport pxed_path
from pxed._ext.ring cimport Link
from pxed._ext.tftp_flow cimport Rto
from pxed._ext.timers cimport Timer

cdef enum:
    BUCKETS = 4096               # for members; longer chains still work
    DEAF_REMEMBERED = 1024       # clients that take no multicast
    STRANGERS = 4096             # places for counts of strangers
    # Datagrams to who has not answered a request, at most.
    UNANSWERED_SENDS = 3


cdef struct Group


cdef struct Member:
    pxed_path path
    uint64_t id
    Member *chain                # of its bucket
    Link age                     # ring of its group's members, oldest first, or of its strangers
    Link due                     # ring of those that get an OACK
    Link unproven                # ring of all strangers, oldest first
    Timer timer                  # of a stranger
    Group *group
    uint64_t started
    uint64_t answered            # ns from the request to the first answer, 0 = never: a stranger
    uint64_t answered_at         # ns, the last answer
    uint64_t asked               # the last block that it acknowledged
    uint64_t asked_at            # ns, when it first did
    uint64_t pace                # ns per block while it was master, 0 = unknown
    uint64_t retransmits
    uint64_t told_at             # ns, the last OACK
    uint64_t heard_from          # blocks that its group had sent when it answered the last OACK
    uint32_t options
    uint32_t acks
    uint32_t told                # OACKs that it was sent
    uint32_t told_at_acks        # `acks` when it was told last
    uint16_t client_timeout      # s
    uint8_t failures             # in a row, when it was to be master and did not answer
    uint8_t silent               # OACKs that it answered, and then no DATA
    bint reminded                # it was told twice that it is a slave
    bint trial                   # it was told that it is the master, so that it shows whether it hears


cdef struct Group:
    pxed_path to                 # where DATA goes
    Group *after                 # in the list of all groups, or of those that ended
    Share share
    Link members                 # who has answered
    Link strangers               # who has not
    Timer timer
    uint64_t deadline
    pxed_blob *blob
    Member *master               # NULL: nobody has answered yet
    uint64_t blocks              # the last one is short, maybe empty
    uint64_t block               # in flight, or due
    uint64_t sent                # blocks, repeats included
    uint64_t sent_at             # ns; DATA, or the OACK of an election
    uint64_t told_at             # ns; when all were told that it lives
    uint64_t term_at             # ns; since then the master's pace is measured,
    uint64_t term_blocks         # by so many blocks
    Rto rto
    uint32_t tries               # times the block in flight was sent
    int address                  # number in the range
    uint16_t blksize
    bint private                 # of one client that is served by unicast
    bint electing                # the master was told, and has not answered yet


cdef struct Deaf:
    uint64_t client              # hash of its address
    uint64_t until               # ns


# What is to be done about a member.
cdef enum Step:
    STEP_NONE
    STEP_TELL                    # what it is
    STEP_WAIT                    # look at it again later
    STEP_DEAF                    # it takes no multicast
    STEP_END                     # it is not there


cdef class Members:
    cdef Member *buckets[BUCKETS]
    cdef Deaf deaf[DEAF_REMEMBERED]
    cdef uint16_t strangers[STRANGERS]
    cdef Link unproven                   # all strangers, oldest first
    cdef size_t count
    cdef size_t unproven_count
    cdef uint64_t seed

    # The pointer to the member with this path, or the one where it would be.
    cdef Member **slot(self, const pxed_path *path) noexcept nogil
    # A new one, a stranger in no group; NULL without memory.
    cdef Member *add(self, const pxed_path *path, uint64_t now) noexcept nogil
    # It is freed.
    cdef void remove(self, Member *m) noexcept nogil
    # It answered.
    cdef void prove(self, Member *m, uint64_t now) noexcept nogil
    # How many strangers are at this address.
    cdef uint16_t strangers_at(self, const pxed_path *path) noexcept nogil
    # Whether its address took no multicast lately.
    cdef bint is_deaf(self, const pxed_path *path, uint64_t now) noexcept nogil
    cdef void remember_deaf(self, const pxed_path *path, uint64_t now) noexcept nogil
    cdef uint16_t *_strangers(self, const pxed_path *path) noexcept nogil
    cdef void _no_stranger(self, Member *m) noexcept nogil
    # An OACK was sent to it. When to look at it again, by `on_timer`; 0: never.
    cdef uint64_t was_told(self, Member *m, uint64_t now) noexcept nogil
    # An ACK of one that has answered and is not the master. `until`: when to look at it again (STEP_WAIT).
    cdef Step on_ack(self, Member *m, uint64_t block, uint64_t now, uint64_t *until) noexcept nogil
    cdef Step on_timer(self, Member *m, uint64_t now, uint64_t *until) noexcept nogil
    cdef Step _look(self, Member *m, uint64_t now, uint64_t *until) noexcept nogil
    cdef bint _may_tell(self, Member *m) noexcept nogil


# Who is to be master next: the oldest that has not failed to answer, or has the fewest times; NULL: nobody has come.
cdef Member *heir(Group *group) noexcept nogil
# Who is, or may be, much faster than the master; or NULL.
cdef Member *faster(Group *group) noexcept nogil
