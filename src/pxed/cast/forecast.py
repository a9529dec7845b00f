"""When a session's fleet will be done, and who will miss it."""

from collections.abc import Collection

from msgspec import Struct

from pxed.cast.figures import OVER, State
from pxed.cast.member import Member
from pxed.cast.pace import percentile

# Later than the others by so much is missing it.
_LATER, _LATER_SECONDS = 1.1, 10.0
# The fleet is done when so many of it are.
_FLEET = 0.9


class Forecast(Struct, frozen=True):
    """Seconds until the fleet is done (None: nobody can know yet), and the numbers of those who will be later."""

    seconds: float | None
    late: tuple[int, ...]


def forecast(members: Collection[Member]) -> Forecast:
    """Of those who have joined and not left: what they will do at their present pace.

    The fleet are those who were not moved out and are not dead; without any of them, all who go on.
    """
    going = [m for m in members if m.state not in OVER and m.state is not State.JOINED and not m.replaced]
    living = [member for member in going if member.state is not State.DEAD]
    fleet = [member for member in living if member.active] or living
    known = [seconds for member in fleet if (seconds := member.seconds_left) is not None]
    if not fleet:
        expected = any(member.state is State.JOINED for member in members)
        return Forecast(None if expected else 0.0, tuple(member.number for member in going))
    if len(known) < _FLEET * len(fleet):
        return Forecast(None, ())
    done = percentile(known, _FLEET)
    limit = done * _LATER + _LATER_SECONDS
    return Forecast(done, tuple(member.number for member in going if _is_late(member, limit)))


def _is_late(member: Member, limit: float) -> bool:
    seconds = member.seconds_left
    return member.state is State.DEAD or seconds is None or seconds > limit
