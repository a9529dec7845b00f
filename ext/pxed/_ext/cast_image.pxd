"""What one receiver has of one image, at C level. One thread at a time: whoever has it locks it."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from pxed._ext.cast_frames cimport CastFrames, CastLayout, Partial

# What became of a symbol.
cdef enum CastFate:
    FATE_TAKEN
    FATE_DUPLICATE               # here already, or not needed any more
    FATE_UNWANTED                # the frame is complete
    FATE_REFUSED                 # the frame is not begun: queue or memory is full
    FATE_COMPLETE                # taken, and the frame is complete with it


cdef class CastImage:
    cdef CastFrames frames
    cdef uint32_t count          # frames of the image
    cdef uint32_t undone
    cdef uint64_t *wanted        # bit sets of frames: in none of the other three
    cdef uint64_t *finished
    cdef uint64_t *complete      # but not finished
    cdef uint64_t *held          # fetched otherwise
    cdef uint64_t *asked         # what `asks` gave last
    cdef Partial *first          # complete, to be taken
    cdef Partial *last
    cdef uint64_t queue          # bytes of complete frames beyond which none is begun
    cdef uint64_t queued         # bytes of complete frames
    cdef uint32_t skipped        # the frame that was not begun last,
    cdef uint32_t skipped_symbol     # and the symbol of it that came last
    cdef uint64_t completed      # frames, ever
    cdef uint64_t written        # frames that were finished well
    cdef uint64_t wrong          # and not
    cdef uint64_t written_bytes
    cdef uint64_t evicted        # incomplete frames that memory was needed for

    # Frames to ask for, as a bit set: those that are wanted, as far as there is room for them.
    cdef const uint64_t *asks(self) noexcept nogil
    # The size of symbols; what is incomplete goes if it is another than before.
    cdef void cut(self, uint32_t symbol) noexcept nogil
    cdef bint is_lacking(self, uint32_t ordinal) noexcept nogil
    # A symbol whose number and length are right.
    cdef CastFate add(self, uint32_t ordinal, uint32_t number, const uint8_t *octets) noexcept nogil
    # Bytes within a frame that is lacking: how many are new in whole symbols; -1: no memory.
    cdef int64_t add_bytes(self, uint32_t ordinal, uint32_t offset, const uint8_t *octets, uint32_t size) noexcept nogil
    # The next complete frame, or NULL; the caller has it, and says `finish` some time.
    cdef Partial *pop(self) noexcept nogil
    cdef void finish(self, uint32_t ordinal, bint ok) noexcept nogil
    cdef void hold(self, uint32_t ordinal, bint on) noexcept nogil
    # Source symbols that are needed, as a bit set for CAST_MOST_SYMBOLS; how many source symbols the frame has.
    cdef uint32_t needed(self, uint32_t ordinal, uint64_t *words) noexcept nogil
    cdef int _have(self, have) except -1
    cdef Partial *_begin(self, uint32_t ordinal, uint32_t number) noexcept nogil
    cdef bint _make_room(self, uint32_t ordinal, bint of_the_poor) noexcept nogil
    cdef Partial *_poorest(self) noexcept nogil
    cdef void _update(self, uint32_t ordinal) noexcept nogil
    cdef void _completed(self, Partial *p) noexcept nogil
    cdef void _unqueue(self, uint32_t ordinal) noexcept nogil

cdef int check_symbol(CastLayout layout, uint32_t symbol) except -1
