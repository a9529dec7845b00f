"""GroupSender: one file to many clients in one stream, as RFC 2090 has it, sans-I/O and without the GIL.

Rules (RFC 2090, and what clients make of it); who is a client, and who hears, is in mtftp_members.pyx:

- Requests come from the unicast sender, by COMMAND_JOIN. A group is a file and a block size; OACKs and DATA leave from
  one port of ours, since clients believe DATA from where their OACK came only.
- An ACK of block n by the master asks for block n + 1, whatever was sent before: new masters begin at their first gap
  and jump from gap to gap. One block is in flight; only time sends it again.
- A jump back is believed when the block in flight is older than two round trips: clients' first gaps never move back
  but for a machine that started over, and duplicates in the network would multiply the traffic.
- Who answers first is the master. When it has the file the oldest other is told, and asks for what it misses. Slaves
  may be silent (iPXE, atftp; EDK2 acknowledges each OACK); one that acknowledges the last block is done. One that goes
  on as if it were the master has not heard otherwise, and is told again.
- A master that is silent, or slower than others (they overrun it, and it gets its gaps filled later), hands over and
  moves to the end of the ring. Who does not answer when it is to be master gets further turns, each with more
  patience, after those that have not failed; a newcomer that answers meanwhile is master at once: a dead rack costs
  the living little.
- A client that does not hear its group for DEAF_AFTER takes no multicast (iPXE; a switch that drops the group): it gets
  a private group, whose DATA goes to itself by unicast, and the others go on. The next time it is served so at once,
  without the multicast option in its OACK.
- 65,535 blocks are the most: numbers that wrap mean nothing to who may miss any of them. `carries` tells.
"""

from libc.string cimport memset

from pxed._ext.blob cimport Blob
from pxed._ext.linux_net cimport (
    pxed_batch_add, pxed_batch_has_room, pxed_path_port, pxed_path_v4,
)
from pxed._ext.mtftp_figures cimport counters_dict, list_members
from pxed._ext.mtftp_members cimport (
    BUCKETS, STEP_DEAF, STEP_END, STEP_TELL, STEP_WAIT, UNANSWERED_SENDS, Step, faster, heir,
)
from pxed._ext.mtftp_table cimport GroupTable
from pxed._ext.ring cimport ring_append, ring_first, ring_init, ring_remove
from pxed._ext.sender cimport COMMAND_JOIN, COMMAND_LIST, EVENT_FINISHED, EVENT_LISTING, Event
from pxed._ext.tftp cimport (
    DATA_HEADER, ERROR_TEXT_LIMIT, OACK_LIMIT, OP_ACK, OP_ERROR, OPT_MULTICAST, opcode, parse_block,
    write_data_header, write_multicast, write_oack,
)
from pxed._ext.tftp_admission cimport TOO_MANY_STRANGERS
from pxed._ext.tftp_figures cimport LISTED, Running
from pxed._ext.tftp_flow cimport rto_back_off, rto_measure, rto_progress, rto_start
from pxed._ext.timers cimport Timer, Wheel
from pxed._ext.tftp_sender cimport (
    OUTCOME_ABANDONED, OUTCOME_CLIENT_ERROR, OUTCOME_CLOSED, OUTCOME_EVICTED, OUTCOME_NO_ANSWER, OUTCOME_OK,
    OUTCOME_SUPERSEDED, OUTCOME_TIMEOUT,
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
# Slaves are told that their group lives when it changes its master, this often at most: DATA does not reach those who
# take no multicast, and iPXE gives up after 16 s.
cdef uint64_t KEEPALIVE = 4000 * MS
# Who has said nothing for so long is forgotten then: longer than the largest file takes by the slowest masters. First
# answers can be forged, a dead member after the other is asked for seconds, and all the others are told so meanwhile.
cdef uint64_t FORGOTTEN = 1_800_000 * MS
# Masters slower than this per block are compared with others; firmware that polls its NIC by a timer takes 1-10 ms.
cdef uint64_t SLOW = 10 * MS
cdef uint64_t REVIEW_TIME = 1000 * MS


def carries(request, Blob blob) -> bool:
    """Whether a tftp_events.Request for `blob` asks for multicast, over IPv4, and the blob has few enough blocks."""
    blksize = min(request.options.get("blksize", 512), LARGEST_BLOCK)
    return ("multicast" in request.options and ":" not in request.peer[0] and blob.c.fd < 0
            and blob.c.size // blksize + 1 <= LARGEST_NUMBER)


cdef inline bint _alone(Group *g) noexcept nogil:
    # The master has nobody beside it.
    return g.members.next == g.members.previous


@cython.final
@cython.no_gc
cdef class GroupSender(Sender):
    """Groups have `count` addresses from `first`, and one `port`. `seed` keys the table of `limit` members, and
    chooses the address that is taken first. Raises ValueError for a range that is not of IPv4 or not from 1 to 1024.
    """

    def __cinit__(self, first: str, uint32_t count, uint16_t port, *, uint64_t seed=0, size_t limit=20_000):
        self.table = GroupTable(first, count, port, seed)
        self.limit = limit
        self.members = Members(seed)
        self.wheel = Wheel()
        self.trials = Wheel()
        ring_init(&self.due)

    def __dealloc__(self):
        if self.trials is not None:
            self.close()

    # -- the Sender interface ------------------------------------------------------------------------------------

    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef int code = opcode(data, size)
        cdef int number = parse_block(data, size)
        cdef Member *m
        if code != OP_ACK and code != OP_ERROR:
            self._drop(DROP_MALFORMED if code < 0 else DROP_OPCODE)
            return
        m = self.members.slot(path)[0]
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
        cdef Timer *timer = self.trials.expired(now)
        cdef uint64_t until = 0
        cdef Group *g
        while timer is not NULL:
            self._take_step(<Member *>timer.owner, self.members.on_timer(<Member *>timer.owner, now, &until), until,
                            now)
            timer = self.trials.expired(now)
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
        return min(self.wheel.next_deadline(), self.trials.next_deadline(), self.lines.wake_at())

    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef Group *g
        cdef Member *m
        self.table.reap()  # slices of their blobs have left with the last batch
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
        cdef int i
        for i in range(BUCKETS):
            while self.members.buckets[i] is not NULL:
                self.trials.cancel(&self.members.buckets[i].timer)
                self.members.remove(self.members.buckets[i])
        while self.table.groups is not NULL:
            self._close_group(self.table.groups, 0)
        self.table.reap()
        ring_init(&self.due)
        self.lines.clear()

    # -- members -----------------------------------------------------------------------------------------------------

    cdef void _on_join(self, Command *command, uint64_t now) noexcept nogil:
        cdef Member *m = self.members.slot(&command.path)[0]
        cdef Group *g = NULL
        self.counters.joined += 1
        command.blksize = min(command.blksize, LARGEST_BLOCK)
        if m is not NULL and m.group.blob == command.blob and m.group.blksize == command.blksize:
            self._on_rejoin(m, command, now)
            return
        if m is not NULL:
            self._finish(m, OUTCOME_SUPERSEDED, 0, NULL, 0, now)
        if not self._may_join(command, now):
            self._end(command.id, &command.path, OUTCOME_ABANDONED)
            return
        m = self.members.add(&command.path, now)
        if m is not NULL:
            g = (self.table.private_for(command.blob, command.blksize, &m.path, now)
                 if self.members.is_deaf(&m.path, now)
                 else self.table.group_for(command.blob, command.blksize, &m.path, now))
        if g is NULL:
            if m is not NULL:
                self.members.remove(m)
            self._drop(DROP_NO_MEMORY)
            self._end(command.id, &command.path, OUTCOME_ABANDONED)
            return
        m.id = command.id
        m.options = command.options & ~<uint32_t>OPT_MULTICAST
        m.client_timeout = command.client_timeout
        m.group = g
        if g.private and m.options == 0:  # RFC 1350: nothing to negotiate, DATA is the answer
            ring_append(&g.members, &m.age, m)
            self._take_over(g, m, 0, now)
        else:
            ring_append(&g.strangers, &m.age, m)
            self._tell(m)

    cdef bint _may_join(self, Command *command, uint64_t now) noexcept nogil:
        if self.members.strangers_at(&command.path) >= TOO_MANY_STRANGERS:
            self._drop(DROP_STRANGER)
            return False
        if self.members.count >= self.limit and ring_first(&self.members.unproven) is not NULL:
            self._finish(<Member *>ring_first(&self.members.unproven), OUTCOME_EVICTED, 0, NULL, 0, now)
        if self.members.count >= self.limit:
            self._drop(DROP_BUSY)
            return False
        return True

    cdef void _on_rejoin(self, Member *m, Command *command, uint64_t now) noexcept nogil:
        # Its OACK was lost, or it started over with the same port.
        cdef Group *g = m.group
        self._end(m.id, &m.path, OUTCOME_SUPERSEDED)
        m.id = command.id
        m.failures = 0
        if g.private and m.options == 0:
            self._request(g, 1, now)
        elif g.master == m:
            m.trial = False
            self._elect(g, m, now)
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
        self.trials.cancel(&m.timer)
        if g.master == m:
            g.master = NULL
        self.members.remove(m)
        if g.master is NULL:
            self._hand_over(g, now)

    cdef void _take_step(self, Member *m, Step step, uint64_t until, uint64_t now) noexcept nogil:
        if step == STEP_TELL:
            self._tell(m)
        elif step == STEP_WAIT:
            self.trials.arm(&m.timer, until)
        elif step == STEP_DEAF:
            self._serve_alone(m, now)
        elif step == STEP_END:
            self._give_up(m, now)

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
        cdef size_t count = list_members(self.members.buckets, &after, running, now)
        memset(&nobody, 0, sizeof(nobody))
        if self.add_event(EVENT_LISTING, after, &nobody, <const uint8_t *>running, count * sizeof(Running)) is NULL:
            self._drop(DROP_NO_MEMORY)

    # -- groups ------------------------------------------------------------------------------------------------------

    cdef void _close_group(self, Group *g, uint64_t now) noexcept nogil:
        self.wheel.cancel(&g.timer)
        self.lines.remove(&g.share)
        self.table.end(g, now)

    cdef void _hand_over(self, Group *g, uint64_t now) noexcept nogil:
        cdef Member *next = heir(g)
        if next is NULL:
            g.master = NULL
            self.wheel.cancel(&g.timer)
            self.lines.remove(&g.share)
            if ring_first(&g.strangers) is NULL:
                self._close_group(g, now)
            return
        self._elect(g, next, now)

    cdef void _elect(self, Group *g, Member *m, uint64_t now) noexcept nogil:
        # `m` is told that it is the master, the former one that it is not.
        if m.trial:
            self._take_over(g, m, m.asked, now)
            return
        if g.master is not NULL and g.master != m:
            self._tell(g.master)
        g.master = m
        g.electing = True
        g.tries = 0
        g.rto.srtt = 0
        rto_start(&g.rto, m.client_timeout)
        self.lines.remove(&g.share)
        self.counters.elections += 1
        self._tell(m)
        if now - g.told_at >= KEEPALIVE:
            self._tell_all(g, now)

    cdef void _tell_all(self, Group *g, uint64_t now) noexcept nogil:
        cdef Link *link = g.members.next
        cdef Member *m
        g.told_at = now
        while link != &g.members:
            m = <Member *>link.owner
            link = link.next
            if m != g.master and now - m.answered_at >= FORGOTTEN:
                self._give_up(m, now)
            else:
                self._tell(m)

    cdef void _take_over(self, Group *g, Member *m, uint64_t block, uint64_t now) noexcept nogil:
        # A newcomer believes already that it is the master, and has the blocks up to `block`.
        if g.master is not NULL and g.master != m:
            self._tell(g.master)
        g.master = m
        g.electing = False
        g.term_at = now
        g.term_blocks = 0
        rto_start(&g.rto, m.client_timeout)
        if m.told == 1:
            rto_measure(&g.rto, now - m.told_at)
        self._request(g, block + 1, now)

    cdef void _review(self, Group *g, uint64_t now) noexcept nogil:
        # Hand over when somebody else is, or may be, much faster than the master.
        cdef Member *best
        cdef Member *m
        g.master.pace = (now - g.term_at) // g.term_blocks
        g.term_at = now
        g.term_blocks = 0
        if g.private or g.master.pace <= SLOW:
            return
        best = faster(g)
        if best is not NULL:
            self.counters.slow_masters += 1
            m = g.master
            m.trial = False
            ring_remove(&m.age)
            ring_append(&g.members, &m.age, m)
            self._elect(g, best, now)

    cdef void _serve_alone(self, Member *m, uint64_t now) noexcept nogil:
        # It takes no multicast: unicast for it, and the others go on.
        cdef Group *old = m.group
        cdef Group *g = self.table.private_for(old.blob, old.blksize, &m.path, now)
        if g is NULL:
            self._drop(DROP_NO_MEMORY)
            return
        self.counters.deaf += 1
        self.members.remember_deaf(&m.path, now)
        m.trial = False
        ring_remove(&m.age)
        ring_append(&g.members, &m.age, m)
        m.group = g
        g.master = m
        g.term_at = now
        if old.master == m:
            g.rto.srtt = old.rto.srtt
            g.rto.rttvar = old.rto.rttvar
            old.master = NULL
            self._hand_over(old, now)
        self._request(g, m.asked + 1, now)

    # -- what comes in -----------------------------------------------------------------------------------------------

    cdef void _on_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil:
        cdef Group *g = m.group
        if block > g.blocks:
            self._drop(DROP_STALE_ACK)
            return
        m.acks += 1
        m.failures = 0
        if block == g.blocks:
            m.answered = max(m.answered, <uint64_t>1)
            self._finish(m, OUTCOME_OK, 0, NULL, 0, now)
        elif m.answered == 0 and g.master != m:
            self._on_first_ack(m, block, now)
        elif g.master != m:
            self._on_slave_ack(m, block, now)
        else:
            self._on_master_ack(g, m, block, now)

    cdef void _on_first_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil:
        cdef Group *g = m.group
        self.members.prove(m, now)
        self.trials.cancel(&m.timer)
        ring_remove(&m.due)
        ring_remove(&m.age)
        ring_append(&g.members, &m.age, m)
        m.answered_at = m.asked_at = now
        m.asked = block
        if g.master is NULL or (g.electing and g.master.failures != 0):
            self._take_over(g, m, block, now)
        else:
            self._on_slave_ack(m, block, now)

    cdef void _on_slave_ack(self, Member *m, uint64_t block, uint64_t now) noexcept nogil:
        cdef uint64_t until = 0
        cdef bint trial = m.trial
        cdef Step step = self.members.on_ack(m, block, now, &until)
        if not trial:
            self._drop(DROP_SLAVE_ACK)
            self.trials.cancel(&m.timer)  # it has heard
        self._take_step(m, step, until, now)

    cdef void _on_master_ack(self, Group *g, Member *m, uint64_t block, uint64_t now) noexcept nogil:
        m.answered_at = now
        if m.answered == 0:
            self.members.prove(m, now)
        if g.electing:
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
            m.trial = False  # it hears
            self._request(g, block + 1, now)
            if g.term_blocks >= REVIEW_BLOCKS or (g.term_blocks > 1 and now - g.term_at >= REVIEW_TIME):
                self._review(g, now)
        elif block + 1 == g.block:
            if not g.private and g.tries != 0 and now - m.asked_at >= DEAF_AFTER:
                self._serve_alone(m, now)
            else:
                self._drop(DROP_STALE_ACK)
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
        cdef uint64_t silence = now - max(m.answered_at, g.term_at)
        self.counters.timeouts += 1
        if m.answered == 0 and g.tries >= UNANSWERED_SENDS:  # its address may be forged
            if silence >= SILENCE:
                self._give_up(m, now)
            else:
                self._wait(g, g.term_at + SILENCE)
        elif g.electing or (not _alone(g) and silence >= MASTER_SILENCE):
            self.counters.silent_masters += 1
            m.failures += 1
            m.trial = False
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

    cdef void _request(self, Group *g, uint64_t block, uint64_t now) noexcept nogil:
        # The master's wish.
        if block - 1 != g.master.asked or not g.master.trial:
            g.master.asked_at = now
        g.master.asked = block - 1
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
        cdef uint64_t look_at
        cdef Group *g = m.group
        cdef size_t size = write_oack(header, m.options, g.blksize, g.blob.size, m.client_timeout, 1)
        if not g.private:
            size += write_multicast(
                header + size, pxed_path_v4(&g.to), pxed_path_port(&g.to), g.master == m or m.trial)
        pxed_batch_add(batch, &m.path, header, size, NULL, 0)
        self.counters.datagrams += 1
        look_at = self.members.was_told(m, now)
        if look_at != 0:
            self.trials.arm(&m.timer, look_at)
        else:
            self.trials.cancel(&m.timer)
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
        g.sent += 1
        g.sent_at = now
        self._wait(g, self._patience(g, now))

    cdef uint64_t _patience(self, Group *g, uint64_t now) noexcept nogil:
        # Until when the master may be silent after DATA: until it is sent again, or another's turn comes.
        cdef uint64_t again = now + g.rto.timeout
        cdef uint64_t other = max(g.master.answered_at, g.term_at) + MASTER_SILENCE
        return other if not _alone(g) and now < other < again else again

    cdef dict statistics(self):
        """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
        return counters_dict(
            &self.counters, self.table.public_count(), self.members.count, self.members.unproven_count
        )
