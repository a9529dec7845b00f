"""The admin API's client, for commands: httpx over the server's unix socket, errors as sentences."""

from collections.abc import Iterator
from typing import Any, TypeVar

import httpx
import msgspec

from pxed.errors import NotFoundError, OperatorError, RefusedError

__all__ = ["Client"]

T = TypeVar("T")

# An answer that writes to the database waits for a commit; a busy disk can take seconds over it.
TIMEOUT_SECONDS = 30.0


class Client:
    """A connection to the running server. Every method raises OperatorError when it cannot do its work."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=socket), base_url="http://pxed", timeout=TIMEOUT_SECONDS
        )

    def get(self, path: str, answer: type[T], **params: Any) -> T:
        """GET `path` as a record of type `answer`."""
        return self._decode(self._request("GET", path, params=params), answer)

    def post(self, path: str, body: Any, answer: type[T]) -> T:
        """POST `body` (anything msgspec can write as JSON) to `path`."""
        return self._decode(self._request("POST", path, content=msgspec.json.encode(body)), answer)

    def delete(self, path: str) -> None:
        """DELETE `path`."""
        self._request("DELETE", path)

    def stream(self, path: str, line: type[T], **params: Any) -> Iterator[T]:
        """GET `path` as JSON lines, one record each, for as long as the server sends them."""
        decoder = msgspec.json.Decoder(line)
        try:
            with self._http.stream(
                "GET", path, params=params, timeout=httpx.Timeout(TIMEOUT_SECONDS, read=None)
            ) as answer:
                if answer.is_error:
                    answer.read()
                    raise self._error(answer)
                for text in answer.iter_lines():
                    if text:
                        yield decoder.decode(text)
        except httpx.HTTPError as error:
            raise OperatorError(self._unreachable(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise OperatorError(self._unreachable(error)) from error
        if answer.is_error:
            raise self._error(answer)
        return answer

    def _decode(self, answer: httpx.Response, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.MsgspecError as error:
            raise OperatorError(
                f"The server at {self.socket} sent an answer that this command does not understand ({error}); "
                "are the server and this command of the same version?"
            ) from error

    def _unreachable(self, error: httpx.HTTPError) -> str:
        cause = _os_error(error)
        if isinstance(cause, PermissionError):
            return (
                f"You may not open the server's socket {self.socket}; the admin commands are for the user that runs it."
            )
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError) or isinstance(error, httpx.ConnectError):
            return f"No server answers at {self.socket}; is `pxed serve` running with this configuration?"
        if isinstance(error, httpx.TimeoutException):
            return f"The server at {self.socket} gave no answer within {TIMEOUT_SECONDS:.0f} s."
        return f"The connection to the server at {self.socket} broke: {error}."

    @staticmethod
    def _error(answer: httpx.Response) -> OperatorError:
        try:
            text = str(answer.json()["error"])
        except (ValueError, KeyError, TypeError):
            text = f"The server answered {answer.status_code} {answer.reason_phrase}."
        if answer.status_code == httpx.codes.NOT_FOUND:
            return NotFoundError(text)
        if answer.status_code == httpx.codes.CONFLICT:
            return RefusedError(text)
        return OperatorError(text)


def _os_error(error: BaseException | None) -> OSError | None:
    """The operating system's error behind a chain of wrapped ones."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None
