"""One HTTP connection: bytes in, requests to the server, responses out. See `net.http` for the whole."""

import asyncio
import math
import os
import re
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from enum import Enum, auto

import httptools
import structlog
from msgspec import Struct

from pxed.net.message import Request, Response, Segment, Unsatisfiable, head_bytes, parse_range

__all__ = ["Connection", "Limits"]

_log = structlog.get_logger("pxed.net.http")

_RECEIVE = 65536
# One sendfile call, and one turn of a connection, moves at most this much, so that a fast reader of a big file
# does not keep the loop from the others.
_STEP = 1 << 20
# Input of a connection that is being closed, more than which is no honest client's.
_THROWN_AWAY = 1 << 20
_METHODS = ("GET", "HEAD", "POST")
_SLASHES = re.compile("/{2,}")
_ABSOLUTE_FORM = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


class Limits(Struct, frozen=True):
    """What a client may take. The defaults are generous to firmware and cheap for us."""

    connections: int = 2048  # a rack of 500 machines opens at most a few each; 8 KiB of kernel memory each
    head: int = 16384  # bytes of request line and headers; nginx allows 8 KiB per line, iPXE sends 300 bytes
    body: int = 65536  # bytes of a request's body
    request_timeout: float = 10.0  # seconds from a request's first byte to its last
    idle_timeout: float = 75.0  # seconds between requests of a kept connection; nginx: 75
    stall_timeout: float = 60.0  # seconds without a byte taken by the client: an agent waits for its disk, too
    slowest: float = 4096.0  # bytes per second on the average of a response, below which it is given up
    linger: float = 2.0  # seconds that a closed connection's unread input is thrown away, so that no RST
    # overtakes the answer

    @property
    def shortest(self) -> float:
        """The shortest of the timeouts."""
        return min(self.request_timeout, self.idle_timeout, self.stall_timeout, self.linger)


class _State(Enum):
    IDLE = auto()  # between requests
    READING = auto()  # a request has begun
    ANSWERING = auto()  # the handler is at work
    SENDING = auto()
    LINGERING = auto()  # all is sent and shut down; input is thrown away
    CLOSED = auto()


class _Outgoing(Struct):
    """The response being sent."""

    response: Response
    start: int  # range of the body
    stop: int
    is_head: bool
    keep_alive: bool
    chunks: deque[memoryview | Segment]
    left: int  # bytes of the chunks not taken by the kernel yet
    head_left: int  # of them, bytes of the response's head
    give_up: float  # loop time


Respond = Callable[[Request], Awaitable[Response]]


class Connection:
    """Owns the socket, and the body of the response in progress."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: tuple[str, int],
        respond: Respond,
        closed: "Callable[[Connection, str], None]",
        limits: Limits,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._peer = peer
        self._local: tuple[str, int] = sock.getsockname()
        self._respond = respond
        self._on_closed = closed
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._state = _State.IDLE
        self._requests: deque[tuple[Request, bool]] = deque()  # complete, not answered yet; with keep-alive
        self._refusal: Response | None = None  # to be answered after `_requests`, then close
        self._outgoing: _Outgoing | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing = False
        self._thrown_away = 0
        self._retiring = False
        self.deadline = math.inf
        self.changed = loop.time()  # when it was accepted, or ended its last response
        self.body_bytes = 0
        self._reset_request()

    @property
    def idle(self) -> bool:
        """No request is begun or in progress."""
        return self._state in (_State.IDLE, _State.LINGERING)

    def start(self) -> None:
        """Begin to read."""
        self._loop.add_reader(self._sock, self._readable)
        self.deadline = self._loop.time() + self._limits.request_timeout

    def retire(self) -> None:
        """Close once the response in progress is sent; at once when there is none."""
        if self.idle:
            self.close("stopped")
        self._retiring = True

    def close(self, reason: str) -> None:
        """Close at once; what is not sent is lost. `reason` counts in the statistics, '' for an ordinary end."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self.deadline = math.inf
        self._loop.remove_reader(self._sock)
        self._stop_writing()
        if self._outgoing is not None:
            self._end_body(complete=False)
        self._sock.close()
        self._on_closed(self, reason)

    def expire(self) -> None:
        """The deadline has passed."""
        if self._state is _State.SENDING:
            # Reset, rather than leave the kernel holding a full send buffer for a client that does not read.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close("slow-reader")
        elif self._state is _State.READING:
            self._refuse(408, "the request took too long")
            self._next()
        else:
            self.close("" if self._state is _State.LINGERING else "idle")

    # -- input -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # reset by the peer: firmware does so when it goes on to boot
            self.close("")
            return
        if not data:
            self.close("")
        elif self._state is not _State.LINGERING:
            self._feed(data)
        else:
            self._thrown_away += len(data)
            if self._thrown_away > _THROWN_AWAY:
                self.close("")

    def _feed(self, data: bytes) -> None:
        """Parse what arrived; answer the requests that are complete."""
        if self._state is _State.IDLE:
            self._state = _State.READING
            self.deadline = self._loop.time() + self._limits.request_timeout
        if not self._head_done:
            self._head_raw += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # Asked for h2c or a tunnel: RFC 9110 7.8 lets us answer as if it had not; what follows is not HTTP/1.
            self._refuse(400, "no protocol but HTTP/1.1 is spoken here")
        except httptools.HttpParserError as error:
            self._refuse(400, f"malformed request: {error}")
        if self._begun and not self._head_done:
            self._check_head(self._head_raw)  # a header that does not end is not shown to us: count what came in
        self._next()

    def _check_head(self, size: int) -> None:
        if size > self._limits.head:
            self._refuse(431, f"the request's headers exceed {self._limits.head} bytes")

    def _refuse(self, status: int, text: str) -> None:
        """Give up on the input: answer this after what came before it, then close. The first refusal counts."""
        if self._refusal is None:
            self._refusal = Response.text(status, text)

    def _reset_request(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._hosts = 0  # Host headers
        self._body: list[bytes] = []
        self._body_size = 0
        self._head_size = 0  # bytes of target and headers so far
        self._head_raw = 0  # bytes received while the head was incomplete
        self._head_done = False
        self._begun = False

    # httptools' callbacks. An exception in one would surface as a parse error, so they only note what is wrong.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begun = True

    def on_url(self, url: bytes) -> None:
        """The request target, or a piece of it."""
        self._head_size += len(url)
        self._check_head(self._head_size)
        if self._refusal is None:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._head_size += len(name) + len(value)
        self._check_head(self._head_size)
        if self._refusal is None:
            key = name.decode("latin-1").lower()
            self._headers[key] = value.decode("latin-1")
            self._hosts += key == "host"

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._head_done = True
        if self._headers.get("expect", "").lower() == "100-continue" and not self._requests and self._outgoing is None:
            # Best effort: 25 bytes into an empty send buffer; a client that gets none goes on after a second.
            try:
                self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:
                return

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body_size += len(data)
        if self._body_size > self._limits.body:
            self._refuse(413, f"the request's body exceeds {self._limits.body} bytes")
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self._refusal is None:
            self._complete()
        self._reset_request()

    def _complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        if method not in _METHODS:
            self._refusal = Response.text(405, f"{method} is not served here", (("Allow", "GET, HEAD, POST"),))
            return
        # RFC 9112 3.2; HTTP/1.0 clients (old firmware) may leave it out.
        if self._hosts > 1 or (not self._hosts and self._parser.get_http_version() != "1.0"):
            self._refuse(400, "a request has one Host header")
            return
        target = _ABSOLUTE_FORM.sub("", self._url.decode("latin-1"), count=1)
        path, _, query = target.partition("#")[0].partition("?")
        path = _SLASHES.sub("/", path) or "/"
        if not path.startswith("/"):
            self._refuse(400, "the request's target is not a path")
            return
        request = Request(method, path, query, self._headers, b"".join(self._body), self._peer, self._local)
        self._requests.append((request, self._parser.should_keep_alive()))

    # -- answering -------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Go on with the next thing to do, when nothing is in progress."""
        if self._state not in (_State.IDLE, _State.READING):
            return
        if self._requests:
            self._loop.remove_reader(self._sock)  # one response at a time; the kernel's buffers hold the client back
            self._state = _State.ANSWERING
            self.deadline = math.inf
            request, keep_alive = self._requests.popleft()
            self._task = self._loop.create_task(self._answer(request, keep_alive))
        elif self._refusal is not None:
            self._loop.remove_reader(self._sock)
            self._begin(self._refusal, None, keep_alive=False)

    async def _answer(self, request: Request, keep_alive: bool) -> None:
        response = await self._respond(request)
        if self._state is _State.CLOSED:  # stopped meanwhile
            response.body.close()
            return
        try:
            self._begin(response, request, keep_alive)
        except Exception as error:  # nothing is sent yet: its body cannot be opened
            _log.exception("HTTP response failed", path=request.path, error=str(error))
            response.body.close()
            self._begin(Response.text(500, "this cannot be read; the server's log has the details"), None, False)

    def _begin(self, response: Response, request: Request | None, keep_alive: bool) -> None:
        """Put the head and the body's range in the queue, and send what goes."""
        size = response.body.size
        start, stop, status, extra = 0, size, response.status, f"Date: {formatdate(usegmt=True)}\r\n"
        is_head = request is not None and request.method == "HEAD"
        wanted = request.headers.get("range") if request is not None and request.method == "GET" else None
        # There is no validator in our answers, so that an If-Range never matches: the whole is sent (RFC 9110 13.1.5).
        if wanted and response.ranges and status == 200 and request is not None and "if-range" not in request.headers:
            try:
                if (cut := parse_range(wanted, size)) is not None:
                    start, stop = cut
                    status = 206
                    extra += f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n"
            except Unsatisfiable:
                start = stop = 0
                status = 416
                extra += f"Content-Range: bytes */{size}\r\n"
        length = stop - start if response.size_known or not is_head else None
        head = head_bytes(response, status, length, extra, keep_alive)
        chunks: deque[memoryview | Segment] = deque([memoryview(head)])
        left = len(head)
        if not is_head and stop > start:
            body = response.body.segments(start, stop)
            chunks.extend([memoryview(body)] if isinstance(body, bytes) else body)
            left += stop - start
        now = self._loop.time()
        give_up = now + self._limits.stall_timeout + left / self._limits.slowest
        self._outgoing = _Outgoing(response, start, stop, is_head, keep_alive, chunks, left, len(head), give_up)
        self._state = _State.SENDING
        self.deadline = now + self._limits.stall_timeout
        self._writable()

    # -- output ----------------------------------------------------------------------------------------------------

    def _writable(self) -> None:
        """Send one turn's worth."""
        out = self._outgoing
        assert out is not None
        budget = _STEP
        try:
            while out.left and budget > 0:
                count = self._send_some(out)
                if count == 0:
                    self._log_truncated(out)
                    return
                out.left -= count
                budget -= count
        except (BlockingIOError, InterruptedError):
            pass
        except (BrokenPipeError, ConnectionResetError):  # a client may end a download at any time
            self.close("reset")
            return
        except OSError as error:  # the disk, or the network: the client only sees a cut connection
            _log.warning("HTTP response cut off", peer=self._peer[0], left=out.left, error=error.strerror)
            self.close("error")
            return
        if budget < _STEP:
            self.deadline = min(self._loop.time() + self._limits.stall_timeout, out.give_up)
        if out.left == 0:
            self._finish()
        elif not self._writing:
            self._writing = True
            self._loop.add_writer(self._sock, self._writable)

    def _send_some(self, out: _Outgoing) -> int:
        """One send or sendfile of the first chunk; the bytes taken, 0 at an unexpected end of a file."""
        chunk = out.chunks[0]
        if isinstance(chunk, tuple):
            fd, offset, length = chunk
            count = os.sendfile(self._sock.fileno(), fd, offset, min(length, _STEP))
            self.body_bytes += count
            rest: memoryview | Segment = (fd, offset + count, length - count)
            done = count == length
        else:
            # MSG_MORE lets the head travel in one segment with the beginning of the body.
            count = self._sock.send(chunk, socket.MSG_MORE if len(out.chunks) > 1 else 0)
            of_head = min(count, out.head_left)
            out.head_left -= of_head
            self.body_bytes += count - of_head
            rest = chunk[count:]
            done = count == len(chunk)
        if done:
            out.chunks.popleft()
        elif count:
            out.chunks[0] = rest
        return count

    def _log_truncated(self, out: _Outgoing) -> None:
        """The file has become shorter than the Content-Length that we promised: only a cut connection tells."""
        _log.warning("a file became shorter while it was sent", peer=self._peer[0], left=out.left)
        self.close("truncated")

    def _finish(self) -> None:
        """The response is with the kernel."""
        keep_alive = self._outgoing is not None and self._outgoing.keep_alive
        self._stop_writing()
        self._end_body(complete=True)
        if not keep_alive or self._retiring:
            self._linger()
            return
        waiting = self._requests or self._refusal is not None
        self._state = _State.READING if self._begun or waiting else _State.IDLE
        limits = self._limits
        self.changed = self._loop.time()
        self.deadline = self.changed + (limits.request_timeout if self._begun else limits.idle_timeout)
        if waiting:
            # From the loop, not from here: a thousand pipelined requests must not become a thousand frames.
            self._loop.call_soon(self._next)
        else:
            self._loop.add_reader(self._sock, self._readable)

    def _linger(self) -> None:
        """Shut our side and wait for the client's end."""
        self._state = _State.LINGERING
        self.deadline = self._loop.time() + self._limits.linger
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # it was quicker
            self.close("")
            return
        self._loop.add_reader(self._sock, self._readable)

    def _end_body(self, complete: bool) -> None:
        """Release the response's body and tell its maker."""
        out, self._outgoing = self._outgoing, None
        assert out is not None
        out.response.body.close()
        if out.response.sent is None or out.is_head:
            return
        try:
            out.response.sent(out.start, out.stop, complete)
        except Exception:  # a bug of ours; the connection is not to blame
            _log.exception("the note of a delivery failed")

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._sock)
            self._writing = False
