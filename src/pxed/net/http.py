"""Boot HTTP: a small HTTP/1.1 server for firmware, preboot clients and agents.

RFC 9110 and 9112, the part that they need: GET, HEAD and POST, single ranges, keep-alive, pipelined requests.
Plain non-blocking sockets on the event loop (uvloop forbids add_writer on a transport's descriptor), httptools
for parsing, `sendfile` for files. Everything is bounded: connections (see `net.admission`), header and body size, the
time for a request, the time without progress on a response, the memory that the kernel holds for clients.

No names and no policy here: `handler` maps a `Request` to a `Response`.
"""

import asyncio
import contextlib
import inspect
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from msgspec import Struct

from pxed.net.admission import Admission, Rank, Refused
from pxed.net.connection import QUEUE, Connection, Download, Limits
from pxed.net.holders import bind_error
from pxed.net.message import Request, Response, head_bytes

__all__ = ["BootHttp", "Handler"]

Handler = Callable[[Request], Response | Awaitable[Response]]

# How often deadlines are looked at, as a part of the shortest of them.
_SWEEPS_PER_TIMEOUT = 4
# Pause of accepting when the process is out of descriptors.
_ACCEPT_PAUSE = 0.5
_ACCEPT_BATCH = 64
_RECEIVE = 65536
_BACKLOG = 1024
# Between two lines of the log about the same trouble.
_QUIET = 60.0
# The part of the kernel's memory for TCP that may wait for clients to read; as much may wait for stalled ones, so that
# together they have at most all of it. And the least for one client: enough for 1 Gbit/s on a local network.
_PART_OF_TCP_MEMORY = 2
_SMALLEST_QUEUE = 128 << 10
_NO = b"this address has too many connections here\n"
_FULL = head_bytes(Response.text(503, ""), 503, len(_NO), "Retry-After: 5\r\n", keep_alive=False) + _NO


class _Listener(Struct):
    """One listening socket."""

    sock: socket.socket
    address: str


class BootHttp:
    """Listens on a port of each address, and serves what `handler` answers."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        port: int,
        handler: Handler,
        limits: Limits | None = None,
        setting: str = "[http] port",
    ) -> None:
        """`setting`: the key of the configuration that names the port."""
        self._addresses = addresses
        self._port = port
        self._handler = handler
        self._limits = limits or Limits()
        self._setting = setting
        self._log = structlog.get_logger("pxed.net.http")
        self._listeners: list[_Listener] = []
        self._connections: Admission[Connection] = Admission(self._limits.connections, self._limits.per_address)
        self._queue_memory = _queue_memory()
        self._told: dict[str, tuple[float, int]] = {}  # trouble -> when it was in the log, times since then
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepting = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        self._counts = {"connections": 0, "requests": 0, "bytes": 0}

    @property
    def ports(self) -> list[int]:
        """The ports listened on, one per address (of use when the port asked for was 0)."""
        return [listener.sock.getsockname()[1] for listener in self._listeners]

    @property
    def statistics(self) -> dict[str, int]:
        """Connections taken in so far and open now, requests, bytes of bodies, and by reason how many connections were
        refused or given up."""
        unfinished = sum(connection.body_bytes for connection in self._connections)
        return {**self._counts, "bytes": self._counts["bytes"] + unfinished, "open": len(self._connections)}

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def downloads(self) -> list[Download]:
        """The responses that are being sent."""
        return [download for connection in self._connections if (download := connection.download) is not None]

    def open(self) -> None:
        """Bind and listen. Raises OperatorError: taken (it says by whom), no permission, not our address."""
        try:
            for address in self._addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
                self._listeners.append(_Listener(sock, address))
                # Without it a restart would wait for the TIME_WAIT of the last connections.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind((address, self._port))
                    sock.listen(_BACKLOG)
                except OSError as error:
                    hint = f"Another port can be set: {self._setting}."
                    raise bind_error("tcp", address, self._port, error, hint) from error
        except BaseException:
            self._close_listeners()
            raise

    def start(self) -> None:
        """Begin to serve; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        self._resume_accepting()
        self._sweep()

    async def stop(self, grace: float = 0.0) -> None:
        """Stop accepting, give responses in progress `grace` seconds, close everything."""
        self._pause_accepting()
        self._close_listeners()
        for connection in list(self._connections):
            connection.retire()
        if self._connections and grace > 0 and self._drained is not None:
            self._drained.clear()
            try:
                await asyncio.wait_for(self._drained.wait(), grace)
            except TimeoutError:
                self._log.info("HTTP responses cut off by the stop", connections=len(self._connections))
        for connection in list(self._connections):
            connection.close("stopped")
        if self._sweeper is not None:
            self._sweeper.cancel()

    # -- accepting -------------------------------------------------------------------------------------------------

    def _resume_accepting(self) -> None:
        if self._loop is None or self._accepting:
            return
        for listener in self._listeners:
            self._loop.add_reader(listener.sock, self._accept, listener)
        self._accepting = True

    def _pause_accepting(self) -> None:
        if self._loop is None or not self._accepting:
            return
        for listener in self._listeners:
            self._loop.remove_reader(listener.sock)
        self._accepting = False

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.sock.close()
        self._listeners = []

    def _accept(self, listener: _Listener) -> None:
        """A listening socket has connections waiting."""
        assert self._loop is not None
        for _ in range(_ACCEPT_BATCH):
            if not self._connections.has_room(self._loop.time()):
                self._pause_accepting()  # the rest waits in the kernel's queue until a connection ends or is idle
                self._trouble("waited", "all HTTP connections are busy; new ones wait", open=len(self._connections))
                return
            try:
                sock, peer = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory
                self._trouble("accept-errors", "cannot accept HTTP connections for a moment", error=error.strerror)
                self._pause_accepting()
                self._loop.call_later(_ACCEPT_PAUSE, self._resume_accepting)
                return
            self._take_in(sock, peer[:2])  # of IPv6 without flow and scope

    def _take_in(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        """A new connection: it gets a place, or a no."""
        assert self._loop is not None
        now = self._loop.time()
        sock.setblocking(False)
        try:
            victim = self._connections.make_room(peer[0], now)
        except Refused:
            self._trouble("refused", "an address has too many HTTP connections; refused", peer=peer[0])
            with sock:
                _try(sock.recv, _RECEIVE)  # unread input would turn the answer into a reset
                _try(sock.send, _FULL)
            return
        if victim is not None:
            victim.give_up("evicted")
            self._tell("evicted", "too many HTTP connections; the least useful ones are closed", peer=peer[0])
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._counts["connections"] += 1
        connection = Connection(
            self._loop, sock, peer, self._respond, self._closed, self._limits, self._moved, self._queue
        )
        self._connections.enter(connection, peer[0], now)
        connection.start()

    # -- connections' calls ----------------------------------------------------------------------------------------

    async def _respond(self, request: Request) -> Response:
        """Ask the handler. An exception of it is our bug: the client gets a 500, the log gets the traceback."""
        self._counts["requests"] += 1
        try:
            answer = self._handler(request)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception:
            self._log.exception("HTTP request failed", path=request.path, peer=request.peer)
            return Response.text(500, "an error of the server; its log has the details")
        return answer

    def _moved(self, connection: Connection, rank: Rank) -> None:
        """A connection's rank may have changed."""
        assert self._loop is not None
        self._connections.move(connection, rank, self._loop.time())

    def _queue(self) -> int:
        """Bytes that may wait in the kernel for one client; a power of two, so that it seldom changes."""
        share = self._queue_memory // max(1, self._connections.count(Rank.BUSY) + self._connections.count(Rank.STALLED))
        return min(QUEUE, max(_SMALLEST_QUEUE, 1 << share.bit_length() - 1))

    def _closed(self, connection: Connection, reason: str) -> None:
        """A connection ended."""
        self._connections.leave(connection)
        self._counts["bytes"] += connection.body_bytes
        if reason == "slow-reader":
            self._trouble(reason, "an HTTP client took too little for too long; given up", peer=connection.address)
        elif reason:
            self._count(reason)
        if not self._connections and self._drained is not None:
            self._drained.set()
        if self._listeners and len(self._connections) < self._limits.connections:
            self._resume_accepting()

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1

    def _trouble(self, what: str, sentence: str, **fields: object) -> None:
        """Count it, and tell it."""
        self._count(what)
        self._tell(what, sentence, **fields)

    def _tell(self, what: str, sentence: str, **fields: object) -> None:
        """One line of the log for each kind of trouble and minute: who makes it can make much of it."""
        assert self._loop is not None
        now = self._loop.time()
        told, times = self._told.get(what, (-_QUIET, 0))
        if now - told < _QUIET:
            self._told[what] = (told, times + 1)
            return
        self._log.warning(sentence, **fields, **({"times_since_told": times} if times else {}))
        self._told[what] = (now, 0)

    def _sweep(self) -> None:
        """Give up connections whose deadline passed. One timer for all: thousands of timers would cost more."""
        assert self._loop is not None
        now = self._loop.time()
        for connection in list(self._connections):
            connection.look(now)
            if connection.deadline <= now:
                connection.expire()
        self._free_memory()
        if self._listeners and self._connections.has_room(now):
            self._resume_accepting()
        self._sweeper = self._loop.call_later(self._limits.shortest / _SWEEPS_PER_TIMEOUT, self._sweep)

    def _free_memory(self) -> None:
        """Stalled readers hold no more of the kernel's memory than all readers should; the longest stalled go first."""
        held = sum(connection.held for connection in self._connections.members(Rank.STALLED))
        while held > self._queue_memory:
            victim = next(self._connections.members(Rank.STALLED))
            held -= victim.held
            victim.give_up("slow-reader")


def _try(call: Callable[..., object], what: object) -> None:
    """Something whose failure changes nothing."""
    with contextlib.suppress(OSError):
        call(what)


def _queue_memory() -> int:
    """Bytes that may wait for clients to read: beyond net.ipv4.tcp_mem the kernel slows down every connection."""
    try:
        pages = int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # only the first network namespace shows it
        pages = os.sysconf("SC_PHYS_PAGES") // 16  # the kernel's default
    return pages * os.sysconf("SC_PAGE_SIZE") // _PART_OF_TCP_MEMORY
