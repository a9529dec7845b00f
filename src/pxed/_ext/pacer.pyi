"""Pacer: the rate of an interface, or of a service, as a token bucket that any number of threads share."""

from typing import final

@final
class Pacer:
    """At most `rate` bytes per second (0: no limit) and `burst` bytes at once: rate * t + burst in any time t.

    Bytes are those on the line, with the headers of IP and Ethernet. Times are ns of one clock.
    """

    rate: int
    """Bytes per second; 0: no limit. May be set while senders use it."""

    def __new__(cls, rate: int = ...) -> Pacer: ...
    @property
    def burst(self) -> int:
        """Bytes that may leave at once after a pause."""

    def take(self, count: int, now: int) -> bool:
        """Whether `count` bytes may leave at `now`; they count as sent then."""

    def give_back(self, count: int) -> None:
        """The last `take` of so many bytes came to nothing."""

    def ready_at(self) -> int:
        """When to try again after a refusal."""
