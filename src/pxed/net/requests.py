"""Bytes of a connection become requests, or the reason why they are none. httptools parses; what is bounded is here.

No sockets and no clocks: `net.connection` feeds what it receives and asks what is complete.
"""

import re
from collections import deque
from collections.abc import Callable

import httptools

from pxed.net.message import Request, Response

__all__ = ["RequestReader"]

_METHODS = ("GET", "HEAD", "POST")
_SLASHES = re.compile("/{2,}")
_ABSOLUTE_FORM = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


class RequestReader:
    """Reads requests of one connection.

    head, body: the most bytes of each in a request. expecting: called when a client waits for "100 Continue".
    """

    def __init__(
        self, peer: tuple[str, int], local: tuple[str, int], head: int, body: int, expecting: Callable[[], None]
    ) -> None:
        self._peer = peer
        self._local = local
        self._head_limit = head
        self._body_limit = body
        self._expecting = expecting
        self._parser = httptools.HttpRequestParser(self)
        self.requests: deque[tuple[Request, bool]] = deque()
        """Complete and not answered yet; with whether the connection is to be kept."""
        self.refusal: Response | None = None
        """To be answered after `requests`; then the connection is to be closed."""
        self._reset()

    @property
    def begun(self) -> bool:
        """A request has begun and is not complete."""
        return self._begun

    def feed(self, data: bytes) -> None:
        """Parse what arrived."""
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

    def give_up(self) -> None:
        """The request that has begun takes too long."""
        self._refuse(408, "the request took too long")

    def _check_head(self, size: int) -> None:
        if size > self._head_limit:
            self._refuse(431, f"the request's headers exceed {self._head_limit} bytes")

    def _refuse(self, status: int, text: str) -> None:
        """Give up on the input: answer this after what came before it, then close. The first refusal counts."""
        if self.refusal is None:
            self.refusal = Response.text(status, text)

    def _reset(self) -> None:
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
        if self.refusal is None:
            self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._head_size += len(name) + len(value)
        self._check_head(self._head_size)
        if self.refusal is None:
            key = name.decode("latin-1").lower()
            self._headers[key] = value.decode("latin-1")
            self._hosts += key == "host"

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._head_done = True
        if self._headers.get("expect", "").lower() == "100-continue" and not self.requests:
            self._expecting()

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._body_size += len(data)
        if self._body_size > self._body_limit:
            self._refuse(413, f"the request's body exceeds {self._body_limit} bytes")
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if self.refusal is None:
            self._complete()
        self._reset()

    def _complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        if method not in _METHODS:
            self.refusal = Response.text(405, f"{method} is not served here", (("Allow", "GET, HEAD, POST"),))
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
        self.requests.append((request, self._parser.should_keep_alive()))
