"""The server as the agent sees it: JSON for claim, report and finish, ranges of bytes for the image.

Whatever may pass by itself (refused connections, resets, timeouts, answers of the 5xx kind: a server that restarts)
is an `Unreachable`, and tried again with growing pauses. A clear no is a `Refused`.
"""

import http.client
import socket
import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from pxed.agent.failure import Stopped
from pxed.errors import PeerError
from pxed.types import (
    CastJoin,
    CastSession,
    ClaimAnswer,
    ClaimRequest,
    FinishAnswer,
    FinishRequest,
    ImageFacts,
    Ranges,
    Report,
    ReportAnswer,
)

__all__ = ["Connection", "Patience", "Refused", "Unreachable"]

TIMEOUT = 20.0  # seconds without a byte: longer than a server needs to start, shorter than its patience with us
MAX_JSON = 1 << 20
FIRST_DIAL = 0.25  # seconds until a connection that is not there is begun anew; the next wait is twice as long

# What msgspec raises at bytes that are no JSON, or not the JSON that was asked for.
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

T = TypeVar("T")


class Unreachable(PeerError):
    """No answer, or not a whole one; asking again may help."""


class Refused(PeerError):
    """The server said no. `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _dial(address: tuple[str, int], timeout: float) -> socket.socket:
    """A TCP connection within `timeout` seconds. Raises OSError.

    Where the answer to a connection's first packet is lost, the kernel waits for a second before it asks again, and a
    machine that comes a second late to a session costs everybody what it missed.
    """
    began, wait = time.monotonic(), FIRST_DIAL
    while True:
        left = timeout - (time.monotonic() - began)
        try:
            made = socket.create_connection(address, max(min(wait, left), 0.01))
        except TimeoutError:
            if left <= wait:
                raise
            wait *= 2
        else:
            made.settimeout(timeout)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made


class _Http(http.client.HTTPConnection):
    def connect(self) -> None:
        assert self.timeout is not None
        self.sock = _dial((self.host, self.port), self.timeout)


class Connection:
    """One kept-open connection. Not for use by two threads at once."""

    def __init__(self, base: str, run: str = "", timeout: float = TIMEOUT) -> None:
        parts = urlsplit(base)
        self._path = parts.path.rstrip("/")
        self._run = run
        self._http = _Http(parts.hostname or "", parts.port or 80, timeout=timeout)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._http.close()

    def wait_for_answers(self, timeout: float) -> None:
        """So many seconds without a byte are no answer, from now on."""
        self._http.timeout = timeout
        if self._http.sock is not None:
            self._http.sock.settimeout(timeout)

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Take the job that the token stands for. Safe to repeat."""
        return self._post("agent/claim", request, ClaimAnswer)

    def report(self, report: Report) -> ReportAnswer:
        """Say how far the job is."""
        return self._post("agent/report", report, ReportAnswer)

    def finish(self, request: FinishRequest) -> FinishAnswer:
        """End the job. Safe to repeat."""
        return self._post("agent/finish", request, FinishAnswer)

    def fetch(self, name: str) -> bytes:
        """A whole file of the server."""
        response = self._request("GET", name, {})
        return self._body(response, 200)

    def fetch_range(self, name: str, start: int, into: memoryview) -> None:
        """Fill `into` with the bytes of a file from `start` on. Raises Unreachable when fewer come."""
        end = start + len(into) - 1
        response = self._request("GET", name, {"Range": f"bytes={start}-{end}"})
        if response.status != 206:
            self._body(response, 206)
        if not response.getheader("Content-Range", "").startswith(f"bytes {start}-{end}/"):
            self.close()
            raise Unreachable("The server answered with another range than was asked for.")
        self._fill(response, into)

    def fetch_ranges(self, name: str, ranges: Sequence[tuple[int, int]], into: memoryview) -> None:
        """Fill `into` with stretches [start, stop) of a file, one after another. Raises Unreachable when fewer come."""
        body = msgspec.json.encode(Ranges(tuple(ranges)))
        response = self._request("POST", name, {"Content-Type": "application/json"}, body)
        if response.status != 200:
            self._body(response, 200)
        self._fill(response, into)

    def facts(self, image: str) -> ImageFacts:
        """What there is to know of an image, by name or id."""
        return self._decode(
            self._body(self._request("GET", f"pxed/image/{quote(image, safe='')}", {}), 200), ImageFacts
        )

    def join(self, request: CastJoin) -> CastSession:
        """Take part in the multicast session of an image. Safe to repeat. Refused with 409 where there is none."""
        return self._post("cast/join", request, CastSession)

    def _fill(self, response: http.client.HTTPResponse, into: memoryview) -> None:
        done = 0
        try:
            while done < len(into) and (got := response.readinto(into[done:])):
                done += got
            longer = done == len(into) and response.read(1)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"The connection broke: {error}") from error
        if done != len(into):
            self.close()
            raise Unreachable(f"The answer ended after {done} of {len(into)} bytes.")
        if longer:
            self.close()
            raise Unreachable("The server answered with more than was asked for.")

    def _post(self, name: str, body: msgspec.Struct, answer: type[T]) -> T:
        headers = {"Content-Type": "application/json"}
        response = self._request("POST", f"pxed/{name}", headers, msgspec.json.encode(body))
        return self._decode(self._body(response, 200), answer)

    @staticmethod
    def _decode(data: bytes, answer: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=answer)
        except _NOT_JSON as error:
            raise Unreachable(f"The server's answer makes no sense: {error}") from error

    def _request(
        self, method: str, name: str, headers: dict[str, str], body: bytes | None = None
    ) -> http.client.HTTPResponse:
        if self._run:
            headers["Authorization"] = f"Bearer {self._run}"
        try:
            self._http.request(method, f"{self._path}/{name}", body, headers)
            return self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"{type(error).__name__}: {error}") from error

    def _body(self, response: http.client.HTTPResponse, wanted: int) -> bytes:
        expected = response.status == wanted
        try:
            # Of an answer that was not asked for no more than an error's text: it may be a whole image.
            data = response.read() if expected else response.read(MAX_JSON)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"The connection broke: {error}") from error
        if expected:
            return data
        self.close()
        try:
            reason = str(msgspec.json.decode(data, type=dict[str, object]).get("error", ""))
        except _NOT_JSON:
            reason = ""
        reason = reason or f"{response.status} {response.reason}"
        if response.status >= 500 or response.status in (408, 429) or response.status < 400:
            raise Unreachable(reason)
        raise Refused(response.status, reason)


class Patience:
    """Tries again what is `Unreachable`, with pauses of 0.5 s growing to 5 s, until `limit` seconds without luck.

    `wait(seconds)` returns True when the job was stopped meanwhile; `notice` is told once per outage, and at its end.
    """

    FIRST, LAST = 0.5, 5.0

    def __init__(
        self, limit: float, now: Callable[[], float], wait: Callable[[float], bool], notice: Callable[[str], None]
    ) -> None:
        self._limit, self._now, self._wait, self._notice = limit, now, wait, notice

    def call(self, ask: Callable[[], T]) -> T:
        """The result of `ask`. Raises its Unreachable when patience ends, Refused at once, Stopped when stopped."""
        pause, since = self.FIRST, None
        while True:
            try:
                result = ask()
            except Unreachable as error:
                if since is None:
                    since = self._now()
                    self._notice(f"The server does not answer ({error}); trying again.")
                elif self._now() - since > self._limit:
                    raise
                if self._wait(pause):
                    raise Stopped("The job was stopped.") from error
                pause = min(pause * 2, self.LAST)
                continue
            if since is not None:
                self._notice(f"The server answers again, after {self._now() - since:.0f} seconds.")
            return result
