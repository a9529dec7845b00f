"""Orders for a cast_sender.CastSender, for Engine.post, and what it tells, which Engine.drain returns.

An order about a session or receiver that is not there does nothing; what cannot be done is told by CastRefused.
"""

from typing import NamedTuple

from pxed._ext.cast_source import CastSource
from pxed._ext.orders import Order

DIRECTIONS: tuple[str, ...]
"""What a receiver can be told, by types.CastOrder: "back", "http", "listen"."""

REASON_NAMES: tuple[str, ...]
"""Why, by types.CastWhy; the first is none."""

class CastListing(NamedTuple):
    """A session as it stood when the engine was asked, and some of its receivers: the answer to one `ask_session`."""

    session: int
    rate: int  # symbol bytes per second; 0: no limit
    held: bool
    closing: bool
    chunks: int
    sequence: int  # of the last DATA
    passes: int  # times that the walk began anew
    wanted: int  # chunks that somebody wants whole, or lacks more than half of
    repairs: int  # chunks that somebody has in part
    sent: int  # symbols
    repaired: int  # of these, source symbols that were sent as repair
    parity: int  # of these, parity symbols
    needed: int  # symbols of all chunks that were sent at least once
    bytes: int  # of symbols
    marks: int
    reports: int
    stale_wants: int  # of reports that were older than what they spoke of
    unreadable: int  # chunks
    loss: float  # mean over the receivers, smoothed
    live: int  # receivers
    admitted: int  # receivers, all of them
    receivers: list[CastReceiver]
    after: int  # where the next `ask_session` goes on; 0 when this was the end

class CastReceiver(NamedTuple):
    """A receiver, as its last report has it. Counters are since it joined, mod 2**32."""

    number: int
    address: str
    state: str  # one of STATE_NAMES
    order: str  # one of DIRECTIONS: what it is told after each report, until it obeys
    reason: str  # of the order
    quiet: float | None  # seconds since its last report
    written: int  # chunks proved and written
    wanted: int  # chunks that it asked for
    wrong: int  # chunks whose hash was wrong
    received: int  # DATA
    expected: int  # DATA
    loss: float | None  # of the last period
    refused: int  # DATA not taken, as a queue was full
    refused_lately: int  # of the last period
    disk_rate: int  # bytes per second
    disk_queue: float  # 0 empty, 1 full
    flags: int  # 1 done, 2 leaving, 4 takes HTTP now

class CastUnreadable(NamedTuple):
    """A chunk cannot be read: nobody gets it from this session."""

    session: int
    chunk: int
    error: int  # errno; ENODATA: its pack has been cut off

class CastClosed(NamedTuple):
    """A session is gone, and its source with it."""

    session: int

class CastRefused(NamedTuple):
    """An order came to nothing: there is no memory (ENOMEM), too much of it (ENOSPC), or it is there already
    (EEXIST).
    """

    session: int
    error: int

def open_session(
    session: int,
    key: bytes,
    group: tuple[str, int],
    source: CastSource,
    *,
    socket: int = 0,
    rate: int = 0,
    symbol: int = 1436,
    period: float = 1.0,
    held: bool = False,
) -> Order:
    """Send `source` to the (address, port) of a group, from the engine's socket number `socket` (in the order of
    `bind`).

    `rate`: symbol bytes per second, 0 for no limit; `period`: seconds between a receiver's reports; `held`: no DATA
    before `hold` says so. Raises ValueError for what cannot be a session.
    """

def close_session(session: int) -> Order:
    """Send no more of it, and tell its receivers, which join again or take HTTP. CastClosed follows, after 10 s."""

def admit(session: int, receiver: int, address: str) -> Order:
    """Believe reports of that receiver number from an IPv4 address from now on. Raises ValueError when it is none."""

def direct(session: int, receiver: int, direction: str, reason: str = "") -> Order:
    """Tell a receiver to fetch the rest by HTTP and leave ("http"), to take what passes ("listen"), or that it counts
    again ("back"). `reason`: one of REASON_NAMES. Raises ValueError for other words.
    """

def set_rate(session: int, rate: int) -> Order:
    """Symbol bytes per second; 0: no limit."""

def hold(session: int, held: bool) -> Order:
    """Send no DATA while it is held; reports are heard, and the group is told that the session lives."""

def ask_session(session: int, first: int = 0) -> Order:
    """Ask for a CastListing, of 256 receivers from place `first` on. There is none when the session is gone."""
