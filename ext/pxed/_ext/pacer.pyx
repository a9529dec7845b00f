"""Pacer: the rate of an interface, or of a service, as a token bucket that any number of threads share."""

from libc.stdint cimport uint64_t

cimport cython


@cython.final
cdef class Pacer:
    """At most `rate` bytes per second (0: no limit) and `burst` bytes at once: rate * t + burst in any time t.

    Bytes are those on the line, with the headers of IP and Ethernet. Senders use it at C level; times are ns of one
    clock for all of them.
    """

    def __cinit__(self, uint64_t rate=0):
        pxed_pacer_set_rate(&self.c, rate)

    @property
    def rate(self) -> int:
        """Bytes per second; 0: no limit. May be set while senders use it."""
        return self.c.rate

    @rate.setter
    def rate(self, uint64_t rate):
        pxed_pacer_set_rate(&self.c, rate)

    @property
    def burst(self) -> int:
        """Bytes that may leave at once after a pause."""
        return pxed_pacer_burst(&self.c)

    def take(self, uint64_t count, uint64_t now) -> bool:
        """Whether `count` bytes may leave at `now`; they count as sent then."""
        return pxed_pacer_take(&self.c, count, now)

    def give_back(self, uint64_t count) -> None:
        """The last `take` of so many bytes came to nothing."""
        pxed_pacer_give_back(&self.c, count)

    def ready_at(self) -> int:
        """When to try again after a refusal."""
        return pxed_pacer_ready_at(&self.c)
