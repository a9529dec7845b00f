"""The agent's side of HTTP: what is tried again, and what is a no."""

import socket

import pytest

from pxed.agent import server
from pxed.agent.failure import Stopped
from pxed.agent.server import Connection, Patience, Refused, Unreachable
from pxed.types import Report
from support.image_server import RUN, Answer, Handler, ImageServer, StoredImage


class Clock:
    """Time that passes by waiting only."""

    def __init__(self, stop_after: float = 1e9) -> None:
        self.time, self.stop_after, self.said = 0.0, stop_after, list[str]()

    def wait(self, seconds: float) -> bool:
        self.time += seconds
        return self.time > self.stop_after

    def patience(self, limit: float) -> Patience:
        return Patience(limit, lambda: self.time, self.wait, self.said.append)


def failing(times: int) -> "object":
    left = [times]

    def ask() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise Unreachable("refused")
        return "answer"

    return ask


def test_an_outage_is_waited_out_and_told_once() -> None:
    clock = Clock()
    assert clock.patience(100).call(failing(20)) == "answer"  # type: ignore[arg-type]
    assert len(clock.said) == 2
    assert "answers again" in clock.said[1]


def test_patience_ends() -> None:
    clock = Clock()
    with pytest.raises(Unreachable):
        clock.patience(1).call(failing(10**6))  # type: ignore[arg-type]
    assert 1 <= clock.time <= 1.2


def test_a_stopped_job_is_not_waited_for() -> None:
    with pytest.raises(Stopped):
        Clock(stop_after=0.5).patience(100).call(failing(10**6))  # type: ignore[arg-type]


@pytest.mark.parametrize(("status", "error"), [(400, Refused), (403, Refused), (404, Refused), (410, Refused)])
@pytest.mark.parametrize("method", ["report", "fetch"])
def test_a_clear_no(image: StoredImage, status: int, error: type[Exception], method: str) -> None:
    with (
        ImageServer(image, before=answer(status)) as server,
        Connection(server.url, RUN) as connection,
        pytest.raises(error, match="The reason"),
    ):
        connection.report(Report("restore")) if method == "report" else connection.fetch("x")


@pytest.mark.parametrize("status", [500, 502, 503, 408, 429, 302])
def test_what_may_pass_by_itself(image: StoredImage, status: int) -> None:
    with (
        ImageServer(image, before=answer(status)) as server,
        Connection(server.url, RUN) as connection,
        pytest.raises(Unreachable),
    ):
        connection.fetch("x")


def test_an_answer_that_makes_no_sense_may_pass_too(image: StoredImage) -> None:
    def garbage(url: str, handler: Handler) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        handler._send(200, b"<html>")
        raise Answer(200)

    with (
        ImageServer(image, before=garbage) as server,
        Connection(server.url, RUN) as connection,
        pytest.raises(Unreachable, match="makes no sense"),
    ):
        connection.report(Report("restore"))


def test_a_connection_whose_first_packet_is_lost_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    connect = socket.create_connection
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, connect(listener.getsockname()):

        def dial(address: tuple[str, int], timeout: float) -> socket.socket:
            waits.append(timeout)
            if len(waits) == 3:
                listener.accept()[0].close()  # until then its queue is full, and the kernel drops what comes
            return connect(address, timeout)

        monkeypatch.setattr(socket, "create_connection", dial)
        monkeypatch.setattr(server, "FIRST_DIAL", 0.01)
        with server._dial(listener.getsockname(), 5.0) as made:
            assert made.gettimeout() == 5.0
    assert waits == [0.01, 0.02, 0.04]


def test_ranges_arrive_whole_or_not_at_all(image: StoredImage) -> None:
    name = f"pxed/image/{image.id}/data"
    into = memoryview(bytearray(1000))
    with ImageServer(image) as server, Connection(server.url, RUN) as connection:
        for start in (0, 5, 70000):  # on one connection
            connection.fetch_range(name, start, into)
            assert into == image.data[start : start + 1000]
        server.data = image.data[:500]
        with pytest.raises(Unreachable):
            connection.fetch_range(name, 0, into)
        server.data = image.data
        connection.fetch_range(name, 0, into)
        assert into == image.data[:1000]


def test_a_server_that_gives_the_whole_file_for_a_range_is_not_believed(image: StoredImage) -> None:
    def whole(url: str, handler: Handler) -> None:
        handler._send(206, image.data[:1000], {"Content-Range": f"bytes 100-1099/{len(image.data)}"})
        raise ConnectionError

    with (
        ImageServer(image, before=whole) as server,
        Connection(server.url, RUN) as connection,
        pytest.raises(Unreachable, match="another range"),
    ):
        connection.fetch_range("x", 0, memoryview(bytearray(1000)))


def answer(status: int):  # type: ignore[no-untyped-def]
    def before(url: str, handler: Handler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        raise Answer(status, "The reason")

    return before


def test_errors_without_json_are_named_by_their_status(image: StoredImage) -> None:
    def plain(url: str, handler: Handler) -> None:
        handler._send(403, b"Forbidden!")
        raise ConnectionError

    with (
        ImageServer(image, before=plain) as server,
        Connection(server.url, RUN) as connection,
        pytest.raises(Refused, match="403"),
    ):
        connection.fetch("x")
