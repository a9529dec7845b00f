"""What a receiver tells the server, and when (REPORT in pxed/wire/cast.py).

Every `period`, in a phase of its own, and within `spread` when the sender asks or the image is complete. A report
speaks of all frames from a cursor on, round to where it began, in as many parts as that takes; what does not fit in the
most parts there may be is said by the next one, which begins there.
"""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from pxed._ext.blocks cimport bits_next, bits_next_clear
from pxed._ext.cast cimport (
    CAST_MOST_SYMBOLS, CAST_REPORT_LARGEST, cast_report_begin, cast_report_end, cast_report_partial,
    cast_report_whole,
)

from pxed._ext.cast_frames cimport Partial, partial_is_hardly_begun

cimport cython

cdef enum:
    MS = 1_000_000

cdef uint64_t SPREAD = 100 * <uint64_t>MS    # until a MARK says another


@cython.final
@cython.no_gc
cdef class CastReports:
    """`seed`: of its phases."""

    def __cinit__(self, uint64_t seed):
        self.random = seed
        self.end()

    def __dealloc__(self):
        free(self.parts)

    cdef uint64_t _random_below(self, uint64_t bound) noexcept nogil:
        # SplitMix64. Times are below 2**44 ns: 20 bits are random enough.
        cdef uint64_t x
        self.random += <uint64_t>0x9e3779b97f4a7c15
        x = self.random
        x = (x ^ x >> 30) * <uint64_t>0xbf58476d1ce4e5b9
        x = (x ^ x >> 27) * <uint64_t>0x94d049bb133111eb
        return ((x ^ x >> 31) >> 44) * bound >> 20

    # -- when ----------------------------------------------------------------------------------------------------------

    cdef void begin(self, const CastSession *session, uint32_t receiver, uint64_t period, uint64_t now) noexcept nogil:
        self.session = session[0]
        self.receiver = receiver  # the number goes on: it may be the same session, which takes lower ones for old
        self.ready = self.sent = self.cursor = 0
        self.period = period
        self.spread = SPREAD
        self.periodic = now + self._random_below(period)
        self.prompt = UINT64_MAX
        self.ask(now)  # what it wants, soon

    cdef void end(self) noexcept nogil:
        self.periodic = self.prompt = UINT64_MAX

    cdef void ask(self, uint64_t now) noexcept nogil:
        cdef uint64_t at = now + self._random_below(self.spread + 1)
        if self.periodic != UINT64_MAX and at < self.prompt:
            self.prompt = at

    cdef void set_clock(self, uint64_t period, uint64_t spread, uint64_t now) noexcept nogil:
        self.spread = spread
        if period != self.period:
            self.period = period
            if self.periodic != UINT64_MAX:
                self.periodic = now + self._random_below(period)

    cdef uint64_t due(self) noexcept nogil:
        if self.sent < self.ready:
            return 0
        return min(self.periodic, self.prompt)

    # -- what ----------------------------------------------------------------------------------------------------------

    cdef void build(self, CastFrames frames, const uint64_t *wanted, CastReport *head, uint64_t now) noexcept nogil:
        cdef uint8_t out[CAST_MOST_PARTS * CAST_REPORT_LARGEST]
        cdef CastReportWriter writer[CAST_MOST_PARTS]
        cdef uint32_t begin[CAST_MOST_PARTS]
        cdef uint32_t stop[CAST_MOST_PARTS]
        cdef uint32_t count = frames.layout.frames
        cdef uint32_t at = self.cursor
        cdef uint32_t end = count
        cdef uint32_t parts = 0
        cdef uint32_t i
        self._next_period(now)
        self.ready = self.sent = 0
        while parts < CAST_MOST_PARTS:
            cast_report_begin(&writer[parts], out + parts * CAST_REPORT_LARGEST, CAST_REPORT_LARGEST)
            begin[parts] = at
            stop[parts] = at = self._fill(&writer[parts], frames, wanted, at, end)
            parts += 1
            if at == count and end == count and self.cursor:
                at, end = 0, self.cursor
            if at == end:
                break
        self.cursor = at if at != end else 0
        self.number += 1
        head.receiver = self.receiver
        head.number = self.number
        head.parts = <uint8_t>parts
        for i in range(parts):
            head.part = <uint8_t>i
            head.begin = begin[i]
            head.stop = stop[i]
            self.size[i] = <uint16_t>cast_report_end(&writer[i], &self.session, head)
        if self._room_for(parts):
            memcpy(self.parts, out, <size_t>parts * CAST_REPORT_LARGEST)
            self.ready = parts

    cdef void _next_period(self, uint64_t now) noexcept nogil:
        self.prompt = UINT64_MAX
        if self.periodic <= now:
            self.periodic += self.period
            if self.periodic <= now:  # it was late by more than a period
                self.periodic = now + self.period

    cdef bint _room_for(self, uint32_t parts) noexcept nogil:
        cdef uint8_t *wider
        if parts > self.room:
            wider = <uint8_t *>realloc(self.parts, <size_t>parts * CAST_REPORT_LARGEST)
            if wider is NULL:
                return False
            self.parts = wider
            self.room = parts
        return True

    cdef uint32_t _fill(self, CastReportWriter *w, CastFrames frames, const uint64_t *wanted, uint32_t at, uint32_t end
                        ) noexcept nogil:
        """Entries for the frames from `at` on until `end`, or until no more fit; where that is."""
        cdef uint64_t words[CAST_MOST_SYMBOLS >> 6]
        cdef size_t place = frames.place(at)
        cdef uint32_t stop, next_partial
        cdef Partial *p
        while True:
            at = <uint32_t>bits_next(wanted, end, at)
            if at >= end:
                return end
            while place < frames.count and (
                frames.table[place].ordinal < at or partial_is_hardly_begun(frames.table[place])
            ):
                place += 1
            next_partial = frames.table[place].ordinal if place < frames.count else end
            if next_partial == at:
                p = frames.table[place]
                frames.needed(p, words)
                if not cast_report_partial(w, at, words, p.symbols):
                    return at
                at += 1
            else:
                stop = <uint32_t>bits_next_clear(wanted, end, at)
                stop = min(stop, next_partial)
                if not cast_report_whole(w, at, stop - at):
                    return at
                at = stop

    cdef size_t next_part(self, uint8_t *out) noexcept nogil:
        cdef size_t size
        if self.sent >= self.ready:
            return 0
        size = self.size[self.sent]
        memcpy(out, self.parts + <size_t>self.sent * CAST_REPORT_LARGEST, size)
        self.sent += 1
        return size
