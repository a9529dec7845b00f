"""Admission: what a TFTP server does with more clients than it can serve well at a time. Sans-I/O, O(1) throughout.

Each transfer under way has a datagram, or a window of them, on the line or in some switch's buffer: thousands at once
overrun it, and firmware that has missed one packet tends to miss more, and gives up for good. But firmware waits
longest for the first packet. So:

- There are so many places (`places`, the control plane's policy). Who asks when all are taken waits for its answer.
- Free places go to those who wait: first to those who have been answered already, then to those who had to ask again,
  then to the others; each in the order in which they came.
- Nobody waits longer than its firmware's patience for the first packet (below) allows. Who is answered without a place
  is kept alive until there is one: one turn every KEEP_ALIVE, as if each time a packet had been lost.
- Who has a place and never reacts is perhaps no client at all, but a forged address: it gives its place up after PROOF,
  and gets the next free one as soon as it does react.
- At most MOST_WAITING wait; of more, the longest waiting is answered. So a flood of requests makes the wait shorter,
  not longer, and real clients show that they are.

- The control plane, too, has time for so many only. The last of it is for requests that come a second time: clients
  ask again, forged addresses do not.

An address that never reacts is counted besides: see MANY_STRANGERS.
"""

from pxed._ext.linux_net cimport pxed_client_hash, pxed_path_hash
from pxed._ext.ring cimport ring_append, ring_first, ring_init, ring_remove
from pxed._ext.tftp cimport OPT_BLKSIZE

cimport cython

cdef uint64_t MS = 1_000_000
# Half of the time after which a firmware gives up on its first packet: the answer, or the request, may get lost.
# EDK2 asks 6 times, 4 s apart: 24 s. It asks for blocks of 1468 bytes.
cdef uint64_t PATIENCE_EDK2 = 12_000 * MS
# iPXE waits 0.25 s, then twice as long each time, up to 16 s in all. It asks for blocks of 1432 bytes.
cdef uint64_t PATIENCE_IPXE = 8000 * MS
# GRUB asks 40 times, 0.4 to 1.2 s apart: 31 s. It asks for blocks of 1024 bytes. So do boot loaders that wait less.
cdef uint64_t PATIENCE_GRUB = 8000 * MS
# Everybody else, boot ROMs among them: nobody knows them all. iPXE's fourth repeat would still be to come.
cdef uint64_t PATIENCE_UNKNOWN = 3000 * MS
# A packet to a client that is kept alive. Our own first timeout after a loss is as long, and the shortest patience
# between two packets is several times that.
KEEP_ALIVE = 1000 * MS
# The answer of a client that is there takes milliseconds.
cdef uint64_t PROOF = 500 * MS

cdef enum:
    MOST_WAITING = 4096
    # Requests that wait for the control plane. It answers thousands per second, clients repeat for 10 s and more.
    MOST_ASKED = 4096
    # Of these, requests that come for the first time.
    MOST_ASKED_FIRST = 3072


cdef uint64_t first_packet_patience(const TftpRequest *request) noexcept nogil:
    """How long (ns) whoever asks so may be left without an answer."""
    if not request.options & OPT_BLKSIZE:
        return PATIENCE_UNKNOWN
    if request.blksize == 1468:
        return PATIENCE_EDK2
    if request.blksize == 1432:
        return PATIENCE_IPXE
    if request.blksize == 1024:
        return PATIENCE_GRUB
    return PATIENCE_UNKNOWN


@cython.final
@cython.no_gc
cdef class Admission:
    """The places of one sender, and who waits for them. `places` may change at any time."""

    def __cinit__(self, size_t places, uint64_t seed=0):
        if places == 0:
            raise ValueError("there must be a place at least")
        self.places = places
        self.seed = seed
        ring_init(&self.unproven)
        ring_init(&self.started)
        ring_init(&self.repeaters)
        ring_init(&self.newcomers)

    cdef bint enter(self, Turn *turn, void *owner, uint64_t now) noexcept nogil:
        turn.since = now
        turn.link.owner = owner
        if self.served < self.places and self.waiting == 0 and ring_first(&self.started) is NULL:
            self.admitted_at_once += 1
            self._serve(turn, owner)
            return True
        self.waiting += 1
        turn.standing = STANDING_WAITING
        ring_append(&self.repeaters if turn.repeated else &self.newcomers, &turn.link, owner)
        return False

    cdef void _serve(self, Turn *turn, void *owner) noexcept nogil:
        self.served += 1
        turn.standing = STANDING_SERVED
        if not turn.proven:
            ring_append(&self.unproven, &turn.link, owner)

    cdef void repeat(self, Turn *turn) noexcept nogil:
        if turn.repeated:
            return
        turn.repeated = True
        if turn.standing == STANDING_WAITING:
            ring_remove(&turn.link)
            ring_append(&self.repeaters, &turn.link, turn.link.owner)

    cdef void keep(self, Turn *turn, uint64_t now) noexcept nogil:
        self.leave(turn)
        self.impatient += 1
        self._keep(turn)

    cdef void _keep(self, Turn *turn) noexcept nogil:
        self.kept += 1
        turn.standing = STANDING_KEPT

    cdef void prove(self, Turn *turn) noexcept nogil:
        if turn.proven:
            return
        turn.proven = True
        if turn.standing == STANDING_SERVED:
            ring_remove(&turn.link)
        elif turn.standing == STANDING_KEPT:
            ring_append(&self.started, &turn.link, turn.link.owner)

    cdef void leave(self, Turn *turn) noexcept nogil:
        ring_remove(&turn.link)
        if turn.standing == STANDING_WAITING:
            self.waiting -= 1
        elif turn.standing == STANDING_KEPT:
            self.kept -= 1
        elif turn.standing == STANDING_SERVED:
            self.served -= 1
        turn.standing = STANDING_FREE

    cdef void *next(self, uint64_t now) noexcept nogil:
        cdef Turn *turn = self._first()
        cdef Turn *silent
        if turn is NULL:
            return NULL
        if self.served >= self.places:
            silent = <Turn *>self.unproven.next if self.unproven.next != &self.unproven else NULL
            if silent is NULL or now - silent.since < PROOF:
                return NULL
            self.leave(silent)
            self._keep(silent)
        self.leave(turn)
        self.admitted_later += 1
        self.waited += now - turn.since
        turn.since = now
        self._serve(turn, turn.link.owner)
        return turn.link.owner

    cdef Turn *_first(self) noexcept nogil:
        # A Turn begins with its link.
        if self.started.next != &self.started:
            return <Turn *>self.started.next
        if self.repeaters.next != &self.repeaters:
            return <Turn *>self.repeaters.next
        return <Turn *>self.newcomers.next if self.newcomers.next != &self.newcomers else NULL

    cdef void *overflow(self) noexcept nogil:
        if self.waiting <= MOST_WAITING:
            return NULL
        return ring_first(&self.newcomers) if ring_first(&self.newcomers) is not NULL else ring_first(&self.repeaters)

    cdef bint may_ask(self, size_t asked, const pxed_path *path, uint64_t request_hash) noexcept nogil:
        cdef uint64_t mixed = pxed_path_hash(path, self.seed) ^ request_hash
        cdef uint32_t mark = <uint32_t>(mixed >> 32) | 1  # 0 is nobody
        cdef uint32_t *place = &self.turned_away[mixed % TURNED_AWAY]
        if asked < MOST_ASKED_FIRST:
            return True
        if place[0] == mark:
            return asked < MOST_ASKED
        place[0] = mark
        return False

    cdef uint16_t *at(self, const pxed_path *path) noexcept nogil:
        return &self.strangers[pxed_client_hash(path, self.seed) % STRANGERS]

    cdef dict statistics(self):
        return {
            "places": self.places,
            "served": self.served,
            "waiting": self.waiting,
            "kept_alive": self.kept,
            "admitted_at_once": self.admitted_at_once,
            "admitted_later": self.admitted_later,
            "answered_without_place": self.impatient,
            "waited_ms": self.waited // MS,
        }
