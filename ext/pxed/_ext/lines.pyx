"""Lines: who sends next, fairly and no faster than the pacers allow. Sans-I/O, for any sender; O(1) per datagram.

A line is what one pacer limits: an interface, or everything that has no limit. On each line turns go round. Who sends a
window in one turn, as one run for the kernel, has sent more than its share, and is passed over until the others, if
they have so much to send, have sent as much: so a window gets no more of a busy line than lock-step does, and still
leaves in runs. (Deficit round robin, with the quantum of a datagram and debt for credit.)

A line whose pacer refuses stands still and holds up no other.
"""

from libc.stdint cimport UINT64_MAX

from pxed._ext.linux_net cimport pxed_path_is_v6
from pxed._ext.pacer cimport LINE_COST_V4, LINE_COST_V6, pxed_pacer_give_back, pxed_pacer_ready_at, pxed_pacer_take
from pxed._ext.ring cimport ring_append, ring_first, ring_init, ring_remove

cimport cython

# A pacer that refused is asked again no sooner, whatever it says: others may have taken what it had.
cdef uint64_t SHORTEST_BLOCK = 100_000


@cython.final
@cython.no_gc
cdef class Lines:
    """The lines of one sender. Line 0 is that of all sockets without a pacer."""

    def __cinit__(self):
        cdef int i
        for i in range(LINES):
            ring_init(&self.line[i].ready)
        self.count = 1

    cdef void pace(self, uint32_t socket, pxed_pacer *pacer) noexcept nogil:
        cdef size_t i
        if socket >= LINES:
            return
        for i in range(self.count):
            if self.line[i].pacer == pacer:
                self.of_socket[socket] = <uint32_t>i
                return
        if self.count < LINES:
            self.line[self.count].pacer = pacer
            self.of_socket[socket] = <uint32_t>self.count
            self.count += 1

    cdef Line *_of(self, uint32_t socket) noexcept nogil:
        return &self.line[self.of_socket[socket] if socket < LINES else 0]

    cdef void add(self, Share *share, void *owner, uint32_t socket) noexcept nogil:
        if not share.queued:
            share.queued = True
            ring_append(&self._of(socket).ready, &share.link, owner)

    cdef void remove(self, Share *share) noexcept nogil:
        ring_remove(&share.link)
        share.queued = False

    cdef void rotate(self) noexcept nogil:
        self.turn = (self.turn + 1) % self.count

    cdef void *next(self, uint64_t now) noexcept nogil:
        cdef size_t _i
        cdef Line *line
        if self.blocked_until > now:
            return NULL
        for _i in range(self.count):
            line = &self.line[self.turn]
            if line.blocked_until <= now and ring_first(&line.ready) is not NULL:
                return self._next_of(line)
            self.turn = (self.turn + 1) % self.count
        return NULL

    cdef void *_next_of(self, Line *line) noexcept nogil:
        cdef Share *share = <Share *>line.ready.next
        while share.debt != 0 and share.link.next != &line.ready:
            share.debt -= 1
            ring_remove(&share.link)
            ring_append(&line.ready, &share.link, share.link.owner)
            share = <Share *>line.ready.next
        if share.link.next == &line.ready:
            share.debt = 0  # nobody else wants the line
        self.remove(share)
        return share.link.owner

    cdef void charge(self, Share *share, unsigned int datagrams) noexcept nogil:
        if datagrams > 1:
            share.debt += datagrams - 1

    cdef void put_back(self, Share *share, void *owner, uint32_t socket) noexcept nogil:
        cdef Link *ready = &self._of(socket).ready
        if not share.queued:
            share.queued = True
            ring_append(ready.next, &share.link, owner)  # before the one that would be next

    cdef bint may_send(self, const pxed_path *path, size_t payload, uint64_t now) noexcept nogil:
        cdef Line *line = self._of(path.socket)
        cdef uint64_t size = payload + (LINE_COST_V6 if pxed_path_is_v6(path) else LINE_COST_V4)
        if self.whole is not NULL and not pxed_pacer_take(self.whole, size, now):
            self.blocked_until = max(pxed_pacer_ready_at(self.whole), now + SHORTEST_BLOCK)
            self.blocks += 1
            return False
        if line.pacer is not NULL and not pxed_pacer_take(line.pacer, size, now):
            if self.whole is not NULL:
                pxed_pacer_give_back(self.whole, size)
            line.blocked_until = max(pxed_pacer_ready_at(line.pacer), now + SHORTEST_BLOCK)
            self.blocks += 1
            return False
        return True

    cdef bint idle(self) noexcept nogil:
        cdef size_t i
        for i in range(self.count):
            if ring_first(&self.line[i].ready) is not NULL:
                return False
        return True

    cdef uint64_t wake_at(self) noexcept nogil:
        cdef uint64_t at = UINT64_MAX
        cdef size_t i
        for i in range(self.count):
            if ring_first(&self.line[i].ready) is not NULL:
                at = min(at, max(self.line[i].blocked_until, self.blocked_until))
        return at

    cdef void clear(self) noexcept nogil:
        cdef size_t i
        for i in range(self.count):
            ring_init(&self.line[i].ready)
