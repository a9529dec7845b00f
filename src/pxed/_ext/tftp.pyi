"""TFTP codec (RFC 1350, 2090, 2347, 2348, 2349, 7440)."""

from typing import NamedTuple

from typing_extensions import Buffer

class Request(NamedTuple):
    """A read or write request (RRQ, WRQ). Text that is not UTF-8 is surrogate-escaped."""

    write: bool
    name: str
    mode: str
    options: dict[str, int]

class Ack(NamedTuple):
    """Acknowledgement of a block; the number wraps at 65536."""

    block: int

class Error(NamedTuple):
    """ERROR from a peer."""

    code: int
    text: str

def parse(data: Buffer) -> Request | Ack | Error | None:
    """Decode what a client sends; None for a packet that is malformed or that only servers send."""

def build_data(block: int, data: bytes) -> bytes:
    """A DATA packet; `block` is counted from 1 without wrapping."""

def build_oack(
    *,
    blksize: int | None = None,
    tsize: int | None = None,
    timeout: int | None = None,
    windowsize: int | None = None,
    multicast: tuple[str, int, bool] | None = None,
) -> bytes:
    """An OACK with the options that are not None, always in this order.

    `multicast`: the group's address and port, and whether the client is the one that acknowledges. Raises ValueError
    for an address that is not of IPv4.
    """

def build_error(code: int, text: str) -> bytes:
    """An ERROR; the text is cut at 400 bytes and at a NUL."""
