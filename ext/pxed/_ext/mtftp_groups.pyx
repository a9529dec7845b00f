"""GroupSender: one file to many clients in one stream, as RFC 2090 has it, sans-I/O and without the GIL.

Rules (RFC 2090, and what clients make of it):

- Requests come from the unicast sender, by COMMAND_JOIN. A group is a file and a block size; OACKs and DATA leave from
  one port of ours, since clients believe DATA from where their OACK came only.
- An ACK of block n by the master asks for block n + 1, whatever was sent before: new masters begin at their first gap
  and jump from gap to gap. One block is in flight; only time sends it again.
- A jump back is believed when the block in flight is older than two round trips: clients' first gaps never move back
  but for a machine that started over, and duplicates in the network would multiply the traffic.
- The oldest member is the master. When it has the file the next one is told, and asks for what it misses. Slaves may
  be silent (iPXE, atftp; EDK2 acknowledges each OACK); one that acknowledges the last block is done. So nobody would
  miss a slave's lost OACK, and it costs a whole pass: each slave is told twice.
- A master that is silent, or slower than others (they overrun it, and it gets its gaps filled later), hands over and
  moves to the end of the ring. Who does not answer when it is to be master gets further turns, each with more
  patience, after those that have not failed, newcomers too: a dead rack costs the living little.
- A client that asks again for what it was sent by multicast for DEAF_AFTER takes no multicast (iPXE; a switch that
  drops the group): it gets a private group, whose DATA goes to itself by unicast, and the others go on. The next time
  it is served so at once, without the multicast option in its OACK.
- 65,535 blocks are the most: numbers that wrap mean nothing to who may miss any of them. `carries` tells.
- An address is used again only after QUARANTINE: a client of the former group that still listens would take the new
  file's blocks for its own.
"""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pxed._ext.blob cimport Blob, pxed_blob_ref, pxed_blob_unref
from pxed._ext.linux_net cimport (
    pxed_batch_add, pxed_batch_has_room, pxed_client_hash, pxed_path_equal, pxed_path_hash, pxed_path_parse,
    pxed_path_port, pxed_path_toward, pxed_path_v4,
)
from pxed._ext.mtftp_figures cimport counters_dict, list_members
from pxed._ext.ring cimport ring_append, ring_first, ring_init, ring_remove
from pxed._ext.sender cimport COMMAND_JOIN, COMMAND_LIST, EVENT_FINISHED, EVENT_LISTING, Event
from pxed._ext.tftp cimport (
    DATA_HEADER, ERROR_TEXT_LIMIT, OACK_LIMIT, OP_ACK, OP_ERROR, OPT_MULTICAST, opcode, parse_block,
    write_data_header, write_multicast, write_oack,
)
from pxed._ext.tftp_figures cimport LISTED, Running
from pxed._ext.tftp_flow cimport rto_back_off, rto_measure, rto_progress, rto_start
from pxed._ext.tftp_sender cimport (
    OUTCOME_ABANDONED, OUTCOME_CLIENT_ERROR, OUTCOME_CLOSED, OUTCOME_NO_ANSWER, OUTCOME_OK, OUTCOME_SUPERSEDED,
    OUTCOME_TIMEOUT,
)

cimport cython

cdef enum:
    LARGEST_BLOCK = 1468         # fits an Ethernet frame: 1500 - IP 20 - UDP 8 - TFTP 4
    LARGEST_NUMBER = 65535
    TURNS = 5                    # as master that a member may leave unanswered: 0.25 + 0.5 + 1 + 2 + 4 s
    LAST_SENDS = 4               # of the last block, before its missing ACK is taken for granted
    REVIEW_BLOCKS = 256

cdef uint64_t MS = 1_000_000
# What a client that is to be master has to answer, the first time; each further turn twice that.
cdef uint64_t ELECTION = 250 * MS
# Silence of a master until the next one is told. Slow firmware, busy with its screen, comes back later.
cdef uint64_t MASTER_SILENCE = 1000 * MS
# The same of a client that nobody waits for.
cdef uint64_t SILENCE = 30_000 * MS
cdef uint64_t LINGER = 6000 * MS
# iPXE repeats its ACK after 0.25, 0.75 and 1.75 s.
cdef uint64_t DEAF_AFTER = 700 * MS
cdef uint64_t DEAF_LASTS = 3_600_000 * MS
# Slaves are told that their group lives when it changes its master, this often at most: DATA does not reach those who
# take no multicast, and iPXE gives up after 16 s.
cdef uint64_t KEEPALIVE = 4000 * MS
# Masters slower than this per block are compared with others; firmware that polls its NIC by a timer takes 1-10 ms.
cdef uint64_t SLOW = 10 * MS
cdef uint64_t REVIEW_TIME = 1000 * MS
# From a slave's first OACK to the second.
cdef uint64_t REMIND_AFTER = 20 * MS
# Longer than any client listens to silence.
cdef uint64_t QUARANTINE = 120_000 * MS


def carries(request, Blob blob) -> bool:
    """Whether a tftp_events.Request for `blob` asks for multicast, over IPv4, and the blob has few enough blocks."""
    blksize = min(request.options.get("blksize", 512), LARGEST_BLOCK)
    return ("multicast" in request.options and ":" not in request.peer[0] and blob.c.fd < 0
            and blob.c.size // blksize + 1 <= LARGEST_NUMBER)


@cython.final
@cython.no_gc
cdef class GroupSender(Sender):
    """Groups have `count` addresses from `first`, and one `port`. `seed` keys the table of `limit` members.

    Raises ValueError for a range that is not of IPv4 or not from 1 to 1024 addresses.
    """

    def __cinit__(self, first: str, uint32_t count, uint16_t port, *, uint64_t seed=0, size_t limit=20_000):
        cdef pxed_path path
        cdef bytes address = first.encode()
        cdef const uint8_t *v4
        if ":" in first or pxed_path_parse(&path, address, 0, b"") < 0 or not 0 < count <= LARGEST_RANGE:
            raise ValueError(f"no range of IPv4 addresses: {count} from {first!r}")
        v4 = pxed_path_v4(&path)
        self.first_address = <uint32_t>v4[0] << 24 | <uint32_t>v4[1] << 16 | <uint32_t>v4[2] << 8 | v4[3]
        self.address_count = count
        self.port = port
        self.seed = seed
        self.limit = limit
        self.wheel = Wheel()
        ring_init(&self.due)

    def __dealloc__(self):
        if self.lines is not None:
            self.close()

    # -- the Sender interface ------------------------------------------------------------------------------------

    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef int code = opcode(data, size)
        cdef int number = parse_block(data, size)
        cdef Member *m
        if code != OP_ACK and code != OP_ERROR:
            self._drop(DROP_MALFORMED if code < 0 else DROP_OPCODE)
            return
        m = self._slot(path)[0]
        if number < 0:
            self._drop(DROP_MALFORMED)
        elif m is NULL:
            self._drop(DROP_UNKNOWN_PEER)
        elif code == OP_ACK:
            self._on_ack(m, number, now)
        else:
            self._on_error(m, data, size, now)

    cdef void command(self, Command *command, uint64_t now) noexcept nogil:
        if command.kind == COMMAND_JOIN:
            self._on_join(command, now)
        elif command.kind == COMMAND_LIST:
            self._on_list(command.id, now)

    cdef void on_timer(self, uint64_t now) noexcept nogil:
        cdef Timer *timer
        cdef Group *g
        while True:
            timer = self.wheel.expired(now)
            if timer is NULL:
                return
            g = <Group *>timer.owner
            if g.share.queued or g.master.due.next is not NULL:  # nothing to wait for before it has left
                self.wheel.arm(&g.timer, now + g.rto.timeout)
            elif g.deadline > now:
                self.wheel.arm(&g.timer, g.deadline)
            else:
                self._on_timeout(g, now)

    cdef uint64_t next_timer(self) noexcept nogil:
        return min(self.wheel.next_deadline(), self.lines.wake_at())

    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef Group *g
        cdef Member *m
        while self.ended is not NULL:  # slices of their blobs have left with the last batch
            g = self.ended
            self.ended = g.after
            pxed_blob_unref(g.blob)
            free(g)
        self.lines.rotate()
        while ring_first(&self.due) is not NULL:
            if not pxed_batch_has_room(batch, OACK_LIMIT):
                return True
            m = <Member *>ring_first(&self.due)
            ring_remove(&m.due)
            self._fill_oack(m, batch, now)
        while True:
            if not pxed_batch_has_room(batch, DATA_HEADER):
                return True
            g = <Group *>self.lines.next(now)
            if g is NULL:
                return ring_first(&self.due) is not NULL
            self._fill_data(g, batch, now)

    cdef void close(self) noexcept nogil:
        cdef Group *g
        cdef Member *m
        cdef int i
        while self.groups is not NULL:
            self._close_group(self.groups, 0)
        while self.ended is not NULL:
            g = self.ended
            self.ended = g.after
            pxed_blob_unref(g.blob)
            free(g)
        for i in range(BUCKETS):
            while self.buckets[i] is not NULL:
                m = self.buckets[i]
                self.buckets[i] = m.chain
                free(m)
        ring_init(&self.due)
        self.lines.clear()
        self.members = 0

    # -- members -----------------------------------------------------------------------------------------------------

    cdef Member **_slot(self, const pxed_path *path) noexcept nogil:
        # The pointer to the member with this path, or the one where it would be.
        cdef Member **link = &self.buckets[pxed_path_hash(path, self.seed) % BUCKETS]
        while link[0] is not NULL and not pxed_path_equal(&link[0].path, path):
            link = &link[0].chain
        return link

    cdef void _on_join(self, Command *command, uint64_t now) noexcept nogil:
        cdef Member *m = self._slot(&command.path)[0]
        cdef uint64_t client = pxed_client_hash(&command.path, self.seed)
        cdef Deaf *deaf = &self.deaf[client % DEAF_REMEMBERED]
        cdef Member **link
        cdef Group *g
        self.counters.joined += 1
        command.blksize = min(command.blksize, LARGEST_BLOCK)
        if m is not NULL and m.group.blob == command.blob and m.group.blksize == command.blksize:
            self._on_rejoin(m, command, now)
            return
        if m is not NULL:
            self._finish(m, OUTCOME_SUPERSEDED, 0, NULL, 0, now)
        if self.members >= self.limit:
            self._drop(DROP_BUSY)
            self._end(command.id, &command.path, OUTCOME_ABANDONED)
            return
        m = <Member *>calloc(1, sizeof(Member))
        g = self._group_for(command, deaf.client == client and now < deaf.until, now) if m is not NULL else NULL
        if g is NULL:
            free(m)
            self._drop(DROP_NO_MEMORY)
            self._end(command.id, &command.path, OUTCOME_ABANDONED)
            return
        m.path = command.path
        m.id = command.id
        m.started = now
        m.options = command.options & ~<uint32_t>OPT_MULTICAST
        m.client_timeout = command.client_timeout
        m.group = g
        link = self._slot(&m.path)
        link[0] = m
        self.members += 1
        ring_append(&g.members, &m.age, m)
        if g.master is NULL or (g.electing and g.master.failures != 0):
            self._elect(g, m, now)
        else:
            self._tell(m)
            ring_append(&g.fresh, &m.fresh, m)

    cdef void _on_rejoin(self, Member *m, Command *command, uint64_t now) noexcept nogil:
        # Its OACK was lost, or it started over with the same port.
        self._end(m.id, &m.path, OUTCOME_SUPERSEDED)
        m.id = command.id
        m.failures = 0
        if m.group.master == m:
            self._elect(m.group, m, now)
        else:
            self._tell(m)

    cdef void _end(self, uint64_t id, const pxed_path *path, Outcome outcome) noexcept nogil:
        cdef Event *event = self.add_event(EVENT_FINISHED, id, path, NULL, 0)
        if event is not NULL:
            event.outcome = outcome
        self.counters.outcome[<int>outcome] += 1

    cdef void _finish(self, Member *m, Outcome outcome, uint32_t error, const uint8_t *text, size_t size,
                      uint64_t now) noexcept nogil:
        # Out of its group, whose next member becomes master; `m` is freed.
        cdef Event *event = self.add_event(EVENT_FINISHED, m.id, &m.path, text, size)
        cdef Group *g = m.group
        if event is not NULL:
            event.outcome = outcome
            event.error = error
            event.blocks = g.blocks if outcome == OUTCOME_OK else m.asked
            event.whole = g.blob.size
            event.bytes = min(event.blocks * g.blksize, event.whole)
            event.retransmits = m.retransmits
            event.duration = now - m.started
            event.answered = m.answered
            event.blksize = g.blksize
            event.windowsize = event.burst = 1
        self.counters.outcome[<int>outcome] += 1
        self._slot(&m.path)[0] = m.chain
        self.members -= 1
        ring_remove(&m.age)
        ring_remove(&m.due)
        ring_remove(&m.fresh)
        if g.master == m:
            g.master = NULL
            self._hand_over(g, now)
        free(m)

    cdef void _give_up(self, Member *m, uint64_t now) noexcept nogil:
        # ROMs jump into what they loaded without the last ACK.
        if m.asked != 0 and m.asked + 1 == m.group.blocks:
            self._finish(m, OUTCOME_OK, 0, NULL, 0, now)
        else:
            self._finish(m, OUTCOME_TIMEOUT if m.answered else OUTCOME_NO_ANSWER, 0, NULL, 0, now)

    cdef void _on_list(self, size_t bucket, uint64_t now) noexcept nogil:
        cdef Running running[LISTED]
        cdef pxed_path nobody
        cdef size_t after = bucket
        cdef size_t count = list_members(self.buckets, &after, running, now)
        memset(&nobody, 0, sizeof(nobody))
        if self.add_event(EVENT_LISTING, after, &nobody, <const uint8_t *>running, count * sizeof(Running)) is NULL:
            self._drop(DROP_NO_MEMORY)

    # -- groups ------------------------------------------------------------------------------------------------------

    cdef Group *_group_for(self, Command *command, bint private, uint64_t now) noexcept nogil:
        # The group that sends this blob in blocks of this size, a new one, or NULL without memory.
        cdef Group *g = self.groups
        cdef pxed_path to = command.path
        cdef uint32_t _i
        while g is not NULL and not private:
            pxed_path_toward(&to, self.first_address + g.address, self.port)
            if (not g.private and g.blob == command.blob and g.blksize == command.blksize
                    and pxed_path_equal(&g.to, &to)):
                return g
            g = g.after
        for _i in range(0 if private else self.address_count):
            if self.free_at[self.next_address] <= now:
                pxed_path_toward(&to, self.first_address + self.next_address, self.port)
                return self._new_group(command.blob, command.blksize, &to, False, now)
            self.next_address = (self.next_address + 1) % self.address_count
        return self._new_group(command.blob, command.blksize, &command.path, True, now)

    cdef Group *_new_group(self, pxed_blob *blob, uint16_t blksize, const pxed_path *to, bint private, uint64_t now
                           ) noexcept nogil:
        # One that is not private takes the next address.
        cdef Group *g = <Group *>calloc(1, sizeof(Group))
        if g is NULL:
            return NULL
        g.to = to[0]
        g.private = private
        g.blob = pxed_blob_ref(blob)
        g.blksize = blksize
        g.blocks = blob.size // blksize + 1
        g.block = 1
        g.told_at = now
        g.timer.owner = g
        ring_init(&g.members)
        ring_init(&g.fresh)
        rto_start(&g.rto, 0)
        if not private:
            g.address = self.next_address
            self.free_at[g.address] = UINT64_MAX
            self.next_address = (self.next_address + 1) % self.address_count
        g.after = self.groups
        self.groups = g
        return g

    cdef void _close_group(self, Group *g, uint64_t now) noexcept nogil:
        cdef Group **link = &self.groups
        while link[0] != g:
            link = &link[0].after
        link[0] = g.after
        self.wheel.cancel(&g.timer)
        self.lines.remove(&g.share)
        if not g.private:
            self.free_at[g.address] = now + QUARANTINE
        g.after = self.ended
        self.ended = g

    cdef void _hand_over(self, Group *g, uint64_t now) noexcept nogil:
        # To the oldest that has not failed to answer, or has the fewest times: the living do not wait behind the dead.
        cdef Member *heir = <Member *>ring_first(&g.members)
        cdef Link *link = g.members.next
        if heir is NULL:
            self._close_group(g, now)
            return
        while link != &g.members and heir.failures != 0:
            if (<Member *>link.owner).failures < heir.failures:
                heir = <Member *>link.owner
            link = link.next
        self._elect(g, heir, now)

    cdef void _elect(self, Group *g, Member *m, uint64_t now) noexcept nogil:
        # `m` is told that it is the master, the former one that it is not.
        cdef Link *link
        if g.master is not NULL and g.master != m:
            self._tell(g.master)
        g.master = m
        ring_remove(&m.fresh)
        g.electing = True
        g.tries = 0
        g.rto.srtt = 0
        rto_start(&g.rto, m.client_timeout)
        self.lines.remove(&g.share)
        self.counters.elections += 1
        if g.private and m.options == 0:  # RFC 1350: nothing to negotiate, DATA is the answer
            g.electing = False
            g.term_at = now
            self._request(g, 1, now)
            return
        self._tell(m)
        if now - g.told_at >= KEEPALIVE:
            g.told_at = now
            link = g.members.next
            while link != &g.members:
                self._tell(<Member *>link.owner)
                link = link.next

    cdef void _review(self, Group *g, uint64_t now) noexcept nogil:
        # Hand over when somebody else is, or may be, much faster than the master.
        cdef Member *best = NULL
        cdef Member *m
        cdef Link *link
        g.master.pace = (now - g.term_at) // g.term_blocks
        g.term_at = now
        g.term_blocks = 0
        if g.private or g.master.pace <= SLOW:
            return
        link = g.members.next
        while link != &g.members:
            m = <Member *>link.owner
            if m.failures == 0 and 2 * m.pace < g.master.pace and (best is NULL or m.pace < best.pace):
                best = m  # one whose pace is unknown before all others
            link = link.next
        if best is not NULL:
            self.counters.slow_masters += 1
            m = g.master
            ring_remove(&m.age)
            ring_append(&g.members, &m.age, m)
            self._elect(g, best, now)

    cdef void _serve_alone(self, Member *m, uint64_t now) noexcept nogil:
        # The master takes no multicast: unicast for it, and the others go on.
        cdef uint64_t client = pxed_client_hash(&m.path, self.seed)
        cdef Group *old = m.group
        cdef Group *g = self._new_group(old.blob, old.blksize, &m.path, True, now)
        if g is NULL:
            self._drop(DROP_NO_MEMORY)
            return
        self.counters.deaf += 1
        self.deaf[client % DEAF_REMEMBERED].client = client
        self.deaf[client % DEAF_REMEMBERED].until = now + DEAF_LASTS
        ring_remove(&m.age)
        ring_remove(&m.fresh)
        ring_append(&g.members, &m.age, m)
        m.group = g
        g.master = m
        g.rto.srtt = old.rto.srtt
        g.rto.rttvar = old.rto.rttvar
        g.term_at = now
        old.master = NULL
        self._hand_over(old, now)
        self._request(g, m.asked + 1, now)

    # -- what comes in -----------------------------------------------------------------------------------------------

    cdef void _on_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil:
        cdef Group *g = m.group
        if block > g.blocks:
            self._drop(DROP_STALE_ACK)
            return
        m.answered_at = now
        if m.answered == 0:
            m.answered = now - m.started
        m.failures = 0
        ring_remove(&m.fresh)
        if block == g.blocks:
            self._finish(m, OUTCOME_OK, 0, NULL, 0, now)
        elif g.master != m:
            self._drop(DROP_SLAVE_ACK)
        elif g.electing:
            if g.tries == 1:
                rto_measure(&g.rto, now - g.sent_at)
            ring_remove(&m.due)
            g.electing = False
            g.term_at = now
            g.term_blocks = 0
            self._request(g, block + 1, now)
        elif block >= g.block:
            if g.tries == 1:
                rto_measure(&g.rto, now - g.sent_at)
            else:
                rto_progress(&g.rto)
            g.term_blocks += 1
            self._request(g, block + 1, now)
            if g.term_blocks >= REVIEW_BLOCKS or (g.term_blocks > 1 and now - g.term_at >= REVIEW_TIME):
                self._review(g, now)
        elif block + 1 == g.block:
            if g.private or g.tries == 0 or now - m.asked_at < DEAF_AFTER:
                self._drop(DROP_STALE_ACK)
            else:
                self._serve_alone(m, now)
        elif g.tries != 0 and now - g.sent_at >= 2 * g.rto.srtt:
            self._request(g, block + 1, now)
        else:
            self._drop(DROP_STALE_ACK)

    cdef void _on_error(self, Member *m, const uint8_t *data, size_t size, uint64_t now) noexcept nogil:
        cdef int code = parse_block(data, size)
        cdef size_t length = 0
        while 4 + length < size and length < ERROR_TEXT_LIMIT and data[4 + length] != 0:
            length += 1
        self._finish(m, OUTCOME_CLOSED if code == 0 else OUTCOME_CLIENT_ERROR, code, data + 4, length, now)

    cdef void _on_timeout(self, Group *g, uint64_t now) noexcept nogil:
        cdef Member *m = g.master
        cdef bint alone = g.members.next == g.members.previous
        cdef uint64_t silence = now - max(m.answered_at, g.term_at)
        self.counters.timeouts += 1
        if g.electing or (not alone and silence >= MASTER_SILENCE):
            self.counters.silent_masters += 1
            m.failures += 1
            if m.failures >= TURNS:
                self._give_up(m, now)
                return
            ring_remove(&m.age)
            ring_append(&g.members, &m.age, m)
            self._hand_over(g, now)
        elif silence >= SILENCE:
            self._give_up(m, now)
        elif g.block == g.blocks and m.asked != 0 and g.tries >= LAST_SENDS and silence >= LINGER:
            self._give_up(m, now)
        else:
            if silence >= MASTER_SILENCE and not g.private:
                self._tell(m)  # an OACK that overtook another may have told it that it is a slave
            rto_back_off(&g.rto)
            self._enqueue(g)

    cdef void _remind(self, Group *g, uint64_t now) noexcept nogil:
        cdef Member *m = <Member *>ring_first(&g.fresh)
        while m is not NULL and now - m.started >= REMIND_AFTER:
            ring_remove(&m.fresh)
            self._tell(m)
            m = <Member *>ring_first(&g.fresh)

    cdef void _request(self, Group *g, uint64_t block, uint64_t now) noexcept nogil:
        # The master's wish.
        g.master.asked = block - 1
        g.master.asked_at = now
        g.block = block
        g.tries = 0
        self._enqueue(g)

    cdef void _drop(self, DropReason reason) noexcept nogil:
        self.counters.drop[<int>reason] += 1

    # -- what goes out -----------------------------------------------------------------------------------------------

    cdef void _tell(self, Member *m) noexcept nogil:
        if m.due.next is NULL:
            ring_append(&self.due, &m.due, m)

    cdef void _enqueue(self, Group *g) noexcept nogil:
        self.lines.add(&g.share, g, g.to.socket)

    cdef void _wait(self, Group *g, uint64_t deadline) noexcept nogil:
        # The timer moves only when it must fire earlier: once per timeout, not once per packet.
        g.deadline = deadline
        if not g.timer.armed or g.timer.deadline > deadline:
            self.wheel.arm(&g.timer, deadline)

    cdef void _fill_oack(self, Member *m, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef uint8_t header[OACK_LIMIT]
        cdef Group *g = m.group
        cdef size_t size = write_oack(header, m.options, g.blksize, g.blob.size, m.client_timeout, 1)
        if not g.private:
            size += write_multicast(header + size, pxed_path_v4(&g.to), pxed_path_port(&g.to), g.master == m)
        pxed_batch_add(batch, &m.path, header, size, NULL, 0)
        self.counters.datagrams += 1
        if g.master == m and g.electing:
            g.tries += 1
            g.sent_at = now
            self._wait(g, now + (ELECTION << m.failures))

    cdef void _fill_data(self, Group *g, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef uint8_t header[DATA_HEADER]
        cdef uint64_t offset = (g.block - 1) * g.blksize
        cdef size_t size = min(<uint64_t>g.blksize, g.blob.size - offset)
        if not self.lines.may_send(&g.to, DATA_HEADER + size, now):
            self.lines.put_back(&g.share, g, g.to.socket)
            return
        write_data_header(header, g.block)
        pxed_batch_add(batch, &g.to, header, DATA_HEADER, g.blob.data + offset, size)
        self.counters.datagrams += 1
        if g.private:
            self.counters.unicast_bytes += size
        else:
            self.counters.bytes += size
        if g.tries != 0:
            g.master.retransmits += 1
            self.counters.retransmits += 1
        g.tries += 1
        g.sent_at = now
        self._wait(g, now + g.rto.timeout)
        self._remind(g, now)

    cdef dict statistics(self):
        """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
        cdef Group *g = self.groups
        cdef size_t groups = 0
        while g is not NULL:
            groups += not g.private
            g = g.after
        return counters_dict(&self.counters, groups, self.members)
