"""Ranges and heads of HTTP messages."""

import pytest

from pxed.net.message import BytesBody, Response, Unsatisfiable, head_bytes, parse_range


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=0-1000", (0, 100)),  # clipped
        ("bytes=99-", (99, 100)),
        ("bytes = 10 - 19", (10, 20)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=5-4", None),  # RFC 9110 14.1.1: invalid, so ignored
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=1-2,4-5", None),
        ("pages=1-2", None),
        ("Bytes=1-2", (1, 3)),  # RFC 9110 14.1: units are case-insensitive
        (f"bytes={'9' * 5000}-", None),  # more digits than int() reads
        (f"bytes=0-{'9' * 5000}", None),
        (f"bytes=-{'9' * 5000}", None),
        ("", None),
    ],
)
def test_range_of_100_bytes(header: str, wanted: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == wanted


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_range_outside_is_unsatisfiable(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 100)


def test_every_range_of_an_empty_body_is_unsatisfiable() -> None:
    for header in ("bytes=0-", "bytes=0-0", "bytes=-5"):
        with pytest.raises(Unsatisfiable):
            parse_range(header, 0)


def test_head() -> None:
    response = Response(200, BytesBody(b"abc"), "text/plain", (("X-One", "1"),), ranges=True)
    assert head_bytes(response, 206, 2, "Content-Range: bytes 0-1/3\r\n", keep_alive=True) == (
        b"HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nAccept-Ranges: bytes\r\n"
        b"X-One: 1\r\nConnection: keep-alive\r\nContent-Range: bytes 0-1/3\r\n\r\n"
    )
    assert b"Content-Length" not in head_bytes(response, 200, None, "", keep_alive=False)
