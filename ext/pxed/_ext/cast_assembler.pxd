"""CastAssembler at C level, for its socket thread and for virtual sessions. Times are ns of one clock.

The methods here lock nothing: a thread that shares the assembler with others holds `lock` meanwhile.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pxed._ext.cast cimport CAST_REASONS, CastData, CastMark, CastOrder, CastSession
from pxed._ext.cast_image cimport CastImage
from pxed._ext.cast_reports cimport CastReports
from pxed._ext.cast_sequence cimport Sequence

cdef extern from "fair_lock.h" nogil:
    ctypedef struct pxed_fair_lock:
        pass
    ctypedef struct timespec "struct timespec":
        pass

    void pxed_fair_init(pxed_fair_lock *lock)
    void pxed_fair_destroy(pxed_fair_lock *lock)
    void pxed_fair_lock_it(pxed_fair_lock *lock)
    void pxed_fair_unlock(pxed_fair_lock *lock)
    void pxed_fair_tell(pxed_fair_lock *lock)
    void pxed_fair_tell_all(pxed_fair_lock *lock)
    timespec pxed_fair_until(double seconds)
    bint pxed_fair_wait(pxed_fair_lock *lock, const timespec *until)


cdef struct CastCounters:
    uint64_t fates[4]            # what became of DATA, by CastFate
    uint64_t repeated            # DATA that the network doubled
    uint64_t marks
    uint64_t orders
    uint64_t reports             # datagrams of reports
    uint64_t given               # bytes of other transports that were new
    uint64_t foreign             # ORDERs for somebody else
    uint64_t other_layout        # DATA of frames that the image does not have
    uint64_t unheard             # datagrams while it takes part in no session
    uint64_t dropped[CAST_REASONS]


cdef class CastAssembler:
    cdef pxed_fair_lock lock
    cdef CastImage image         # frames: which are wanted, complete (pop, finish), done
    cdef CastReports talk
    cdef CastSession session
    cdef bint active             # takes part in a session
    cdef bint told_done          # has asked itself for the report that says that all is done
    cdef public bint http
    cdef bint closed
    cdef Sequence sequence
    cdef CastOrder last_order
    cdef uint64_t heard_at       # the group; 0: not yet
    cdef uint64_t rated_at       # when the disk's rate was measured last,
    cdef uint64_t rated          # bytes that were written by then
    cdef uint32_t disk_rate      # KiB/s
    cdef CastCounters counters

    cdef void join_session(self, const CastSession *session, uint32_t receiver, uint64_t period, uint64_t now
                           ) noexcept nogil
    # A last report is due at once; nothing is heard any more.
    cdef void leave_session(self, uint64_t now) noexcept nogil
    # A datagram of any kind, then those that are known to be good.
    cdef void hear(self, const uint8_t *data, size_t size, uint64_t now) noexcept nogil
    cdef void hear_data(self, const CastData *data, uint64_t now) noexcept nogil
    cdef void hear_mark(self, const CastMark *mark, uint64_t now) noexcept nogil
    cdef void hear_order(self, const CastOrder *order) noexcept nogil
    # The next datagram for the server into room for CAST_REPORT_LARGEST bytes; its size, 0: there is none now.
    cdef size_t speak(self, uint8_t *out, uint64_t now) noexcept nogil
    # When to call `speak`; UINT64_MAX: never.
    cdef uint64_t due(self) noexcept nogil
    cdef bint _has_news(self) noexcept nogil
    cdef void _report(self, uint64_t now) noexcept nogil
    cdef void _rate(self, uint64_t now) noexcept nogil
    cdef int64_t _give(self, uint32_t ordinal, uint32_t offset, const uint8_t *octets, uint32_t size) noexcept nogil
    cdef int _check(self, ordinal) except -1
