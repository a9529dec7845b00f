"""A boot HTTP server in a thread, and a client of raw bytes, for tests."""

import socket

from pxed.net.connection import Limits
from pxed.net.http import BootHttp, Handler
from support.loop import LoopThread

_PATIENCE = 60.0


class Httpd:
    """`BootHttp` on a free port of loopback; use it in `with`."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self.loop = LoopThread()
        self.server = BootHttp(("127.0.0.1",), 0, handler, limits)

    def __enter__(self) -> "Httpd":
        self.server.open()
        self.port = self.server.ports[0]
        self.loop.__enter__()
        self.loop.call(self.server.start)
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.run(self.server.stop())
        self.loop.__exit__(*error)  # type: ignore[arg-type]

    def url(self, path: str) -> str:
        """A URL of this server."""
        return f"http://127.0.0.1:{self.port}{path}"

    def count(self, name: str) -> int:
        """One of the server's statistics, read in its loop: after what it was doing."""
        return self.loop.call(lambda: self.server.statistics.get(name, 0))

    def connect(self) -> "RawClient":
        """A connection."""
        return RawClient(self.port)

    def exchange(self, data: bytes) -> bytes:
        """Send bytes, and read until the server closes."""
        with self.connect() as client:
            client.sock.sendall(data)
            return client.rest()


class RawClient:
    """A connection that sends and reads raw bytes."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), _PATIENCE)
        self._buffer = bytearray()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, text: str) -> None:
        """Send text whose line ends are written as newlines."""
        self.sock.sendall(text.replace("\n", "\r\n").encode("latin-1"))

    def response(self, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """One response: status, headers, body by Content-Length."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        end = self._buffer.index(b"\r\n\r\n")
        status, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0")) if has_body else 0
        while len(self._buffer) < length:
            self._more()
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return int(status.split()[1]), headers, body

    def rest(self) -> bytes:
        """Everything until the server closes or resets."""
        try:
            while data := self.sock.recv(65536):
                self._buffer += data
        except ConnectionResetError:
            pass
        return bytes(self._buffer)

    def _more(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"closed by the server after {self._buffer!r}"
        self._buffer += data
