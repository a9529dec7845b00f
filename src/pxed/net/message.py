"""HTTP messages as plain records: what a handler gets, what it answers, and how a range is cut. No sockets."""

import os
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

import msgspec
from msgspec import Struct

__all__ = [
    "Body",
    "BytesBody",
    "FileBody",
    "Request",
    "Response",
    "Segment",
    "Unsatisfiable",
    "head_bytes",
    "parse_range",
]

# At most 19 digits: no body is longer, and what a client sends must not reach int()'s limit of 4300 digits.
_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,19})\s*)?-\s*(?:(\d{1,19})\s*)?", re.IGNORECASE | re.ASCII)


class Request(Struct, frozen=True):
    """One request. Header names are lower case; of a repeated header the last is kept."""

    method: str
    path: str  # as sent: not percent-decoded, without the query, runs of '/' collapsed to one
    query: str
    headers: dict[str, str]
    body: bytes
    peer: tuple[str, int]
    local: tuple[str, int]  # our address that the client reached


Segment = tuple[int, int, int]
"""A stretch of an open file: (descriptor, offset, length)."""


class Body(Protocol):
    """The whole of what a response is about; the server sends all of it, or a range."""

    @property
    def size(self) -> int:
        """Length in bytes."""

    def segments(self, start: int, stop: int) -> Sequence[Segment] | bytes:
        """The bytes from `start` to before `stop`. Descriptors stay the body's own, valid until `close`."""

    def intact(self) -> bool:
        """Whether it is still what it was when its size was told. Asked after each stretch that was sent."""

    def close(self) -> None:
        """Release what it holds. Called exactly once, however the response ended."""


class BytesBody:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self._data)

    def segments(self, start: int, stop: int) -> bytes:
        """The bytes themselves."""
        return self._data[start:stop]

    def intact(self) -> bool:
        """Memory does not change."""
        return True

    def close(self) -> None:
        """Nothing to release."""


class FileBody:
    """A regular file, by its descriptor, which it owns.

    mtime: nanoseconds; a file that is written to while it is being sent is no longer the one that was asked for.
    """

    def __init__(self, fd: int, size: int, mtime: int) -> None:
        self._fd = fd
        self._size = size
        self._mtime = mtime

    @property
    def size(self) -> int:
        """Length in bytes, as it was when the file was opened."""
        return self._size

    def segments(self, start: int, stop: int) -> list[Segment]:
        """One stretch of the one file."""
        return [(self._fd, start, stop - start)]

    def intact(self) -> bool:
        """Nobody has written to it or cut it off. One that was replaced or deleted is still whole by its descriptor."""
        now = os.fstat(self._fd)
        return now.st_mtime_ns == self._mtime and now.st_size == self._size

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)


class Response(Struct, frozen=True):
    """An answer.

    `ranges`: a Range header of the request is honoured (206, 416); only for 200.
    `size_known`: False leaves Content-Length out of the answer to a HEAD (RFC 9110 8.6 allows that).
    `sent(start, stop, complete)` is called when the response has ended, with what of the body went to the kernel and
    whether that is all of what it was about; never for a HEAD or a range outside of the body.
    `unreadable(error)` is the answer instead, when the body's segments cannot be had.
    """

    status: int
    body: Body
    content_type: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()
    ranges: bool = False
    size_known: bool = True
    sent: Callable[[int, int, bool], None] | None = None
    unreadable: "Callable[[Exception], Response] | None" = None

    @classmethod
    def text(cls, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> "Response":
        """A line of plain text."""
        return cls(status, BytesBody(text.encode() + b"\n"), "text/plain; charset=utf-8", headers)

    @classmethod
    def json(cls, status: int, value: object) -> "Response":
        """A JSON answer."""
        return cls(status, BytesBody(msgspec.json.encode(value)), "application/json")


class Unsatisfiable(Exception):
    """The range lies outside of the body (416)."""


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """(start, stop) of a Range header, RFC 9110 14.1.2; None when it is to be ignored.

    Ignored: another unit, a malformed one, positions past 10^19, several ranges (no boot client sends them; answering
    with the whole is allowed). Raises Unsatisfiable.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        length = int(last)  # the last `length` bytes
        if length == 0 or size == 0:
            raise Unsatisfiable
        return max(0, size - length), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(size, int(last) + 1) if last else size


def head_bytes(response: Response, status: int, length: int | None, extra: str, keep_alive: bool) -> bytes:
    """The status line and headers, with `extra` header lines."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Type: {response.content_type}"]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if response.ranges:
        lines.append("Accept-Ranges: bytes")
    lines += [f"{name}: {value}" for name, value in response.headers]
    lines.append("Connection: keep-alive" if keep_alive else "Connection: close")
    return ("\r\n".join(lines) + "\r\n" + extra + "\r\n").encode("latin-1", "replace")
