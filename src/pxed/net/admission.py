"""Who may have a connection, and whose goes first when there is no room. No sockets and no clocks.

Connections are ordered by what would be lost if they were closed (`Rank`), within a rank the longest there first. When
all are taken, a newcomer gets the place of the first one; when one address has as many as it may, it is one of its own.
A busy connection is never given up for another: an address that has only such ones is refused, and when all
addresses have only such ones, the newcomer waits. Every step costs the same, however many connections there are.
"""

from collections import OrderedDict
from collections.abc import Iterator
from enum import IntEnum
from typing import Generic, TypeVar

__all__ = ["GRACE", "Admission", "Rank", "Refused", "Waits"]

M = TypeVar("M")

# Seconds in which a client may say what it wants before its place can go to another one. An honest client's request
# comes within one round trip; a segment that is lost is sent again after a second at first (RFC 6298 2.1).
GRACE = 1.5


class Rank(IntEnum):
    """What would be lost with a connection; the least first."""

    ENDING = 0  # all is sent, the client has only not closed it yet
    ASKING = 1  # it has not said what it wants
    KEPT = 2  # between requests
    STALLED = 3  # its reader takes next to nothing
    BUSY = 4


class Refused(Exception):
    """This address has as many connections as it may, all of them busy."""


class Waits(Exception):
    """All connections there may be are busy."""


class _Line(Generic[M]):
    """Connections by rank, the longest in a rank first."""

    def __init__(self) -> None:
        # A plain dict whose first entries are taken again and again is searched longer and longer for its first.
        self._ranks: tuple[OrderedDict[M, float], ...] = tuple(OrderedDict() for _ in Rank)
        self.size = 0

    def add(self, member: M, rank: Rank, now: float) -> None:
        self._ranks[rank][member] = now
        self.size += 1

    def remove(self, member: M, rank: Rank) -> None:
        del self._ranks[rank][member]
        self.size -= 1

    def first(self, now: float) -> M | None:
        """Whose place can be taken."""
        for rank in (Rank.ENDING, Rank.ASKING, Rank.KEPT, Rank.STALLED):
            for member, since in self._ranks[rank].items():
                if rank is Rank.ASKING and now - since < GRACE:
                    break  # and so are all behind it
                return member
        return None

    def members(self, rank: Rank) -> OrderedDict[M, float]:
        return self._ranks[rank]


class Admission(Generic[M]):
    """The connections there are. connections: at most so many; per_address: of one address."""

    def __init__(self, connections: int, per_address: int) -> None:
        self._limit = connections
        self._per_address = per_address
        self._all: _Line[M] = _Line()
        self._lines: dict[str, _Line[M]] = {}
        self._places: dict[M, tuple[str, Rank]] = {}

    def __len__(self) -> int:
        return self._all.size

    def __iter__(self) -> Iterator[M]:
        return iter(self._places)

    def of(self, address: str) -> int:
        """How many connections an address has."""
        line = self._lines.get(address)
        return line.size if line is not None else 0

    def count(self, rank: Rank) -> int:
        """How many connections are of a rank."""
        return len(self._all.members(rank))

    def members(self, rank: Rank) -> Iterator[M]:
        """The connections of a rank, the longest in it first."""
        return iter(self._all.members(rank))

    def has_room(self, now: float) -> bool:
        """Whether some newcomer could be taken in."""
        return self._all.size < self._limit or self._all.first(now) is not None

    def make_room(self, address: str, now: float) -> M | None:
        """The connection to be closed for a newcomer from `address`, None where there is room.

        Raises Refused, or Waits (which `has_room` would have told).
        """
        line = self._lines.get(address)
        if line is not None and line.size >= self._per_address:
            if (victim := line.first(now)) is None:
                raise Refused
            return victim
        if self._all.size < self._limit:
            return None
        if (victim := self._all.first(now)) is None:
            raise Waits
        return victim

    def enter(self, member: M, address: str, now: float) -> None:
        """A connection that has said nothing yet."""
        self._places[member] = (address, Rank.ASKING)
        self._all.add(member, Rank.ASKING, now)
        self._lines.setdefault(address, _Line()).add(member, Rank.ASKING, now)

    def move(self, member: M, rank: Rank, now: float) -> None:
        """A connection's rank has changed; the same again changes nothing. `now` never goes back."""
        address, old = self._places[member]
        if rank is old:
            return
        self._places[member] = (address, rank)
        for line in (self._all, self._lines[address]):
            line.remove(member, old)
            line.add(member, rank, now)

    def leave(self, member: M) -> None:
        """A connection is closed."""
        address, rank = self._places.pop(member)
        self._all.remove(member, rank)
        line = self._lines[address]
        line.remove(member, rank)
        if not line.size:
            del self._lines[address]
