"""Sessions and receivers of a CastSender: who is there, who is waited for, and what they are told. No I/O, no policy.

- A receiver counts from the address that it was admitted with. It is live from its first report on, while it is heard.
- Nobody is waited for: who has not reported for SILENCE has no wants until it is heard again, and after PATIENCE report
  periods, or MOST_MUTE unanswered questions, nothing waits for what it might say.
- Listeners and those who are to take HTTP are heard and counted, but their wants schedule nothing.
"""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free, realloc

from pxed._ext.blocks cimport bits_words
from pxed._ext.cast cimport (
    CAST_DONE, CAST_LEAVING, CAST_ORDER_HTTP, CAST_ORDER_LISTEN, CAST_TAKES_HTTP, cast_symbols,
)
from pxed._ext.cast_source cimport pxed_cast_frame_stored, pxed_cast_source_ref, pxed_cast_source_unref
from pxed._ext.cast_wants cimport claims_forget, wants_clear_run
from pxed._ext.pacer cimport pxed_pacer_set_rate
from pxed._ext.ring cimport ring_init

cdef enum:
    MOST_MUTE = 2                # one answer may be lost

# Without a report for so long a receiver is dead.
cdef uint64_t SILENCE = 10_000_000_000
# Report periods, in halves.
cdef uint64_t PATIENCE = 5
cdef uint64_t MS = 1_000_000
# A session may catch up with what it could not send for so long, as far as that is no more than a switch's buffer.
cdef uint64_t DEPTH = 25 * MS
cdef uint64_t LARGEST_BURST = 256 << 10


cdef Session *session_new(const CastSession *wire, pxed_cast_source *source) noexcept nogil:
    """None of it but `wire` and `source` is set; NULL without memory."""
    cdef Session *s = <Session *>calloc(1, sizeof(Session))
    if s is NULL:
        return NULL
    s.wire = wire[0]
    s.chunks = source.frames
    s.chunk = <Chunk *>calloc(s.chunks + 1, sizeof(Chunk))
    s.wanted = <uint64_t *>calloc(bits_words(s.chunks) + 1, sizeof(uint64_t))
    if s.chunk is NULL or s.wanted is NULL:
        free(s.chunk)
        free(s.wanted)
        free(s)
        return NULL
    s.source = pxed_cast_source_ref(source)
    ring_init(&s.waiting)
    ring_init(&s.ready)
    s.send_at = s.check_at = UINT64_MAX
    return s


cdef void session_free(Session *s) noexcept nogil:
    cdef uint32_t i
    session_close(s, 0)
    for i in range(s.receiver_count):
        free(s.receivers[i].wants)
        free(s.receivers[i])
    pxed_cast_source_unref(s.source)
    free(s.receivers)
    free(s.repair.made)
    session_clear_spent(s)
    free(s.frame)
    free(s.wanted)
    free(s.chunk)
    free(s)


cdef void session_close(Session *s, uint64_t now) noexcept nogil:
    cdef uint32_t i
    s.closed_at = now
    for i in range(s.receiver_count):
        receiver_forget_wants(s, s.receivers[i])
    s.walk.active = s.repair.active = False


cdef void session_clear_spent(Session *s) noexcept nogil:
    cdef Made *made
    while s.spent is not NULL:
        made = s.spent
        s.spent = made.after
        free(made)


cdef void session_set_rate(Session *s, uint64_t rate) noexcept nogil:
    pxed_pacer_set_rate(&s.pacer, rate)
    if rate:
        s.pacer.depth = max(s.pacer.depth, min(DEPTH, LARGEST_BURST * 1_000_000_000 // rate))


cdef uint32_t session_symbols(const Session *s, uint32_t chunk) noexcept nogil:
    return cast_symbols(pxed_cast_frame_stored(s.source, chunk), s.wire.symbol)


# -- receivers ---------------------------------------------------------------------------------------------------------

cdef Receiver *receiver_find(Session *s, uint32_t number) noexcept nogil:
    cdef Receiver *r = s.buckets[number % RECEIVER_BUCKETS]
    while r is not NULL and r.number != number:
        r = r.chain
    return r


cdef Receiver *receiver_admit(Session *s, uint32_t number, uint32_t address) noexcept nogil:
    cdef Receiver *r = receiver_find(s, number)
    cdef Receiver **more
    if r is not NULL:
        r.address = address
        r.anew = True
        return r
    if s.receiver_count == MOST_RECEIVERS:
        return NULL
    if s.receiver_count == s.receiver_room:
        more = <Receiver **>realloc(s.receivers, (s.receiver_room + 64) * sizeof(Receiver *))
        if more is NULL:
            return NULL
        s.receivers = more
        s.receiver_room += 64
    r = <Receiver *>calloc(1, sizeof(Receiver))
    if r is NULL:
        return NULL
    r.number = number
    r.address = address
    r.admitted = s.sequence
    r.loss = -1
    r.place = s.receiver_count
    r.chain = s.buckets[number % RECEIVER_BUCKETS]
    ring_init(&r.claims)
    s.buckets[number % RECEIVER_BUCKETS] = r
    s.receivers[s.receiver_count] = r
    s.receiver_count += 1
    return r


cdef void receiver_direct(Session *s, Receiver *r, uint8_t order, uint8_t reason) noexcept nogil:
    r.order = order
    r.reason = reason
    r.role = (ROLE_LISTENING if order == CAST_ORDER_LISTEN else ROLE_AWAY if order == CAST_ORDER_HTTP
              else ROLE_ACTIVE)
    s.floor_stale = True
    if r.role != ROLE_ACTIVE:
        receiver_forget_wants(s, r)


cdef State receiver_state(const Receiver *r) noexcept nogil:
    if r.flags & CAST_DONE:
        return STATE_DONE
    if r.flags & CAST_LEAVING:
        return STATE_LEFT
    if r.silent:
        return STATE_SILENT
    if not r.heard:
        return STATE_ADMITTED
    if r.flags & CAST_TAKES_HTTP or r.role == ROLE_AWAY:
        return STATE_HTTP
    return STATE_LIVE if r.role == ROLE_ACTIVE else STATE_LISTENING


cdef bint receiver_is_live(const Receiver *r) noexcept nogil:
    return receiver_state(r) == STATE_LIVE


cdef void receiver_forget_wants(Session *s, Receiver *r) noexcept nogil:
    claims_forget(s, r, 0, s.chunks)
    if r.wants is not NULL:
        wants_clear_run(s, r, 0, s.chunks)
        free(r.wants)
        r.wants = NULL


cdef void session_check(Session *s, uint64_t now) noexcept nogil:
    cdef uint32_t i
    cdef Receiver *r
    s.floor_stale = True
    for i in range(s.receiver_count):
        r = s.receivers[i]
        if r.heard and not r.silent and now - r.heard_at > SILENCE:
            r.silent = True
            receiver_forget_wants(s, r)


cdef uint32_t session_live(const Session *s) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t n = 0
    for i in range(s.receiver_count):
        n += receiver_is_live(s.receivers[i])
    return n


cdef bint session_all_heard(Session *s, uint64_t now) noexcept nogil:
    cdef uint32_t i
    cdef Receiver *r
    cdef uint64_t patience = s.period * MS * PATIENCE // 2
    if s.floor_stale:
        s.floor_stale = False
        s.floor = s.sequence
        for i in range(s.receiver_count):
            r = s.receivers[i]
            if r.highest < s.floor and _is_waited_for(r) and now - r.heard_at <= patience:
                s.floor = r.highest
    return s.floor == s.sequence


cdef bint _is_waited_for(const Receiver *r) noexcept nogil:
    return receiver_is_live(r) and not r.deaf and r.mute < MOST_MUTE


cdef void session_give_up_waiting(Session *s) noexcept nogil:
    cdef uint32_t i
    cdef Receiver *r
    s.floor_stale = True
    for i in range(s.receiver_count):
        r = s.receivers[i]
        if r.highest < s.asked_at and r.mute < MOST_MUTE:
            r.mute += 1


cdef bint session_has_finishers(Session *s) noexcept nogil:
    cdef uint32_t i
    cdef Receiver *r
    for i in range(s.receiver_count):
        r = s.receivers[i]
        if r.whole == 0 and _is_waited_for(r):
            return True
    return False
