"""What a receiver tells the server, and when. One thread at a time: whoever has it locks it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.cast cimport CAST_MOST_PARTS, CastReport, CastReportWriter, CastSession
from pxed._ext.cast_frames cimport CastFrames

cdef class CastReports:
    cdef CastSession session
    cdef uint32_t receiver
    cdef uint32_t number             # of the last report
    cdef uint64_t period             # ns
    cdef uint64_t spread             # ns
    cdef uint64_t periodic           # when the next one is due by its period; UINT64_MAX: takes part in no session
    cdef uint64_t prompt             # when one is due that something asked for
    cdef uint64_t random
    cdef uint32_t cursor             # the frame where the next report begins
    cdef uint8_t *parts              # CAST_MOST_PARTS datagrams at most, each at a multiple of CAST_REPORT_LARGEST
    cdef uint32_t room               # parts that fit there
    cdef uint32_t ready              # parts of the last report
    cdef uint32_t sent
    cdef uint16_t size[CAST_MOST_PARTS]

    cdef void begin(self, const CastSession *session, uint32_t receiver, uint64_t period, uint64_t now) noexcept nogil
    cdef void end(self) noexcept nogil
    # A report is due within the spread.
    cdef void ask(self, uint64_t now) noexcept nogil
    cdef void set_clock(self, uint64_t period, uint64_t spread, uint64_t now) noexcept nogil
    cdef uint64_t due(self) noexcept nogil
    # Makes the report: `wanted` is a bit set of frames, `head` the counters and flags.
    cdef void build(self, CastFrames frames, const uint64_t *wanted, CastReport *head, uint64_t now) noexcept nogil
    # The next part into `out`, which has room for CAST_REPORT_LARGEST bytes; its size, 0: there is none.
    cdef size_t next_part(self, uint8_t *out) noexcept nogil
    cdef uint64_t _random_below(self, uint64_t bound) noexcept nogil
    cdef void _next_period(self, uint64_t now) noexcept nogil
    cdef bint _room_for(self, uint32_t parts) noexcept nogil
    cdef uint32_t _fill(self, CastReportWriter *w, CastFrames frames, const uint64_t *wanted, uint32_t at, uint32_t end
                        ) noexcept nogil
