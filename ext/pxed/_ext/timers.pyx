"""A hashed timer wheel (Varghese and Lauck, 1987, scheme 6) with a bit per slot, so that the next deadline is cheap.

Deadlines are rounded up to a tick: a timer never fires early, and at most one tick late. `TimerWheel` is the same
wheel for Python: tests and anything that is not per packet.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport UINT64_MAX
from libc.string cimport memset

cimport cython

cdef extern from *:
    int ctz "__builtin_ctzll"(unsigned long long) nogil


@cython.final
@cython.no_gc
cdef class Wheel:
    """The C-level wheel (timers.pxd). Not thread-safe: one wheel belongs to one thread."""

    def __cinit__(self):
        cdef int i
        for i in range(SLOTS):
            self.slots[i].next = self.slots[i].previous = &self.slots[i]

    cdef void arm(self, Timer *timer, uint64_t deadline) noexcept nogil:
        """Set or move a timer."""
        cdef uint64_t tick = (deadline + (1 << TICK_BITS) - 1) >> TICK_BITS
        cdef Timer *head
        if timer.armed:
            self.cancel(timer)
        if tick < self.tick:
            tick = self.tick
        if tick >= self.tick + SLOTS:
            tick = self.tick + SLOTS - 1
        timer.deadline = deadline
        timer.slot = tick % SLOTS
        timer.armed = True
        head = &self.slots[timer.slot]
        timer.next = head
        timer.previous = head.previous
        head.previous.next = timer
        head.previous = timer
        self.occupied[timer.slot // 64] |= (<uint64_t>1) << (timer.slot % 64)
        self.count += 1

    cdef void cancel(self, Timer *timer) noexcept nogil:
        """Disarm; harmless when it is not armed."""
        if not timer.armed:
            return
        timer.previous.next = timer.next
        timer.next.previous = timer.previous
        timer.armed = False
        self.count -= 1
        if self.slots[timer.slot].next == &self.slots[timer.slot]:
            self.occupied[timer.slot // 64] &= ~((<uint64_t>1) << (timer.slot % 64))

    cdef Timer *expired(self, uint64_t now) noexcept nogil:
        """Disarm and return one timer whose deadline is not after `now`; NULL when there is none (any more)."""
        cdef uint64_t current = now >> TICK_BITS
        cdef uint64_t step
        cdef Timer *timer
        while self.count != 0:
            step = self._to_next_slot()
            if self.tick + step > current:
                break
            self.tick += step
            timer = self.slots[self.tick % SLOTS].next
            self.cancel(timer)
            if timer.deadline <= now:
                return timer
            self.arm(timer, timer.deadline)  # it had waited in the last slot for its turn of the wheel
        if current > self.tick:
            self.tick = current
        return NULL

    cdef uint64_t next_deadline(self) noexcept nogil:
        """When `expired` next has something to look at; UINT64_MAX when no timer is armed."""
        if self.count == 0:
            return UINT64_MAX
        return (self.tick + self._to_next_slot()) << TICK_BITS

    cdef uint64_t _to_next_slot(self) noexcept nogil:
        # Ticks from self.tick to the first occupied slot; only with count > 0.
        cdef size_t start = self.tick % SLOTS
        cdef size_t word = start // 64
        cdef uint64_t bits = self.occupied[word] & (<uint64_t>0xffffffffffffffff << (start % 64))
        cdef int _i
        for _i in range(SLOT_WORDS + 1):
            if bits:
                return (word * 64 + ctz(bits) + SLOTS - start) % SLOTS
            word = (word + 1) % SLOT_WORDS
            bits = self.occupied[word]
        return 0


@cython.final
cdef class TimerWheel:
    """A wheel of Python objects; times are seconds."""

    cdef Wheel wheel
    cdef dict timers  # key -> address of its Timer

    def __cinit__(self):
        self.wheel = Wheel()
        self.timers = {}

    def __dealloc__(self):
        for address in self.timers.values():
            PyMem_Free(<void *><size_t>address)

    def arm(self, key: int, double deadline) -> None:
        """Set or move the timer `key`."""
        cdef Timer *timer
        if key in self.timers:
            timer = <Timer *><size_t>self.timers[key]
        else:
            timer = <Timer *>PyMem_Malloc(sizeof(Timer))
            if timer is NULL:
                raise MemoryError
            memset(timer, 0, sizeof(Timer))
            timer.owner = <void *><size_t>key
            self.timers[key] = <size_t>timer
        self.wheel.arm(timer, <uint64_t>(deadline * 1e9 + 0.5))

    def cancel(self, key: int) -> None:
        """Disarm the timer `key`; harmless when it is not armed."""
        cdef Timer *timer
        address = self.timers.pop(key, None)
        if address is not None:
            timer = <Timer *><size_t>address
            self.wheel.cancel(timer)
            PyMem_Free(timer)

    def expired(self, double now) -> list:
        """Disarm and return the keys whose deadlines have passed."""
        cdef Timer *timer
        keys = []
        while True:
            timer = self.wheel.expired(<uint64_t>(now * 1e9 + 0.5))
            if timer is NULL:
                return keys
            key = <size_t>timer.owner
            del self.timers[key]
            PyMem_Free(timer)
            keys.append(key)

    def next_deadline(self) -> float | None:
        """When to call `expired` next; None when nothing is armed."""
        cdef uint64_t deadline = self.wheel.next_deadline()
        return None if deadline == UINT64_MAX else deadline / 1e9

    def __len__(self) -> int:
        return len(self.timers)
