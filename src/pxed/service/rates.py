"""How much may be sent: the pacers of this server's interfaces, and how many TFTP clients are served at a time.

The data plane has the mechanisms (`_ext.pacer`, `_ext.tftp_admission`); here is what the configuration makes of them.
"""

from collections.abc import Callable, Iterable

from pxed._ext.pacer import Pacer
from pxed.config import Config, bytes_per_second

__all__ = ["Rates"]

# What a slow firmware takes, lock-step, on an idle network: so many clients fill a line of this rate each.
_ONE_CLIENT = 500_000  # bytes per second
# Of an interface that does not say: the kernel knows no speed of a bridge or of most virtual ones.
_USUAL_SPEED = 125_000_000
# Never fewer: on a slow line each still gets a block in far less time than any firmware's patience. Never more: the
# datagrams that are under way to so many at once (6 MB) are as much as switches hold.
_FEWEST_PLACES, _MOST_PLACES = 64, 4096


class Rates:
    """Pacers for TFTP as a whole and for each interface; a reload changes their rates."""

    def __init__(
        self,
        config: Config | None = None,
        *,
        interface_of: Callable[[str], str] = lambda _address: "",
        speed_of: Callable[[str], int | None] = lambda _interface: None,
    ) -> None:
        """Without a configuration nothing is limited.

        `interface_of` an address of ours; `speed_of` an interface in bytes per second, None when nobody knows.
        """
        self._interface_of, self._speed_of = interface_of, speed_of
        self._lines: dict[str, Pacer] = {}
        self._limits: dict[str, int] = {}
        self._places = 0
        self.whole = Pacer()
        if config is not None:
            self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over the rates of a configuration, at once."""
        self.whole.rate = bytes_per_second(config.tftp.rate)
        self._limits = {name: bytes_per_second(rate) for name, rate in config.server.rates.items()}
        self._places = config.tftp.running
        for name, pacer in self._lines.items():
            pacer.rate = self._limits.get(name, 0)

    def line(self, address: str) -> Pacer:
        """The pacer of the interface that has an address of ours."""
        name = self._interface_of(address)
        return self._lines.setdefault(name, Pacer(self._limits.get(name, 0)))

    def places(self, addresses: Iterable[str]) -> int:
        """How many clients to serve at full speed at a time: as configured, or enough to fill the interfaces' lines."""
        if self._places:
            return self._places
        lines = sum(self._rate(name) for name in {self._interface_of(address) for address in addresses})
        rate = min(lines, self.whole.rate) if self.whole.rate else lines
        return max(_FEWEST_PLACES, min(rate // _ONE_CLIENT, _MOST_PLACES))

    def _rate(self, name: str) -> int:
        speed = self._speed_of(name) or _USUAL_SPEED
        limit = self._limits.get(name, 0)
        return min(speed, limit) if limit else speed
