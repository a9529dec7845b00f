"""One HTTP connection: bytes in, requests to the server, responses out. See `net.http` for the whole."""

import asyncio
import fcntl
import math
import os
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache

import structlog
from msgspec import Struct

from pxed.net.admission import Rank
from pxed.net.message import Request, Response, Segment, Unsatisfiable, head_bytes, parse_range
from pxed.net.requests import RequestReader

__all__ = ["QUEUE", "Connection", "Download", "Limits"]

_log = structlog.get_logger("pxed.net.http")

_RECEIVE = 65536
# One sendfile call, and one turn of a connection, moves at most this much: as much as the kernel takes at once (the
# last of net.ipv4.tcp_wmem). To stop before it has enough means that we, not the client's ACKs, drive each packet out,
# and costs twice the processor time; 4 MiB take half a millisecond.
_STEP = 4 << 20
# Bytes that may wait in the kernel for one client when there is memory for it: more would be more than it takes.
QUEUE = 4 << 20
# A response that is as much in the kernel's hands with any bound.
_SMALL = 65536
# Input of a connection that is being closed, more than which is no honest client's.
_THROWN_AWAY = 1 << 20


class Limits(Struct, frozen=True):
    """What clients may take. The defaults are generous to firmware and cheap for us."""

    connections: int = 2048  # a rack of 500 machines opens at most a few each; 8 KiB of kernel memory each
    per_address: int = 512  # behind NAT a whole site has one address; four such sites, or attackers, fill us
    head: int = 16384  # bytes of request line and headers; nginx allows 8 KiB per line, iPXE sends 300 bytes
    body: int = 65536  # bytes of a request's body
    request_timeout: float = 10.0  # seconds from a request's first byte to its last
    idle_timeout: float = 75.0  # seconds between requests of a kept connection; nginx: 75
    stall_timeout: float = 60.0  # seconds without a byte taken by the client: an agent waits for its disk, too
    slowest: float = 4096.0  # bytes per second on the average of a response, below which it is given up
    useful: float = 32768.0  # bytes per second over `look` seconds, below which it makes room for others
    look: float = 5.0
    linger: float = 2.0  # seconds that a closed connection's unread input is thrown away, so that no RST
    # overtakes the answer

    @property
    def shortest(self) -> float:
        """The shortest of the timeouts."""
        return min(self.request_timeout, self.idle_timeout, self.stall_timeout, self.linger, self.look)


def _instead(response: Response, request: Request, error: Exception) -> Response:
    """The answer when a response's body cannot be had."""
    if response.unreadable is not None:
        return response.unreadable(error)
    _log.error("HTTP response failed", path=request.path, exc_info=error)
    return Response.text(500, "this cannot be read; the server's log has the details")


@lru_cache(maxsize=1)
def _date(now: int) -> str:
    """The Date header of a second."""
    return f"Date: {formatdate(now, usegmt=True)}\r\n"


class _State(Enum):
    IDLE = auto()  # before a request
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
    bodiless: bool  # a HEAD, or a range outside of the body
    keep_alive: bool
    chunks: deque[memoryview | Segment]
    whole: int  # bytes
    left: int  # of them, not taken by the kernel yet
    head_left: int  # of them, of the response's head
    give_up: float  # loop time
    seen: float  # loop time when `taken` was looked at
    path: str  # that was asked for
    begun: float  # loop time
    taken: int = 0  # of its bytes, by the client


class Download(Struct, frozen=True):
    """A response that is being sent."""

    peer: tuple[str, int]
    path: str
    sent: int  # bytes of the body that the kernel has taken
    size: int  # bytes of the body, or of the range of it that was asked for
    begun: float  # loop time


Respond = Callable[[Request], Awaitable[Response]]


class Connection:
    """Owns the socket, and the body of the response in progress.

    respond: asked for the answer to a request. closed: told the end, with its reason. moved: told the connection's
    rank, when it may have changed. queue: how many bytes may wait in the kernel for one client at the moment.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: tuple[str, int],
        respond: Respond,
        closed: "Callable[[Connection, str], None]",
        limits: Limits,
        moved: "Callable[[Connection, Rank], None]" = lambda _connection, _rank: None,
        queue: Callable[[], int] = lambda: QUEUE,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._peer = peer
        self._respond = respond
        self._on_closed = closed
        self._on_moved = moved
        self._queue = queue
        self._queue_set = QUEUE
        self._limits = limits
        self._reader = RequestReader(peer, sock.getsockname()[:2], limits.head, limits.body, self._continue)
        self._state = _State.IDLE
        self._outgoing: _Outgoing | None = None
        self._task: asyncio.Task[None] | None = None
        self._reading = False
        self._writing = False
        self._thrown_away = 0
        self._retiring = False
        self.deadline = math.inf
        self.body_bytes = 0
        self.held = 0  # bytes in the kernel's hands, when they were last looked at

    @property
    def address(self) -> str:
        """The client's."""
        return self._peer[0]

    @property
    def download(self) -> Download | None:
        """What is being sent, if anything."""
        out = self._outgoing
        if out is None or out.bodiless or not out.path:
            return None
        size = out.stop - out.start
        return Download(self._peer, out.path, size - (out.left - out.head_left), size, out.begun)

    @property
    def idle(self) -> bool:
        """No request is begun or in progress."""
        return self._state in (_State.IDLE, _State.LINGERING)

    def start(self) -> None:
        """Begin to read."""
        self._listen()
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
        self._deafen()
        self._stop_writing()
        if self._outgoing is not None:
            self._end_body(complete=False)
        self._sock.close()
        self._on_closed(self, reason)

    def give_up(self, reason: str) -> None:
        """Close at once; in the middle of a response with a reset, so that the kernel does not go on holding a full
        send buffer for a client that does not read."""
        if self._state is _State.SENDING:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close(reason)

    def expire(self) -> None:
        """The deadline has passed."""
        if self._state is _State.SENDING:
            self.give_up("slow-reader")
        elif self._state is _State.READING:
            self._reader.give_up()
            self._next()
        else:
            self.close("" if self._state is _State.LINGERING else "idle")

    def look(self, now: float) -> None:
        """Whether the client takes what it asked for; to be called now and then while a response is being sent."""
        out = self._outgoing
        if self._state is not _State.SENDING or out is None or now - out.seen < self._limits.look:
            return
        self.held = self._in_kernel()
        taken = out.whole - out.left - self.held
        if taken > out.taken:
            self.deadline = max(self.deadline, min(now + self._limits.stall_timeout, out.give_up))
        useful = taken - out.taken >= self._limits.useful * (now - out.seen)
        out.seen, out.taken = now, taken
        self._on_moved(self, Rank.BUSY if useful else Rank.STALLED)

    def _in_kernel(self) -> int:
        """Bytes sent that the client has not acknowledged."""
        try:
            (count,) = struct.unpack("i", fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4)))
        except OSError:  # it is broken, and will be closed for it
            return 0
        return int(count)

    # -- input -----------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._sock, self._readable)

    def _deafen(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _readable(self) -> None:
        if self._state in (_State.ANSWERING, _State.SENDING):
            # One response at a time; the kernel's buffers hold the client back. Not before there is something to hold
            # back: most clients send nothing until they have their answer.
            self._deafen()
            return
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
            if self._state is _State.IDLE:
                self._state = _State.READING
                self.deadline = self._loop.time() + self._limits.request_timeout
            self._reader.feed(data)
            self._next()
        else:
            self._thrown_away += len(data)
            if self._thrown_away > _THROWN_AWAY:
                self.close("")

    def _continue(self) -> None:
        """Best effort: 25 bytes into an empty send buffer; a client that gets none goes on after a second."""
        if self._outgoing is None:
            try:
                self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError:
                return

    # -- answering -------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Go on with the next thing to do, when nothing is in progress."""
        if self._state not in (_State.IDLE, _State.READING):
            return
        reader = self._reader
        if reader.requests:
            self._state = _State.ANSWERING
            self.deadline = math.inf
            self._on_moved(self, Rank.BUSY)
            request, keep_alive = reader.requests.popleft()
            self._task = self._loop.create_task(self._answer(request, keep_alive))
        elif reader.refusal is not None:
            self._on_moved(self, Rank.BUSY)
            self._begin(reader.refusal, None, keep_alive=False)
        else:
            self._on_moved(self, Rank.ASKING)

    async def _answer(self, request: Request, keep_alive: bool) -> None:
        response = await self._respond(request)
        if self._state is _State.CLOSED:  # stopped meanwhile
            response.body.close()
            return
        try:
            self._begin(response, request, keep_alive)
        except Exception as error:  # nothing is sent yet: its body cannot be opened
            response.body.close()
            self._begin(_instead(response, request, error), None, keep_alive=False)

    def _begin(self, response: Response, request: Request | None, keep_alive: bool) -> None:
        """Put the head and the body's range in the queue, and send what goes."""
        size = response.body.size
        start, stop, status, extra = 0, size, response.status, _date(int(time.time()))
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
        self._outgoing = _Outgoing(
            response,
            start,
            stop,
            is_head or status == 416,
            keep_alive,
            chunks,
            left,
            left,
            len(head),
            give_up,
            now,
            request.path if request is not None else "",
            now,
        )
        if left > _SMALL:
            self._bound_queue()
        self._state = _State.SENDING
        self.deadline = now + self._limits.stall_timeout
        self._writable()

    def _bound_queue(self) -> None:
        """Clients that do not read must not use up the kernel's memory for TCP, which all connections share."""
        bound = self._queue()
        if bound != self._queue_set:
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, bound)
            self._queue_set = bound

    # -- output ----------------------------------------------------------------------------------------------------

    def _writable(self) -> None:
        """Send one turn's worth."""
        out = self._outgoing
        assert out is not None
        budget = _STEP
        try:
            while out.left and budget > 0:
                asked, count = self._send_some(out)
                if count == 0:
                    self._spoilt(out)
                    return
                out.left -= count
                budget -= count
                if count < asked:  # the kernel has enough
                    break
        except (BlockingIOError, InterruptedError):
            pass
        except (BrokenPipeError, ConnectionResetError):  # a client may end a download at any time
            self.close("reset")
            return
        except OSError as error:  # the disk, or the network: the client only sees a cut connection
            _log.warning("HTTP response cut off", peer=self._peer[0], left=out.left, error=error.strerror)
            self.close("error")
            return
        if not out.response.body.intact():
            self._spoilt(out)
            return
        if budget < _STEP:
            self.deadline = min(self._loop.time() + self._limits.stall_timeout, out.give_up)
        if out.left == 0:
            self._finish()
        elif not self._writing:
            self._deafen()  # being told of both at once costs a tenth more for a large file
            self._writing = True
            self._loop.add_writer(self._sock, self._writable)

    def _send_some(self, out: _Outgoing) -> tuple[int, int]:
        """One send or sendfile of the first chunk: the bytes offered and taken; none at an unexpected end of a file."""
        chunk = out.chunks[0]
        if isinstance(chunk, tuple):
            fd, offset, length = chunk
            asked = min(length, _STEP)
            count = os.sendfile(self._sock.fileno(), fd, offset, asked)
            self.body_bytes += count
            rest: memoryview | Segment = (fd, offset + count, length - count)
            done = count == length
        else:
            # MSG_MORE lets the head travel in one segment with the beginning of the body.
            asked = len(chunk)
            count = self._sock.send(chunk, socket.MSG_MORE if len(out.chunks) > 1 else 0)
            of_head = min(count, out.head_left)
            out.head_left -= of_head
            self.body_bytes += count - of_head
            rest = chunk[count:]
            done = count == asked
        if done:
            out.chunks.popleft()
        elif count:
            out.chunks[0] = rest
        return asked, count

    def _spoilt(self, out: _Outgoing) -> None:
        """The file is no longer the one that we promised (it has been written to, or is shorter than Content-Length):
        only a cut connection tells, and a half-new kernel must not boot."""
        _log.warning("a file was changed while it was sent; the download is cut off", peer=self._peer[0], left=out.left)
        self.give_up("changed")

    def _finish(self) -> None:
        """The response is with the kernel."""
        keep_alive = self._outgoing is not None and self._outgoing.keep_alive
        self._stop_writing()
        self._end_body(complete=True)
        if not keep_alive or self._retiring:
            self._linger()
            return
        reader = self._reader
        waiting = reader.requests or reader.refusal is not None
        self._state = _State.READING if reader.begun or waiting else _State.IDLE
        limits = self._limits
        self.deadline = self._loop.time() + (limits.request_timeout if reader.begun else limits.idle_timeout)
        self._on_moved(self, Rank.ASKING if reader.begun else Rank.KEPT)
        if waiting:
            # From the loop, not from here: a thousand pipelined requests must not become a thousand frames.
            self._loop.call_soon(self._next)
        else:
            self._listen()

    def _linger(self) -> None:
        """Shut our side and wait for the client's end."""
        self._state = _State.LINGERING
        self._on_moved(self, Rank.ENDING)
        self.deadline = self._loop.time() + self._limits.linger
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # it was quicker
            self.close("")
            return
        self._listen()

    def _end_body(self, complete: bool) -> None:
        """Release the response's body and tell its maker."""
        out, self._outgoing = self._outgoing, None
        assert out is not None
        out.response.body.close()
        if out.response.sent is None or out.bodiless:
            return
        try:
            out.response.sent(out.start, out.stop - (out.left - out.head_left), complete)
        except Exception:  # a bug of ours; the connection is not to blame
            _log.exception("the note of a delivery failed")

    def _stop_writing(self) -> None:
        if self._writing:
            self._loop.remove_writer(self._sock)
            self._writing = False
