"""PassSender: MTFTP as PXE 2.1 has it (DHCP option 43 tags 1-5), and as iPXE does it; sans-I/O, without the GIL.

There are no options, and blocks have 512 bytes. Requests and ACKs come to one fixed port of ours, and DATA leaves from
it, to a group that the client knows beforehand. The client that asked acknowledges each block; what others hear
meanwhile is theirs, and nobody knows of them. Rules (PXE 2.1; the sources of Intel's base code and of iPXE):

- Block 1 goes, by unicast, to who asked and to the group: so it knows that it is the one to acknowledge.
- A file is sent once at a time, in a pass from its first to its last block. Who asks for it meanwhile hears it, and
  listens; so a request during a pass gets no answer. Listeners that missed blocks ask again when it is quiet.
- Within a pass no lower block number is ever sent, as PXE's listeners give up on that: only the block in flight is
  repeated. After a pass the group is quiet for the time after which listeners stop waiting for more of it (tag 5), so
  that none of them takes the next pass for the rest of this one. Who asks when they have stopped is first in the next
  one, which begins in a moment (atftp cannot repeat a request); earlier requests are repeated for longer than that.
- A listener keeps only what it heard without a gap up to the end, so of many listeners there is always one that lost a
  block, pass after pass. Who lost some listens a second less for each and asks within the quiet time; who merely came
  late does not. After such a request, or after two passes, the next ones send each block to the group twice, back to
  back: an equal number is no lower one, listeners pass over it, and who acknowledges does so twice, in vain.
- A group sends one content. Another file, or a new content of this one, would mend gaps with wrong bytes: it gets no
  answer until nobody can have blocks of the former left.
- Who asked may be forged. Until it acknowledges, block 1 is sent UNANSWERED_SENDS times, whatever tag 5 says, and once
  for each of some repetitions of the request; then the pass ends.
- What cannot be sent so (a file of more than 65,535 blocks, one that is not there) gets no answer at all: clients fall
  back to plain TFTP, which serves it or says why not. An ERROR would end the boot.

iPXE's `mtftp://` differs (`any_order`): it opens at once, keeps a map of the blocks that it has, and asks again after
a quarter of a second of silence, from another port each time.

- Its ACKs name its first gap and so leap over what it has; there is no quiet time.
- When the client that acknowledges falls silent, the next one that asks takes over.
- It falls back to plain TFTP only when nothing at all answers, and block 1 by unicast is an answer: where no multicast
  reaches it, it would begin anew for ever. And when it falls back with the end of the file in hand, it takes the file
  for complete, gaps and all. So who acknowledged nothing but block 1, or asks again while a pass is moving, is served
  alone, by unicast, which it takes just as well; the others go on.
- So a new content under the same name is sent only when the former is forgotten, and the former until then.
"""

from pxed._ext.tftp_figures import OUTCOME_NAMES

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pxed._ext.blob cimport pxed_blob_ref, pxed_blob_unref
from pxed._ext.linux_net cimport (
    pxed_batch_add, pxed_batch_has_room, pxed_client_hash, pxed_path_equal, pxed_path_is_v6, pxed_path_port,
    pxed_path_toward, pxed_path_v4,
)
from pxed._ext.sender cimport (
    COMMAND_FORGET, COMMAND_LIST, COMMAND_REFUSE, COMMAND_SEND, EVENT_FINISHED, EVENT_LISTING, EVENT_REQUEST, Event,
)
from pxed._ext.tftp cimport (
    DATA_HEADER, ERROR_TEXT_LIMIT, MODE_NETASCII, MODE_OCTET, OP_ACK, OP_ERROR, OP_RRQ, TftpRequest, hash_request,
    opcode, parse_block, parse_request, write_data_header,
)
from pxed._ext.tftp_figures cimport Running
from pxed._ext.tftp_flow cimport rto_back_off, rto_measure, rto_progress, rto_start
from pxed._ext.tftp_sender cimport (
    OUTCOME_ABANDONED, OUTCOME_CLIENT_ERROR, OUTCOME_CLOSED, OUTCOME_MOVED, OUTCOME_NO_ANSWER, OUTCOME_OK,
    OUTCOME_REFUSED, OUTCOME_SUPERSEDED, OUTCOME_TIMEOUT,
)
from pxed._ext.tftp_table cimport STATE_ASKED, STATE_SENDING

cimport cython

cdef enum:
    BLOCK = 512
    LARGEST_NUMBER = 65535
    # Groups are as many as boot programs; clients that are served alone, and all else that asks, may be more. Each
    # costs a look at every datagram.
    PASSES = 256
    # DATA that a client must have missed between its two requests to be taken for deaf.
    UNHEARD = 16
    # Sendings of block 1 that nobody acknowledges, and repeated requests that bring one more.
    UNANSWERED_SENDS = 3
    REPEATS = 5
    # Passes of a file, one soon after the other, that send each block once.
    SINGLE_PASSES = 2

LARGEST_FILE = BLOCK * LARGEST_NUMBER - 1  # bytes that can be sent so

cdef uint64_t MS = 1_000_000
# Silence of the client that acknowledges, until its pass is given up; of PXE's, beyond the quiet time.
cdef uint64_t SILENCE = 3000 * MS
cdef uint64_t MORE_SILENCE = 2000 * MS
# Beyond the time that listeners wait, as firmware's clocks are coarse.
cdef uint64_t MORE_QUIET = 500 * MS
# Who asks so long before the quiet ends has waited for it, by a clock that runs ahead of ours.
cdef uint64_t AHEAD = 800 * MS
# The same when another client asks.
cdef uint64_t TAKE_OVER = 400 * MS
cdef uint64_t ASKED_PATIENCE = 30_000 * MS
# A request that is repeated sooner crossed its answer.
cdef uint64_t REPEATED = 200 * MS
# How long a listener may hold blocks of a pass: iPXE asks within seconds, PXE's clients wait as told.
cdef uint64_t REMEMBERED = 120_000 * MS
cdef uint64_t REMEMBERED_ANY_ORDER = 10_000 * MS
cdef uint64_t DEAF_LASTS = 3_600_000 * MS

# In the order of the enumeration in mtftp_pxe.pxd.
DROP_NAMES = (
    "malformed", "opcode", "unknown-peer", "stale-ack", "merged", "group-taken", "busy", "no-memory",
)


@cython.final
@cython.no_gc
cdef class PassSender(Sender):
    """`any_order`: the clients are iPXE. `seed` keys the hash of clients."""

    def __cinit__(self, *, any_order: bool = False, uint64_t seed=0):
        self.any_order = any_order
        self.seed = seed
        self.wheel = Wheel()

    def __dealloc__(self):
        if self.lines is not None:
            self.close()

    # -- the Sender interface ------------------------------------------------------------------------------------

    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef int code = opcode(data, size)
        cdef int number = parse_block(data, size)
        cdef Pass *p
        if code == OP_RRQ:
            self._on_request(data, size, path, now)
            return
        if code != OP_ACK and code != OP_ERROR:
            self._drop(DROP_MALFORMED if code < 0 else DROP_OPCODE)
            return
        p = self._by_opener(path)
        if number < 0:
            self._drop(DROP_MALFORMED)
        elif p is NULL:
            self._drop(DROP_UNKNOWN_PEER)
        elif code == OP_ACK:
            self._on_ack(p, number, now)
        else:
            self._on_error(p, data, size, now)

    cdef void command(self, Command *command, uint64_t now) noexcept nogil:
        cdef Pass *p
        if command.kind == COMMAND_LIST:
            self._on_list(now)
            return
        p = self._by_id(command.id)
        if p is NULL or p.state != PASS_ASKED:
            return  # it ended meanwhile
        if command.kind == COMMAND_SEND:
            self._on_send(p, command, now)
        elif command.kind == COMMAND_REFUSE:
            self._finish(p, OUTCOME_REFUSED, command.error, command.text, command.size, now)
        elif command.kind == COMMAND_FORGET:
            self._finish(p, OUTCOME_MOVED, 0, NULL, 0, now)

    cdef void on_timer(self, uint64_t now) noexcept nogil:
        cdef Timer *timer
        cdef Pass *p
        while True:
            timer = self.wheel.expired(now)
            if timer is NULL:
                return
            p = <Pass *>timer.owner
            if p.share.queued:  # nothing to wait for before it has left
                self.wheel.arm(&p.timer, now + p.rto.timeout)
            elif p.deadline > now:
                self.wheel.arm(&p.timer, p.deadline)
            else:
                self._on_timeout(p, now)

    cdef uint64_t next_timer(self) noexcept nogil:
        return min(self.wheel.next_deadline(), self.lines.wake_at())

    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef Pass *p
        self._free_ended()  # slices of their blobs have left with the last batch
        self.lines.rotate()
        while True:
            if not pxed_batch_has_room(batch, DATA_HEADER):
                return not self.lines.idle()
            p = <Pass *>self.lines.next(now)
            if p is NULL:
                return False
            self._fill_data(p, batch, now)

    cdef void close(self) noexcept nogil:
        while self.passes is not NULL:
            self._remove(self.passes)
        self._free_ended()

    # -- passes ------------------------------------------------------------------------------------------------------

    cdef Pass *_by_opener(self, const pxed_path *path) noexcept nogil:
        cdef Pass *p = self.passes
        while p is not NULL and not (p.state == PASS_SENDING and pxed_path_equal(&p.opener, path)):
            p = p.after
        return p

    cdef Pass *_by_id(self, uint64_t id) noexcept nogil:
        cdef Pass *p = self.passes
        while p is not NULL and p.id != id:
            p = p.after
        return p

    cdef Pass *_by_group(self, const Pass *other) noexcept nogil:
        # Another pass, maybe over, in the same group.
        cdef Pass *p = self.passes
        while p is not NULL and (p == other or p.state == PASS_ASKED or not pxed_path_equal(&p.to, &other.to)):
            p = p.after
        return p

    cdef Pass *_of_file(self, uint64_t name, const pxed_path *path) noexcept nogil:
        # The group's pass of the file that is asked for at one of our addresses; one that is over comes last.
        cdef Pass *p = self.passes
        cdef Pass *over = NULL
        while p is not NULL:
            if p.name == name and p.opener.socket == path.socket and not p.alone:
                if p.state != PASS_QUIET:
                    return p
                over = p
            p = p.after
        return over

    cdef Pass *_alone_of(self, uint64_t client, const pxed_path *path) noexcept nogil:
        cdef Pass *p = self.passes
        while p is not NULL and not (p.alone and p.client == client and p.opener.socket == path.socket):
            p = p.after
        return p

    cdef void _finish(self, Pass *p, Outcome outcome, uint32_t error, const uint8_t *text, size_t size, uint64_t now
                      ) noexcept nogil:
        # With an event. What was sent to a group is remembered for a while.
        cdef Event *event = self.add_event(EVENT_FINISHED, p.id, &p.opener, text, size)
        if event is not NULL:
            event.outcome = outcome
            event.error = error
            event.whole = p.blob.size if p.blob is not NULL else 0
            event.blocks = 0 if p.blob is NULL else p.blocks if outcome == OUTCOME_OK else p.block - 1
            event.bytes = min(event.blocks * BLOCK, event.whole)
            event.retransmits = p.retransmits
            event.duration = now - p.started
            event.answered = p.answered
            event.blksize = BLOCK
            event.windowsize = event.burst = 1
        self.counters.outcome[<int>outcome] += 1
        self.lines.remove(&p.share)
        if p.state == PASS_SENDING and not p.alone:
            p.state = PASS_QUIET
            p.quiet_until = now + p.quiet
            self._wait(p, now + (REMEMBERED_ANY_ORDER if self.any_order else REMEMBERED))
        else:
            self._remove(p)

    cdef void _give_up(self, Pass *p, uint64_t now) noexcept nogil:
        if p.block == p.blocks and p.block != 1:  # the last ACK is a courtesy
            self._finish(p, OUTCOME_OK, 0, NULL, 0, now)
        else:
            self._finish(p, OUTCOME_TIMEOUT if p.block != 1 else OUTCOME_NO_ANSWER, 0, NULL, 0, now)

    cdef void _remove(self, Pass *p) noexcept nogil:
        # Freed by the next fill, as slices of its blob may be in the batch.
        cdef Pass **link = &self.passes
        while link[0] != p:
            link = &link[0].after
        link[0] = p.after
        self.wheel.cancel(&p.timer)
        self.lines.remove(&p.share)
        self.count -= 1
        p.state = PASS_ENDED
        p.after = self.ended
        self.ended = p

    cdef void _free_ended(self) noexcept nogil:
        cdef Pass *p
        while self.ended is not NULL:
            p = self.ended
            self.ended = p.after
            pxed_blob_unref(p.blob)
            free(p)

    # -- requests ----------------------------------------------------------------------------------------------------

    cdef void _on_request(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef TftpRequest request
        cdef uint64_t client = pxed_client_hash(path, self.seed)
        cdef Asker *asker = &self.askers[client % ASKERS]
        cdef uint64_t name
        cdef bint deaf
        cdef Pass *p
        if (not parse_request(data, size, &request) or pxed_path_is_v6(path)
                or (request.mode != MODE_OCTET and request.mode != MODE_NETASCII)):
            self._drop(DROP_MALFORMED)
            return
        name = hash_request(request.name, request.name_size)
        deaf = asker.client == client and now < asker.deaf_until
        p = self._alone_of(client, path) if deaf else self._of_file(name, path)
        if p is not NULL and not self._makes_way(p, client, path, now):
            self._drop(DROP_MERGED)
            return
        # Asked again: it may have become deaf just now.
        deaf = asker.client == client and now < asker.deaf_until
        self._new_pass(data, size, path, name, deaf, now)

    cdef bint _makes_way(self, Pass *p, uint64_t client, const pxed_path *path, uint64_t now) noexcept nogil:
        # Whether a request that `p` would serve is to be taken for a new one.
        if p.state == PASS_ASKED:
            return False
        if p.state == PASS_QUIET:
            if now + min(p.quiet, AHEAD) >= p.quiet_until:
                return True
            p.missed = True
            return False
        if p.client == client:
            if p.block == 1 and pxed_path_equal(&p.opener, path):
                if p.tries != 0 and not p.share.queued and now - p.sent_at >= REPEATED and p.repeats < REPEATS:
                    p.repeats += 1
                    self._enqueue(p)
                return False
            if self.any_order and not p.alone and p.block == 2 and p.tries != 0:
                self._note_deaf(client, now)
            self._finish(p, OUTCOME_SUPERSEDED, 0, NULL, 0, now)
            return self.any_order  # PXE's clients need the group quiet first
        if not self.any_order:
            return False
        if now - p.answered_at >= TAKE_OVER:
            self._give_up(p, now)
            return True
        if self._asks_in_vain(p, client, now):
            self._note_deaf(client, now)
            return True
        return False

    cdef bint _asks_in_vain(self, const Pass *p, uint64_t client, uint64_t now) noexcept nogil:
        # Whether a client asks a second time for what has been moving since the first. It hears nothing of it.
        cdef Asker *asker = &self.askers[client % ASKERS]
        if asker.client == client and asker.asked == p.id and p.sent - asker.sent >= UNHEARD:
            return True
        asker.client = client
        asker.asked = p.id
        asker.sent = p.sent
        asker.deaf_until = 0
        return False

    cdef void _note_deaf(self, uint64_t client, uint64_t now) noexcept nogil:
        cdef Asker *asker = &self.askers[client % ASKERS]
        asker.client = client
        asker.deaf_until = now + DEAF_LASTS
        self.counters.deaf += 1

    cdef void _new_pass(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t name, bint alone,
                        uint64_t now) noexcept nogil:
        cdef Pass *p
        if self.count >= PASSES:
            self._drop(DROP_BUSY)
            return
        p = <Pass *>calloc(1, sizeof(Pass))
        if p is NULL or self.add_event(EVENT_REQUEST, self.serial + 1, path, data, size) is NULL:
            free(p)
            self._drop(DROP_NO_MEMORY)
            return
        self.serial += 1
        self.count += 1
        self.counters.requests += 1
        p.id = self.serial
        p.name = name
        p.client = pxed_client_hash(path, self.seed)
        p.opener = path[0]
        p.alone = alone
        p.started = p.answered_at = now
        p.timer.owner = p
        p.state = PASS_ASKED
        p.after = self.passes
        self.passes = p
        self._wait(p, now + ASKED_PATIENCE)

    # -- the control plane's answers ---------------------------------------------------------------------------------

    cdef void _on_send(self, Pass *p, Command *command, uint64_t now) noexcept nogil:
        # Here the pass begins.
        cdef const uint8_t *group = pxed_path_v4(&command.path)
        cdef pxed_blob *blob = command.blob
        cdef Pass *former
        cdef uint64_t start = now
        if blob.fd >= 0 or blob.size // BLOCK + 1 > LARGEST_NUMBER:
            self._finish(p, OUTCOME_MOVED, 0, NULL, 0, now)
            return
        p.to = p.opener
        if not p.alone:
            pxed_path_toward(&p.to, <uint32_t>group[0] << 24 | <uint32_t>group[1] << 16 | <uint32_t>group[2] << 8
                             | group[3], pxed_path_port(&command.path))
            former = self._by_group(p)
            if former is not NULL:
                if (former.state == PASS_SENDING or former.name != p.name or now + AHEAD < former.quiet_until
                        or (former.blob != blob and not self.any_order)):
                    self._drop(DROP_GROUP_TAKEN)
                    self._finish(p, OUTCOME_MOVED, 0, NULL, 0, now)
                    return
                blob = former.blob
                start = max(now, former.quiet_until)
                p.former = min(former.former + 1, SINGLE_PASSES)
                p.doubled = not self.any_order and (former.missed or former.doubled or p.former == SINGLE_PASSES)
                self._remove(former)
        p.blob = pxed_blob_ref(blob)
        p.blocks = blob.size // BLOCK + 1
        p.block = 1
        p.quiet = 0 if self.any_order else <uint64_t>command.quiet * 1000 * MS + MORE_QUIET
        p.state = PASS_SENDING
        p.answered_at = now
        self.counters.passes += 1
        rto_start(&p.rto, 0)
        if start == now:
            self._enqueue(p)
        else:
            self._wait(p, start)

    cdef void _on_list(self, uint64_t now) noexcept nogil:
        cdef Running running[PASSES]
        cdef pxed_path nobody
        cdef Pass *p = self.passes
        cdef size_t count = 0
        memset(&nobody, 0, sizeof(nobody))
        memset(running, 0, sizeof(running))
        while p is not NULL:
            if p.state != PASS_QUIET:
                running[count].id = p.id
                running[count].path = p.opener
                running[count].state = STATE_ASKED if p.state == PASS_ASKED else STATE_SENDING
                running[count].whole = p.blob.size if p.blob is not NULL else 0
                running[count].bytes = (p.block - 1) * BLOCK if p.blob is not NULL else 0
                running[count].retransmits = p.retransmits
                running[count].age = now - p.started
                running[count].quiet = now - p.answered_at
                running[count].srtt = p.rto.srtt
                running[count].blksize = BLOCK
                running[count].windowsize = running[count].burst = 1
                count += 1
            p = p.after
        if self.add_event(EVENT_LISTING, 0, &nobody, <const uint8_t *>running, count * sizeof(Running)) is NULL:
            self._drop(DROP_NO_MEMORY)

    # -- what comes in while it sends --------------------------------------------------------------------------------

    cdef void _on_ack(self, Pass *p, uint64_t block, uint64_t now) noexcept nogil:
        if block < p.block or block > p.blocks or (block > p.block and not self.any_order) or p.tries == 0:
            self._drop(DROP_STALE_ACK)
            return
        if p.tries == 1:
            rto_measure(&p.rto, now - p.sent_at)
        else:
            rto_progress(&p.rto)
        p.answered_at = now
        if p.answered == 0:
            p.answered = now - p.started
        if block == p.blocks:
            self._finish(p, OUTCOME_OK, 0, NULL, 0, now)
            return
        p.block = block + 1
        p.tries = 0
        self._enqueue(p)

    cdef void _on_error(self, Pass *p, const uint8_t *data, size_t size, uint64_t now) noexcept nogil:
        cdef int code = parse_block(data, size)
        cdef size_t length = 0
        while 4 + length < size and length < ERROR_TEXT_LIMIT and data[4 + length] != 0:
            length += 1
        self._finish(p, OUTCOME_CLOSED if code == 0 else OUTCOME_CLIENT_ERROR, code, data + 4, length, now)

    cdef void _on_timeout(self, Pass *p, uint64_t now) noexcept nogil:
        if p.state == PASS_QUIET:
            self._remove(p)
        elif p.state == PASS_ASKED:
            self._finish(p, OUTCOME_ABANDONED, 0, NULL, 0, now)
        elif p.tries == 0:  # the group is quiet now
            self._enqueue(p)
        elif p.answered == 0 and p.tries >= UNANSWERED_SENDS + p.repeats:
            self._give_up(p, now)
        elif now - p.answered_at < (SILENCE if self.any_order else p.quiet + MORE_SILENCE):
            self.counters.timeouts += 1
            rto_back_off(&p.rto)
            self._enqueue(p)
        else:
            self._give_up(p, now)

    cdef void _drop(self, DropReason reason) noexcept nogil:
        self.counters.drop[<int>reason] += 1

    # -- what goes out -----------------------------------------------------------------------------------------------

    cdef void _enqueue(self, Pass *p) noexcept nogil:
        self.lines.add(&p.share, p, p.to.socket)

    cdef void _wait(self, Pass *p, uint64_t deadline) noexcept nogil:
        # The timer moves only when it must fire earlier: once per timeout, not once per packet.
        p.deadline = deadline
        if not p.timer.armed or p.timer.deadline > deadline:
            self.wheel.arm(&p.timer, deadline)

    cdef void _fill_data(self, Pass *p, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef uint8_t header[DATA_HEADER]
        cdef uint64_t offset = (p.block - 1) * BLOCK
        cdef size_t size = min(<uint64_t>BLOCK, p.blob.size - offset)
        cdef bint own = p.block == 1 and not p.alone
        cdef int copies = 1 + p.doubled
        if not self.lines.may_send(&p.to, (DATA_HEADER + size) * (own + copies), now):
            self.lines.put_back(&p.share, p, p.to.socket)
            return
        write_data_header(header, p.block)
        if own:  # its own first: atftp takes itself for a listener when it hears the group before
            pxed_batch_add(batch, &p.opener, header, DATA_HEADER, p.blob.data + offset, size)
            self.counters.datagrams += 1
        while copies > 0 and pxed_batch_has_room(batch, DATA_HEADER):  # else the repetition brings it
            pxed_batch_add(batch, &p.to, header, DATA_HEADER, p.blob.data + offset, size)
            copies -= 1
            self.counters.datagrams += 1
            if p.alone:
                self.counters.unicast_bytes += size
            else:
                self.counters.bytes += size
                p.sent += 1
        if p.tries != 0:
            p.retransmits += 1
            self.counters.retransmits += 1
        p.tries += 1
        p.sent_at = now
        self._wait(p, now + p.rto.timeout)

    cdef dict statistics(self):
        """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
        cdef size_t running = 0
        cdef Pass *p = self.passes
        while p is not NULL:
            running += p.state != PASS_QUIET
            p = p.after
        statistics = {
            "running": running,
            "requests": self.counters.requests,
            "passes": self.counters.passes,
            "datagrams": self.counters.datagrams,
            "bytes": self.counters.bytes,
            "unicast_bytes": self.counters.unicast_bytes,
            "retransmits": self.counters.retransmits,
            "timeouts": self.counters.timeouts,
            "deaf": self.counters.deaf,
        }
        statistics.update({f"outcome.{name}": self.counters.outcome[i] for i, name in enumerate(OUTCOME_NAMES)})
        statistics.update({f"drop.{name}": self.counters.drop[i] for i, name in enumerate(DROP_NAMES)})
        return statistics
