"""Boot HTTP among clients that mean it harm: each honest client gets its bytes, and what the others hold is bounded."""

import os
import random
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pxed._ext.http_load import Load
from pxed.net.admission import Rank
from pxed.net.connection import Limits
from pxed.net.http import BootHttp
from pxed.net.message import BytesBody, FileBody, Request, Response
from support.httpd import Httpd

SIZE = 2_000_000
STALLED = 50_000_000
GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


class Files:
    """/file, and /large, which nobody can have in flight."""

    def __init__(self, directory: Path) -> None:
        self.content = random.Random(3).randbytes(SIZE)
        (directory / "file").write_bytes(self.content)
        with (directory / "large").open("wb") as sparse:
            sparse.truncate(STALLED)
        self._directory = directory

    async def __call__(self, request: Request) -> Response:
        if request.path == "/small":
            return Response(200, BytesBody(b"small"))
        fd = os.open(self._directory / request.path[1:], os.O_RDONLY)
        found = os.fstat(fd)
        return Response(200, FileBody(fd, found.st_size, found.st_mtime_ns), ranges=True)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def connect(port: int, source: str) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(60)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


@contextmanager
def swarm(port: int, sources: list[str], each: int, said: bytes) -> Iterator[list[socket.socket]]:
    """Connections that say this, and then nothing and read nothing."""
    with ExitStack() as stack:
        made = []
        for source in sources:
            for _ in range(each):
                sock = stack.enter_context(connect(port, source))
                sock.sendall(said)
                made.append(sock)
        yield made


def ranks(httpd: Httpd) -> dict[Rank, int]:
    return httpd.loop.call(lambda: {rank: httpd.server._connections.count(rank) for rank in Rank})


def honest(httpd: Httpd, files: Files, clients: int = 100, **options: int) -> list[str]:
    """What becomes of clients that check every byte, each from an address of its own."""
    load = Load(clients, "127.0.0.1", httpd.port, "/file", files.content, first_address="127.9.0.1", **options)  # type: ignore[arg-type]
    with closing(load):
        return [client[0] for client in load.run()[2]]


def test_slowloris_and_stalled_readers_keep_nobody_from_downloading(files: Files) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = Limits(connections=120, per_address=50, look=0.1, request_timeout=60, stall_timeout=60)
    with Httpd(files, limits) as httpd, ExitStack() as stack:
        stack.enter_context(swarm(httpd.port, ["127.8.0.1", "127.8.0.2"], 30, GET % b"large"))
        stack.enter_context(swarm(httpd.port, ["127.8.0.3", "127.8.0.4"], 30, b"GET / HTTP/1.1\r\nX-"))
        while ranks(httpd)[Rank.STALLED] < 60 or httpd.server.connections < 120:
            pass
        assert honest(httpd, files, downloads=2) == ["good"] * 100
        assert httpd.server.connections <= 120
        assert httpd.count("evicted") > 0
    # 120 connections cost some kilobytes each; the files are not read into memory
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_swarm_that_trickles_its_requests_is_ended_by_the_time_limit(files: Files) -> None:
    with (
        Httpd(files, Limits(request_timeout=0.3, linger=0.1)) as httpd,
        swarm(httpd.port, ["127.8.0.1"], 20, b"GET / HTTP/1.1\r\n") as made,
    ):
        open_ = list(made)
        while open_:
            for sock in list(open_):
                try:
                    sock.send(b"X")
                except OSError:
                    open_.remove(sock)
        assert httpd.server.connections == 0


def test_what_stalled_readers_hold_in_the_kernel_is_bounded(files: Files) -> None:
    """The longest stalled are given up until the others hold what they may."""
    allowed = 4 << 20
    with Httpd(files, Limits(look=0.1, stall_timeout=60)) as httpd:
        httpd.server._queue_memory = allowed
        with swarm(httpd.port, ["127.8.0.1"], 60, GET % b"large"):
            while httpd.count("requests") < 60:
                pass

            def held() -> tuple[int, int]:
                stalled = list(httpd.server._connections.members(Rank.STALLED))
                return len(stalled), sum(connection.held for connection in stalled)

            while True:
                count, size = httpd.loop.call(held)
                if count == httpd.server.connections and size <= allowed:
                    break
            assert count > 5
            assert count + httpd.count("slow-reader") == 60
            assert httpd.count("slow-reader") > 0
            assert honest(httpd, files, 20) == ["good"] * 20


def test_a_reader_that_is_slow_but_reads_is_kept(files: Files) -> None:
    """It takes less at a time than makes the kernel ask for more: only what it acknowledges shows that it reads."""
    limits = Limits(look=0.05, stall_timeout=5, useful=1)
    with Httpd(files, limits) as httpd, connect(httpd.port, "127.8.0.1") as sock:
        sock.sendall(GET % b"large")
        assert sock.recv(500)
        (connection,) = httpd.loop.call(lambda: list(httpd.server._connections))
        first = connection.deadline
        while httpd.loop.call(lambda: connection.deadline) <= first + 1:
            assert sock.recv(500)
        assert httpd.count("slow-reader") == 0


def test_an_address_with_only_busy_connections_is_refused_in_words(files: Files) -> None:
    limits = Limits(per_address=2, look=60, stall_timeout=60)
    with (
        capture_logs() as lines,
        Httpd(files, limits) as httpd,
        swarm(httpd.port, ["127.8.0.1"], 2, GET % b"large"),
    ):
        while ranks(httpd)[Rank.BUSY] < 2:
            pass
        for _ in range(3):
            with connect(httpd.port, "127.8.0.1") as sock, sock.makefile("rb") as stream:
                head, _, body = stream.read().partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert b"\r\nRetry-After: 5" in head
                assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head
                assert body == b"this address has too many connections here\n"
        assert honest(httpd, files, 10) == ["good"] * 10
        assert httpd.count("refused") == 3
    told = [line for line in lines if line["log_level"] == "warning"]
    assert len(told) == 1, "one line for each reason and minute"
    assert told[0]["peer"] == "127.8.0.1"


def test_a_site_behind_one_address_uses_its_own_idle_places(files: Files) -> None:
    with Httpd(files, Limits(per_address=3)) as httpd:
        made = []
        for _ in range(5):
            sock = connect(httpd.port, "127.8.0.1")
            made.append(sock)
            sock.sendall(GET % b"small")
            assert sock.recv(1000).endswith(b"small")
        assert httpd.server.connections == 3
        assert [sock.recv(1) for sock in made[:2]] == [b"", b""]
        for sock in made:
            sock.close()


def test_more_clients_than_there_are_connections_have_their_turns(files: Files) -> None:
    """All of them are busy with downloads: nobody is refused, the others wait."""
    with capture_logs() as lines, Httpd(files, Limits(connections=5)) as httpd:
        assert honest(httpd, files, 40) == ["good"] * 40
        assert httpd.count("waited") > 0
    assert sum("all HTTP connections are busy" in line["event"] for line in lines) == 1


def test_more_readers_have_shorter_queues() -> None:
    server = BootHttp(("127.0.0.1",), 0, lambda _: Response.text(200, ""))
    server._queue_memory = 100 << 20
    assert server._queue() == 4 << 20
    for number in range(100):
        server._connections.enter(number, "a", 0.0)  # type: ignore[arg-type]
        server._connections.move(number, Rank.BUSY, 0.0)  # type: ignore[arg-type]
    assert server._queue() == 1 << 20
    server._queue_memory = 1 << 20
    assert server._queue() == 128 << 10
