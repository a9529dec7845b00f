"""How fast images may travel by multicast: what [cast] says about an interface at a time of day."""

from collections.abc import Callable

from msgspec import Struct

from pxed.cast.session import OVERHEAD
from pxed.config import Config, bytes_per_second, minutes_of_day

__all__ = ["Bounds", "Limits"]

# Of an interface that nothing is said about: so much of its line, and never more than a line of this speed would carry,
# since the ports of most machines are no faster.
_SHARE = 0.8
_USUAL_LINE = 125_000_000
# The floor, where nothing is said: of the cap.
_FLOOR = 0.1


class Bounds(Struct, frozen=True):
    """Of the rate of each session of an interface, in bytes of image data per second."""

    floor: float
    cap: float


class Limits:
    """`speed_of` an interface: bytes per second, None when nobody knows."""

    def __init__(self, config: Config, speed_of: Callable[[str], int | None]) -> None:
        self._speed_of = speed_of
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over [cast] and [server.rates] of a configuration."""
        cast = config.cast
        self._lines = {name: bytes_per_second(rate) for name, rate in config.server.rates.items()}
        self._rate = bytes_per_second(cast.rate)
        self._rates = {name: bytes_per_second(rate) for name, rate in cast.rates.items()}
        self._session = bytes_per_second(cast.session_rate)
        self._floor = bytes_per_second(cast.floor)
        self._hours = [
            (times, bytes_per_second(rate)) for h, rate in cast.hours.items() if (times := minutes_of_day(h))
        ]

    def bounds(self, interface: str, sessions: int, minute: int) -> Bounds:
        """What each of so many `sessions` that send through an interface may, at a minute of the day."""
        cap = self._said(interface) or _SHARE * self._line(interface) / OVERHEAD
        for (begin, end), rate in self._hours:
            if (minute - begin) % 1440 < (end - begin) % 1440:
                cap = min(cap, rate)
        cap /= max(1, sessions)
        if self._session:
            cap = min(cap, self._session)
        return Bounds(min(self._floor or cap * _FLOOR, cap), cap)

    def room(self, interface: str, used: float) -> float | None:
        """What an interface's line carries beside sessions of `used` bytes of data per second; None: nobody knows.

        Where a rate is set for sessions and none for the line, that is all that the site wants to see of imaging.
        """
        line = self._lines.get(interface, 0)
        if not line and not self._said(interface):
            line = self._speed_of(interface) or 0
        return max(0.0, line - used * OVERHEAD) if line else None

    def _said(self, interface: str) -> float:
        return self._rates.get(interface, self._rate)

    def _line(self, interface: str) -> float:
        speed = min(self._speed_of(interface) or _USUAL_LINE, _USUAL_LINE)
        return min(speed, self._lines.get(interface) or speed)
