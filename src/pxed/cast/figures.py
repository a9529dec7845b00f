"""What a session's policy hears of its receivers, and what it says."""

from enum import StrEnum

from msgspec import Struct

from pxed.types import CastOrder as Order
from pxed.types import CastWhy as Why


class State(StrEnum):
    """What a receiver is doing."""

    JOINED = "joined"  # and has not reported yet
    RECEIVING = "receiving"
    LISTENING = "listening"  # takes what passes; nothing is sent on its account
    HTTP = "http"
    DONE = "done"
    DEAD = "dead"  # no report for DEAD_AFTER; it may come back
    LEFT = "left"


OVER = frozenset({State.DONE, State.LEFT})
"""States that nothing follows."""


class Heard(Struct, frozen=True):
    """One receiver by its last report. Counters are since it joined."""

    number: int
    silence: float | None = None  # seconds since its last report; None: none came yet
    received: int = 0  # DATA, of `expected`
    expected: int = 0
    refused: int = 0  # of those received, not taken: its disk's queue was full
    written: int = 0  # chunks
    wrong: int = 0  # chunks whose bytes were not what they must be
    disk_rate: float = 0.0  # bytes per second
    queue: float = 0.0  # how full its disk's queue is, 0 to 1
    done: bool = False
    leaving: bool = False
    http: bool = False  # it takes HTTP now


class Move(Struct, frozen=True):
    """A receiver is given an order."""

    number: int
    order: Order
    why: Why


class Note(Struct, frozen=True):
    """Something happened to a receiver: a sentence for its machine's timeline."""

    number: int
    what: str  # "moved", "http", "finished", "dead", "replaced", "back" or "left"
    text: str


class Step(Struct, frozen=True):
    """What a look at the figures has led to."""

    rate: int  # bytes of data per second
    moves: tuple[Move, ...] = ()
    notes: tuple[Note, ...] = ()
