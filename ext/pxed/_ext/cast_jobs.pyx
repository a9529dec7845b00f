"""What a session sends next. Two jobs run at a time: one of the walk, one of repair.

- The walk goes round and round over the chunks that somebody wants whole, or lacks more than half of; of the latter
  only what is missing is sent.
- Repair comes first, so that parts do not pile up in receivers' memory, but takes no more than half of the symbols
  while the walk has something to send. A chunk is repaired when everybody who is waited for has reported since its last
  datagram, so that the repair serves all; at the latest one and a half report periods after that.
- A block is repaired by the union of the symbols that are missing; or by parity symbols, as many as the receiver needs
  that lacks most, when that is clearly less: then receivers lost different ones. Parity that is likely to be lost
  itself is added.
- A frame that is not in memory is asked for, and others go on; one that cannot be read is forgotten, and told of.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from pxed._ext.blocks cimport bits_clear, bits_next, bits_set, bits_set_run, bits_test, bits_words
from pxed._ext.cast cimport CAST_PARITIES, cast_blocks
from pxed._ext.cast_session cimport (
    BUSY, MOST_BLOCKS, Chunk, Claim, Made, Repair, session_all_heard, session_symbols,
)
from pxed._ext.cast_source cimport (
    PXED_FRAME_BAD, PXED_FRAME_READY, pxed_cast_frame_ask, pxed_cast_frame_failed, pxed_cast_frame_faulted,
    pxed_cast_frame_read, pxed_cast_frame_sent, pxed_cast_frame_stored,
)
from pxed._ext.cast_wants cimport chunk_give_up, chunk_unwant, claim_free
from pxed._ext.parity cimport parity_encode
from pxed._ext.ring cimport Link, ring_append, ring_first, ring_remove

cdef enum:
    AHEAD = 16                   # frames that are asked for beyond the one that is sent
    LOOKED_AT = 8                # ready repairs, for one whose frame is in memory
    LEAST_SAVED = 2              # symbols of a block, for parity to be worth it
    MOST_BALANCE = 64            # symbols that repair may be ahead of the walk

cdef uint64_t MS = 1_000_000
# How soon to look again whether a frame has come into memory.
cdef uint64_t DISK = MS // 2
# How often repairs are looked through when nobody reports.
cdef uint64_t PROMOTE = 50 * MS


cdef void _begin(Session *s, Job *job, uint32_t chunk) noexcept nogil:
    # An empty set of the chunk's symbols.
    cdef Chunk *c = &s.chunk[chunk]
    job.chunk = chunk
    job.stored = pxed_cast_frame_stored(s.source, chunk)
    job.symbols = session_symbols(s, chunk)
    job.numbers = job.symbols + cast_blocks(job.symbols) * CAST_PARITIES
    job.whole = False
    job.parity = 0
    memset(job.set, 0, bits_words(job.numbers) * sizeof(uint64_t))
    if not c.counted:
        c.counted = True
        s.needed += job.symbols


cdef void _go(Session *s, Job *job) noexcept nogil:
    job.active = True
    job.next = <uint32_t>bits_next(job.set, job.numbers, 0)
    s.chunk[job.chunk].sent_at = BUSY


cdef void job_sent(Session *s, Job *job, uint64_t now) noexcept nogil:
    s.balance = max(s.balance - 1, 0) if job == &s.walk else min(s.balance + 1, MOST_BALANCE)
    job.next = <uint32_t>bits_next(job.set, job.numbers, job.next + 1)
    if job.next == job.numbers:
        _end(s, job, now)


cdef void _end(Session *s, Job *job, uint64_t now) noexcept nogil:
    # It was sent, or as much of it as can be.
    cdef Chunk *c = &s.chunk[job.chunk]
    job.active = False
    c.sent_at = s.sequence
    c.time = now
    if job.whole:
        c.whole_at = s.sequence
        c.parities = 0
    if job.made is not NULL:
        job.made.after = s.spent
        s.spent = job.made
        job.made = NULL
    pxed_cast_frame_sent(s.source, job.chunk)


cdef void job_unsent(Session *s, uint32_t chunk) noexcept nogil:
    if pxed_cast_frame_faulted(s.source, chunk) == PXED_FRAME_BAD:
        chunk_give_up(s, chunk)
    if s.walk.active and s.walk.chunk == chunk:
        _end(s, &s.walk, s.chunk[chunk].time)
    if s.repair.active and s.repair.chunk == chunk:
        _end(s, &s.repair, s.chunk[chunk].time)


cdef bint _in_memory(Session *s, uint32_t chunk, uint64_t now) noexcept nogil:
    cdef int state = pxed_cast_frame_ask(s.source, chunk)
    if state == PXED_FRAME_READY:
        return True
    s.send_at = min(s.send_at, now + DISK)
    if state == PXED_FRAME_BAD:
        chunk_give_up(s, chunk)
    return False


# -- the walk ----------------------------------------------------------------------------------------------------------

cdef void _ask_ahead(Session *s, uint32_t chunk) noexcept nogil:
    cdef int _i
    for _i in range(AHEAD):
        chunk = <uint32_t>bits_next(s.wanted, s.chunks, chunk + 1)
        if chunk == s.chunks:
            return
        pxed_cast_frame_ask(s.source, chunk)


cdef void _unite(Job *job, const Repair *p) noexcept nogil:
    cdef const Link *link = p.claims.next
    cdef size_t i
    while link != &p.claims:
        for i in range(bits_words(job.symbols)):
            job.set[i] |= (<const Claim *>link.owner).symbols[i]
        link = link.next


cdef bint _walk(Session *s, uint64_t now) noexcept nogil:
    # Whether the walk has something to send.
    cdef uint32_t chunk
    if s.walk.active:
        return True
    if s.wanted_count == 0:
        return False
    chunk = <uint32_t>bits_next(s.wanted, s.chunks, s.cursor)
    if chunk == s.chunks:
        chunk = <uint32_t>bits_next(s.wanted, s.chunks, 0)
    if (s.repair.active and s.repair.chunk == chunk) or not _in_memory(s, chunk, now):
        _ask_ahead(s, chunk)
        return False
    s.passes += chunk < s.cursor
    s.cursor = chunk + 1
    _begin(s, &s.walk, chunk)
    if s.chunk[chunk].whole:
        s.walk.whole = True
        s.chunk[chunk].whole_at = BUSY
        bits_set_run(s.walk.set, 0, s.walk.symbols)
    else:
        _unite(&s.walk, s.chunk[chunk].repair)
    chunk_unwant(s, chunk)
    _go(s, &s.walk)
    _ask_ahead(s, chunk)
    return True


# -- repair ------------------------------------------------------------------------------------------------------------

cdef void _make_ready(Session *s, Repair *p) noexcept nogil:
    ring_remove(&p.link)
    ring_append(&s.ready, &p.link, p)
    p.ready = True
    pxed_cast_frame_ask(s.source, p.chunk)


cdef void repairs_promote_all(Session *s) noexcept nogil:
    while ring_first(&s.waiting) is not NULL:
        _make_ready(s, <Repair *>ring_first(&s.waiting))


cdef void _promote(Session *s, uint64_t now) noexcept nogil:
    cdef uint64_t patience = s.period * MS * 3 // 2
    cdef Link *link = s.waiting.next
    cdef Repair *p
    cdef const Chunk *c
    if link == &s.waiting or (not s.floor_stale and now < s.promote_at):
        return
    s.promote_at = now + PROMOTE
    session_all_heard(s, now)
    while link != &s.waiting:
        p = <Repair *>link.owner
        link = link.next
        c = &s.chunk[p.chunk]
        if c.sent_at <= s.floor or now >= c.time + patience:
            _make_ready(s, p)


cdef bint _repair(Session *s, uint64_t now) noexcept nogil:
    # Whether there is a repair to send.
    cdef Link *link
    cdef Repair *p
    cdef int looked = 0
    if s.repair.active:
        return True
    _promote(s, now)
    link = s.ready.next
    while link != &s.ready and looked < LOOKED_AT:
        p = <Repair *>link.owner
        link = link.next
        looked += 1
        if _in_memory(s, p.chunk, now) and _begin_repair(s, p):
            return True
        if s.failed:
            return False
    return False


cdef bint _begin_repair(Session *s, Repair *p) noexcept nogil:
    # Large claims stay: they are the walk's.
    cdef uint32_t most[MOST_BLOCKS]
    cdef Job *job = &s.repair
    cdef Link *link = p.claims.next
    cdef Claim *claim
    cdef uint32_t made
    _begin(s, job, p.chunk)
    memset(most, 0, sizeof(most))
    while link != &p.claims:
        claim = <Claim *>link.owner
        link = link.next
        if not claim.large:
            _add_claim(job, claim, most)
    made = _choose_parity(s, job, most)
    if made and not _make_parity(s, job, made):
        chunk_give_up(s, p.chunk)
        return False
    _forget_small(s, p)
    _go(s, job)
    return True


cdef void _forget_small(Session *s, Repair *p) noexcept nogil:
    cdef Link *link = p.claims.next
    cdef Claim *claim
    cdef uint32_t small = p.small  # `p` goes with its last claim
    while small:
        claim = <Claim *>link.owner
        link = link.next
        if not claim.large:
            small -= 1
            claim_free(s, claim)


cdef void _add_claim(Job *job, const Claim *claim, uint32_t *most) noexcept nogil:
    # To the union, and to what the neediest receiver needs of each block.
    cdef uint32_t need[MOST_BLOCKS]
    cdef uint32_t blocks = cast_blocks(job.symbols)
    cdef size_t i = bits_next(claim.symbols, job.symbols, 0)
    cdef uint32_t b
    memset(need, 0, blocks * sizeof(uint32_t))
    while i < job.symbols:
        bits_set(job.set, i)
        need[i % blocks] += 1
        i = bits_next(claim.symbols, job.symbols, i + 1)
    for b in range(blocks):
        most[b] = max(most[b], need[b])


cdef uint32_t _choose_parity(Session *s, Job *job, const uint32_t *most) noexcept nogil:
    # Replaces missing symbols by parity where that is less; how many parity symbols.
    cdef uint32_t blocks = cast_blocks(job.symbols)
    cdef uint32_t used = s.chunk[job.chunk].parities
    cdef uint32_t b, i, missing, count
    cdef uint32_t made = 0
    cdef uint32_t largest = 0
    for b in range(blocks):
        missing = 0
        i = b
        while i < job.symbols:
            missing += bits_test(job.set, i)
            i += blocks
        count = most[b] + <uint32_t>(most[b] * s.loss * 1.5 + 0.999)
        if count + LEAST_SAVED > missing or 2 * missing < 3 * most[b] or used + count > CAST_PARITIES:
            continue
        i = b
        while i < job.symbols:
            bits_clear(job.set, i)
            i += blocks
        for i in range(used, used + count):
            bits_set(job.set, job.symbols + i * blocks + b)
        made += count
        largest = max(largest, count)
    s.chunk[job.chunk].parities += <uint8_t>largest
    return made


cdef bint _make_parity(Session *s, Job *job, uint32_t count) noexcept nogil:
    # False when the frame cannot be read, or not be held in memory.
    cdef uint32_t symbol = s.wire.symbol
    cdef uint32_t blocks = cast_blocks(job.symbols)
    cdef size_t room = <size_t>job.symbols * symbol
    cdef uint8_t *out[CAST_PARITIES]
    cdef uint8_t parities[CAST_PARITIES]
    cdef uint16_t place[MOST_BLOCKS * CAST_PARITIES]
    cdef uint32_t b, i, n
    cdef size_t at
    cdef int error
    if s.frame_room < room:
        free(s.frame)
        s.frame = <uint8_t *>malloc(room)
        s.frame_room = room if s.frame is not NULL else 0
    job.made = <Made *>malloc(sizeof(Made) + <size_t>count * symbol)
    error = ENOMEM if s.frame is NULL or job.made is NULL else pxed_cast_frame_read(s.source, job.chunk, s.frame)
    if error:
        pxed_cast_frame_failed(s.source, job.chunk, error)
        free(job.made)
        job.made = NULL
        return False
    memset(s.frame + job.stored, 0, room - job.stored)
    n = 0
    at = bits_next(job.set, job.numbers, job.symbols)
    while at < job.numbers:
        place[at - job.symbols] = n
        n += 1
        at = bits_next(job.set, job.numbers, at + 1)
    for b in range(blocks):
        n = 0
        for i in range(<uint32_t>CAST_PARITIES):
            if bits_test(job.set, job.symbols + i * blocks + b):
                parities[n] = <uint8_t>i
                out[n] = job.made.symbols + <size_t>place[i * blocks + b] * symbol
                n += 1
        if n:
            parity_encode(s.frame, job.stored, symbol, b, parities, n, out)
    return True


# -- whose turn --------------------------------------------------------------------------------------------------------

cdef Job *job_choose(Session *s, uint64_t now) noexcept nogil:
    cdef bint repair, walk
    if s.held or s.closed_at:
        return NULL
    repair = _repair(s, now)
    walk = _walk(s, now)
    if repair and (s.balance == 0 or not walk):
        return &s.repair
    return &s.walk if walk else NULL
