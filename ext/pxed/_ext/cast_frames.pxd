"""Frames under assembly. One thread at a time: whoever has them locks them."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t, uint16_t

cdef enum:
    NO_FRAME = 0xffffffff    # an ordinal that no frame has


cdef class CastLayout:
    cdef uint32_t *lengths
    cdef readonly uint32_t frames
    cdef readonly uint32_t longest
    cdef readonly uint64_t size


# A parity symbol that waits for others; its bytes follow.
cdef struct Parity:
    Parity *next
    uint32_t number              # of the symbol


# A frame of which something is here.
cdef struct Partial:
    Partial *next                # when it is complete: in a queue
    uint32_t ordinal
    uint32_t stored              # bytes
    uint32_t symbols             # K, source symbols
    uint32_t blocks              # B
    uint32_t missing             # source symbols
    uint32_t spare               # parity symbols that are here and count
    uint32_t given               # bytes came in order from here
    uint32_t given_stop          # to here
    uint8_t *octets              # K whole symbols; NULL: bytes are not kept
    Parity *parity
    uint64_t *lacking            # bit set of the missing source symbols
    uint64_t *spares             # of each block a word: its parity symbols that are here
    uint16_t *lacks              # of each block: missing source symbols


# Less than this part of it is here: it is asked for whole, as that is shorter and all of it comes anyway.
cdef enum:
    HARDLY_BEGUN = 16


# Symbols of a frame that are here.
cdef inline uint32_t partial_here(const Partial *p) noexcept nogil:
    return p.symbols - p.missing + p.spare


cdef inline bint partial_is_hardly_begun(const Partial *p) noexcept nogil:
    return partial_here(p) * HARDLY_BEGUN < p.symbols


cdef class CastFrame:
    cdef uint8_t *octets
    cdef Py_ssize_t size


cdef class CastFrames:
    cdef CastLayout layout
    cdef readonly uint32_t symbol
    cdef bint keep
    cdef readonly size_t memory      # limit
    cdef readonly size_t used
    cdef Partial **table             # by ordinal, ascending
    cdef size_t count
    cdef size_t capacity
    cdef size_t latest               # where the last one was found

    # The place of the first frame at or behind an ordinal; `count` when there is none.
    cdef size_t place(self, uint32_t ordinal) noexcept nogil
    cdef Partial *find(self, uint32_t ordinal) noexcept nogil
    cdef bint fits(self, uint32_t ordinal) noexcept nogil
    # Nothing of this frame is here; NULL without memory.
    cdef Partial *begin(self, uint32_t ordinal) noexcept nogil
    # A symbol whose number and length are right; False when it is of no use.
    cdef bint add(self, Partial *p, uint32_t number, const uint8_t *octets) noexcept nogil
    # A source symbol that was missing has been put in its place.
    cdef void mark(self, Partial *p, uint32_t number) noexcept nogil
    # Source symbols that are needed yet: the missing ones, less in each block as many as parity can replace.
    cdef void needed(self, const Partial *p, uint64_t *words) noexcept nogil
    # Not in the table any more; the caller has it.
    cdef void remove(self, Partial *p) noexcept nogil
    cdef void drop(self, Partial *p) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef size_t size_of(self, uint32_t ordinal) noexcept nogil
    cdef bint _grow(self) noexcept nogil
    cdef Partial *_new(self, uint32_t ordinal) noexcept nogil
    cdef bint _add_parity(self, Partial *p, uint32_t number, const uint8_t *octets) noexcept nogil
    cdef void _repair(self, Partial *p, uint32_t b) noexcept nogil
    cdef void _forget_parity(self, Partial *p, uint32_t b) noexcept nogil

cdef void free_partial(Partial *p) noexcept nogil
cdef CastFrame frame_of(Partial *p)
