"""Frames under assembly: the symbols of each that are here, in any order and of any transport, and what is lacking.

What a symbol is, and a block, says pxed/wire/cast.py. Source symbols go straight to their place in the frame. Parity
symbols wait; as soon as a block has as many of them as it lacks source symbols, those are computed and the parity goes.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from pxed._ext.blocks cimport bits_clear, bits_set_run, bits_test, bits_words, popcount64
from pxed._ext.cast cimport CAST_PARITIES, cast_block_symbols, cast_blocks, cast_symbol_size, cast_symbols
from pxed._ext.parity cimport parity_repair

cimport cython


cdef inline uint32_t _load_le32(const uint8_t *p) noexcept nogil:
    return p[0] | <uint32_t>p[1] << 8 | <uint32_t>p[2] << 16 | <uint32_t>p[3] << 24


@cython.final
@cython.no_gc
cdef class CastLayout:
    """How long each frame of an image is; one object for all that receive it.

    lengths: u32, little-endian, by ordinal. Raises ValueError when they are none, or one of them is 0.
    """

    def __cinit__(self, lengths):
        cdef Py_buffer view
        cdef uint32_t i
        PyObject_GetBuffer(lengths, &view, PyBUF_SIMPLE)
        try:
            if view.len == 0 or view.len % 4 or view.len >= 4 * <Py_ssize_t>NO_FRAME:
                raise ValueError(f"{view.len} bytes are no layout")
            self.frames = <uint32_t>(view.len // 4)
            self.lengths = <uint32_t *>malloc(view.len)
            if self.lengths is NULL:
                raise MemoryError
            for i in range(self.frames):
                self.lengths[i] = _load_le32(<const uint8_t *>view.buf + 4 * <size_t>i)
                self.size += self.lengths[i]
                self.longest = max(self.longest, self.lengths[i])
                if self.lengths[i] == 0:
                    raise ValueError(f"frame {i} of the layout is empty")
        finally:
            PyBuffer_Release(&view)

    def __dealloc__(self):
        free(self.lengths)

    def length(self, uint32_t ordinal) -> int:
        """Bytes of one frame. Raises IndexError."""
        if ordinal >= self.frames:
            raise IndexError(f"no frame {ordinal}: there are {self.frames}")
        return self.lengths[ordinal]


@cython.final
@cython.no_gc
cdef class CastFrame:
    """The bytes of a complete frame, for `memoryview` and whatever takes a buffer; they live as long as it."""

    def __dealloc__(self):
        free(self.octets)

    def __len__(self) -> int:
        return self.size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.octets, self.size, True, flags)


cdef CastFrame frame_of(Partial *p):
    """Takes a complete frame's bytes away from it, and frees the rest."""
    cdef CastFrame frame = CastFrame.__new__(CastFrame)
    frame.octets = p.octets
    frame.size = p.stored if p.octets is not NULL else 0
    p.octets = NULL
    free_partial(p)
    return frame


cdef void free_partial(Partial *p) noexcept nogil:
    cdef Parity *parity
    while p.parity is not NULL:
        parity = p.parity
        p.parity = parity.next
        free(parity)
    free(p.octets)
    free(p)


@cython.final
@cython.no_gc_clear
cdef class CastFrames:
    """At most `memory` bytes of incomplete frames; with `keep` False their bytes count, but are not kept."""

    def __cinit__(self, CastLayout layout, uint32_t symbol, size_t memory, bint keep):
        self.layout = layout
        self.symbol = symbol
        self.memory = memory
        self.keep = keep

    def __dealloc__(self):
        self.clear()
        free(self.table)

    # -- the table -----------------------------------------------------------------------------------------------------

    cdef size_t place(self, uint32_t ordinal) noexcept nogil:
        cdef size_t low = 0
        cdef size_t high = self.count
        cdef size_t middle
        while low < high:
            middle = (low + high) >> 1
            if self.table[middle].ordinal < ordinal:
                low = middle + 1
            else:
                high = middle
        return low

    cdef Partial *find(self, uint32_t ordinal) noexcept nogil:
        if self.latest < self.count and self.table[self.latest].ordinal == ordinal:
            return self.table[self.latest]
        cdef size_t at = self.place(ordinal)
        if at == self.count or self.table[at].ordinal != ordinal:
            return NULL
        self.latest = at
        return self.table[at]

    cdef size_t size_of(self, uint32_t ordinal) noexcept nogil:
        return <size_t>cast_symbols(self.layout.lengths[ordinal], self.symbol) * self.symbol

    cdef bint fits(self, uint32_t ordinal) noexcept nogil:
        return self.used + self.size_of(ordinal) <= self.memory

    cdef Partial *begin(self, uint32_t ordinal) noexcept nogil:
        cdef Partial *p
        cdef size_t at
        if self.count == self.capacity and not self._grow():
            return NULL
        p = self._new(ordinal)
        if p is NULL:
            return NULL
        at = self.place(ordinal)
        memmove(self.table + at + 1, self.table + at, (self.count - at) * sizeof(Partial *))
        self.table[at] = p
        self.count += 1
        self.latest = at
        self.used += self.size_of(ordinal)
        return p

    cdef bint _grow(self) noexcept nogil:
        cdef size_t capacity = self.capacity * 2 if self.capacity else 16
        cdef Partial **table = <Partial **>realloc(self.table, capacity * sizeof(Partial *))
        if table is NULL:
            return False
        self.table = table
        self.capacity = capacity
        return True

    cdef Partial *_new(self, uint32_t ordinal) noexcept nogil:
        cdef uint32_t stored = self.layout.lengths[ordinal]
        cdef uint32_t symbols = cast_symbols(stored, self.symbol)
        cdef uint32_t blocks = cast_blocks(symbols)
        cdef size_t words = bits_words(symbols)
        cdef size_t size = self.size_of(ordinal)
        cdef uint32_t b
        cdef Partial *p = <Partial *>calloc(1, sizeof(Partial) + (words + blocks) * sizeof(uint64_t)
                                            + blocks * sizeof(uint16_t))
        if p is NULL:
            return NULL
        p.ordinal = ordinal
        p.stored = stored
        p.symbols = p.missing = symbols
        p.blocks = blocks
        p.lacking = <uint64_t *>(p + 1)
        p.spares = p.lacking + words
        p.lacks = <uint16_t *>(p.spares + blocks)
        bits_set_run(p.lacking, 0, symbols)
        for b in range(blocks):
            p.lacks[b] = <uint16_t>cast_block_symbols(symbols, blocks, b)
        if self.keep:
            p.octets = <uint8_t *>malloc(size)
            if p.octets is NULL:
                free(p)
                return NULL
            memset(p.octets + stored, 0, size - stored)  # parity takes the last symbol for a whole one
        return p

    cdef void remove(self, Partial *p) noexcept nogil:
        cdef size_t at = self.place(p.ordinal)
        self.count -= 1
        memmove(self.table + at, self.table + at + 1, (self.count - at) * sizeof(Partial *))
        self.used -= self.size_of(p.ordinal) + <size_t>p.spare * self.symbol

    cdef void drop(self, Partial *p) noexcept nogil:
        self.remove(p)
        free_partial(p)

    cdef void clear(self) noexcept nogil:
        while self.count:
            self.count -= 1
            free_partial(self.table[self.count])
        self.used = 0

    # -- symbols -------------------------------------------------------------------------------------------------------

    cdef bint add(self, Partial *p, uint32_t number, const uint8_t *octets) noexcept nogil:
        if number >= p.symbols:
            return self._add_parity(p, number, octets)
        if not bits_test(p.lacking, number):
            return False
        if self.keep:
            memcpy(p.octets + <size_t>number * self.symbol, octets,
                   cast_symbol_size(p.stored, self.symbol, p.symbols, number))
        self.mark(p, number)
        return True

    cdef void mark(self, Partial *p, uint32_t number) noexcept nogil:
        cdef uint32_t b
        bits_clear(p.lacking, number)
        p.missing -= 1
        b = number % p.blocks
        p.lacks[b] -= 1
        if p.spare and p.spares[b] and popcount64(p.spares[b]) >= p.lacks[b]:
            self._repair(p, b)

    cdef bint _add_parity(self, Partial *p, uint32_t number, const uint8_t *octets) noexcept nogil:
        cdef uint32_t b = (number - p.symbols) % p.blocks
        cdef uint64_t bit = <uint64_t>1 << ((number - p.symbols) // p.blocks)
        cdef Parity *parity
        if p.lacks[b] == 0 or p.spares[b] & bit:
            return False
        if self.keep:
            parity = <Parity *>malloc(sizeof(Parity) + self.symbol)
            if parity is NULL:
                return False
            memcpy(parity + 1, octets, self.symbol)
            parity.number = number
            parity.next = p.parity
            p.parity = parity
        p.spares[b] |= bit
        p.spare += 1
        self.used += self.symbol
        if popcount64(p.spares[b]) >= p.lacks[b]:
            self._repair(p, b)
        return True

    cdef void _repair(self, Partial *p, uint32_t b) noexcept nogil:
        """The block lacks no more source symbols than it has parity: compute them, and let the parity go."""
        cdef const uint8_t *held[CAST_PARITIES]
        cdef uint8_t numbers[CAST_PARITIES]
        cdef Parity *parity = p.parity
        cdef uint32_t lost = p.lacks[b]
        cdef uint32_t found = 0
        cdef uint32_t i
        if self.keep and lost:
            while found < lost:
                if (parity.number - p.symbols) % p.blocks == b:
                    held[found] = <const uint8_t *>(parity + 1)
                    numbers[found] = <uint8_t>((parity.number - p.symbols) // p.blocks)
                    found += 1
                parity = parity.next
            parity_repair(p.octets, p.stored, self.symbol, b, p.lacking, numbers, held, found)
        for i in range(cast_block_symbols(p.symbols, p.blocks, b)):
            bits_clear(p.lacking, b + i * p.blocks)
        p.missing -= lost
        p.lacks[b] = 0
        self._forget_parity(p, b)

    cdef void _forget_parity(self, Partial *p, uint32_t b) noexcept nogil:
        cdef Parity **link = &p.parity
        cdef Parity *parity
        cdef uint32_t count = <uint32_t>popcount64(p.spares[b])
        while link[0] is not NULL:
            parity = link[0]
            if (parity.number - p.symbols) % p.blocks == b:
                link[0] = parity.next
                free(parity)
            else:
                link = &parity.next
        p.spares[b] = 0
        p.spare -= count
        self.used -= <size_t>count * self.symbol

    cdef void needed(self, const Partial *p, uint64_t *words) noexcept nogil:
        cdef uint32_t b, need, i
        memcpy(words, p.lacking, bits_words(p.symbols) * sizeof(uint64_t))
        if p.spare == 0:
            return
        for b in range(p.blocks):
            if p.spares[b] == 0:
                continue
            need = p.lacks[b] - <uint32_t>popcount64(p.spares[b])
            for i in range(cast_block_symbols(p.symbols, p.blocks, b)):
                if bits_test(words, b + i * p.blocks):
                    if need:
                        need -= 1
                    else:
                        bits_clear(words, b + i * p.blocks)
