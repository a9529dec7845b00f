"""The admin API's client, for commands: HTTP over the server's unix socket, answers as Structs, errors as sentences.

On `http.client`: httpx would cost each command 0.15 s to import and leaves a socket open when nobody answers.
"""

import http.client
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from pxed.errors import NotFoundError, OperatorError, RefusedError

__all__ = ["Client"]

T = TypeVar("T")

# An answer that writes to the database waits for a commit; a busy disk can take seconds over it. The live stream
# says every 15 s that it is alive.
TIMEOUT_SECONDS = 60.0


class Client:
    """Asks the server at a unix socket. Every method raises OperatorError with a sentence when it cannot."""

    def __init__(self, path: str) -> None:
        self.socket = path

    def get(self, path: str, answer: type[T]) -> T:
        """GET `path` as a record of type `answer`."""
        with self._request("GET", path) as response:
            return self._decode(response.read(), answer)

    def post(self, path: str, body: Any, answer: type[T]) -> T:
        """POST `body` (anything msgspec can write as JSON) to `path`."""
        with self._request("POST", path, msgspec.json.encode(body)) as response:
            return self._decode(response.read(), answer)

    def delete(self, path: str) -> None:
        """DELETE `path`."""
        with self._request("DELETE", path) as response:
            response.read()

    def stream(self, path: str, line: type[T]) -> Generator[T, None, None]:
        """GET `path` as JSON lines, one record each, for as long as the server sends them."""
        with self._request("GET", path) as response:
            for text in response:
                yield self._decode(text, line)

    @contextmanager
    def _request(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        """One exchange on a connection of its own. What goes wrong on the way becomes a sentence."""
        connection = _UnixConnection(self.socket)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            if response.status >= http.client.BAD_REQUEST:
                raise self._refused(response)
            yield response
        except (OSError, http.client.HTTPException) as error:
            raise OperatorError(self._unreachable(error)) from error
        finally:
            connection.close()

    def _decode(self, data: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError as error:
            raise OperatorError(
                f"The server at {self.socket} sent an answer that this command does not understand ({error}); "
                "are the server and this command of the same version?"
            ) from error

    def _unreachable(self, error: Exception) -> str:
        match error:
            case FileNotFoundError() | ConnectionRefusedError():
                return f"No server answers at {self.socket}; is `pxed serve` running with this configuration?"
            case PermissionError():
                return f"You may not open the server's socket {self.socket}; admin commands are for the server's user."
            case TimeoutError():
                return f"The server at {self.socket} gave no answer within {TIMEOUT_SECONDS:.0f} s."
            case _:
                return f"The connection to the server at {self.socket} broke ({error or type(error).__name__})."

    @staticmethod
    def _refused(response: http.client.HTTPResponse) -> OperatorError:
        try:
            text = str(msgspec.json.decode(response.read())["error"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            text = f"The server answered {response.status} {response.reason}."
        if response.status == http.client.NOT_FOUND:
            return NotFoundError(text)
        if response.status == http.client.CONFLICT:
            return RefusedError(text)
        return OperatorError(text)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("pxed", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # closed by `close`, connected or not
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
