# Sequence numbers of a session's DATA as one receiver hears them: what should have come, and what has.
#
# Numbers are mod 2**32. Datagrams may overtake each other: one that comes late fills its gap, unless it is more than
# SEQUENCE_WINDOW behind. A datagram that the network doubles counts once.

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memset

cdef enum:
    SEQUENCE_WINDOW = 1024


cdef struct Sequence:
    bint started
    uint32_t first               # heard
    uint32_t highest             # known to have been sent
    uint32_t received
    uint64_t seen[16]            # bit n % SEQUENCE_WINDOW, of the newest SEQUENCE_WINDOW numbers


# DATA that should have come.
cdef inline uint32_t sequence_expected(const Sequence *s) noexcept nogil:
    return s.highest - s.first + 1 if s.started else 0


cdef inline void _sequence_advance(Sequence *s, uint32_t number) noexcept nogil:
    cdef uint32_t n
    if number - s.highest >= SEQUENCE_WINDOW:
        memset(s.seen, 0, sizeof(s.seen))
    else:
        n = s.highest
        while n != number:
            n += 1
            s.seen[(n >> 6) & 15] &= ~(<uint64_t>1 << (n & 63))
    s.highest = number


# MARK: the last number that was sent.
cdef inline void sequence_sent(Sequence *s, uint32_t number) noexcept nogil:
    if not s.started:
        s.started = True
        s.first = number + 1
        s.highest = number
    elif <int32_t>(number - s.highest) > 0:
        _sequence_advance(s, number)


# DATA; False when the same datagram was here before.
cdef inline bint sequence_heard(Sequence *s, uint32_t number) noexcept nogil:
    cdef uint64_t bit = <uint64_t>1 << (number & 63)
    cdef uint64_t *word = &s.seen[(number >> 6) & 15]
    if not s.started:
        s.started = True
        s.first = s.highest = number
    elif <int32_t>(number - s.highest) > 0:
        _sequence_advance(s, number)
    elif s.highest - number >= SEQUENCE_WINDOW or word[0] & bit:
        return False
    elif <int32_t>(number - s.first) < 0:
        s.first = number
    word[0] |= bit
    s.received += 1
    return True
