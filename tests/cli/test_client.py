"""The admin client's words for everything that can go wrong between a command and the server."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pxed.cli.client import Client
from pxed.errors import OperatorError
from pxed.types import Job


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[Client]:
    """A server that gives one answer, whatever it is asked."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one)
        thread.start()
        yield Client(str(path))
        thread.join()


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (status.encode(), len(body)) + body


WRONG = {
    "not our JSON": (http("200 OK", b'{"id": "x"}'), r"sent an answer that this command does not understand"),
    "not JSON": (http("200 OK", b"hello"), r"are the server and this command of the same version\?"),
    "error without a sentence": (http("502 Bad Gateway", b"<html>"), r"^The server answered 502 Bad Gateway\.$"),
    "error of another shape": (http("500 Oops", b"[]"), r"^The server answered 500 Oops\.$"),
    "not HTTP": (b"\0\1\2\r\n\r\n", r"^The connection to the server at .* broke \("),
    "cut off": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", r"^The connection to the server at .* broke \("),
    "nothing": (b"", r"^The connection to the server at .* broke \("),
}


@pytest.mark.parametrize(("answer", "sentence"), WRONG.values(), ids=WRONG)
def test_wrong_answer(tmp_path: Path, answer: bytes, sentence: str) -> None:
    with answering(tmp_path / "s", answer) as client, pytest.raises(OperatorError, match=sentence):
        client.get("/jobs/1", Job)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"^No server answers at "):
        Client(str(tmp_path / "s")).get("/jobs/1", Job)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with pytest.raises(OperatorError, match=r"^No server answers at "):
        Client(str(tmp_path / "s")).get("/jobs/1", Job)


def test_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pxed.cli.client.TIMEOUT_SECONDS", 0.01)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with pytest.raises(OperatorError, match=r"gave no answer within 0 s\.$"):
            Client(str(tmp_path / "s")).get("/jobs/1", Job)


def test_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pxed.cli.client._UnixConnection.connect", refuse)
    with pytest.raises(OperatorError, match=r"^You may not open the server's socket "):
        Client(str(tmp_path / "s")).get("/jobs/1", Job)
