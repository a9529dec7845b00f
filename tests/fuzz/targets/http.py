"""Bytes on a boot HTTP connection, in pieces and with pauses: whole answers in order, then an end. No sockets."""

import re
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from pxed.net.connection import Connection, Limits
from pxed.net.message import BytesBody, Request, Response

BODY = bytes(range(256)) * 8
NEXT, LATER = b"\xf5", b"\xf6"  # no text has them: the end of a piece, and of one that the client is silent after
LIMITS = Limits(head=2048, body=1024)
WORDS = (
    b"GET ", b"HEAD ", b"POST ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"Host: x\r\n", b"\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Range: bytes=", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n", b"0\r\n\r\n", b"http://h/", b"%2e%2e/", NEXT, LATER,
)  # fmt: skip
_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


def seeds() -> dict[str, bytes]:
    """Requests of firmware, agents and browsers, pipelined, cut, and some that are none."""
    get = b"GET /f HTTP/1.1\r\nHost: x\r\n"
    post = b"POST /pxed/agent/claim HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    found = {
        "get": get + b"\r\n",
        "pipelined": (get + b"\r\n") * 3 + b"HEAD /g HTTP/1.1\r\nHost: x\r\n\r\n" + post,
        "ranges": b"".join(
            get + b"Range: bytes=" + cut + b"\r\n\r\n" for cut in (b"0-0", b"5-", b"-7", b"9-2", b"9999-")
        ),
        "pieces": NEXT.join((b"GE", b"T / HT", b"TP/1.1\r", b"\nHost: x\r\n\r", b"\n")),
        "slow": LATER.join((b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n")),
        "old": b"GET /f HTTP/1.0\r\n\r\n",
        "close": get + b"Connection: close\r\n\r\n" + get + b"\r\n",
        "chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        + get
        + b"\r\n",
        "expect": b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n" + NEXT + b"hello",
        "upgrade": get + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "long": get + b"X: " + b"a" * 3000 + b"\r\n\r\n",
        "large": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
        "absolute": b"GET http://h//a/../b?q#f HTTP/1.1\r\nHost: h\r\n\r\n",
        "hosts": get + b"Host: y\r\n\r\n",
    }
    return {name: b"\x20" + data for name, data in found.items()}


class Loop:
    """As much of an event loop as a connection uses; time stands still but for `pass_time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.readers: dict[object, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self.writers: dict[object, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self.ready: deque[Callable[[], None]] = deque()

    def time(self) -> float:
        return self.now

    def add_reader(self, sock: object, call: Callable[..., None], *args: Any) -> None:
        self.readers[sock] = call, args

    def remove_reader(self, sock: object) -> bool:
        return self.readers.pop(sock, None) is not None

    def add_writer(self, sock: object, call: Callable[..., None], *args: Any) -> None:
        self.writers[sock] = call, args

    def remove_writer(self, sock: object) -> bool:
        return self.writers.pop(sock, None) is not None

    def call_soon(self, call: Callable[..., None], *args: Any) -> None:
        self.ready.append(lambda: call(*args))

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> "Task":
        self.ready.append(lambda: _run(coroutine))
        return Task()

    def turn(self) -> None:
        """Until there is nothing to do; a hundred answers that leave byte by byte take a hundred thousand steps."""
        for _ in range(500_000):
            if self.ready:
                self.ready.popleft()()
            elif self.writers:
                call, args = next(iter(self.writers.values()))
                call(*args)
            else:
                return
        raise AssertionError("the connection does not come to rest")


class Task:
    """What `create_task` gives; the handler here never waits, so it is done after one step."""

    def cancel(self) -> bool:
        return False


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("the handler waited")


class Socket:
    """A socket whose other end is the target. It takes `room` bytes a call, and then none once."""

    def __init__(self, room: int) -> None:
        self.arrived: deque[bytes] = deque()
        self.sent = bytearray()
        self.closed = self.shut = False
        self._room, self._full = room, False

    def recv(self, size: int) -> bytes:
        if not self.arrived:
            raise BlockingIOError
        data = self.arrived.popleft()
        if len(data) > size:
            self.arrived.appendleft(data[size:])
        return data[:size]

    def send(self, data: Any, flags: int = 0) -> int:
        assert not self.shut and not self.closed
        self._full = not self._full
        if not self._full:
            raise BlockingIOError
        taken = bytes(data[: self._room])
        self.sent += taken
        return len(taken)

    def sendmsg(self, buffers: Any, *_: Any) -> int:
        return self.send(b"".join(buffers))

    def getsockname(self) -> tuple[str, int]:
        return "10.78.0.1", 80

    def setsockopt(self, *_: Any) -> None:
        """Any option is taken."""

    def getsockopt(self, *_: Any) -> int:
        return 0

    def shutdown(self, how: int) -> None:
        assert how == socket.SHUT_WR
        self.shut = True

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        self.closed = True


class Talk:
    """One connection, its handler and its client."""

    def __init__(self, room: int) -> None:
        self.loop, self.sock = Loop(), Socket(room)
        self.heads: list[bool] = []  # per answered request: was it a HEAD?
        self.ends: list[str] = []
        peer = ("10.78.0.50", 40000)
        loop: Any = self.loop
        self.connection = Connection(loop, self.sock, peer, self._respond, self._closed, LIMITS)  # type: ignore[arg-type]
        self.connection.start()

    async def _respond(self, request: Request) -> Response:
        assert request.method in ("GET", "HEAD", "POST") and request.path.startswith("/")
        assert len(request.body) <= LIMITS.body
        assert sum(map(len, request.headers)) + len(request.path) <= LIMITS.head
        self.heads.append(request.method == "HEAD")
        return Response(200, BytesBody(BODY), ranges=True)

    def _closed(self, connection: Connection, reason: str) -> None:
        self.ends.append(reason)

    def feed(self, data: bytes) -> None:
        """What the client sends reaches the connection, as far as it reads."""
        self.sock.arrived.append(data)
        self.loop.turn()
        while self.sock.arrived and self.loop.readers:
            call, args = next(iter(self.loop.readers.values()))
            call(*args)
            self.loop.turn()

    def pass_time(self) -> None:
        """Nothing happens until the deadline."""
        if self.connection.deadline < float("inf"):
            self.loop.now = max(self.loop.now, self.connection.deadline)
            self.connection.expire()
            self.loop.turn()


def one(data: bytes) -> None:
    """Every answer is whole and about one request, in order; a connection that goes quiet is closed, once."""
    talk = Talk(1 + (data[0] if data else 0) * 32)  # what the kernel takes in one call
    for later in re.split(rb"(?<=\xf6)", data[1:]):
        for piece in later.removesuffix(LATER).split(NEXT):
            if piece and not talk.sock.closed:
                talk.feed(piece)
        if later.endswith(LATER):
            talk.pass_time()
    for _ in range(4):  # a request's time, the wait for more, the lingering
        talk.pass_time()
    assert talk.ends and len(talk.ends) == 1 and talk.sock.closed
    assert not talk.loop.readers and not talk.loop.writers
    _check_answers(bytes(talk.sock.sent), talk.heads)


def _check_answers(sent: bytes, heads: list[bool]) -> None:
    answers = 0
    while sent:
        head, blank, sent = sent.partition(b"\r\n\r\n")
        assert blank and head.startswith(b"HTTP/1.1 "), head
        if head.startswith(b"HTTP/1.1 100"):
            continue
        length = _LENGTH.search(head + b"\r\n")
        assert length, head
        size = 0 if answers < len(heads) and heads[answers] else int(length[1])
        assert len(sent) >= size
        sent = sent[size:]
        answers += 1
    assert len(heads) <= answers <= len(heads) + 1  # the last may be a refusal
