"""Boot HTTP: a small HTTP/1.1 server for firmware, preboot clients and agents.

RFC 9110 and 9112, the part that they need: GET, HEAD and POST, single ranges, keep-alive, pipelined requests.
Plain non-blocking sockets on the event loop (uvloop forbids add_writer on a transport's descriptor), httptools
for parsing, `sendfile` for files. Everything is bounded: connections, header and body size, the time for a
request, the time without progress on a response.

No names and no policy here: `handler` maps a `Request` to a `Response`.
"""

import asyncio
import inspect
import socket
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from pxed.net.connection import Connection, Limits
from pxed.net.holders import bind_error
from pxed.net.message import Request, Response

__all__ = ["BootHttp", "Handler"]

Handler = Callable[[Request], Response | Awaitable[Response]]

# How often deadlines are looked at, as a part of the shortest of them.
_SWEEPS_PER_TIMEOUT = 4
# Pause of accepting when the process is out of descriptors.
_ACCEPT_PAUSE = 0.5
_ACCEPT_BATCH = 64
_BACKLOG = 1024


class _Listener(Struct):
    """One listening socket."""

    sock: socket.socket
    address: str


class BootHttp:
    """Listens on a port of each address, and serves what `handler` answers.

    `statistics` counts connections, requests, bytes of bodies, and connections given up by reason.
    """

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
        self._connections: set[Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepting = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event | None = None
        self.statistics: dict[str, int] = {"connections": 0, "requests": 0, "bytes": 0}

    @property
    def ports(self) -> list[int]:
        """The ports listened on, one per address (of use when the port asked for was 0)."""
        return [listener.sock.getsockname()[1] for listener in self._listeners]

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._connections)

    def open(self) -> None:
        """Bind and listen. Raises OperatorError: taken (it says by whom), no permission, not our address."""
        try:
            for address in self._addresses:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
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
            if not self._has_room():
                self._pause_accepting()  # the rest waits in the kernel's queue until a connection ends or is idle
                return
            try:
                sock, peer = listener.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory
                self._log.warning("cannot accept HTTP connections for a moment", error=error.strerror)
                self._count("accept-errors")
                self._pause_accepting()
                self._loop.call_later(_ACCEPT_PAUSE, self._resume_accepting)
                return
            if len(self._connections) >= self._limits.connections:
                idle = min((c for c in self._connections if c.idle), key=lambda c: c.changed)
                idle.close("evicted")
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.statistics["connections"] += 1
            connection = Connection(self._loop, sock, peer, self._respond, self._closed, self._limits)
            self._connections.add(connection)
            connection.start()

    def _has_room(self) -> bool:
        """Whether one more connection may come: below the limit, or in the place of an idle one."""
        return len(self._connections) < self._limits.connections or any(c.idle for c in self._connections)

    # -- connections' calls ----------------------------------------------------------------------------------------

    async def _respond(self, request: Request) -> Response:
        """Ask the handler. An exception of it is our bug: the client gets a 500, the log gets the traceback."""
        self.statistics["requests"] += 1
        try:
            answer = self._handler(request)
            if inspect.isawaitable(answer):
                answer = await answer
        except Exception:
            self._log.exception("HTTP request failed", path=request.path, peer=request.peer)
            return Response.text(500, "an error of the server; its log has the details")
        return answer

    def _closed(self, connection: Connection, reason: str) -> None:
        """A connection ended."""
        self._connections.discard(connection)
        self.statistics["bytes"] += connection.body_bytes
        if reason:
            self._count(reason)
        if not self._connections and self._drained is not None:
            self._drained.set()
        if self._listeners and len(self._connections) < self._limits.connections:
            self._resume_accepting()

    def _count(self, what: str) -> None:
        self.statistics[what] = self.statistics.get(what, 0) + 1

    def _sweep(self) -> None:
        """Give up connections whose deadline passed. One timer for all: thousands of timers would cost more."""
        assert self._loop is not None
        now = self._loop.time()
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.expire()
        if self._listeners and self._has_room():
            self._resume_accepting()
        self._sweeper = self._loop.call_later(self._limits.shortest / _SWEEPS_PER_TIMEOUT, self._sweep)
