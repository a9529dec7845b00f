"""CastAssembler: the receiver of a cast session without its sockets, and where all transports' bytes come together."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport UINT64_MAX, uint16_t
from libc.string cimport memcpy, memset

from pxed._ext.blocks cimport bits_run, bits_to_octets
from pxed._ext.cast cimport (
    CAST_DATA, CAST_DONE, CAST_LEAVING, CAST_MARK, CAST_OK, CAST_ORDER, CAST_REPORT_LARGEST, CAST_REPORT_NOW,
    CAST_SYMBOL, CAST_SYMBOL_WORDS, CAST_TAKES_HTTP, CAST_TYPE, CastReport, cast_get_data, cast_get_mark,
    cast_get_order, cast_peek,
)
from pxed._ext.cast_frames cimport NO_FRAME, CastFrames, CastLayout, Partial, frame_of
from pxed._ext.cast_image cimport FATE_COMPLETE, FATE_REFUSED, FATE_TAKEN, CastFate, CastImage, check_symbol
from pxed._ext.cast_sequence cimport sequence_expected, sequence_heard, sequence_sent

from pxed._ext.cast import REASONS

cimport cython

cdef enum:
    MS = 1_000_000
    RATED = 200 * MS         # the least time over which the disk's rate is measured
    LAPSE = 3                # reports that an order must answer one of
    STALE = 16               # an order that answers a report older than that is none
    MERGE = 64               # bytes that are fetched needlessly rather than a range more

cdef double SECOND = 1e9

# What became of DATA, in the order of CastFate.
FATES = ("taken", "duplicate", "unwanted", "refused")


cdef uint64_t _ns(double seconds) noexcept nogil:
    return <uint64_t>(seconds * SECOND + 0.5)  # what `next_timer` said must come back as the same nanosecond


@cython.no_gc_clear
cdef class CastAssembler:
    """What one receiver has of one image, and what it tells the server. Times are seconds of one clock.

    have: bit i of byte i // 8, LSB first, is set for each frame that need not travel. memory: bytes of incomplete
    frames at most. queue: bytes of complete frames that are not `done` yet, beyond which no frame is begun. symbol: its
    size until a session says another. seed: of the random phase of its reports. keep: False counts symbols without
    keeping their bytes (virtual sessions).

    Any thread may call any method at any time, and only `take` waits. Raises ValueError for a bitmap or limits that do
    not fit the layout.
    """

    def __cinit__(self, CastLayout layout, have=b"", *, size_t memory=256 << 20, uint64_t queue=64 << 20,
                  uint32_t symbol=CAST_SYMBOL, uint64_t seed=0, bint keep=True):
        pxed_fair_init(&self.lock)
        self.image = CastImage(layout, have, memory, queue, symbol, keep)
        self.talk = CastReports(seed)

    def __dealloc__(self):
        pxed_fair_destroy(&self.lock)

    # -- the session ---------------------------------------------------------------------------------------------------

    cdef void join_session(self, const CastSession *session, uint32_t receiver, uint64_t period, uint64_t now
                           ) noexcept nogil:
        self.image.cut(session.symbol)
        self.session = session[0]
        self.active = True
        self.told_done = False
        memset(&self.sequence, 0, sizeof(Sequence))
        memset(&self.last_order, 0, sizeof(CastOrder))
        self.heard_at = 0
        self.rated_at = now
        self.rated = self.image.written_bytes
        self.talk.begin(session, receiver, period, now)

    cdef void leave_session(self, uint64_t now) noexcept nogil:
        if self.active:
            self.active = False
            self._report(now)
            self.talk.end()

    cdef void hear(self, const uint8_t *data, size_t size, uint64_t now) noexcept nogil:
        cdef uint8_t kind = 0
        cdef uint64_t session = 0
        cdef CastData d
        cdef CastMark m
        cdef CastOrder o
        cdef int reason
        if not self.active:
            self.counters.unheard += 1
            return
        reason = cast_peek(data, size, &kind, &session)
        if reason == CAST_OK:
            reason = CAST_TYPE
            if kind == CAST_DATA:
                reason = cast_get_data(data, size, &self.session, &d)
                if reason == CAST_OK:
                    self.hear_data(&d, now)
            elif kind == CAST_MARK:
                reason = cast_get_mark(data, size, &self.session, &m)
                if reason == CAST_OK:
                    self.hear_mark(&m, now)
            elif kind == CAST_ORDER:
                reason = cast_get_order(data, size, &self.session, &o)
                if reason == CAST_OK:
                    self.hear_order(&o)
        if reason != CAST_OK:
            self.counters.dropped[reason] += 1

    cdef void hear_data(self, const CastData *data, uint64_t now) noexcept nogil:
        cdef CastFate fate
        if data.chunk >= self.image.count or data.stored != self.image.frames.layout.lengths[data.chunk]:
            self.counters.other_layout += 1
            return
        self.heard_at = now
        if not sequence_heard(&self.sequence, data.sequence):
            self.counters.repeated += 1
        fate = self.image.add(data.chunk, data.number, data.payload)
        if fate == FATE_COMPLETE:
            pxed_fair_tell(&self.lock)
            fate = FATE_TAKEN
        self.counters.fates[<int>fate] += 1

    cdef void hear_mark(self, const CastMark *mark, uint64_t now) noexcept nogil:
        self.heard_at = now
        self.counters.marks += 1
        sequence_sent(&self.sequence, mark.sequence)
        self.talk.set_clock(mark.period * <uint64_t>MS, mark.spread * <uint64_t>MS, now)
        if mark.kind == CAST_REPORT_NOW:
            self.talk.ask(now)

    cdef void hear_order(self, const CastOrder *order) noexcept nogil:
        if order.receiver != self.talk.receiver or self.talk.number - order.number >= STALE:
            self.counters.foreign += 1
            return
        self.counters.orders += 1
        self.last_order = order[0]

    cdef size_t speak(self, uint8_t *out, uint64_t now) noexcept nogil:
        cdef size_t size = self.talk.next_part(out)
        if self._has_news():
            self.told_done = True
            self.talk.ask(now)
        if size == 0 and self.active and now >= self.talk.due():
            self._report(now)
            size = self.talk.next_part(out)
        if size:
            self.counters.reports += 1
        return size

    cdef uint64_t due(self) noexcept nogil:
        return 0 if self._has_news() else self.talk.due()

    cdef bint _has_news(self) noexcept nogil:
        return self.active and self.image.undone == 0 and not self.told_done

    cdef void _report(self, uint64_t now) noexcept nogil:
        cdef CastReport head
        memset(&head, 0, sizeof(head))
        self._rate(now)
        if self.image.undone:
            self.told_done = False
        head.flags = ((CAST_DONE if self.image.undone == 0 else 0) | (0 if self.active else CAST_LEAVING)
                      | (CAST_TAKES_HTTP if self.http else 0))
        head.highest = self.sequence.highest
        head.received = self.sequence.received
        head.expected = sequence_expected(&self.sequence)
        head.written = self.image.count - self.image.undone
        head.wrong = <uint32_t>self.image.wrong
        head.disk_rate = self.disk_rate
        head.disk_queue = <uint16_t>min(self.image.queued * 1000 // self.image.queue, <uint64_t>1000)
        head.refused = <uint32_t>self.counters.fates[<int>FATE_REFUSED]
        self.talk.build(self.image.frames, self.image.asks(), &head, now)
        if self.talk.number - self.last_order.number > LAPSE:
            self.last_order.order = self.last_order.reason = 0

    cdef void _rate(self, uint64_t now) noexcept nogil:
        cdef uint64_t time = now - self.rated_at
        cdef uint64_t written = self.image.written_bytes
        cdef uint32_t rate
        if time >= RATED:
            rate = <uint32_t>min((written - self.rated) * (SECOND / 1024) / time, <double>0xffffffff)
            self.disk_rate = rate if self.disk_rate == 0 else self.disk_rate // 2 + rate // 2
            self.rated = written
            self.rated_at = now

    # -- as Python sees it: each of these holds the lock, and waits for it without the GIL ---------------------------

    @property
    def left(self) -> int:
        """Frames that are not done. 0: the image is complete."""
        return self.image.undone

    @property
    def full(self) -> bool:
        """Whether no frame would be begun now, as the queue is full."""
        return self.image.queued >= self.image.queue

    def begin(self, uint64_t session, bytes key, uint32_t receiver, double now, *, uint32_t symbol=CAST_SYMBOL,
              double period=1.0) -> None:
        """Take part in a session from now on, in place of any before.

        What is here stays; of incomplete frames only if `symbol` is the same. Raises ValueError when the key has not 16
        bytes, or for a size of symbols or a period that cannot be.
        """
        cdef CastSession s
        check_symbol(self.image.frames.layout, symbol)
        if len(key) != sizeof(s.key) or not 0.001 <= period <= 60:
            raise ValueError("a key has 16 bytes, and reports are from a millisecond to a minute apart")
        s.session = session
        s.symbol = symbol
        memcpy(s.key, <const char *>key, sizeof(s.key))
        with nogil:
            pxed_fair_lock_it(&self.lock)
            self.join_session(&s, receiver, _ns(period), _ns(now))
            pxed_fair_unlock(&self.lock)

    def depart(self, double now) -> None:
        """Take no more part: `reports` has the last ones, which say so, and nothing is received from now on."""
        with nogil:
            pxed_fair_lock_it(&self.lock)
            self.leave_session(_ns(now))
            pxed_fair_unlock(&self.lock)

    def receive(self, data, double now) -> None:
        """A datagram from anybody: what is not the session's is counted, and changes nothing."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        with nogil:
            pxed_fair_lock_it(&self.lock)
            self.hear(<const uint8_t *>view.buf, view.len, _ns(now))
            pxed_fair_unlock(&self.lock)
        PyBuffer_Release(&view)

    def next_timer(self) -> float | None:
        """When `reports` has something next; None: never."""
        cdef uint64_t at
        with nogil:
            pxed_fair_lock_it(&self.lock)
            at = self.due()
            pxed_fair_unlock(&self.lock)
        return None if at == UINT64_MAX else at / SECOND

    def reports(self, double now) -> list:
        """The datagrams for the server that are due."""
        cdef uint8_t out[CAST_REPORT_LARGEST]
        cdef size_t size = 1
        found = []
        while size:
            with nogil:
                pxed_fair_lock_it(&self.lock)
                size = self.speak(out, _ns(now))
                pxed_fair_unlock(&self.lock)
            if size:
                found.append(out[:size])
        return found

    def take(self, double timeout=0.0) -> tuple | None:
        """The next complete frame with its ordinal, waited for up to `timeout` seconds; it is not wanted until `done`.

        None: there was none, or `close` was called.
        """
        cdef Partial *p
        cdef timespec until
        cdef bint waiting = timeout > 0
        with nogil:
            until = pxed_fair_until(timeout if waiting else 0)
            pxed_fair_lock_it(&self.lock)
            while waiting and self.image.first is NULL and not self.closed:
                waiting = pxed_fair_wait(&self.lock, &until)
            p = self.image.pop() if not self.closed else NULL
            pxed_fair_unlock(&self.lock)
        if p is NULL:
            return None
        cdef uint32_t ordinal = p.ordinal
        return ordinal, frame_of(p)

    def done(self, uint32_t ordinal, bint ok) -> None:
        """A frame is proved and written, whoever brought it: what else is here of it goes.

        Not ok: the one that was taken had wrong bytes, or one in `have` is not there; it is wanted again, whole.
        """
        self._check(ordinal)
        with nogil:
            pxed_fair_lock_it(&self.lock)
            self.image.finish(ordinal, ok)
            pxed_fair_unlock(&self.lock)

    def give(self, uint32_t ordinal, uint32_t offset, data) -> int:
        """Bytes of a frame from elsewhere (HTTP). A range may come in pieces cut anywhere, one behind the other.

        Returns how many bytes of whole symbols are new with it. A frame that is complete then is taken like any other.
        Raises ValueError outside of the frame, MemoryError.
        """
        cdef Py_buffer view
        cdef int64_t fresh = 0
        self._check(ordinal)
        cdef uint32_t stored = self.image.frames.layout.lengths[ordinal]
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if offset + <uint64_t>view.len > stored:
                raise ValueError(f"frame {ordinal} has {stored} bytes, not {offset}+{view.len}")
            with nogil:
                pxed_fair_lock_it(&self.lock)
                fresh = self._give(ordinal, offset, <const uint8_t *>view.buf, <uint32_t>view.len)
                pxed_fair_unlock(&self.lock)
        finally:
            PyBuffer_Release(&view)
        if fresh < 0:
            raise MemoryError
        return fresh

    cdef int64_t _give(self, uint32_t ordinal, uint32_t offset, const uint8_t *octets, uint32_t size) noexcept nogil:
        cdef int64_t fresh = 0
        if self.image.is_lacking(ordinal):
            fresh = self.image.add_bytes(ordinal, offset, octets, size)
            if fresh > 0:
                self.counters.given += fresh
            if not self.image.is_lacking(ordinal):
                pxed_fair_tell(&self.lock)
        return fresh

    def hold(self, ordinals) -> None:
        """These are being fetched otherwise: reports do not ask for them, though what passes is taken."""
        self._hold(ordinals, True)

    def release(self, ordinals) -> None:
        """End of `hold`."""
        self._hold(ordinals, False)

    def _hold(self, ordinals, bint on):
        cdef uint32_t ordinal
        for one in ordinals:
            self._check(one)
            ordinal = one
            with nogil:
                pxed_fair_lock_it(&self.lock)
                self.image.hold(ordinal, on)
                pxed_fair_unlock(&self.lock)

    def missing(self, uint32_t ordinal) -> list:
        """What is needed of a frame as [start, stop) bytes: whole symbols, gaps below 64 bytes closed.

        Empty when it is complete. Parity that is here counts: with the ranges the frame is complete.
        """
        cdef uint64_t words[CAST_SYMBOL_WORDS]
        cdef uint32_t symbols, symbol
        cdef size_t begin = 0
        cdef size_t stop = 0
        self._check(ordinal)
        cdef size_t stored = self.image.frames.layout.lengths[ordinal]
        with nogil:
            pxed_fair_lock_it(&self.lock)
            symbol = self.image.frames.symbol
            symbols = self.image.needed(ordinal, words)
            pxed_fair_unlock(&self.lock)
        ranges, before = [], 0
        while bits_run(words, symbols, &begin, &stop):
            first, last = begin * symbol, min(stop * symbol, stored)
            if ranges and first - before < MERGE:
                first = ranges.pop()[0]
            ranges.append((first, last))
            before = last
            begin = stop
        return ranges

    def partials(self) -> list:
        """Frames of which something is here, ascending."""
        cdef CastFrames frames = self.image.frames
        cdef uint32_t at = 0
        cdef size_t place
        found = []
        while at != NO_FRAME:
            with nogil:
                pxed_fair_lock_it(&self.lock)
                place = frames.place(at)
                at = frames.table[place].ordinal if place < frames.count else <uint32_t>NO_FRAME
                pxed_fair_unlock(&self.lock)
            if at != NO_FRAME:
                found.append(at)
                at += 1
        return found

    def have(self) -> bytes:
        """The bitmap of what is done, as the constructor takes it."""
        out = bytearray((self.image.count + 7) // 8)
        cdef uint8_t *octets = <uint8_t *><char *>out
        with nogil:
            pxed_fair_lock_it(&self.lock)
            bits_to_octets(self.image.finished, self.image.count, octets)
            pxed_fair_unlock(&self.lock)
        return bytes(out)

    def order(self) -> tuple:
        """The server's order and its reason; (0, 0): none. One that three reports were not answered with has lapsed."""
        cdef CastOrder order
        with nogil:
            pxed_fair_lock_it(&self.lock)
            order = self.last_order
            pxed_fair_unlock(&self.lock)
        return order.order, order.reason

    def figures(self) -> dict:
        """Counters since it was made, and gauges; datagrams that were refused as `drop.REASON`."""
        cdef CastImage image = self.image
        cdef CastCounters c
        cdef Sequence s
        cdef int i
        with nogil:
            pxed_fair_lock_it(&self.lock)
            c = self.counters
            s = self.sequence
            pxed_fair_unlock(&self.lock)
        found = {
            "received": s.received, "expected": sequence_expected(&s), "highest": s.highest, "repeated": c.repeated,
            "marks": c.marks, "orders": c.orders, "reports": c.reports, "given": c.given, "frames": image.completed,
            "written": image.written, "wrong": image.wrong, "left": image.undone, "evicted": image.evicted,
            "queued": image.queued, "partials": image.frames.count, "memory": image.frames.used,
            "disk_rate": self.disk_rate, "drop.layout": c.other_layout, "drop.receiver": c.foreign,
            "drop.idle": c.unheard,
        }
        for i, name in enumerate(FATES):
            found[name] = c.fates[i]
        for i, name in enumerate(REASONS[1:], 1):
            found["drop." + name] = c.dropped[i]
        return found

    def close(self) -> None:
        """Wake every `take`, which returns None from now on."""
        with nogil:
            pxed_fair_lock_it(&self.lock)
            self.closed = True
            pxed_fair_tell_all(&self.lock)
            pxed_fair_unlock(&self.lock)

    cdef int _check(self, ordinal) except -1:
        if not 0 <= ordinal < self.image.count:
            raise ValueError(f"no frame {ordinal}: there are {self.image.count}")
        return 0
