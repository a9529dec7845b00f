"""Timer wheel: arm, cancel and expire in O(1), without the GIL. Times are nanoseconds."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    TICK_BITS = 22        # a tick is 2**22 ns = 4.2 ms: well under the shortest retransmit timeout
    SLOTS = 4096          # one turn of the wheel: 17.2 s; later deadlines wait in the last slot and go round again
    SLOT_WORDS = 64       # SLOTS / 64 bits


cdef struct Timer:
    # A timer lives inside what it is for; `owner` leads back. All zero = not armed.
    Timer *next
    Timer *previous
    uint64_t deadline     # ns
    uint32_t slot
    bint armed
    void *owner


cdef class Wheel:
    cdef Timer slots[SLOTS]              # heads of rings
    cdef uint64_t occupied[SLOT_WORDS]
    cdef uint64_t tick                   # everything before this tick has expired
    cdef size_t count

    cdef void arm(self, Timer *timer, uint64_t deadline) noexcept nogil
    cdef void cancel(self, Timer *timer) noexcept nogil
    cdef Timer *expired(self, uint64_t now) noexcept nogil
    cdef uint64_t next_deadline(self) noexcept nogil
    cdef uint64_t _to_next_slot(self) noexcept nogil
