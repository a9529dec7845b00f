"""Timer wheel for senders; `TimerWheel` is the same for Python, with integer keys and seconds."""

from typing import final

@final
class Wheel:
    """The C-level wheel; Python sees nothing of it."""

@final
class TimerWheel:
    """A wheel of integer keys; times are seconds. Deadlines are rounded up to a tick of 4.2 ms."""

    def arm(self, key: int, deadline: float) -> None:
        """Set or move the timer `key`."""

    def cancel(self, key: int) -> None:
        """Disarm the timer `key`; harmless when it is not armed."""

    def expired(self, now: float) -> list[int]:
        """Disarm and return the keys whose deadlines have passed."""

    def next_deadline(self) -> float | None:
        """When to call `expired` next; None when nothing is armed."""

    def __len__(self) -> int: ...
