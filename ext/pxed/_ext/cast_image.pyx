"""CastImage: what one receiver has of one image, whoever brings it.

A frame is wanted, until its symbols are complete; then it waits in the queue, is taken, proved and written by whoever
has threads for that, and is done. Frames are begun only while the queue has room: what a slow disk cannot take is left
out by whole frames. One that was not begun stays out until it comes round again from its beginning. Neither is one
begun while memory is full of incomplete frames: what they lack comes, and then there is room. Only a frame that is
hardly begun makes way, the one of which the least is here.

What is not begun for want of memory is not asked for either: on a line that cannot carry all, it would take the place
of what is lacking of those that are.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from pxed._ext.blocks cimport (
    bits_add_octets, bits_clear, bits_count, bits_next, bits_set, bits_set_run, bits_test, bits_words,
)
from pxed._ext.cast cimport CAST_LARGEST_SYMBOL, CAST_MOST_SYMBOLS, cast_symbols
from pxed._ext.cast_frames cimport NO_FRAME, CastLayout, free_partial, partial_here, partial_is_hardly_begun

cimport cython

cdef enum:
    TIGHT = 4                # memory for incomplete frames: less than this part of it is free


@cython.final
@cython.no_gc_clear
cdef class CastImage:
    """The arguments are those of CastAssembler. Raises ValueError for a bitmap or limits that do not fit the layout."""

    def __cinit__(self, CastLayout layout not None, have, size_t memory, uint64_t queue, uint32_t symbol, bint keep):
        cdef size_t words = bits_words(layout.frames)
        check_symbol(layout, symbol)
        if memory < 2 * <size_t>(layout.longest + symbol) or queue == 0:
            raise ValueError("there must be memory for two frames, and a queue")
        self.count = self.undone = layout.frames
        self.queue = queue
        self.skipped = NO_FRAME
        self.frames = CastFrames(layout, symbol, memory, keep)
        self.wanted = <uint64_t *>calloc(5 * words, sizeof(uint64_t))
        if self.wanted is NULL:
            raise MemoryError
        self.finished = self.wanted + words
        self.complete = self.wanted + 2 * words
        self.held = self.wanted + 3 * words
        self.asked = self.wanted + 4 * words
        bits_set_run(self.wanted, 0, self.count)
        self._have(have)

    def __dealloc__(self):
        cdef Partial *p
        while self.first is not NULL:
            p = self.first
            self.first = p.next
            free_partial(p)
        free(self.wanted)

    cdef int _have(self, have) except -1:
        cdef Py_buffer view
        cdef size_t i
        PyObject_GetBuffer(have, &view, PyBUF_SIMPLE)
        try:
            if view.len not in (0, (self.count + 7) // 8):
                raise ValueError(f"{view.len} bytes are no bitmap of {self.count} frames")
            bits_add_octets(self.finished, self.count, <const uint8_t *>view.buf, view.len * 8)
        finally:
            PyBuffer_Release(&view)
        self.undone = self.count - <uint32_t>bits_count(self.finished, self.count)
        for i in range(bits_words(self.count)):
            self.wanted[i] &= ~self.finished[i]
        return 0

    cdef const uint64_t *asks(self) noexcept nogil:
        cdef size_t room = self.frames.memory - min(self.frames.used, self.frames.memory)
        cdef uint32_t at
        cdef size_t i
        if TIGHT * room >= self.frames.memory and room >= self.frames.layout.longest + self.frames.symbol:
            return self.wanted
        memset(self.asked, 0, bits_words(self.count) * sizeof(uint64_t))
        for i in range(self.frames.count):
            at = self.frames.table[i].ordinal
            if bits_test(self.wanted, at):
                bits_set(self.asked, at)
        at = <uint32_t>bits_next(self.wanted, self.count, 0)
        while at < self.count:
            if not bits_test(self.asked, at):
                if self.frames.size_of(at) > room:
                    break
                room -= self.frames.size_of(at)
                bits_set(self.asked, at)
            at = <uint32_t>bits_next(self.wanted, self.count, at + 1)
        return self.asked

    cdef void cut(self, uint32_t symbol) noexcept nogil:
        self.skipped = NO_FRAME
        if symbol != self.frames.symbol:
            self.frames.clear()
            self.frames.symbol = symbol

    cdef bint is_lacking(self, uint32_t ordinal) noexcept nogil:
        return not (bits_test(self.finished, ordinal) or bits_test(self.complete, ordinal))

    # -- what comes in -------------------------------------------------------------------------------------------------

    cdef CastFate add(self, uint32_t ordinal, uint32_t number, const uint8_t *octets) noexcept nogil:
        cdef Partial *p
        if not self.is_lacking(ordinal):
            return FATE_UNWANTED
        p = self.frames.find(ordinal)
        if p is NULL:
            p = self._begin(ordinal, number)
            if p is NULL:
                self.skipped = ordinal
                self.skipped_symbol = number
                return FATE_REFUSED
        if not self.frames.add(p, number, octets):
            return FATE_DUPLICATE
        if p.missing:
            return FATE_TAKEN
        self._completed(p)
        return FATE_COMPLETE

    cdef Partial *_begin(self, uint32_t ordinal, uint32_t number) noexcept nogil:
        if ordinal == self.skipped and number > self.skipped_symbol:
            return NULL
        if self.queued >= self.queue or not self._make_room(ordinal, True):
            return NULL
        return self.frames.begin(ordinal)

    cdef bint _make_room(self, uint32_t ordinal, bint of_the_poor) noexcept nogil:
        cdef Partial *p
        while not self.frames.fits(ordinal):
            p = self._poorest()
            if p is NULL or (of_the_poor and not partial_is_hardly_begun(p)):
                return False
            self.frames.drop(p)
            self.evicted += 1
        return True

    cdef Partial *_poorest(self) noexcept nogil:
        # Nobody fetches it otherwise, and the least of it is here.
        cdef Partial *p
        cdef Partial *poorest = NULL
        cdef uint64_t here
        cdef uint64_t least = 0
        cdef size_t i
        for i in range(self.frames.count):
            p = self.frames.table[i]
            here = (<uint64_t>partial_here(p) << 20) // p.symbols
            if (poorest is NULL or here < least) and not bits_test(self.held, p.ordinal):
                poorest = p
                least = here
        return poorest

    cdef void _update(self, uint32_t ordinal) noexcept nogil:
        # After a change of one of the other three sets.
        if bits_test(self.finished, ordinal) or bits_test(self.complete, ordinal) or bits_test(self.held, ordinal):
            bits_clear(self.wanted, ordinal)
        else:
            bits_set(self.wanted, ordinal)

    cdef void _completed(self, Partial *p) noexcept nogil:
        self.frames.remove(p)
        p.next = NULL
        if self.first is NULL:
            self.first = p
        else:
            self.last.next = p
        self.last = p
        self.queued += p.stored
        self.completed += 1
        bits_set(self.complete, p.ordinal)
        bits_clear(self.held, p.ordinal)
        self._update(p.ordinal)

    cdef Partial *pop(self) noexcept nogil:
        cdef Partial *p = self.first
        if p is not NULL:
            self.first = p.next
        return p

    cdef void finish(self, uint32_t ordinal, bint ok) noexcept nogil:
        cdef uint32_t stored = self.frames.layout.lengths[ordinal]
        cdef Partial *p
        if bits_test(self.finished, ordinal):
            if not ok:  # what a disk was said to hold, it does not
                bits_clear(self.finished, ordinal)
                self.undone += 1
                self._update(ordinal)
            return
        if bits_test(self.complete, ordinal):
            self._unqueue(ordinal)
            bits_clear(self.complete, ordinal)
            self.queued -= stored
        p = self.frames.find(ordinal)
        if p is not NULL:
            self.frames.drop(p)
        bits_clear(self.held, ordinal)
        if ok:
            bits_set(self.finished, ordinal)
            self.undone -= 1
            self.written += 1
            self.written_bytes += stored
        else:
            self.wrong += 1
        self._update(ordinal)

    cdef void _unqueue(self, uint32_t ordinal) noexcept nogil:
        # In case that nobody has taken it.
        cdef Partial **link = &self.first
        cdef Partial *before = NULL
        while link[0] is not NULL and link[0].ordinal != ordinal:
            before = link[0]
            link = &before.next
        cdef Partial *p = link[0]
        if p is not NULL:
            link[0] = p.next
            if self.last is p:
                self.last = before
            free_partial(p)

    cdef int64_t add_bytes(self, uint32_t ordinal, uint32_t offset, const uint8_t *octets, uint32_t size
                           ) noexcept nogil:
        cdef uint32_t symbol = self.frames.symbol
        cdef uint32_t stop = offset + size
        cdef int64_t fresh = 0
        cdef uint32_t number, begin, end, at, till
        cdef Partial *p = self.frames.find(ordinal)
        if p is NULL:
            self._make_room(ordinal, False)  # or beyond the limit: what was asked for is taken
            p = self.frames.begin(ordinal)
            if p is NULL:
                return -1
        if offset != p.given_stop:
            p.given = offset
        p.given_stop = stop
        for number in range(offset // symbol, (stop + symbol - 1) // symbol):
            if not bits_test(p.lacking, number):
                continue
            begin = number * symbol
            end = min(begin + symbol, p.stored)
            at = max(begin, offset)
            till = min(end, stop)
            if p.octets is not NULL:
                memcpy(p.octets + at, octets + (at - offset), till - at)
            if p.given <= begin and end <= stop:
                self.frames.mark(p, number)
                fresh += end - begin
        if p.missing == 0:
            self._completed(p)
        return fresh

    cdef void hold(self, uint32_t ordinal, bint on) noexcept nogil:
        if on and not bits_test(self.complete, ordinal):
            bits_set(self.held, ordinal)
        else:
            bits_clear(self.held, ordinal)
        self._update(ordinal)

    cdef uint32_t needed(self, uint32_t ordinal, uint64_t *words) noexcept nogil:
        cdef uint32_t symbols = cast_symbols(self.frames.layout.lengths[ordinal], self.frames.symbol)
        cdef Partial *p = self.frames.find(ordinal)
        memset(words, 0, CAST_MOST_SYMBOLS >> 3)
        if p is not NULL:
            self.frames.needed(p, words)
        elif self.is_lacking(ordinal):
            bits_set_run(words, 0, symbols)
        return symbols


cdef int check_symbol(CastLayout layout, uint32_t symbol) except -1:
    """Raises ValueError for a size of symbols that frames of the layout cannot have."""
    if not 1 <= symbol <= CAST_LARGEST_SYMBOL or cast_symbols(layout.longest, symbol) > CAST_MOST_SYMBOLS:
        raise ValueError(f"no frame of {layout.longest} bytes has symbols of {symbol}")
    return 0
