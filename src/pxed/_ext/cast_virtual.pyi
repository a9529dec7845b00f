"""A cast session in virtual time: the sender, receivers by the hundred, and the lines between them."""

from typing import final

@final
class VirtualCast:
    """An image of frames of `lengths` bytes, sent at `rate` bytes of symbols in a second. Times are seconds.

    `common`: loss at the server's own line, that is of all receivers together, in bursts of `common_burst` on average.
    """

    def __new__(
        cls,
        lengths: list[int],
        symbol: int,
        rate: int,
        *,
        seed: int = 1,
        period: float = 1.0,
        common: float = 0.0,
        common_burst: float = 1.0,
        machines: int = 4096,
    ) -> VirtualCast: ...
    def add(
        self,
        *,
        loss: float = 0.0,
        burst: float = 1.0,
        port: float = 0.0,
        disk: float = 0.0,
        joins: float = 0.0,
        dies: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        keep: bool = False,
        memory: int = 268435456,
        queue: int = 67108864,
    ) -> int:
        """A machine; returns its number.

        `loss` of what comes and goes, in bursts of `burst`; `port` and `disk`: bytes in a second, 0 is no limit;
        `joins` and `dies`: when, a death at 0 never; `duplicate` and `reorder`: of the datagrams; `keep`: bytes are
        kept and compared; `memory` and `queue` as of CastAssembler. Raises ValueError when there are too many.
        """

    def run(self, limit: float) -> bool:
        """Let time pass until all machines are done that live, and some seconds more, or until `limit` (seconds of the
        room's life). Whether they are done.
        """

    def direct(self, machine: int, direction: str, reason: str) -> None:
        """Tell a machine what it is to do, in the words of cast_events.direct."""

    def set_rate(self, rate: int) -> None:
        """Send at another rate."""

    def figures(self) -> dict[str, float]:
        """What was sent: DATA in all, of it parity, MARKs; how much the image is; reports and their bytes; the time."""

    def machine(self, i: int) -> dict[str, float | None]:
        """What became of a machine: seconds from its joining to its last frame (None: not done), datagrams that its
        line lost, frames with wrong bytes, and what its receiver counted.
        """

    def sender_statistics(self) -> dict[str, int]:
        """The sender's own counters; `audit`: wants that it counts wrongly, none unless there is a mistake."""
