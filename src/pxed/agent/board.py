"""Which chunks there are to do, and who does them: the one place where two transports meet. No I/O.

Frames of stored chunks come from a multicast session in any order, and from HTTP where it is asked. A chunk is taken
by whoever has it whole first; what the other brings of it is dropped. All methods may be called from any thread.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import IntEnum
from functools import reduce
from operator import and_

from msgspec import Struct

__all__ = ["BATCH", "Batch", "Board", "Lacking", "State"]

BATCH = 8  # chunks in one request: large enough to keep a disk streaming, small enough to lose in an outage
POLL = 0.2  # seconds after which a fetcher looks again whether frames that were whole elsewhere have been taken

Range = tuple[int, int]  # [start, stop) of a chunk's stored frame
Lacking = Callable[[int], list[Range] | None]  # what a receiver lacks of a frame; None: all of it


class State(IntEnum):
    """Of a chunk."""

    WANTED = 0
    PARTS = 1  # HTTP brings what the session did not; the frame becomes whole there
    FETCH = 2  # HTTP brings it whole
    WORK = 3  # its frame is being opened and written, or what the disk is said to hold is being proved
    KEPT = 4  # proved and held in memory: the seal
    DONE = 5  # on the disk


_DIGITS = bytes([ord("0"), ord("1")]) + bytes(254)


class Batch(Struct, frozen=True):
    """What HTTP fetches by one request."""

    whole: tuple[int, ...]  # ordinals
    parts: tuple[tuple[int, list[Range]], ...]  # an ordinal, and what is lacking of its frame


class Board:
    """The states of all stored chunks, by ordinal."""

    def __init__(self, count: int) -> None:
        self._states = bytearray(count)
        self._left = count
        self._from = 0  # where HTTP looks on: everything before is taken
        self._urgent: deque[int] = deque()
        self._http = False
        self._ended = False
        self._changed = threading.Condition()

    @property
    def over(self) -> bool:
        """Whether there is nothing left to do, or somebody has given up."""
        return self._ended or not self._left

    @property
    def left(self) -> int:
        """Chunks that are neither on the disk nor kept."""
        return self._left

    @property
    def http(self) -> bool:
        """Whether HTTP may take what is wanted."""
        return self._http

    def end(self) -> None:
        """Nobody need go on."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait for the end; True when it has come."""
        with self._changed:
            return self._changed.wait_for(lambda: self.over, seconds)

    def use_http(self, on: bool) -> None:
        """Let HTTP take what is wanted, or only what it is asked for by name (`again`)."""
        with self._changed:
            self._http = on
            self._changed.notify_all()

    # -- chunks ------------------------------------------------------------------------------------------------------

    def claim(self, ordinals: Iterable[int]) -> list[int]:
        """The disk is said to hold these: nobody fetches them until that was looked at. Returns those still wanted."""
        with self._changed:
            claimed = [ordinal for ordinal in ordinals if self._states[ordinal] == State.WANTED]
            for ordinal in claimed:
                self._states[ordinal] = State.WORK
            return claimed

    def take(self, ordinal: int) -> bool:
        """A frame came by the session. False when it is not needed: HTTP is at it, or it is done."""
        with self._changed:
            if self._states[ordinal] > State.PARTS:
                return False
            self._states[ordinal] = State.WORK
            return True

    def finish(self, ordinal: int, *, kept: bool = False) -> None:
        """The chunk is proved and on the disk, or (`kept`) in memory."""
        with self._changed:
            if self._states[ordinal] < State.KEPT:
                self._left -= 1
            self._states[ordinal] = State.KEPT if kept else State.DONE
            if not self._left:
                self._changed.notify_all()

    def again(self, ordinal: int, *, by_http: bool = False) -> None:
        """The chunk is wanted again; `by_http`: from HTTP, whole, whatever else goes on."""
        with self._changed:
            if by_http:
                self._states[ordinal] = State.FETCH
                self._urgent.append(ordinal)
            else:
                self._want(ordinal)
            self._changed.notify_all()

    def parts_came(self, ordinals: Iterable[int]) -> None:
        """HTTP has brought what was missing of chunks, which are now taken like any other frame."""
        with self._changed:
            for ordinal in ordinals:
                if self._states[ordinal] == State.PARTS:
                    self._want(ordinal)

    def _want(self, ordinal: int) -> None:
        self._states[ordinal] = State.WANTED
        self._from = min(self._from, ordinal)

    # -- HTTP --------------------------------------------------------------------------------------------------------

    def next_batch(self, lacking: Lacking) -> Batch | None:
        """What HTTP fetches next; waits for it. None at the end."""
        with self._changed:
            while not self.over:
                if self._urgent:
                    return Batch((self._urgent.popleft(),), ())
                if self._http and (batch := self._look(lacking)):
                    return batch
                self._changed.wait(POLL if self._http else None)
            return None

    def _look(self, lacking: Lacking) -> Batch | None:
        whole: list[int] = []
        parts: list[tuple[int, list[Range]]] = []
        at, first = self._states.find(State.WANTED, self._from), -1
        while at >= 0 and len(whole) + len(parts) < BATCH:
            ranges = lacking(at)
            if ranges is None:
                whole.append(at)
                self._states[at] = State.FETCH
            elif ranges:
                parts.append((at, ranges))
                self._states[at] = State.PARTS
            elif first < 0:
                first = at  # whole in the receiver: it will be taken, or wanted again
            at = self._states.find(State.WANTED, at + 1)
        self._from = first if first >= 0 else at if at >= 0 else len(self._states)
        return Batch(tuple(whole), tuple(parts)) if whole or parts else None

    # -- for the record ----------------------------------------------------------------------------------------------

    def bitmap(self, *states: State, group: int = 1) -> bytes:
        """Bit i of byte i // 8 (least significant first) is set where all chunks of the group i are in these states."""
        with self._changed:
            copy = bytes(self._states)
        flags = copy.translate(bytes(state in states for state in range(256)))
        if group > 1:
            flags += bytes([1]) * (-len(flags) % group)  # what does not exist is no reason against the last group
            lanes = (int.from_bytes(flags[lane::group], "little") for lane in range(group))
            flags = reduce(and_, lanes).to_bytes(len(flags) // group, "little")
        digits = flags[::-1].translate(_DIGITS)  # of a binary number, which Python reads fast
        return int(digits or b"0", 2).to_bytes((len(flags) + 7) // 8, "little")
