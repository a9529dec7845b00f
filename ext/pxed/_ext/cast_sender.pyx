"""CastSender: image sessions by multicast, sans-I/O and without the GIL. The protocol is in pxed/wire/cast.py.

Rules:

- What is sent next is said by cast_jobs, who wants what by cast_wants, who is there by cast_session.
- A session sends at its own rate (bytes of symbols), and takes turns with others on its interface, whose rate counts
  bytes of the line. A turn is a run of datagrams of one length, at most 64 KiB, which the kernel cuts (UDP_SEGMENT);
  its last symbol may be shorter.
- When nothing is left to send, the group is told to report now; repair goes on as soon as all that are waited for have
  done so, or time is over. Who does not answer is asked again, and not waited for a third time.
- While the walk goes on for some, the group is asked every quarter of a second as long as others want nothing whole:
  their repairs wait for all reports, and would take a report period each time.
- A group that hears nothing else hears every quarter of a second that the session lives.
- Bytes of anybody: a datagram that is no report of a receiver that was admitted, from where it was, is counted by name
  and changes nothing.
"""

from libc.errno cimport EEXIST, ENOMEM, ENOSPC
from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset

from pxed._ext.cast cimport (
    CAST_ALIVE, CAST_HEADER, CAST_LEAVING, CAST_OK, CAST_ORDER_CLOSED, CAST_ORDER_HTTP, CAST_ORDER_UNKNOWN, CAST_REPORT,
    CAST_REPORT_NOW, CAST_TAKES_HTTP, CAST_WHY_CLOSING, CAST_WHY_UNKNOWN, CastData, CastMark, cast_get_data,
    cast_get_report, cast_peek, cast_put_data, cast_put_mark, cast_put_order, cast_symbol_size,
)
from pxed._ext.cast_events cimport (
    VERB_ADMIT, VERB_ASK, VERB_CLOSE, VERB_DIRECT, VERB_HOLD, VERB_OPEN, VERB_RATE, record_of,
)
from pxed._ext.cast_figures cimport (
    TELL_CLOSED, TELL_REFUSED, TELL_UNREADABLE, ListingFigures, Telling, counters_dict, list_session,
)
from pxed._ext.cast_intake cimport DROP_NO_SESSION, DROP_NOT_A_REPORT, DROP_RECEIVER, report_take
from pxed._ext.cast_jobs cimport job_choose, job_sent, job_unsent, repairs_promote_all
from pxed._ext.cast_session cimport (
    Receiver, receiver_admit, receiver_direct, receiver_find, session_all_heard, session_check, session_clear_spent,
    session_close, session_free, session_give_up_waiting, session_has_finishers, session_live, session_new,
    session_set_rate,
)
from pxed._ext.cast_source cimport pxed_cast_frame_data, pxed_cast_frame_error, pxed_cast_source
from pxed._ext.cast_wants cimport wants_audit
from pxed._ext.linux_net cimport iovec, pxed_batch_add, pxed_batch_extend, pxed_batch_has_room
from pxed._ext.pacer cimport pxed_pacer_give_back, pxed_pacer_ready_at, pxed_pacer_take
from pxed._ext.ring cimport ring_first
from pxed._ext.sender cimport COMMAND_OWN, EVENT_OWN, Event

cimport cython

cdef enum:
    RUN = 44                     # symbols of a turn: 64 KiB of the usual ones
    MOST_ASKS = 5                # of MARKs that ask for the same reports
    HURRY = 5                    # spreads of answers, between two of those who want nothing whole

cdef uint64_t MS = 1_000_000
cdef uint64_t CHECK = 250 * MS   # between two looks at who is alive, and of MARKs when nothing else is sent
# How long answers may take beyond their spread.
cdef uint64_t GRACE = 50 * MS
# A session that is closed answers reports for so long.
cdef uint64_t LINGER = 10_000 * MS


cdef inline uint16_t _spread(uint32_t live) noexcept nogil:
    # ms over which receivers spread their answers: some 5,000 reports a second.
    return <uint16_t>min(max(live // 5, <uint32_t>20), <uint32_t>1000)


@cython.final
@cython.no_gc
cdef class CastSender(Sender):
    """For engines (C level); orders and events are those of cast_events. At most `limit` sessions at a time."""

    def __cinit__(self, *, size_t limit=MOST_SESSIONS):
        if not 0 < limit <= MOST_SESSIONS:
            raise ValueError(f"from 1 to {MOST_SESSIONS} sessions")
        self.limit = limit

    def __dealloc__(self):
        if self.lines is not None:
            self.close()

    def audit(self) -> int:
        """Counts of wants that are not what counting anew says: none. For tests in virtual time; takes long."""
        cdef size_t i
        cdef size_t wrong = 0
        for i in range(self.count):
            wrong += wants_audit(self.sessions[i])
        return wrong

    # -- the Sender interface ----------------------------------------------------------------------------------------

    cdef void receive(self, const uint8_t *data, size_t size, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef uint8_t kind = 0
        cdef uint64_t id = 0
        cdef CastReport report
        cdef Session *s
        cdef int reason = cast_peek(data, size, &kind, &id)
        if reason == CAST_OK and kind != CAST_REPORT:
            reason = DROP_NOT_A_REPORT
        if reason != CAST_OK:
            self._drop(reason)
            return
        s = self._find(id)
        if s is NULL:
            self._drop(DROP_NO_SESSION)
            return
        reason = cast_get_report(data, size, &s.wire, &report)
        if reason != CAST_OK:
            self._drop(reason)
            return
        self._report(s, &report, path, now)

    cdef void command(self, Command *command, uint64_t now) noexcept nogil:
        cdef CastCommand c
        cdef Session *s
        if command.kind != COMMAND_OWN or command.size != sizeof(c):
            return
        memcpy(&c, command.text, sizeof(c))
        s = self._find(c.session.session)
        if c.verb == VERB_OPEN:
            self._open(command, &c, now)
        elif s is not NULL:
            self._direct(s, &c, now)

    cdef void on_timer(self, uint64_t now) noexcept nogil:
        cdef size_t i = 0
        cdef Session *s
        while i < self.count:
            s = self.sessions[i]
            if s.closed_at and now - s.closed_at >= LINGER:
                self._end(i)
                continue
            if s.send_at <= now:
                self._wake(s)
            if s.quiet_until <= now and s.quiet_until:
                s.quiet_until = 0
                self._wake(s)
            if s.check_at <= now:
                self._check(s, now)
            i += 1

    cdef uint64_t next_timer(self) noexcept nogil:
        cdef uint64_t at = self.lines.wake_at()
        cdef size_t i
        cdef Session *s
        for i in range(self.count):
            s = self.sessions[i]
            at = min(at, min(s.send_at, s.check_at))
            if s.quiet_until:
                at = min(at, s.quiet_until)
        return at

    cdef bint fill(self, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef Session *s
        cdef size_t i
        while self.ended is not NULL:  # what they had in the last batch has left
            s = self.ended
            self.ended = s.after
            self._tell(TELL_CLOSED, s.wire.session, 0, 0)
            session_free(s)
        for i in range(self.count):
            session_clear_spent(self.sessions[i])
        self.lines.rotate()
        self._fill_answers(batch)
        while True:
            if not pxed_batch_has_room(batch, CAST_HEADER):
                return True
            s = <Session *>self.lines.next(now)
            if s is NULL:
                return self.answer_count != 0
            self._turn(s, batch, now)

    cdef void unsent(self, const pxed_batch *batch) noexcept nogil:
        cdef unsigned int i
        cdef const iovec *piece
        for i in range(batch.unsent):
            piece = batch.unsent_piece[i]
            self._unsent(<const uint8_t *>piece[0].iov_base, piece[0].iov_len + piece[1].iov_len)

    cdef void close(self) noexcept nogil:
        cdef Session *s
        while self.count:
            self._end(0)
        while self.ended is not NULL:
            s = self.ended
            self.ended = s.after
            session_free(s)
        self.lines.clear()
        self.answer_count = 0

    cdef dict statistics(self):
        return counters_dict(&self.counters, self.count)

    cdef object record(self, Event *event):
        return record_of(event)

    # -- orders of the control plane ---------------------------------------------------------------------------------

    cdef Session *_find(self, uint64_t id) noexcept nogil:
        cdef size_t i
        for i in range(self.count):
            if self.sessions[i].wire.session == id:
                return self.sessions[i]
        return NULL

    cdef void _open(self, Command *command, const CastCommand *c, uint64_t now) noexcept nogil:
        cdef Session *s
        if self._find(c.session.session) is not NULL:
            self._tell(TELL_REFUSED, c.session.session, 0, EEXIST)
            return
        if self.count == self.limit:
            self._tell(TELL_REFUSED, c.session.session, 0, ENOSPC)
            return
        s = session_new(&c.session, <pxed_cast_source *>command.thing)
        if s is NULL:
            self._tell(TELL_REFUSED, c.session.session, 0, ENOMEM)
            return
        s.group = c.group
        s.period = c.period
        s.held = c.held
        session_set_rate(s, c.rate)
        self.sessions[self.count] = s
        self.count += 1
        self.counters.opened += 1
        s.mark = CAST_ALIVE
        s.check_at = now + CHECK
        self._wake(s)

    cdef void _direct(self, Session *s, const CastCommand *c, uint64_t now) noexcept nogil:
        cdef Receiver *r
        cdef uint32_t receivers = s.receiver_count
        if c.verb == VERB_ASK:
            self._list(s, c.first, now)
        elif c.verb == VERB_CLOSE:
            if not s.closed_at:
                session_close(s, max(now, <uint64_t>1))
        elif c.verb == VERB_RATE:
            session_set_rate(s, c.rate)
            self._wake(s)
        elif c.verb == VERB_HOLD:
            s.held = c.held
            self._wake(s)
        elif c.verb == VERB_ADMIT:
            if receiver_admit(s, c.receiver, c.address) is NULL:
                self._tell(TELL_REFUSED, s.wire.session, c.receiver, ENOSPC)
            self.counters.receivers += s.receiver_count - receivers
        elif c.verb == VERB_DIRECT:
            r = receiver_find(s, c.receiver)
            if r is not NULL:
                receiver_direct(s, r, c.order, c.reason)
                self._wake(s)

    cdef void _tell(self, TellingKind kind, uint64_t session, uint64_t value, uint32_t error) noexcept nogil:
        cdef Telling telling
        cdef pxed_path nobody
        memset(&telling, 0, sizeof(telling))
        memset(&nobody, 0, sizeof(nobody))
        telling.kind = kind
        telling.session = session
        telling.value = value
        telling.error = error
        self.add_event(EVENT_OWN, session, &nobody, <const uint8_t *>&telling, sizeof(telling))

    cdef void _list(self, const Session *s, uint32_t first, uint64_t now) noexcept nogil:
        cdef ListingFigures listing
        cdef pxed_path nobody
        cdef size_t size = list_session(s, first, &listing, now)
        memset(&nobody, 0, sizeof(nobody))
        self.add_event(EVENT_OWN, s.wire.session, &nobody, <const uint8_t *>&listing, size)

    cdef void _end(self, size_t i) noexcept nogil:
        # Freed when the batch that may hold parts of it has left.
        cdef Session *s = self.sessions[i]
        self.lines.remove(&s.share)
        self.counters.receivers -= s.receiver_count
        self.count -= 1
        self.sessions[i] = self.sessions[self.count]
        s.after = self.ended
        self.ended = s

    # -- what comes in -----------------------------------------------------------------------------------------------

    cdef void _report(self, Session *s, const CastReport *report, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef Receiver *r = receiver_find(s, report.receiver)
        cdef int reason
        if s.closed_at:
            self._answer(s, report, path, CAST_ORDER_CLOSED, CAST_WHY_CLOSING)
            return
        reason = report_take(s, r, report, path, now)
        if reason != CAST_OK:
            self._drop(reason)
            if reason == DROP_RECEIVER:
                self._answer(s, report, path, CAST_ORDER_UNKNOWN, CAST_WHY_UNKNOWN)
            return
        self.counters.received += report.part == 0
        if r.order and not (r.order == CAST_ORDER_HTTP and r.flags & (CAST_LEAVING | CAST_TAKES_HTTP)):
            self._answer(s, report, path, r.order, r.reason)
        self._wake(s)

    cdef void _answer(self, const Session *s, const CastReport *report, const pxed_path *path, uint8_t order,
                      uint8_t reason) noexcept nogil:
        cdef Answer *answer
        if report.part != 0 or self.answer_count == MOST_ANSWERS:
            return
        answer = &self.answers[self.answer_count]
        self.answer_count += 1
        answer.wire = s.wire
        answer.path = path[0]
        answer.order.receiver = report.receiver
        answer.order.number = report.number
        answer.order.order = order
        answer.order.reason = reason

    cdef void _drop(self, int reason) noexcept nogil:
        self.counters.drop[reason] += 1

    # -- time --------------------------------------------------------------------------------------------------------

    cdef void _wake(self, Session *s) noexcept nogil:
        s.send_at = UINT64_MAX
        self.lines.add(&s.share, s, s.group.socket)

    cdef void _check(self, Session *s, uint64_t now) noexcept nogil:
        s.check_at = now + CHECK
        if s.closed_at:
            return
        session_check(s, now)
        if s.wanted_count and now >= s.hurry_at and session_has_finishers(s):
            s.mark = CAST_REPORT_NOW
            s.hurry_at = now + HURRY * _spread(session_live(s)) * MS
        elif now - s.said_at >= CHECK:
            s.mark = CAST_ALIVE
        else:
            return
        self._wake(s)

    # -- what goes out -----------------------------------------------------------------------------------------------

    cdef void _fill_answers(self, pxed_batch *batch) noexcept nogil:
        cdef uint8_t order[CAST_HEADER]
        cdef Answer *answer
        while self.answer_count and pxed_batch_has_room(batch, CAST_HEADER):
            self.answer_count -= 1
            answer = &self.answers[self.answer_count]
            cast_put_order(order, &answer.wire, &answer.order)
            pxed_batch_add(batch, &answer.path, order, CAST_HEADER, NULL, 0)
            self.counters.orders += 1

    cdef void _fill_mark(self, Session *s, pxed_batch *batch, uint64_t now) noexcept nogil:
        # Those that ask go out twice: a lost one costs more than 36 bytes.
        cdef uint8_t bytes[CAST_HEADER]
        cdef CastMark mark
        cdef int _i
        mark.sequence = <uint32_t>s.sequence
        mark.live = session_live(s)
        mark.period = s.period
        mark.spread = _spread(mark.live)
        mark.kind = s.mark
        cast_put_mark(bytes, &s.wire, &mark)
        for _i in range(2 if s.mark == CAST_REPORT_NOW else 1):
            if pxed_batch_has_room(batch, CAST_HEADER):
                pxed_batch_add(batch, &s.group, bytes, CAST_HEADER, NULL, 0)
                s.marks += 1
                self.counters.marks += 1
        s.mark = 0
        s.said_at = now

    cdef void _turn(self, Session *s, pxed_batch *batch, uint64_t now) noexcept nogil:
        cdef bint run = False      # the last message takes more symbols
        cdef unsigned int sent = 0
        cdef uint32_t size
        cdef Job *job
        while sent < RUN and pxed_batch_has_room(batch, CAST_HEADER):
            if s.mark:
                self._fill_mark(s, batch, now)
                run = False
            job = job_choose(s, now)
            if s.failed:
                self._tell_failed(s)
                continue
            if job is NULL:
                if self._repair_goes_on(s, now) or s.mark:
                    continue
                break
            size = cast_symbol_size(job.stored, s.wire.symbol, job.symbols, job.next)
            if not self._may_send(s, size, now):
                break
            run = self._fill_symbol(s, job, size, run, batch, now)
            sent += 1
        else:
            self.lines.add(&s.share, s, s.group.socket)
        self.lines.charge(&s.share, sent)

    cdef bint _may_send(self, Session *s, uint32_t size, uint64_t now) noexcept nogil:
        # If not, it is known when to go on.
        if not pxed_pacer_take(&s.pacer, size, now):
            s.send_at = pxed_pacer_ready_at(&s.pacer)
            return False
        if not self.lines.may_send(&s.group, CAST_HEADER + size, now):
            pxed_pacer_give_back(&s.pacer, size)
            self.lines.put_back(&s.share, s, s.group.socket)
            return False
        return True

    cdef bint _fill_symbol(self, Session *s, Job *job, uint32_t size, bint run, pxed_batch *batch, uint64_t now
                           ) noexcept nogil:
        # The next symbol of a job, in the last message if that is a `run` of whole ones. Whether it can go on then.
        cdef uint8_t header[CAST_HEADER]
        cdef CastData data
        cdef const uint8_t *payload
        s.sequence += 1
        data.sequence = <uint32_t>s.sequence
        data.chunk = job.chunk
        data.stored = job.stored
        data.number = job.next
        data.symbols = job.symbols
        cast_put_data(header, &s.wire, &data)
        if job.next < job.symbols:
            payload = pxed_cast_frame_data(s.source, job.chunk) + <size_t>job.next * s.wire.symbol
            s.repaired += job == &s.repair
            self.counters.repaired += job == &s.repair
        else:
            payload = job.made.symbols + <size_t>job.parity * s.wire.symbol
            job.parity += 1
            s.parity += 1
            self.counters.parity += 1
        if not run or not pxed_batch_extend(batch, header, CAST_HEADER, payload, size):
            pxed_batch_add(batch, &s.group, header, CAST_HEADER, payload, size)
        s.sent += 1
        s.bytes += size
        s.said_at = now
        self.counters.data += 1
        self.counters.bytes += size
        job_sent(s, job, now)
        return size == s.wire.symbol

    cdef void _unsent(self, const uint8_t *header, size_t size) noexcept nogil:
        # A symbol with its header. Its sequence number is gone, a datagram lost: later ones are on their way already.
        cdef uint8_t kind = 0
        cdef uint64_t id = 0
        cdef CastData data
        cdef Session *s
        self.counters.data -= 1
        self.counters.bytes -= size - CAST_HEADER
        cast_peek(header, size, &kind, &id)
        s = self._find(id)
        if s is NULL or cast_get_data(header, size, &s.wire, &data) != CAST_OK:
            return  # it has ended meanwhile
        s.sent -= 1
        s.bytes -= data.size
        if s.repair.symbols and s.repair.chunk == data.chunk:
            s.repaired -= 1
            self.counters.repaired -= 1
        job_unsent(s, data.chunk)
        if s.failed:
            self._tell_failed(s)

    cdef void _tell_failed(self, Session *s) noexcept nogil:
        self.counters.unreadable += 1
        self._tell(TELL_UNREADABLE, s.wire.session, s.failed - 1, pxed_cast_frame_error(s.source, s.failed - 1))
        s.failed = 0

    cdef bint _repair_goes_on(self, Session *s, uint64_t now) noexcept nogil:
        # Nothing is to be sent for now. Whether that has changed; if not, the group may have to be asked.
        cdef bint expired
        if s.held or s.closed_at or s.wanted_count or ring_first(&s.ready) is not NULL:
            return False  # the last two wait for the disk
        expired = s.asks and not s.quiet_until
        if expired:
            session_give_up_waiting(s)
        if session_all_heard(s, now) or (expired and ring_first(&s.waiting) is not NULL):
            s.asks = 0
            s.quiet_until = 0
            repairs_promote_all(s)
            return ring_first(&s.ready) is not NULL
        if s.quiet_until and s.floor < s.asked_at:
            return False  # answers are on their way
        if s.asked_at != s.sequence:
            s.asked_at = s.sequence
            s.asks = 0
        if s.asks < MOST_ASKS:
            s.asks += 1
            s.mark = CAST_REPORT_NOW
            s.quiet_until = now + _spread(session_live(s)) * MS + GRACE
        return False
