"""Orders for a cast_sender.CastSender, for Engine.post, and what it tells, which Engine.drain returns.

An order about a session or receiver that is not there does nothing; what cannot be done is told by CastRefused.
"""

from typing import NamedTuple

from pxed._ext.cast_figures import STATE_NAMES

from libc.stdint cimport UINT64_MAX
from libc.string cimport memcpy, memset

from pxed._ext.cast cimport CAST_LARGEST_SYMBOL, CAST_MOST_SYMBOLS, CAST_SYMBOL, cast_symbols
from pxed._ext.cast_figures cimport (
    TELL_CLOSED, TELL_LISTING, TELL_UNREADABLE, ListingFigures, ReceiverFigures, SessionFigures, Telling,
)
from pxed._ext.cast_source cimport (
    CastSource, pxed_cast_frame_stored, pxed_cast_source, pxed_cast_source_ref, pxed_cast_source_unref,
)
from pxed._ext.linux_net cimport pxed_path_parse, pxed_path_v4
from pxed._ext.orders cimport Order, own_order

# In the order of CastOrderCode and CastOrderReason (cast.pxd), which are those of types.CastOrder and types.CastWhy.
DIRECTIONS = ("back", "http", "listen")
REASON_NAMES = ("", "disk", "port", "loss", "few", "closing", "unknown", "store")


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
    receivers: list["CastReceiver"]
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


# -- orders ------------------------------------------------------------------------------------------------------------

cdef void _release(void *thing) noexcept nogil:
    pxed_cast_source_unref(<pxed_cast_source *>thing)


cdef CastCommand _command(Verb verb, uint64_t session):
    cdef CastCommand command
    memset(&command, 0, sizeof(command))
    command.verb = verb
    command.session.session = session
    return command


cdef uint32_t _largest(CastSource source):
    # Bytes of its longest frame.
    cdef uint32_t i
    cdef uint32_t largest = 0
    for i in range(source.c.frames):
        largest = max(largest, pxed_cast_frame_stored(source.c, i))
    return largest


def open_session(session: int, bytes key, group: tuple[str, int], CastSource source, *, socket: int = 0, rate: int = 0,
                 symbol: int = CAST_SYMBOL, period: float = 1.0, held: bool = False) -> Order:
    """Send `source` to the (address, port) of a group, from the engine's socket number `socket` (in the order of
    `bind`).

    `rate`: symbol bytes per second, 0 for no limit; `period`: seconds between a receiver's reports; `held`: no DATA
    before `hold` says so. Raises ValueError for what cannot be a session.
    """
    cdef CastCommand command = _command(VERB_OPEN, session)
    cdef bytes address = group[0].encode()
    cdef Order order
    if len(key) != 16 or not 0 < symbol <= CAST_LARGEST_SYMBOL or not 0.01 <= period <= 60:
        raise ValueError("a key has 16 bytes, a symbol from 1 to 8916, a period is from 0.01 to 60 s")
    if ":" in group[0] or pxed_path_parse(&command.group, address, group[1], b"") < 0:
        raise ValueError(f"no IPv4 address: {group[0]!r}")
    if len(source) == 0 or cast_symbols(_largest(source), symbol) > CAST_MOST_SYMBOLS:
        raise ValueError(f"a session has frames, of {CAST_MOST_SYMBOLS} symbols at most")
    memcpy(command.session.key, <const char *>key, 16)
    command.session.symbol = symbol
    command.group.socket = socket
    command.rate = rate
    command.period = round(period * 1000)
    command.held = held
    order = own_order(&command, sizeof(command))
    order.command.thing = pxed_cast_source_ref(source.c)
    order.command.release = _release
    source.sealed = True
    return order


def close_session(session: int) -> Order:
    """Send no more of it, and tell its receivers, which join again or take HTTP. CastClosed follows."""
    cdef CastCommand command = _command(VERB_CLOSE, session)
    return own_order(&command, sizeof(command))


def admit(session: int, receiver: int, address: str) -> Order:
    """Believe reports of that receiver number from an IPv4 address from now on. Raises ValueError when it is none."""
    cdef CastCommand command = _command(VERB_ADMIT, session)
    cdef pxed_path path
    cdef bytes text = address.encode()
    if ":" in address or pxed_path_parse(&path, text, 0, b"") < 0:
        raise ValueError(f"no IPv4 address: {address!r}")
    memcpy(&command.address, pxed_path_v4(&path), 4)
    command.receiver = receiver
    return own_order(&command, sizeof(command))


def direct(session: int, receiver: int, direction: str, reason: str = "") -> Order:
    """Tell a receiver to fetch the rest by HTTP and leave ("http"), to take what passes ("listen"), or that it counts
    again ("back"). `reason`: one of REASON_NAMES. Raises ValueError for other words.
    """
    cdef CastCommand command = _command(VERB_DIRECT, session)
    command.receiver = receiver
    command.order = DIRECTIONS.index(direction)
    command.reason = REASON_NAMES.index(reason)
    return own_order(&command, sizeof(command))


def set_rate(session: int, rate: int) -> Order:
    """Symbol bytes per second; 0: no limit."""
    cdef CastCommand command = _command(VERB_RATE, session)
    command.rate = rate
    return own_order(&command, sizeof(command))


def hold(session: int, held: bool) -> Order:
    """Send no DATA while it is held; reports are heard, and the group is told that the session lives."""
    cdef CastCommand command = _command(VERB_HOLD, session)
    command.held = held
    return own_order(&command, sizeof(command))


def ask_session(session: int, first: int = 0) -> Order:
    """Ask for a CastListing, of the receivers from place `first` on. There is none when the session is gone."""
    cdef CastCommand command = _command(VERB_ASK, session)
    command.first = first
    return own_order(&command, sizeof(command))


# -- events ------------------------------------------------------------------------------------------------------------

cdef object _receiver(const ReceiverFigures *r):
    return CastReceiver(
        r.number, f"{r.address[0]}.{r.address[1]}.{r.address[2]}.{r.address[3]}", STATE_NAMES[r.state],
        DIRECTIONS[r.order], REASON_NAMES[r.reason], None if r.quiet == UINT64_MAX else r.quiet / 1e9, r.written,
        r.wanted, r.wrong, r.received, r.expected, None if r.loss < 0 else r.loss, r.refused, r.refused_lately,
        <uint64_t>r.disk_rate * 1024, r.disk_queue / 1000.0, r.flags,
    )


cdef object _listing(const ListingFigures *listing):
    cdef const SessionFigures *s = &listing.session
    cdef uint32_t i
    receivers = [_receiver(&listing.receivers[i]) for i in range(listing.telling.count)]
    return CastListing(
        listing.telling.session, s.rate, s.held, s.closing, s.chunks, s.sequence, s.passes, s.wanted, s.repairs,
        s.sent, s.repaired, s.parity, s.needed, s.bytes, s.marks, s.reports, s.stale_wants, s.unreadable, s.loss,
        s.live, s.receivers, receivers, listing.telling.after,
    )


cdef object record_of(Event *event):
    """The record of an EVENT_OWN of a CastSender."""
    cdef ListingFigures listing
    cdef Telling telling
    memcpy(&telling, event.data, sizeof(telling))
    if telling.kind == TELL_LISTING:
        memcpy(&listing, event.data, event.size)
        return _listing(&listing)
    if telling.kind == TELL_UNREADABLE:
        return CastUnreadable(telling.session, telling.value, telling.error)
    if telling.kind == TELL_CLOSED:
        return CastClosed(telling.session)
    return CastRefused(telling.session, telling.error)
