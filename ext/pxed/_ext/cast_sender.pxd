"""CastSender: multicast image sessions. The rules are at the head of cast_sender.pyx."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.cast cimport CastOrder, CastReport, CastSession
from pxed._ext.cast_events cimport CastCommand
from pxed._ext.cast_figures cimport Counters, TellingKind
from pxed._ext.cast_session cimport Job, Session
from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.sender cimport Command, Sender

cdef enum:
    MOST_SESSIONS = 64
    MOST_ANSWERS = 256               # ORDERs that wait for a batch; whom more would be for reports again


cdef struct Answer:
    CastSession wire
    CastOrder order
    pxed_path path


cdef class CastSender(Sender):
    cdef Session *sessions[MOST_SESSIONS]
    cdef size_t count
    cdef size_t limit
    cdef Session *ended
    cdef Answer answers[MOST_ANSWERS]
    cdef size_t answer_count
    cdef Counters counters

    # orders of the control plane
    cdef Session *_find(self, uint64_t id) noexcept nogil
    cdef void _open(self, Command *command, const CastCommand *c, uint64_t now) noexcept nogil
    cdef void _direct(self, Session *s, const CastCommand *c, uint64_t now) noexcept nogil
    cdef void _tell(self, TellingKind kind, uint64_t session, uint64_t value, uint32_t error) noexcept nogil
    cdef void _list(self, const Session *s, uint32_t first, uint64_t now) noexcept nogil
    cdef void _end(self, size_t i) noexcept nogil
    # what comes in
    cdef void _report(self, Session *s, const CastReport *report, const pxed_path *path, uint64_t now) noexcept nogil
    cdef void _answer(self, const Session *s, const CastReport *report, const pxed_path *path, uint8_t order,
                      uint8_t reason) noexcept nogil
    cdef void _drop(self, int reason) noexcept nogil
    # time
    cdef void _check(self, Session *s, uint64_t now) noexcept nogil
    cdef void _wake(self, Session *s) noexcept nogil
    # what goes out
    cdef void _fill_answers(self, pxed_batch *batch) noexcept nogil
    cdef void _fill_mark(self, Session *s, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef void _turn(self, Session *s, pxed_batch *batch, uint64_t now) noexcept nogil
    cdef bint _fill_symbol(self, Session *s, Job *job, uint32_t size, bint run, pxed_batch *batch, uint64_t now
                           ) noexcept nogil
    cdef void _unsent(self, const uint8_t *header, size_t size) noexcept nogil
    cdef void _tell_failed(self, Session *s) noexcept nogil
    cdef bint _may_send(self, Session *s, uint32_t size, uint64_t now) noexcept nogil
    cdef bint _repair_goes_on(self, Session *s, uint64_t now) noexcept nogil
