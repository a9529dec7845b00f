"""Merging what receivers want, in bounded time: a report costs its entries, its window's words and its receiver's
claims.

- A part of a report says everything about its window: wants in it that are not repeated are gone.
- Each receiver has a bit for each chunk that it wants whole; a chunk counts them. What one lacks of a chunk that it
  has in part is a claim; the claims of a chunk hang on its Repair. Claims of more than half of a chunk belong to the
  walk.
- A want is believed when its report had seen the last datagram of that chunk (of that whole sending, for whole ones):
  others speak of what may have arrived since. When a chunk is sent, all that was said about it is forgotten.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pxed._ext.blocks cimport (
    bits_clear, bits_count, bits_mask, bits_next, bits_set, bits_test, bits_words, ctz64,
)
from pxed._ext.cast cimport (
    CAST_SYMBOL_WORDS, CAST_WHOLE, CastWant, CastWants, cast_next_want, cast_want_symbols, cast_wants,
)
from pxed._ext.cast_session cimport MOST_CLAIMS, Chunk, Repair, session_symbols
from pxed._ext.ring cimport Link, ring_append, ring_first, ring_init, ring_remove


cdef void _note(Session *s, uint32_t chunk) noexcept nogil:
    # Its place in the walk follows from what is known of it.
    cdef Chunk *c = &s.chunk[chunk]
    cdef bint wanted = c.whole != 0 or (c.repair is not NULL and c.repair.large != 0)
    if wanted == bits_test(s.wanted, chunk):
        return
    if wanted:
        bits_set(s.wanted, chunk)
        s.wanted_count += 1
    else:
        bits_clear(s.wanted, chunk)
        s.wanted_count -= 1


# -- whole chunks ------------------------------------------------------------------------------------------------------

cdef bint wants_set_run(Session *s, Receiver *r, uint32_t begin, uint32_t stop, uint64_t heard) noexcept nogil:
    """False without memory."""
    cdef size_t word
    cdef uint64_t new
    cdef uint32_t chunk
    if begin >= stop:
        return True
    if r.wants is NULL:
        r.wants = <uint64_t *>calloc(bits_words(s.chunks) + 1, sizeof(uint64_t))
        if r.wants is NULL:
            return False
    for word in range(<size_t>(begin >> 6), bits_words(stop)):
        new = bits_mask(word, begin, stop) & ~r.wants[word]
        while new:
            chunk = <uint32_t>((word << 6) + ctz64(new))
            new &= new - 1
            if s.chunk[chunk].whole_at > heard:
                s.stale_wants += 1
            elif not s.chunk[chunk].unreadable:
                bits_set(r.wants, chunk)
                r.whole += 1
                s.chunk[chunk].whole += 1
                _note(s, chunk)
    return True


cdef void wants_clear_run(Session *s, Receiver *r, uint32_t begin, uint32_t stop) noexcept nogil:
    cdef size_t word
    cdef uint64_t old
    cdef uint32_t chunk
    if r.wants is NULL or begin >= stop:
        return
    for word in range(<size_t>(begin >> 6), bits_words(stop)):
        old = bits_mask(word, begin, stop) & r.wants[word]
        r.wants[word] &= ~old
        while old:
            chunk = <uint32_t>((word << 6) + ctz64(old))
            old &= old - 1
            r.whole -= 1
            s.chunk[chunk].whole -= 1
            _note(s, chunk)


# -- claims ------------------------------------------------------------------------------------------------------------

cdef void claim_free(Session *s, Claim *claim) noexcept nogil:
    cdef Repair *p = claim.repair
    ring_remove(&claim.of_receiver)
    ring_remove(&claim.of_repair)
    s.claims -= 1
    if claim.large:
        p.large -= 1
    else:
        p.small -= 1
        if p.small == 0:
            ring_remove(&p.link)
            p.ready = False
    if p.large + p.small == 0:
        s.chunk[p.chunk].repair = NULL
        s.repairs -= 1
    _note(s, p.chunk)
    if p.large + p.small == 0:
        free(p)
    free(claim)


cdef void claims_forget(Session *s, Receiver *r, uint32_t begin, uint32_t stop) noexcept nogil:
    cdef Link *link = r.claims.next
    cdef Claim *claim
    while link != &r.claims:
        claim = <Claim *>link.owner
        link = link.next
        if begin <= claim.repair.chunk < stop:
            claim_free(s, claim)


cdef Repair *_repair_of(Session *s, uint32_t chunk) noexcept nogil:
    # NULL without memory.
    cdef Repair *p = s.chunk[chunk].repair
    if p is NULL:
        p = <Repair *>calloc(1, sizeof(Repair))
        if p is not NULL:
            p.chunk = chunk
            ring_init(&p.claims)
            s.chunk[chunk].repair = p
            s.repairs += 1
    return p


cdef void _claim(Session *s, Receiver *r, uint32_t chunk, const CastWant *want) noexcept nogil:
    cdef size_t symbols = session_symbols(s, chunk)
    cdef size_t words = bits_words(symbols)
    cdef Claim *claim
    cdef Repair *p
    if s.claims >= MOST_CLAIMS or s.chunk[chunk].unreadable:
        return
    claim = <Claim *>calloc(1, sizeof(Claim) + words * sizeof(uint64_t))
    p = _repair_of(s, chunk) if claim is not NULL else NULL
    if p is NULL:
        free(claim)
        return
    cast_want_symbols(want, claim.symbols, symbols)
    claim.missing = <uint32_t>bits_count(claim.symbols, symbols)
    claim.large = 2 * claim.missing > symbols
    claim.repair = p
    s.claims += 1
    ring_append(&r.claims, &claim.of_receiver, claim)
    ring_append(&p.claims, &claim.of_repair, claim)
    if claim.large:
        p.large += 1
    else:
        p.small += 1
        if p.small == 1:
            ring_append(&s.waiting, &p.link, p)
    _note(s, chunk)


# -- reports -----------------------------------------------------------------------------------------------------------

cdef bint wants_fit(const Session *s, const CastReport *report) noexcept nogil:
    cdef CastWants wants = cast_wants(report)
    cdef CastWant want
    cdef uint64_t symbols[CAST_SYMBOL_WORDS]
    cdef size_t count
    if report.stop > s.chunks:
        return False
    while cast_next_want(&wants, &want):
        if want.kind != CAST_WHOLE:
            memset(symbols, 0, sizeof(symbols))
            count = session_symbols(s, want.chunk)
            cast_want_symbols(&want, symbols, count)
            if bits_next(symbols, count, 0) == count:
                return False
    return True


cdef void wants_merge(Session *s, Receiver *r, const CastReport *report, uint64_t heard) noexcept nogil:
    cdef CastWants wants = cast_wants(report)
    cdef CastWant want
    cdef uint32_t at = report.begin
    claims_forget(s, r, report.begin, report.stop)
    while cast_next_want(&wants, &want):
        wants_clear_run(s, r, at, want.chunk)
        if want.kind == CAST_WHOLE:
            at = want.chunk + want.count
            wants_set_run(s, r, want.chunk, at, heard)
            continue
        at = want.chunk + 1
        wants_clear_run(s, r, want.chunk, at)
        if s.chunk[want.chunk].sent_at > heard:
            s.stale_wants += 1
        else:
            _claim(s, r, want.chunk, &want)
    wants_clear_run(s, r, at, report.stop)


cdef void chunk_unwant(Session *s, uint32_t chunk) noexcept nogil:
    cdef Chunk *c = &s.chunk[chunk]
    cdef Receiver *r
    cdef uint32_t i
    while c.repair is not NULL:
        claim_free(s, <Claim *>ring_first(&c.repair.claims))
    if c.whole:
        for i in range(s.receiver_count):
            r = s.receivers[i]
            if r.wants is not NULL and bits_test(r.wants, chunk):
                bits_clear(r.wants, chunk)
                r.whole -= 1
        c.whole = 0
    _note(s, chunk)


cdef void chunk_give_up(Session *s, uint32_t chunk) noexcept nogil:
    if not s.chunk[chunk].unreadable:
        s.chunk[chunk].unreadable = True
        s.unreadable += 1
        s.failed = chunk + 1
    chunk_unwant(s, chunk)


# -- the test of it ----------------------------------------------------------------------------------------------------

cdef size_t wants_audit(const Session *s) noexcept nogil:
    cdef size_t wrong = 0
    cdef size_t claims = 0
    cdef uint32_t chunk, i, whole, small, large
    cdef const Repair *p
    cdef const Link *link
    for chunk in range(s.chunks):
        whole = small = large = 0
        for i in range(s.receiver_count):
            whole += s.receivers[i].wants is not NULL and bits_test(s.receivers[i].wants, chunk)
        p = s.chunk[chunk].repair
        if p is not NULL:
            link = p.claims.next
            while link != &p.claims:
                large += (<const Claim *>link.owner).large
                small += not (<const Claim *>link.owner).large
                link = link.next
            wrong += p.small != small or p.large != large or (p.link.next is not NULL) != (small != 0)
            wrong += small + large == 0
            claims += small + large
        wrong += s.chunk[chunk].whole != whole
        wrong += bits_test(s.wanted, chunk) != (whole != 0 or large != 0)
    for i in range(s.receiver_count):
        wrong += s.receivers[i].wants is not NULL and (
            s.receivers[i].whole != bits_count(s.receivers[i].wants, s.chunks))
    wrong += claims != s.claims or s.wanted_count != bits_count(s.wanted, s.chunks)
    return wrong
