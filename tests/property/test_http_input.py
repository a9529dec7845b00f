"""Whatever bytes a client sends: the server answers or closes, no exception reaches the loop, the next is served."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed.net.message import BytesBody, Request, Response, Unsatisfiable, parse_range
from support.httpd import Httpd

PIECES = [
    "GET ", "HEAD ", "POST ", "/", "//x", "*", "http://h/p", " HTTP/1.1", " HTTP/1.0", " HTTP/2.0", "\r\n", "\n",
    "\r\n\r\n", "Host: x\r\n", "Content-Length: 5\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked\r\n",
    "hello", "5\r\n", "0\r\n\r\n", "Range: bytes=1-2\r\n", "Connection: close\r\n", "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\nConnection: Upgrade\r\n", "\0", "%00", "\xff", "a" * 3000, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]  # fmt: skip

inputs = st.lists(st.one_of(st.sampled_from(PIECES).map(str.encode), st.binary(max_size=40)), max_size=30)


@pytest.fixture(scope="module")
def httpd() -> Iterator[Httpd]:
    def handler(request: Request) -> Response:
        assert request.path.startswith("/")
        return Response(200, BytesBody(b"ok"), ranges=True)

    with Httpd(handler) as running:
        yield running


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=inputs)
def test_any_input(httpd: Httpd, pieces: list[bytes]) -> None:
    with httpd.connect() as client:
        try:
            for piece in pieces:
                client.sock.sendall(piece)
            client.sock.shutdown(socket.SHUT_WR)
        except OSError:  # it has closed already
            pass
        answer = client.rest()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    with httpd.connect() as client:
        client.send("GET /x HTTP/1.1\nHost: x\n\n")
        assert client.response()[2] == b"ok"
    assert httpd.loop.errors == []


@given(
    header=st.one_of(st.text(max_size=40), st.from_regex(r"bytes=(\d{0,30}|9{4500})-(\d{0,30}|9{4500})")),
    size=st.integers(0, 1 << 62),
)
def test_any_range_lies_within_the_body(header: str, size: int) -> None:
    try:
        cut = parse_range(header, size)
    except Unsatisfiable:
        return
    assert cut is None or 0 <= cut[0] < cut[1] <= size
