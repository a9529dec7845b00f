"""What a CastSender tells about itself: records of sessions and receivers, and its counters. No I/O."""

from pxed._ext.cast import REASONS

from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset

from pxed._ext.cast_session cimport Receiver, receiver_state, session_live

# In the order of the enumerations in cast_intake.pxd (those of the codec come first) and cast_session.pxd.
DROP_NAMES = (*REASONS, "not-a-report", "no-session", "receiver", "address", "stale", "repeated", "future", "chunks",
              "no-memory")
STATE_NAMES = ("admitted", "live", "silent", "listening", "http", "done", "left")


cdef void _list_receiver(const Receiver *r, ReceiverFigures *out, uint64_t now) noexcept nogil:
    out.loss = r.loss
    out.quiet = now - r.heard_at if r.heard else UINT64_MAX
    out.number = r.number
    memcpy(out.address, &r.address, 4)
    out.state = receiver_state(r)
    out.written = r.written
    out.wanted = r.wanted
    out.wrong = r.wrong
    out.received = r.received
    out.expected = r.expected
    out.refused = r.refused
    out.refused_lately = r.refused_lately
    out.disk_rate = r.disk_rate
    out.disk_queue = r.disk_queue
    out.flags = r.flags
    out.order = r.order
    out.reason = r.reason


cdef void _list_figures(const Session *s, SessionFigures *out) noexcept nogil:
    out.rate = s.pacer.rate
    out.sequence = s.sequence
    out.passes = s.passes
    out.sent = s.sent
    out.repaired = s.repaired
    out.parity = s.parity
    out.needed = s.needed
    out.bytes = s.bytes
    out.marks = s.marks
    out.reports = s.reports
    out.stale_wants = s.stale_wants
    out.loss = s.loss
    out.chunks = s.chunks
    out.wanted = s.wanted_count
    out.repairs = s.repairs
    out.unreadable = s.unreadable
    out.receivers = s.receiver_count
    out.live = session_live(s)
    out.held = s.held
    out.closing = s.closed_at != 0


cdef size_t list_session(const Session *s, uint32_t first, ListingFigures *out, uint64_t now) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t stop = <uint32_t>min(<uint64_t>first + LISTED, <uint64_t>s.receiver_count)
    cdef size_t beginning = sizeof(ListingFigures) - LISTED * sizeof(ReceiverFigures)
    memset(out, 0, beginning)
    out.telling.kind = TELL_LISTING
    out.telling.session = s.wire.session
    _list_figures(s, &out.session)
    for i in range(first, stop):
        _list_receiver(s.receivers[i], &out.receivers[i - first], now)
    out.telling.count = stop - first if stop > first else 0
    out.telling.after = stop if stop < s.receiver_count else 0
    return beginning + out.telling.count * sizeof(ReceiverFigures)


cdef dict counters_dict(const Counters *counters, size_t sessions):
    """Counters since the beginning and gauges; `drop.REASON` among them."""
    statistics = {
        "sessions": sessions,
        "receivers": counters.receivers,
        "opened": counters.opened,
        "reports": counters.received,
        "orders": counters.orders,
        "datagrams": counters.data,
        "bytes": counters.bytes,
        "repaired": counters.repaired,
        "parity": counters.parity,
        "marks": counters.marks,
        "unreadable": counters.unreadable,
    }
    statistics.update({f"drop.{name}": counters.drop[i] for i, name in enumerate(DROP_NAMES) if i})
    return statistics
