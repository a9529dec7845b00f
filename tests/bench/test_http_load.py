"""The HTTP clients notice whatever a server does wrong. The server is a few lines of Python on loopback."""

import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from pxed._ext.http_load import MOST_DOWNLOADS, Load
from pxed.cli import main

CONTENT = bytes(range(256)) * 4000 + b"the end"
SIZE = len(CONTENT)

Answer = Callable[[str], bytes | None]
"""A request's head -> the answer's bytes; b"" for none, None to close the connection."""


class Server:
    """Answers each request as `answer` says; a thread for each connection."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.requests: list[str] = []
        self.peers: list[str] = []
        self._threads: list[threading.Thread] = []

    def accept(self) -> None:
        while True:
            sock, (peer, _) = self._listener.accept()
            self.peers.append(peer)
            if len(self.requests) and self.requests[-1] == "stop":
                return sock.close()
            self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
            self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        received = b""
        with sock, suppress(ConnectionResetError, BrokenPipeError):  # by a client that has seen enough
            while data := sock.recv(65536):
                received += data
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    self.requests.append(head.decode())
                    answer = self._answer(head.decode())
                    if answer is None:
                        return
                    sock.sendall(answer)

    def stop(self) -> None:
        self.requests.append("stop")
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.accept)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(60)
        server._listener.close()
        assert not thread.is_alive()


def response(body: bytes, status: str = "200 OK", length: int | None = None, extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body) if length is None else length}\r\n{extra}\r\n"
    return head.encode() + body


def good(request: str) -> bytes:
    """A server without a fault."""
    wanted = re.search(r"Range: bytes=(\d+)-(\d+)", request)
    if not wanted:
        return response(CONTENT)
    first, last = int(wanted[1]), int(wanted[2])
    return response(CONTENT[first : last + 1], "206 Partial", extra=f"Content-Range: bytes {first}-{last}/{SIZE}\r\n")


def fetch(server: Server, clients: int = 1, patience: float = 60.0, **options: int | str) -> list[tuple[object, ...]]:
    """(outcome, detail, bytes, requests, connections) of each client."""
    load = Load(clients, "127.0.0.1", server.port, "/a/file", CONTENT, patience=patience, **options)  # type: ignore[arg-type]
    with closing(load):
        seconds, times, outcomes = load.run()
    assert all(0 < time <= seconds for time in times)
    assert len(times) >= sum(client[0] == "good" for client in outcomes)
    return list(outcomes)


def test_each_client_reads_the_file_on_a_connection_of_its_own() -> None:
    with serving(good) as server:
        assert fetch(server, clients=7) == [("good", 0, SIZE, 1, 1)] * 7
    assert server.requests[0].splitlines()[0] == "GET /a/file HTTP/1.1"
    assert server.requests[0].count("\r\nHost: 127.0.0.1:") == 1


def test_clients_have_addresses_of_their_own() -> None:
    with serving(good) as server:
        assert fetch(server, clients=5, first_address="127.9.0.1") == [("good", 0, SIZE, 1, 1)] * 5
    assert sorted(server.peers)[1:] == [f"127.9.0.{n}" for n in range(1, 6)]


def test_connections_are_kept_or_not() -> None:
    with serving(good) as server:
        assert fetch(server, clients=2, downloads=3) == [("good", 0, 3 * SIZE, 3, 1)] * 2
        assert fetch(server, clients=2, downloads=3, keep=False) == [("good", 0, 3 * SIZE, 3, 3)] * 2
    assert server.requests[-2].endswith("Connection: close")


def test_a_file_in_ranges() -> None:
    with serving(good) as server:
        assert fetch(server, piece=300_000, downloads=2) == [("good", 0, 2 * SIZE, 8, 1)]
    ranges = [line for request in server.requests for line in request.splitlines() if line.startswith("Range")]
    assert ranges[3:5] == [f"Range: bytes=900000-{SIZE - 1}", "Range: bytes=0-299999"]


def test_a_kept_connection_that_the_server_closes_is_made_again() -> None:
    answers = iter([response(CONTENT), None, response(CONTENT, extra="Connection: close\r\n"), response(CONTENT)])
    with serving(lambda request: next(answers)) as server:
        assert fetch(server, downloads=3) == [("good", 0, 3 * SIZE, 3, 3)]


@pytest.mark.parametrize("offset", [0, 1447, 512_000, SIZE - 1])
def test_one_wrong_byte_is_found(offset: int) -> None:
    doctored = bytearray(CONTENT)
    doctored[offset] ^= 0x10
    with serving(lambda request: response(bytes(doctored))) as server:
        assert fetch(server)[0][:2] == ("wrong byte", offset)


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (response(CONTENT[:-1]), "too short", SIZE - 1),
        (response(CONTENT + b"x"), "too long", SIZE + 1),
        (response(CONTENT + b"x", length=SIZE), "too long", SIZE),
        (response(b"", "404 Not Found"), "refused", 404),
        (response(b"", "503 Busy"), "refused", 503),
        (b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT, "bad head", 200),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "bad head", 200),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "bad head", 0),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 5000, "bad head", 0),
        (None, "cut off", 0),
    ],
)
def test_what_is_not_the_file_is_told(answer: bytes | None, outcome: str, detail: int) -> None:
    with serving(lambda request: answer) as server:
        assert fetch(server, clients=2)[1][:2] == (outcome, detail)


@pytest.mark.parametrize("range_", ["bytes 1-300000/1024007", "bytes 0-299999/1", "bytes 0-299999/*", "items 0-1/2"])
def test_another_range_is_told(range_: str) -> None:
    with serving(lambda _: response(CONTENT[:300_000], "206 x", extra=f"Content-Range: {range_}\r\n")) as server:
        assert fetch(server, piece=300_000)[0][:2] == ("bad head", 206)
    with serving(lambda _: response(CONTENT)) as server:
        assert fetch(server, piece=300_000)[0][:2] == ("refused", 200)


def test_silence_in_the_middle_is_told() -> None:
    half = response(CONTENT)[: SIZE // 2]
    with serving(lambda request: half) as server:
        ((outcome, detail, *_),) = fetch(server, patience=0.2)
    assert outcome == "silent"
    assert SIZE // 2 - 200 < int(str(detail)) < SIZE // 2


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with closing(Load(3, "127.0.0.1", taken.getsockname()[1], "/x", CONTENT)) as load:
            assert [client[:2] for client in load.run()[2]] == [("unconnected", 111)] * 3


def test_a_reset_is_told() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def reset() -> None:
        sock, _ = listener.accept()
        sock.recv(65536)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    thread = threading.Thread(target=reset)
    thread.start()
    with listener, closing(Load(1, "127.0.0.1", listener.getsockname()[1], "/x", CONTENT)) as load:
        assert load.run()[2][0][:2] == ("cut off", 0)
        thread.join(60)


def test_an_empty_file_and_many_small_ones() -> None:
    with (
        serving(lambda request: response(b"")) as server,
        closing(Load(2, "127.0.0.1", server.port, "/empty", b"", downloads=50)) as load,
    ):
        _, times, clients = load.run()
    assert len(times) == 100
    assert clients == [("good", 0, 0, 50, 1)] * 2


def test_the_command_measures_a_running_server(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(CONTENT)
    with serving(good) as server:
        arguments = ["bench", "http", "--server", f"http://127.0.0.1:{server.port}/x?y", "--file", str(copy)]
        arguments += ["--clients", "3", "--runs", "2", "--range", "256K", "--pid", str(os.getpid())]
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        runs = json.loads(result.stdout)["servers"][0]["runs"]
        assert [(run["bytes"], run["requests"]) for run in runs] == [(3 * SIZE, 12)] * 2
        assert server.requests[0].startswith("GET /x?y HTTP/1.1")
        copy.write_bytes(CONTENT + b"more")
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert "does not serve x?y: bad head with status 206" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--server", "ftp://x/y", "--file", __file__), "write http://ADDRESS"),
        (("--server", "http://127.0.0.1", "--file", __file__), "write http://ADDRESS"),
        (("--server", "http://127.0.0.1:1/x"), "needs --file"),
        ((), "Say --lab, or --server URL"),
        (("--server", "http://127.0.0.1:99999/x", "--file", __file__), "out of range"),
    ],
)
def test_what_cannot_be_measured_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = CliRunner().invoke(main, ["bench", "http", *arguments])
    assert result.exit_code != 0
    assert said in result.stderr


def test_nonsense_is_refused() -> None:
    for clients, downloads, port in ((0, 1, 80), (1, 0, 80), (2, MOST_DOWNLOADS, 80), (1, 1, 0)):
        with pytest.raises(ValueError, match="out of range"):
            Load(clients, "127.0.0.1", port, "/f", b"", downloads=downloads)
    for path in ("f", "/a b", "/\n", "/\x7f", "/é"):
        with pytest.raises(ValueError, match="not one of a URL"):
            Load(1, "127.0.0.1", 80, path, b"")
    with pytest.raises(ValueError, match="too long"):
        Load(1, "127.0.0.1", 80, "/" + "f" * 2000, b"")
