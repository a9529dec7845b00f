"""Datagrams of cast sessions: DATA, MARK, REPORT, ORDER."""

from typing import NamedTuple

from typing_extensions import Buffer

REASONS: tuple[str, ...]

class Session(NamedTuple):
    """What both sides know: the id, the key of 16 bytes, bytes of a symbol."""

    id: int
    key: bytes
    symbol: int

class Data(NamedTuple):
    """DATA: one symbol of a frame."""

    sequence: int
    chunk: int
    stored: int
    number: int
    symbols: int
    payload: bytes

class Mark(NamedTuple):
    """MARK: the sender lives; kind 1 alive, 2 report now."""

    sequence: int
    live: int
    period: int
    spread: int
    kind: int

class Report(NamedTuple):
    """REPORT, one part. `wants`: (first, count) for chunks missing whole, (chunk, runs) for one that lacks symbols."""

    receiver: int
    number: int
    part: int
    parts: int
    flags: int
    highest: int
    received: int
    expected: int
    written: int
    wrong: int
    disk_rate: int
    disk_queue: int
    refused: int
    begin: int
    stop: int
    wants: tuple[tuple[int, int | tuple[tuple[int, int], ...]], ...]

class Order(NamedTuple):
    """ORDER: what a receiver is told in answer to a report."""

    receiver: int
    number: int
    order: int
    reason: int

def decode(data: Buffer, session: Session) -> Data | Mark | Report | Order | str:
    """The datagram in `data`, or the reason why it is refused (one of REASONS). ValueError: `session` is none."""

def mac(data: bytes, session: Session) -> bytes:
    """The MAC of `data`: SipHash-2-4, 8 bytes."""

def encode_data(data: Data, session: Session) -> bytes:
    """A DATA datagram; nothing is checked but that the fields fit."""

def encode_mark(mark: Mark, session: Session) -> bytes:
    """A MARK datagram."""

def encode_order(order: Order, session: Session) -> bytes:
    """An ORDER datagram."""

def encode_report(report: Report, session: Session, symbols: int = 8192) -> bytes:
    """A REPORT datagram; `symbols`: source symbols of the frames that are partly there.

    Raises ValueError for runs of symbols that are none, OverflowError when the entries need more than one part.
    """
