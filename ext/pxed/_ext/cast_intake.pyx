"""What a report says of its receiver, and when it is believed.

A report is a snapshot: its parts come in any order, some may be lost, and a newer one replaces it. Nothing of a part
that is refused is kept. Counters are the receiver's own, mod 2**32; nothing depends on their being true but what is
shown and the receiver's own lot.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from pxed._ext.cast cimport CAST_OK, CAST_WHOLE, CastWant, CastWants, cast_next_want, cast_wants
from pxed._ext.cast_session cimport receiver_forget_wants, receiver_is_live
from pxed._ext.cast_wants cimport wants_fit, wants_merge
from pxed._ext.linux_net cimport pxed_path_is_v6, pxed_path_v4

cdef enum:
    SMOOTHING = 16               # reports that the mean loss of a session remembers
    LEAST_EXPECTED = 32          # DATA, for their loss to mean something; more, and nothing heard: deaf

cdef double MOST_LOSS = 0.5


cdef uint32_t _address(const pxed_path *path) noexcept nogil:
    cdef uint32_t address
    memcpy(&address, pxed_path_v4(path), 4)
    return 0 if pxed_path_is_v6(path) else address


cdef int report_take(Session *s, Receiver *r, const CastReport *report, const pxed_path *path, uint64_t now
                     ) noexcept nogil:
    cdef uint32_t ahead = <uint32_t>s.sequence - report.highest   # DATA sent since, mod 2**32
    cdef bint nothing = report.received == 0 and report.highest == 0   # has it heard
    cdef bint new
    if r is NULL:
        return DROP_RECEIVER
    if r.address != _address(path):
        return DROP_ADDRESS
    new = not r.heard or r.anew or (report.number != r.report and report.number - r.report < <uint32_t>1 << 31)
    if not new and report.number != r.report:
        return DROP_STALE
    if not new and r.parts >> report.part & 1:
        return DROP_REPEATED
    if not nothing and ahead > s.sequence:
        return DROP_FUTURE
    if not wants_fit(s, report):
        return DROP_CHUNKS
    if new:
        _take_header(s, r, report, now)
        r.deaf = nothing and s.sequence - r.admitted > LEAST_EXPECTED
        r.highest = r.admitted if nothing else s.sequence - ahead
    r.parts |= <uint32_t>1 << report.part
    _count(r, report)
    s.floor_stale = True
    s.promote_at = 0
    if receiver_is_live(r):
        wants_merge(s, r, report, r.highest)
    else:
        receiver_forget_wants(s, r)
    return CAST_OK


cdef void _take_header(Session *s, Receiver *r, const CastReport *report, uint64_t now) noexcept nogil:
    cdef uint32_t expected = report.expected - r.expected
    cdef uint32_t received = report.received - r.received
    r.loss = -1
    if expected >= LEAST_EXPECTED and expected < <uint32_t>1 << 31:
        r.loss = 1 - <double>min(received, expected) / expected
        s.loss += (min(r.loss, MOST_LOSS) - s.loss) / SMOOTHING
    r.refused_lately = report.refused - r.refused if r.heard else 0
    r.heard = True
    r.anew = False
    r.silent = False
    r.mute = 0
    r.heard_at = now
    r.report = report.number
    r.parts = 0
    r.counting = 0
    r.flags = report.flags
    r.received = report.received
    r.expected = report.expected
    r.written = report.written
    r.wrong = report.wrong
    r.disk_rate = report.disk_rate
    r.disk_queue = report.disk_queue
    r.refused = report.refused
    s.reports += 1


cdef void _count(Receiver *r, const CastReport *report) noexcept nogil:
    # Chunks that it wants; known when all parts have come.
    cdef CastWants wants = cast_wants(report)
    cdef CastWant want
    while cast_next_want(&wants, &want):
        r.counting += want.count if want.kind == CAST_WHOLE else 1
    if r.parts == <uint32_t>(<uint64_t>0xffffffff >> (32 - report.parts)):
        r.wanted = r.counting
