# Bit sets over words that belong to somebody else: which symbols of a frame are here, which chunks are wanted.
#
# Rules: bit i is bit i % 64 of word i // 64; the bits of the last word beyond the set's size stay clear (every function
# that takes `size` leaves them so, and those that search or count rely on it). Nothing is checked: the caller says how
# large its set is. Octets in packets are the same bits, LSB first. No function raises, allocates or needs the GIL.

from libc.stdint cimport uint8_t, uint64_t


cdef extern from * nogil:
    """
    #define pxed_ctz64(x) ((size_t)__builtin_ctzll(x))
    #define pxed_popcount64(x) ((size_t)__builtin_popcountll(x))
    """
    size_t ctz64 "pxed_ctz64"(uint64_t x)                 # x is not zero
    size_t popcount64 "pxed_popcount64"(uint64_t x)


# Words of a set of `size` bits.
cdef inline size_t bits_words(size_t size) noexcept nogil:
    return (size + 63) >> 6


cdef inline bint bits_test(const uint64_t *words, size_t i) noexcept nogil:
    return (words[i >> 6] >> (i & 63)) & 1


cdef inline void bits_set(uint64_t *words, size_t i) noexcept nogil:
    words[i >> 6] |= <uint64_t>1 << (i & 63)


cdef inline void bits_clear(uint64_t *words, size_t i) noexcept nogil:
    words[i >> 6] &= ~(<uint64_t>1 << (i & 63))


# The bits of a word that are in [begin, stop), where the run has some of them.
cdef inline uint64_t bits_mask(size_t word, size_t begin, size_t stop) noexcept nogil:
    cdef uint64_t mask = <uint64_t>0xffffffffffffffff
    if word == begin >> 6:
        mask &= <uint64_t>0xffffffffffffffff << (begin & 63)
    if word == (stop - 1) >> 6:
        mask &= <uint64_t>0xffffffffffffffff >> (63 - ((stop - 1) & 63))
    return mask


# All bits from `begin` to `stop` (exclusive).
cdef inline void bits_set_run(uint64_t *words, size_t begin, size_t stop) noexcept nogil:
    cdef size_t word
    if begin < stop:
        for word in range(begin >> 6, bits_words(stop)):
            words[word] |= bits_mask(word, begin, stop)


cdef inline void bits_clear_run(uint64_t *words, size_t begin, size_t stop) noexcept nogil:
    cdef size_t word
    if begin < stop:
        for word in range(begin >> 6, bits_words(stop)):
            words[word] &= ~bits_mask(word, begin, stop)


cdef inline size_t bits_count(const uint64_t *words, size_t size) noexcept nogil:
    cdef size_t i
    cdef size_t n = 0
    for i in range(bits_words(size)):
        n += popcount64(words[i])
    return n


# The first set bit at or behind `at`; `size` when there is none.
cdef inline size_t bits_next(const uint64_t *words, size_t size, size_t at) noexcept nogil:
    cdef size_t w
    cdef uint64_t word
    if at >= size:
        return size
    w = at >> 6
    word = words[w] & (<uint64_t>0xffffffffffffffff << (at & 63))
    while word == 0:
        w += 1
        if w >= bits_words(size):
            return size
        word = words[w]
    return (w << 6) + ctz64(word)


# The first clear bit at or behind `at`; `size` when there is none.
cdef inline size_t bits_next_clear(const uint64_t *words, size_t size, size_t at) noexcept nogil:
    cdef size_t w, found
    cdef uint64_t word
    if at >= size:
        return size
    w = at >> 6
    word = ~words[w] & (<uint64_t>0xffffffffffffffff << (at & 63))
    while word == 0:
        w += 1
        if w >= bits_words(size):
            return size
        word = ~words[w]
    found = (w << 6) + ctz64(word)
    return found if found < size else size


# The first run of set bits at or behind begin[0]: False when there is none, else [begin, stop).
cdef inline bint bits_run(const uint64_t *words, size_t size, size_t *begin, size_t *stop) noexcept nogil:
    begin[0] = bits_next(words, size, begin[0])
    if begin[0] >= size:
        return False
    stop[0] = bits_next_clear(words, size, begin[0])
    return True


# The bits as (size + 7) // 8 octets of a packet.
cdef inline void bits_to_octets(const uint64_t *words, size_t size, uint8_t *out) noexcept nogil:
    cdef size_t i
    for i in range((size + 7) >> 3):
        out[i] = <uint8_t>(words[i >> 3] >> ((i & 7) << 3))


# Adds the bits of (bits + 7) // 8 octets to a set of `size` bits; those beyond either are left out.
cdef inline void bits_add_octets(uint64_t *words, size_t size, const uint8_t *octets, size_t bits) noexcept nogil:
    cdef size_t i
    cdef size_t n = bits if bits < size else size
    for i in range(n >> 3):
        words[i >> 3] |= <uint64_t>octets[i] << ((i & 7) << 3)
    if n & 7:
        i = n >> 3
        words[i >> 3] |= <uint64_t>(octets[i] & ((1 << (n & 7)) - 1)) << ((i & 7) << 3)
