"""TftpSender: thousands of TFTP transfers in one table, sans-I/O and without the GIL.

Rules (RFC 1350, 1123 section 4.2.3.1, 2347-2349, 7440):

- A transfer is known by its path: the client's address and port, and our address that it asked. One port of ours
  serves all (single-port), or some (tftp_tids.pyx): clients take our port from the first reply.
- Lock-step never resends because of an equal ACK (the Sorcerer's Apprentice), only by time.
- With a window, an ACK short of what was sent means loss: go back to the block behind it, once. Equal ACKs after that
  are echoes (EDK2 sends one per unexpected block) and are ignored until there is progress or the time is up; so are
  ACKs that come sooner than half a round trip after going back, and equal ACKs of the last block sent before going
  back, since they answer our own duplicates.
- The retransmit timeout, the bursts of a window and the largest block follow what the client shows: tftp_flow.pyx.
- Nobody who has not answered gets more than UNANSWERED_SENDS datagrams per request, and the oldest of them makes room
  in a full table: a flood of requests does not shut out those who answer. An address at which MANY_STRANGERS of them
  are gets one datagram per request, one with TOO_MANY_STRANGERS nothing: it is perhaps somebody else's.
- More clients than can be served well at a time wait for their first answer, as long as they may: tftp_admission.pyx.
- Turns go round, and no faster than the pacers allow: lines.pyx.
- Who falls silent after the last window was sent has the file, if it acknowledged any DATA at all.
- ACKs and ERRORs of no transfer are counted and get no answer: late duplicates are normal after the last block, and an
  ERROR 5 to a forged address would make us a reflector. An ERROR is never answered at all.
- The same request again while it is being answered is merged; after RESTART_AFTER of silence it is a machine that
  started over with the same port, and starts over here.

Transfers that ended are freed by the next `fill`, as slices of their blobs may still be in the batch. So may be bytes
of `scratch`, where files without a copy in memory are read to.
"""

from libc.stdlib cimport free
from libc.string cimport memset

from pxed._ext.blob cimport pxed_blob_ref, pxed_blob_unref
from pxed._ext.file_reader cimport PXED_READ_LATER, Scratch
from pxed._ext.linux_net cimport pxed_batch_add, pxed_batch_extend, pxed_batch_has_room, pxed_path_is_v6
from pxed._ext.ring cimport ring_append, ring_first, ring_init, ring_remove
from pxed._ext.sender cimport (
    COMMAND_FORGET, COMMAND_LIST, COMMAND_REFUSE, COMMAND_SEND, EVENT_FINISHED, EVENT_LISTING, EVENT_REQUEST, Event,
)
from pxed._ext.tftp cimport (
    DATA_HEADER, ERROR_TEXT_LIMIT, ERR_ACCESS, ERR_ILLEGAL, ERR_NOT_DEFINED, MODE_NETASCII, MODE_OCTET, OACK_LIMIT,
    OP_ACK, OP_ERROR, OP_RRQ, OP_WRQ, OPT_MULTICAST, OPT_TSIZE, TftpRequest, hash_request, opcode, parse_block,
    parse_request, write_data_header, write_oack,
)
from pxed._ext.tftp_admission cimport (
    KEEP_ALIVE, MANY_STRANGERS, STANDING_KEPT, TOO_MANY_STRANGERS, Admission, first_packet_patience,
)
from pxed._ext.tftp_control cimport Control
from pxed._ext.tftp_figures cimport LISTED, Running, counters_dict, end_figures, list_running
from pxed._ext.tftp_flow cimport BlockSizes, burst_progress, rto_back_off, rto_measure, rto_progress, rto_start
from pxed._ext.tftp_table cimport (
    SLOT_BITS, STATE_ASKED, STATE_ENDED, STATE_OPTIONS, STATE_QUEUED, STATE_SENDING, Table,
)
from pxed._ext.tftp_tids cimport Tids
from pxed._ext.timers cimport Timer, Wheel

cimport cython

cdef enum:
    # Largest block that fits an Ethernet frame unfragmented: 1500 - IP (20 or 40) - UDP 8 - TFTP 4. A client may ask
    # for more and gets this; ROMs reassemble IP fragments badly or not at all.
    LARGEST_BLOCK_V4 = 1468
    LARGEST_BLOCK_V6 = 1428
    # Datagrams in flight to one client. Windows' boot manager and u-root stop at 64; more only overruns receive rings.
    LARGEST_WINDOW = 64
    # Datagrams for one transfer per turn, so that a window delays a lock-step client by no more than some 20 KB.
    TURN = 16
    # A disk is asked again after 2 ms, then 4, up to 64: it may be a thousand transfers that wait for one that hangs.
    MOST_READ_PAUSES = 6
    # A stranger's address may be forged: this many datagrams at most go to it (at 0, 1 and 3 s).
    UNANSWERED_SENDS = 3
    # The last window is sent at least this often before its missing ACK is taken for granted; see LINGER.
    LAST_SENDS = 4
    # Bytes of a file that needs no place: scripts, menus and configurations of machines in the midst of their boot,
    # gone in less time than they would wait.
    SMALL_FILE = 32768

cdef uint64_t MS = 1_000_000
# EDK2 waits up to 6 times 4-5 s: a client that has said nothing for this long is gone.
cdef uint64_t SILENCE = 30_000 * MS
# After the last datagram to a stranger we only listen: its answers may have been lost, EDK2 repeats them every 4-5 s.
cdef uint64_t LISTEN = 20_000 * MS
# ROMs jump into what they loaded without the last ACK. A client that lost the last block asks again within 4-5 s.
cdef uint64_t LINGER = 6000 * MS
# A request that the control plane has left unanswered for this long is stale: its client has long given up.
cdef uint64_t ASKED_PATIENCE = 30_000 * MS
# The pause between two bursts of a window: the next tick of the wheel. Firmware polls its NIC within some ms.
cdef uint64_t PAUSE = 1 * MS
# A first full-size block, sent twice and unanswered for this long by a client that answered our OACK, is too large.
cdef uint64_t TOO_LARGE_AFTER = 1000 * MS
# Duplicates made by the network come within milliseconds; a machine that restarts takes seconds.
cdef uint64_t RESTART_AFTER = 500 * MS


@cython.final
@cython.no_gc
cdef class TftpSender(Sender):
    """The sender, as an engine drives it; `tftp_virtual` drives one from Python.

    `seed` should be random in production (it keys hash tables), `limit` bounds the transfers at one time, and `places`
    those that are served at full speed (0: all).
    """

    def __cinit__(self, uint64_t seed=0, size_t limit=20_000, size_t places=0):
        if not 0 < limit <= 1 << SLOT_BITS:
            raise ValueError(f"limit must be from 1 to {1 << SLOT_BITS}")
        self.wheel = Wheel()
        self.sizes = BlockSizes(seed)
        self.table = Table(seed)
        self.tids = Tids()
        self.admission = Admission(places if places else limit, seed)
        self.control = Control()
        self.scratch = Scratch()
        self.limit = limit
        ring_init(&self.unheard)

    def __dealloc__(self):
        if self.lines is not None:
            self.close()

    # -- the Sender interface ------------------------------------------------------------------------------------

    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef int code = opcode(data, size)
        cdef int number
        cdef Transfer *t
        if code == OP_ACK or code == OP_ERROR:
            number = parse_block(data, size)
            if number < 0:
                self._drop(DROP_MALFORMED)
                return
            t = self.table.find(path)
            if t is NULL:
                self._drop(DROP_UNKNOWN_PEER)
            elif code == OP_ACK:
                self._on_ack(t, number, now)
            else:
                self._on_error(t, data, size, now)
        elif (code == OP_RRQ or code == OP_WRQ) and self.tids.takes_requests(path.socket):
            self._on_request(data, size, path, now)
        else:
            self._drop(DROP_MALFORMED if code < 0 else DROP_OPCODE)

    cdef void command(self, Command *command, uint64_t now) noexcept nogil:
        cdef Transfer *t
        if command.kind == COMMAND_LIST:
            self._on_list(command.id, now)
            return
        t = self.table.by_id(command.id)
        if t is NULL or t.state != STATE_ASKED:
            return  # it ended meanwhile
        if command.kind == COMMAND_SEND:
            self._on_send(t, command.blob, now)
        elif command.kind == COMMAND_REFUSE:
            self._send_error(&t.path, command.error, command.text, command.size)
            self._finish(t, OUTCOME_REFUSED, command.error, command.text, command.size, now)
        elif command.kind == COMMAND_FORGET:
            self._finish(t, OUTCOME_MOVED, 0, NULL, 0, now)

    cdef void on_timer(self, uint64_t now) noexcept nogil:
        cdef Timer *timer
        cdef Transfer *t
        while True:
            timer = self.wheel.expired(now)
            if timer is NULL:
                return
            t = <Transfer *>timer.owner
            if t.share.queued:  # nothing to wait for before it has left
                self.wheel.arm(&t.timer, now + t.rto.timeout)
            elif t.deadline > now:
                self.wheel.arm(&t.timer, t.deadline)
            elif t.pausing:
                t.pausing = False
                self._enqueue(t)
            else:
                self._on_timeout(t, now)

    cdef uint64_t next_timer(self) noexcept nogil:
        return min(min(self.wheel.next_deadline(), self.lines.wake_at()), self.control.wake_at())

    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef Transfer *t
        self._reap()
        self._admit(now)
        self.scratch.clear()
        self.lines.rotate()
        if not self.control.fill(batch, self.lines, now):
            return True
        while True:
            if not pxed_batch_has_room(batch, OACK_LIMIT) or not self.scratch.has_room(TURN * LARGEST_BLOCK_V4):
                return not self.lines.idle()
            t = <Transfer *>self.lines.next(now)
            if t is NULL:
                return self.control.wake_at() <= now  # a file that could not be read
            if self._fill_from(t, batch, now):
                self._enqueue(t)  # at the end: its next turn comes after everybody else's

    cdef void close(self) noexcept nogil:
        cdef size_t i
        cdef Transfer *t
        for i in range(self.table.slot_count):
            t = self.table.slots[i]
            if t is not NULL:
                self.wheel.cancel(&t.timer)
                self.admission.leave(&t.turn)
                self.table.remove(t)
                self._free(t)
        self._reap()
        self.lines.clear()
        ring_init(&self.unheard)
        self.asked = self.control.count = 0

    # -- beginnings and ends -----------------------------------------------------------------------------------------

    cdef Transfer *_new(self, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef Transfer *t = self.table.add(path)
        if t is not NULL:
            t.started = t.progress_at = now
            t.state = STATE_ASKED
            self.asked += 1
        return t

    cdef bint _make_room(self, const pxed_path *path, uint64_t request_hash, uint64_t now) noexcept nogil:
        # For one more request; False when there is none.
        if not self.admission.may_ask(self.asked, path, request_hash):
            return False
        if self.table.count >= self.limit and ring_first(&self.unheard) is not NULL:
            self._finish(<Transfer *>ring_first(&self.unheard), OUTCOME_EVICTED, 0, NULL, 0, now)
        return self.table.count < self.limit

    cdef void _begin(self, Transfer *t, uint64_t now) noexcept nogil:
        # Its first answer. Until it reacts it is a stranger.
        t.progress_at = now
        t.state = STATE_OPTIONS if t.options else STATE_SENDING
        ring_append(&self.unheard, &t.unheard, t)
        self.admission.at(&t.path)[0] += 1
        self._enqueue(t)

    cdef void _is_no_stranger(self, Transfer *t) noexcept nogil:
        # It reacted, or it ends.
        if t.unheard.next is not NULL:
            ring_remove(&t.unheard)
            self.admission.at(&t.path)[0] -= 1

    cdef void _admit(self, uint64_t now) noexcept nogil:
        cdef Transfer *t = <Transfer *>self.admission.next(now)
        while t is not NULL:
            if t.state == STATE_QUEUED:
                self._begin(t, now)
            elif t.pausing:
                t.pausing = False
                self._enqueue(t)
            t = <Transfer *>self.admission.next(now)
        t = <Transfer *>self.admission.overflow()
        while t is not NULL:
            self.admission.keep(&t.turn, now)
            self._begin(t, now)
            t = <Transfer *>self.admission.overflow()

    cdef void _finish(self, Transfer *t, Outcome outcome, uint32_t error, const uint8_t *text, size_t size,
                      uint64_t now) noexcept nogil:
        # Out of the table, with an event; freed by the next fill.
        cdef Event *event = self.add_event(EVENT_FINISHED, t.id, &t.path, text, size)
        if event is not NULL:
            event.outcome = outcome
            event.error = error
            end_figures(event, t, outcome == OUTCOME_OK, now)
        self.counters.outcome[<int>outcome] += 1
        self.table.remove(t)
        if t.state == STATE_ASKED:
            self.asked -= 1
        self.wheel.cancel(&t.timer)
        self.lines.remove(&t.share)
        self.admission.leave(&t.turn)
        self._is_no_stranger(t)
        t.state = STATE_ENDED
        t.chain = self.ended
        self.ended = t

    cdef void _reap(self) noexcept nogil:
        cdef Transfer *t
        while self.ended is not NULL:
            t = self.ended
            self.ended = t.chain
            self._free(t)

    cdef void _free(self, Transfer *t) noexcept nogil:
        pxed_blob_unref(t.blob)
        self.scratch.forget(t.fetch)
        free(t)

    # -- what comes in -----------------------------------------------------------------------------------------------

    cdef void _on_request(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef TftpRequest request
        cdef Transfer *t
        cdef uint64_t request_hash
        cdef pxed_path own = path[0]
        if not parse_request(data, size, &request):
            self._drop(DROP_MALFORMED)
            return
        request_hash = hash_request(data, size)
        t = self.tids.known(self.table, path, request_hash)
        path = &own
        if opcode(data, size) == OP_WRQ:
            self.counters.writes_refused += 1
            self._send_error(path, ERR_ACCESS, b"pxed does not accept files", 26)
            return
        if request.mode != MODE_OCTET and request.mode != MODE_NETASCII:
            self._send_error(path, ERR_ILLEGAL, b"only the modes octet and netascii are supported", 47)
            return
        if t is not NULL:
            if t.request_hash == request_hash and (now - t.progress_at < RESTART_AFTER if t.heard else not t.listening):
                self.admission.repeat(&t.turn)
                self._drop(DROP_MERGED)
                return
            self._finish(t, OUTCOME_SUPERSEDED if t.heard else OUTCOME_NO_ANSWER, 0, NULL, 0, now)
        if self.admission.at(path)[0] >= TOO_MANY_STRANGERS:
            self._drop(DROP_STRANGER)
            return
        if not self._make_room(path, request_hash, now) or not self.tids.assign(self.table, &own):
            self._drop(DROP_BUSY)
            return
        t = self._new(path, now)
        if t is NULL:
            self._drop(DROP_NO_MEMORY)
            return
        self.counters.requests += 1
        t.request_hash = request_hash
        t.options = request.options & ~<uint32_t>OPT_MULTICAST  # left out: here everybody is served alone
        t.blksize = min(request.blksize, LARGEST_BLOCK_V6 if pxed_path_is_v6(path) else LARGEST_BLOCK_V4)
        t.blksize = min(t.blksize, self.sizes.largest(path, now))
        t.windowsize = t.burst.size = min(request.windowsize, LARGEST_WINDOW)
        t.client_timeout = request.timeout
        t.patience = first_packet_patience(&request)
        if self.add_event(EVENT_REQUEST, t.id, path, data, size) is NULL:
            self._drop(DROP_NO_MEMORY)
            self._finish(t, OUTCOME_ABANDONED, 0, NULL, 0, now)
        else:
            self._wait(t, now + ASKED_PATIENCE)

    cdef void _on_send(self, Transfer *t, pxed_blob *blob, uint64_t now) noexcept nogil:
        # The control plane's answer: here the transfer begins, or waits for a place.
        t.blob = pxed_blob_ref(blob)
        t.blocks = blob.size // t.blksize + 1
        t.next = t.high = 1
        rto_start(&t.rto, t.client_timeout)
        self.asked -= 1
        if blob.size <= SMALL_FILE or self.admission.enter(&t.turn, t, now):
            self._begin(t, now)
        else:
            t.state = STATE_QUEUED
            self.wheel.cancel(&t.timer)
            self._wait(t, t.started + t.patience)

    cdef void _on_list(self, size_t first, uint64_t now) noexcept nogil:
        cdef Running running[LISTED]
        cdef pxed_path nobody
        cdef size_t after = first
        cdef size_t count = list_running(self.table.slots, self.table.slot_count, &after, running, now)
        memset(&nobody, 0, sizeof(nobody))
        if self.add_event(EVENT_LISTING, after, &nobody, <const uint8_t *>running, count * sizeof(Running)) is NULL:
            self._drop(DROP_NO_MEMORY)

    cdef void _on_heard(self, Transfer *t, uint64_t now) noexcept nogil:
        # It acknowledged something.
        if not t.heard:
            t.heard = True
            t.answered = now - t.started
            self._is_no_stranger(t)
            self.admission.prove(&t.turn)

    cdef void _on_ack(self, Transfer *t, uint64_t block, uint64_t now) noexcept nogil:
        cdef uint64_t number
        if t.state == STATE_OPTIONS and t.tries != 0 and block == 0:
            t.state = STATE_SENDING
            self._on_heard(t, now)
            if t.tries == 1:
                rto_measure(&t.rto, now - t.timed_at)
            t.tries = 0
            t.progress_at = now
            self._go_on(t, now)
            return
        if t.state != STATE_SENDING:
            self._drop(DROP_STALE_ACK)
            return
        number = t.acked + ((block - t.acked) & 0xffff)
        if number >= t.high:
            self._drop(DROP_STALE_ACK)
        elif number > t.acked:
            self._on_progress(t, number, now)
        elif (t.windowsize > 1 and not t.gone_back and t.next > t.acked + 1 and t.acked >= t.recover
              and now - t.gone_back_at >= t.rto.srtt // 2):
            self._go_back(t, True, now)
        else:
            self._drop(DROP_STALE_ACK)

    cdef void _on_progress(self, Transfer *t, uint64_t block, uint64_t now) noexcept nogil:
        if t.timed != 0 and block >= t.timed:
            rto_measure(&t.rto, now - t.timed_at)
            t.timed = 0
        else:
            rto_progress(&t.rto)
        t.pausing = False
        if t.windowsize > 1:
            self.counters.bursts_shrunk += burst_progress(&t.burst, block - t.acked, t.windowsize, t.next == block + 1)
        if t.lowered:  # it was something else that kept the first block from it
            t.lowered = False
            self.sizes.forget(&t.path)
        self._on_heard(t, now)
        t.acked = block
        t.tries = 0
        t.progress_at = now
        t.gone_back = False
        if block == t.blocks:
            self._finish(t, OUTCOME_OK, 0, NULL, 0, now)
            return
        if t.next <= block:
            t.next = block + 1
        if t.windowsize > 1 and t.next > block + 1 and now - t.gone_back_at >= t.rto.srtt // 2:
            self._go_back(t, True, now)
        elif t.next <= min(t.acked + t.windowsize, t.blocks):
            self._go_on(t, now)
        else:
            self._wait(t, now + t.rto.timeout)

    cdef void _on_error(self, Transfer *t, const uint8_t *data, size_t size, uint64_t now) noexcept nogil:
        cdef int code = parse_block(data, size)
        cdef Outcome outcome = OUTCOME_CLOSED if code == 0 else OUTCOME_CLIENT_ERROR
        cdef size_t length = 0
        if t.state == STATE_OPTIONS and t.options & OPT_TSIZE:
            outcome = OUTCOME_PROBE
        elif code == 0 and t.state == STATE_SENDING and t.acked != 0 and t.high > t.blocks:
            outcome = OUTCOME_OK
        while 4 + length < size and length < ERROR_TEXT_LIMIT and data[4 + length] != 0:
            length += 1
        self._finish(t, outcome, code, data + 4, length, now)

    cdef void _on_timeout(self, Transfer *t, uint64_t now) noexcept nogil:
        if t.state == STATE_ASKED:
            self._finish(t, OUTCOME_ABANDONED, 0, NULL, 0, now)
        elif t.state == STATE_QUEUED:
            self.admission.keep(&t.turn, now)
            self._begin(t, now)
        elif not t.heard and (t.tries >= UNANSWERED_SENDS or self.admission.at(&t.path)[0] > MANY_STRANGERS):
            if t.listening:
                self._finish(t, OUTCOME_NO_ANSWER, 0, NULL, 0, now)
            else:
                t.listening = True
                self._wait(t, t.progress_at + max(LISTEN, 2 * t.rto.timeout))
        elif t.acked != 0 and t.high > t.blocks and t.tries >= LAST_SENDS and now - t.progress_at >= LINGER:
            self._finish(t, OUTCOME_OK, 0, NULL, 0, now)
        elif now - t.progress_at >= SILENCE and t.heard:
            self._finish(t, OUTCOME_TIMEOUT, 0, NULL, 0, now)
        else:
            if self._too_large(t, now) and self.sizes.lower(&t.path, t.blksize, now):
                t.lowered = True
                self.counters.blksize_lowered += 1
            rto_back_off(&t.rto)
            self.counters.timeouts += 1
            self._go_back(t, False, now)

    cdef bint _too_large(self, Transfer *t, uint64_t now) noexcept nogil:
        # It asked for a block size and took our answer, but never a first block of that size.
        return (t.state == STATE_SENDING and t.heard and t.acked == 0 and t.blocks > 1 and t.tries >= 2
                and not t.lowered and now - t.progress_at >= TOO_LARGE_AFTER)

    cdef void _drop(self, DropReason reason) noexcept nogil:
        self.counters.drop[<int>reason] += 1

    # -- what goes out -----------------------------------------------------------------------------------------------

    cdef void _enqueue(self, Transfer *t) noexcept nogil:
        self.lines.add(&t.share, t, t.path.socket)

    cdef void _go_on(self, Transfer *t, uint64_t now) noexcept nogil:
        # More of the file, at the speed that it has been granted.
        if t.turn.standing == STANDING_KEPT:
            t.pausing = True
            self._wait(t, now + KEEP_ALIVE)
        else:
            self._enqueue(t)

    cdef void _wait(self, Transfer *t, uint64_t deadline) noexcept nogil:
        # The timer moves only when it must fire earlier: once per timeout, not once per packet.
        t.deadline = deadline
        if not t.timer.armed or t.timer.deadline > deadline:
            self.wheel.arm(&t.timer, deadline)

    cdef void _go_back(self, Transfer *t, bint by_ack, uint64_t now) noexcept nogil:
        self.counters.go_backs += by_ack
        t.gone_back = by_ack
        t.gone_back_at = now
        t.next = t.acked + 1
        t.recover = t.high
        t.timed = 0
        t.burst.sent = 0
        t.pausing = False
        self._enqueue(t)

    cdef void _send_error(self, const pxed_path *path, uint32_t code, const uint8_t *text, size_t size) noexcept nogil:
        if not self.control.add(path, code, text, size):
            self._drop(DROP_CONTROL_FULL)

    cdef void _fill_options(self, Transfer *t, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef uint8_t header[OACK_LIMIT]
        cdef size_t size = write_oack(header, t.options, t.blksize, t.blob.size, t.client_timeout, t.windowsize)
        if not self.lines.may_send(&t.path, size, now):
            self.lines.put_back(&t.share, t, t.path.socket)
            return
        pxed_batch_add(batch, &t.path, header, size, NULL, 0)
        self.counters.datagrams += 1
        t.retransmits += t.tries != 0
        self.counters.retransmits += t.tries != 0
        t.tries += 1
        t.timed_at = now
        self._wait(t, now + t.rto.timeout)

    cdef const uint8_t *_read(self, Transfer *t, uint64_t *last, uint64_t now) noexcept nogil:
        # The bytes of blocks `next` to `last` of a file without a copy; fewer blocks when they are not all there yet.
        # NULL: the transfer waits for its disk, or has ended.
        cdef uint64_t offset = (t.next - 1) * t.blksize
        cdef uint64_t size = min((last[0] - t.next + 1) * t.blksize, t.blob.size - offset)
        cdef const uint8_t *data = self.scratch.at()
        cdef int n = self.scratch.read(t.blob, &t.fetch, offset, min(t.blksize, size), size)
        if n >= 0:
            t.reads = 0
            if <uint64_t>n < size:
                last[0] = t.next + n // t.blksize - 1
            return data
        if n == PXED_READ_LATER and now - t.progress_at < SILENCE:
            t.pausing = True
            t.reads += t.reads < MOST_READ_PAUSES
            self._wait(t, now + (PAUSE << t.reads))
        else:
            self._send_error(&t.path, ERR_NOT_DEFINED, b"the file cannot be read any more", 32)
            self._finish(t, OUTCOME_REFUSED, ERR_NOT_DEFINED, b"the file cannot be read any more", 32, now)
        return NULL

    cdef bint _fill_from(self, Transfer *t, pxed_batch *batch, uint64_t now) noexcept nogil:
        # One turn of one transfer; True when it wants another.
        cdef uint8_t header[DATA_HEADER]
        cdef uint64_t last, end, size
        cdef const uint8_t *data
        cdef unsigned int sent = 0
        if t.state == STATE_OPTIONS:
            self._fill_options(t, batch, now)
            return False
        last = min(t.acked + t.windowsize, t.blocks)
        end = min(last, t.next + (min(TURN, t.burst.size - t.burst.sent) if t.windowsize > 1 else 1) - 1)
        data = t.blob.data + (t.next - 1) * t.blksize
        if t.blob.fd >= 0 and t.next <= end:
            data = self._read(t, &end, now)
            if data is NULL:
                return False
        while t.next <= end:
            size = min(<uint64_t>t.blksize, t.blob.size - (t.next - 1) * t.blksize)
            if not self.lines.may_send(&t.path, DATA_HEADER + size, now):
                if sent == 0:
                    self.lines.put_back(&t.share, t, t.path.socket)
                break
            write_data_header(header, t.next)
            if sent == 0 or not pxed_batch_extend(batch, header, DATA_HEADER, data, size):
                if not pxed_batch_has_room(batch, DATA_HEADER):
                    break
                pxed_batch_add(batch, &t.path, header, DATA_HEADER, data, size)
            t.tries += t.next == t.acked + 1
            sent += 1
            data += size
            self.counters.bytes += size
            if t.next < t.high:
                t.retransmits += 1
                self.counters.retransmits += 1
            else:
                t.high = t.next + 1
                if t.timed == 0:
                    t.timed = t.next
                    t.timed_at = now
            t.next += 1
            t.burst.sent += 1
        self.counters.datagrams += sent
        self.lines.charge(&t.share, sent)
        if t.windowsize > 1 and t.next <= last and t.burst.sent >= t.burst.size:
            t.pausing = True
            t.burst.sent = 0
            self._wait(t, now + PAUSE)
            return False
        self._wait(t, now + t.rto.timeout)
        return t.next <= last

    cdef dict statistics(self):
        """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
        statistics = counters_dict(&self.counters, self.table.count, self.asked)
        statistics["datagrams"] += self.control.sent
        statistics["paced"] = self.lines.blocks
        return {**statistics, **self.admission.statistics()}
