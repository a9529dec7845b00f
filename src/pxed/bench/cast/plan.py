"""What happens in a room: to how many receivers, on which network, and what is expected of it."""

import signal
from collections.abc import Sequence

from msgspec import Struct

from pxed.errors import OperatorError

__all__ = ["SECTOR", "UNHURT", "Case", "Plan", "Role", "cases", "roles"]

SECTOR = 512  # a disk's size is a multiple of it
UNHURT = "others"
"""The role of receivers to whom nothing happens."""

_EVENT = 0.43  # of the ideal time: when one is killed or stopped; 4 s of 9.4 s
_LATE = (0.53, 0.96)  # 5 s and 9 s of 9.4 s


class Case(Struct, frozen=True, kw_only=True):
    """One row of the table. What happens, happens to one receiver each, and loss to each receiver on its own."""

    title: str
    loss: float = 0.0  # share of packets from the server
    slow_port: float = 0.0  # bit/s of one receiver's port of the switch; 0: none is slow
    slow_disk: int = 0  # bytes/s that one receiver's disk takes
    kill: bool = False
    stop: bool = False
    late: tuple[float, ...] = ()  # seconds, for a receiver each
    power_loss: bool = False  # one is killed at half of the image, and started again at once
    wanted: float | None = None  # seconds: the slowest of the others, in the standard room
    wanted_it: float | None = None  # seconds: the one that it happens to
    wanted_again: float | None = None  # share of the image that may travel again after the power loss


class Plan(Struct, frozen=True, kw_only=True):
    """The room and the image."""

    receivers: int = 8
    size: int = 200_000_000  # bytes of random data
    line: float = 200e6  # bit/s of the server's port
    rate: float = 170e6  # bit/s that a sender may use
    limit: float = 60.0  # seconds after its start until a receiver of a peer is given up
    runs: int = 1

    @property
    def ideal(self) -> float:
        """Seconds that the rate alone takes."""
        return self.size * 8 / self.rate

    @property
    def standard(self) -> bool:
        """Whether the wanted figures are of this room."""
        return (self.receivers, self.size, self.line, self.rate) == (8, 200_000_000, 200e6, 170e6)


class Role(Struct, frozen=True):
    """What happens to one receiver. Times in seconds since the room's start.

    What happens (`signal`) happens at the time `event`, or when the share `filled` of the image is on its disk.
    """

    name: str = UNHURT
    start: float = 0.0
    port: float = 0.0
    disk: int = 0
    event: float = 0.0
    filled: float = 0.0
    signal: int = 0
    restart: bool = False  # it starts again after the event

    @property
    def ends(self) -> bool:
        """Whether it is expected to get the image."""
        return not self.signal or self.restart


def roles(case: Case, plan: Plan) -> list[Role]:
    """Of each receiver; whatever happens, happens to the last ones. Raises OperatorError: there are too few."""
    hit: list[Role] = []
    event = _EVENT * plan.ideal
    if case.slow_port:
        hit.append(Role("slow port", port=case.slow_port))
    if case.slow_disk:
        hit.append(Role("slow disk", disk=case.slow_disk))
    if case.kill:
        hit.append(Role("killed", event=event, signal=signal.SIGKILL))
    if case.stop:
        hit.append(Role("stopped", event=event, signal=signal.SIGSTOP))
    if case.power_loss:
        hit.append(Role("power loss", filled=0.5, signal=signal.SIGKILL, restart=True))
    hit += [Role(f"{seconds:g} s late", start=seconds) for seconds in case.late]
    if len(hit) >= plan.receivers:
        raise OperatorError(f"Something happens to {len(hit)} of {plan.receivers} receivers: one must be left.")
    return [Role()] * (plan.receivers - len(hit)) + hit


def cases(plan: Plan) -> Sequence[Case]:
    """The whole table."""
    late = tuple(round(share * plan.ideal, 1) for share in _LATE)
    return (
        Case(title="no loss", wanted=10.4),
        Case(title="1 % loss at each", loss=0.01, wanted=11.0),
        Case(title="5 % loss at each", loss=0.05, wanted=12.5),
        Case(title="one behind a slow port", slow_port=plan.line / 5, wanted=10.6, wanted_it=44.0),
        Case(title="one with a slow disk", slow_disk=round(plan.rate / 34), wanted=10.6, wanted_it=43.0),
        Case(title="one killed", kill=True, wanted=10.6),
        Case(title="one stopped", stop=True, wanted=10.6),
        Case(title="two come late", late=late, wanted=10.6, wanted_it=11.5),
        Case(title="power loss of one", power_loss=True, wanted=10.6, wanted_again=0.6),
    )
