"""Members: the clients of a GroupSender, who of them is there at all, and who hears. Sans-I/O, without the GIL.

- Whoever asks is a stranger until it answers: its address may be forged. It gets UNANSWERED_SENDS datagrams at most for
  a request and one for each repeat of it, then we only listen; when there are MANY_STRANGERS at an address, one; with
  TOO_MANY_STRANGERS, none. The oldest stranger makes room in a full table. Nothing is sent to a group for strangers.
- Each is told that it is the master, whoever is: masters answer at once, where slaves may be silent for ever. So a lost
  OACK is noticed in time, and nobody waits for who is not there.
- A master answers its OACK and DATA: atftp once until it gets the block that it asked for, others each time. So who was
  told so and answers twice hears its group, and learns that it is a slave; until then it may throw away what it did not
  ask for. Who answers its OACK alone, PROBES times, hears nothing. All newcomers are on trial at the same time, and
  clients that take no multicast do not wait for each other; one whose answer the network doubled, or that was slow to
  answer its first OACK, passes for hearing until it is its turn to be master.
- No slave answers, so each is told twice that it is one; who goes on as if it were the master is told again.
"""

from libc.stdlib cimport calloc, free

from pxed._ext.linux_net cimport pxed_client_hash, pxed_path_equal, pxed_path_hash
from pxed._ext.ring cimport ring_append, ring_first, ring_init, ring_remove
from pxed._ext.tftp_admission cimport MANY_STRANGERS

cimport cython

cdef uint64_t MS = 1_000_000
# From a newcomer's first OACK to the second, and from what tells a slave that it is one to its repetition. A file may
# be through in a tenth of a second, and who misses the beginning has it all sent again; slow firmware answers both.
cdef uint64_t SOON = 20 * MS
cdef uint64_t LATER = 1000 * MS
# After the last datagram to a stranger we only listen: its answers may have been lost. EDK2 and atftp repeat them after
# 4 and 5 s.
cdef uint64_t LISTEN = 12_000 * MS
cdef uint64_t DEAF_LASTS = 3_600_000 * MS
# What a newcomer has to answer DATA that its group is sent; more, if it was slow to answer its OACK.
cdef uint64_t WINDOW = 100 * MS
cdef uint64_t LONGEST_WINDOW = 1000 * MS
# DATA that was sent this long ago has been answered, or is lost.
cdef uint64_t ON_THE_WAY = 30 * MS
# An ACK that comes sooner after another was not sent by iPXE's clock, which repeats them after 0.25 s.
cdef uint64_t QUICK = 200 * MS

cdef enum:
    PROBES = 3
    # OACKs for a newcomer that answers some of them only. It is taken for a slave then, until it is to be master.
    MOST_PROBES = 8
    STRAYS = 8                   # ACKs of a slave since it was told what it is


@cython.final
@cython.no_gc
cdef class Members:
    """`seed` keys the tables."""

    def __cinit__(self, uint64_t seed):
        self.seed = seed
        ring_init(&self.unproven)

    cdef Member **slot(self, const pxed_path *path) noexcept nogil:
        cdef Member **link = &self.buckets[pxed_path_hash(path, self.seed) % BUCKETS]
        while link[0] is not NULL and not pxed_path_equal(&link[0].path, path):
            link = &link[0].chain
        return link

    cdef Member *add(self, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef Member *m = <Member *>calloc(1, sizeof(Member))
        if m is not NULL:
            m.path = path[0]
            m.started = now
            m.trial = True
            m.timer.owner = m
            self.slot(path)[0] = m
            self.count += 1
            ring_append(&self.unproven, &m.unproven, m)
            self._strangers(path)[0] += 1
            self.unproven_count += 1
        return m

    cdef void remove(self, Member *m) noexcept nogil:
        self._no_stranger(m)
        self.slot(&m.path)[0] = m.chain
        self.count -= 1
        ring_remove(&m.age)
        ring_remove(&m.due)
        free(m)

    cdef void prove(self, Member *m, uint64_t now) noexcept nogil:
        self._no_stranger(m)
        m.answered = max(now - m.started, <uint64_t>1)

    cdef void _no_stranger(self, Member *m) noexcept nogil:
        # It answered, or it goes.
        if m.unproven.next is not NULL:
            ring_remove(&m.unproven)
            self._strangers(&m.path)[0] -= 1
            self.unproven_count -= 1

    cdef uint16_t *_strangers(self, const pxed_path *path) noexcept nogil:
        return &self.strangers[pxed_client_hash(path, self.seed) % STRANGERS]

    cdef uint16_t strangers_at(self, const pxed_path *path) noexcept nogil:
        return self._strangers(path)[0]

    cdef bint is_deaf(self, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef uint64_t client = pxed_client_hash(path, self.seed)
        cdef Deaf *deaf = &self.deaf[client % DEAF_REMEMBERED]
        return deaf.client == client and now < deaf.until

    cdef void remember_deaf(self, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef uint64_t client = pxed_client_hash(path, self.seed)
        self.deaf[client % DEAF_REMEMBERED].client = client
        self.deaf[client % DEAF_REMEMBERED].until = now + DEAF_LASTS

    cdef uint64_t was_told(self, Member *m, uint64_t now) noexcept nogil:
        m.told += 1
        m.told_at = now
        m.told_at_acks = m.acks
        if m.group.master == m:
            m.reminded = False
            return 0
        if m.answered == 0:
            return now + (SOON if m.told == 1 else LATER) if self._may_tell(m) else now + LISTEN
        if m.trial:
            m.reminded = False
            return now + WINDOW
        if m.reminded:
            return 0
        m.reminded = True
        return now + SOON

    cdef Step on_ack(self, Member *m, uint64_t block, uint64_t now, uint64_t *until) noexcept nogil:
        cdef uint32_t acks = m.acks - m.told_at_acks
        cdef bint quick = now - m.answered_at < QUICK
        m.answered_at = now
        if not m.trial:
            return STEP_TELL if acks >= STRAYS else STEP_NONE
        if block > m.asked or (acks > 1 and quick):
            m.trial = False
            return STEP_TELL
        if acks != 1 or m.due.next is not NULL:
            return STEP_NONE
        m.heard_from = m.group.sent
        until[0] = now + min(max(WINDOW, 4 * (now - m.told_at)), LONGEST_WINDOW)
        return STEP_WAIT

    cdef Step on_timer(self, Member *m, uint64_t now, uint64_t *until) noexcept nogil:
        if m.group.master == m:
            return STEP_NONE
        if m.answered != 0:
            return self._look(m, now, until) if m.trial else STEP_TELL
        until[0] = m.told_at + LISTEN
        if self._may_tell(m):
            return STEP_TELL
        return STEP_WAIT if now < until[0] else STEP_END

    cdef Step _look(self, Member *m, uint64_t now, uint64_t *until) noexcept nogil:
        # The time of a newcomer to show that it hears is up.
        cdef Group *g = m.group
        cdef uint64_t sent = g.sent - m.heard_from
        if m.acks != m.told_at_acks:  # it answered the last OACK
            if sent == 0 or (sent < PROBES and now - g.sent_at < ON_THE_WAY):
                until[0] = now + WINDOW
                return STEP_WAIT
            m.silent += 1
        if m.silent >= PROBES:
            return STEP_DEAF
        m.trial = m.told < MOST_PROBES
        return STEP_TELL

    cdef bint _may_tell(self, Member *m) noexcept nogil:
        return m.told < UNANSWERED_SENDS and self.strangers_at(&m.path) <= MANY_STRANGERS


cdef Member *heir(Group *group) noexcept nogil:
    # The living do not wait behind the dead.
    cdef Member *best = <Member *>ring_first(&group.members)
    cdef Link *link = group.members.next
    while link != &group.members and best.failures != 0:
        if (<Member *>link.owner).failures < best.failures:
            best = <Member *>link.owner
        link = link.next
    return best


cdef Member *faster(Group *group) noexcept nogil:
    # One whose pace is unknown before all others.
    cdef Member *best = NULL
    cdef Member *m
    cdef Link *link = group.members.next
    while link != &group.members:
        m = <Member *>link.owner
        if m.failures == 0 and 2 * m.pace < group.master.pace and (best is NULL or m.pace < best.pace):
            best = m
        link = link.next
    return best
