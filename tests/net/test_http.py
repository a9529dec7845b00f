"""Boot HTTP over real sockets: what it answers, what it bounds, and what it survives."""

import asyncio
import hashlib
import os
import random
import resource
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.net.connection import Limits
from pxed.net.http import BootHttp
from pxed.net.message import BytesBody, FileBody, Request, Response
from support.httpd import Httpd

BIG = 20_000_000


class Site:
    """The handler of these tests; remembers what was asked and sent."""

    def __init__(self, directory: Path) -> None:
        self.big = directory / "big"
        if not self.big.exists() or self.big.stat().st_size != BIG:  # a test makes it shorter
            self.big.write_bytes(random.Random(1).randbytes(BIG))
        self.requests: list[Request] = []
        self.sent: list[tuple[int, int, bool]] = []
        self.ended = threading.Event()
        self.release = asyncio.Event()

    def _note(self, start: int, stop: int, complete: bool) -> None:
        self.sent.append((start, stop, complete))
        self.ended.set()

    def was_cut_off(self) -> None:
        """The one download ended before its end, and how much of it went out was told."""
        ((start, stop, complete),) = self.sent
        assert (start, complete) == (0, False)
        assert 0 < stop < BIG

    async def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        match request.path:
            case "/big":
                fd = os.open(self.big, os.O_RDONLY)
                found = os.fstat(fd)
                body = FileBody(fd, found.st_size, found.st_mtime_ns)
                return Response(200, body, ranges=True, sent=self._note)
            case "/bytes":
                return Response(200, BytesBody(b"0123456789"), ranges=True)
            case "/empty":
                return Response(200, BytesBody(b""), sent=self._note)
            case "/wait":
                await self.release.wait()
                return Response(200, BytesBody(b"waited"), sent=self._note)
            case "/bug":
                raise ZeroDivisionError
        return Response.json(200, [request.method, request.path, request.query, len(request.body)])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http")


@pytest.fixture
def site(directory: Path) -> Site:
    return Site(directory)


@pytest.fixture
def httpd(site: Site) -> Iterator[Httpd]:
    with Httpd(site) as running:
        yield running
    descriptors = Path("/proc/self/fd")
    open_files = [str(entry.readlink()) for entry in descriptors.iterdir() if entry.is_symlink()]
    assert str(site.big) not in open_files, "a descriptor leaks"


def curl(*arguments: str) -> bytes:
    """curl's output, with the response's headers in it."""
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- what is answered --------------------------------------------------------------------------------------------------


def test_a_file(httpd: Httpd, site: Site) -> None:
    assert curl(httpd.url("/big")) == site.big.read_bytes()
    assert site.sent == [(0, BIG, True)]


def test_head_has_the_length_and_no_body(httpd: Httpd, site: Site) -> None:
    head = curl("--head", httpd.url("/big")).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert f"\r\nContent-Length: {BIG}\r\n" in head
    assert "\r\nAccept-Ranges: bytes\r\n" in head
    assert "\r\nDate: " in head
    assert site.sent == [], "a HEAD delivers nothing"


def test_ranges(httpd: Httpd, site: Site) -> None:
    whole = site.big.read_bytes()
    for asked, start, stop in (("0-0", 0, 1), ("1048570-3145730", 1048570, 3145731), ("-7", BIG - 7, BIG)):
        answer = curl("--include", "--range", asked, httpd.url("/big"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 206 ")
        assert f"Content-Range: bytes {start}-{stop - 1}/{BIG}".encode() in head
        assert body == whole[start:stop]


def test_a_range_outside(httpd: Httpd, site: Site) -> None:
    with httpd.connect() as client:
        client.send("GET /bytes HTTP/1.1\nHost: x\nRange: bytes=10-\n\n")
        status, headers, body = client.response()
        assert (status, headers["content-range"], body) == (416, "bytes */10", b"")
    assert site.sent == [], "nothing of the body was delivered"


@pytest.mark.parametrize(
    "header", ["Range: bytes=1-2,4-5", "Range: lines=1-2", 'Range: bytes=1-2\nIf-Range: "x"', "Range: bytes=2-1"]
)
def test_ranges_that_are_answered_with_the_whole(httpd: Httpd, header: str) -> None:
    with httpd.connect() as client:
        client.send(f"GET /bytes HTTP/1.1\nHost: x\n{header}\n\n")
        assert client.response()[::2] == (200, b"0123456789")


def test_head_ignores_a_range(httpd: Httpd) -> None:
    with httpd.connect() as client:
        client.send("HEAD /bytes HTTP/1.1\nHost: x\nRange: bytes=1-2\n\n")
        status, headers, _ = client.response(has_body=False)
        assert (status, headers["content-length"]) == (200, "10")


def test_keep_alive_serves_many_requests_on_one_connection(httpd: Httpd, site: Site) -> None:
    urls = [httpd.url(f"/file{i}") for i in range(20)]
    curl(*urls)
    assert len(site.requests) == 20
    assert len({request.peer for request in site.requests}) == 1
    assert httpd.count("connections") == 1


def test_pipelined_requests_are_answered_in_order(httpd: Httpd) -> None:
    with httpd.connect() as client:
        count = 1000  # 33 KB: more than one of the answers' segments, less than one read
        client.send("".join(f"GET /{i} HTTP/1.1\nHost: x\n\n" for i in range(count)))
        for i in range(count):
            assert client.response()[2] == b'["GET","/%d","",0]' % i


def test_http_1_0_is_closed_after_the_answer_unless_asked_otherwise(httpd: Httpd) -> None:
    answer = httpd.exchange(b"GET /bytes HTTP/1.0\r\n\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\n0123456789")
    with httpd.connect() as client:
        for _ in range(2):
            client.send("GET /bytes HTTP/1.0\nConnection: keep-alive\n\n")
            assert client.response()[1]["connection"] == "keep-alive"


def test_connection_close_is_obeyed(httpd: Httpd) -> None:
    answer = httpd.exchange(b"GET /empty HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Length: 0\r\n" in answer


def test_a_client_that_shuts_its_side_gets_its_answer(httpd: Httpd, site: Site) -> None:
    with httpd.connect() as client:
        client.send("GET /big HTTP/1.1\nHost: x\n\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.response()[2] == site.big.read_bytes()
        assert client.rest() == b""


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/a//b///c", "/a/b/c", ""),  # shim over HTTP asks so
        ("//a", "/a", ""),
        ("/a?x=1&y=//", "/a", "x=1&y=//"),
        ("/a#part", "/a", ""),
        ("http://10.0.0.1:80/a?b", "/a", "b"),
        ("http://10.0.0.1", "/", ""),
        ("/a%2e%2E/b", "/a%2e%2E/b", ""),  # decoding is the handler's affair
    ],
)
def test_targets(httpd: Httpd, target: str, path: str, query: str) -> None:
    with httpd.connect() as client:
        client.send(f"GET {target} HTTP/1.1\nHost: x\n\n")
        assert client.response()[2] == f'["GET","{path}","{query}",0]'.encode()


def test_post(httpd: Httpd, site: Site) -> None:
    assert curl("--data", "abc", httpd.url("/x")) == b'["POST","/x","",3]'
    assert site.requests[0].body == b"abc"
    chunked = curl("--header", "Transfer-Encoding: chunked", "--data", "abcd", httpd.url("/x"))
    assert chunked == b'["POST","/x","",4]'


def test_expect_100_continue(httpd: Httpd) -> None:
    with httpd.connect() as client:
        client.send("POST /x HTTP/1.1\nHost: x\nContent-Length: 4\nExpect: 100-continue\n\n")
        assert client.response()[0] == 100
        client.send("body")
        assert client.response()[::2] == (200, b'["POST","/x","",4]')


def test_a_request_in_single_bytes(httpd: Httpd) -> None:
    with httpd.connect() as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST /slow?q HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab":
            client.sock.sendall(bytes((byte,)))
        assert client.response()[2] == b'["POST","/slow","q",2]'


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GARBAGE\n\n", 400),
        ("GET / HTTP/9.9\n\n", 400),
        ("GET /a b HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\nHost x\n\n", 400),
        ("GET * HTTP/1.1\nHost: x\n\n", 400),
        ("GET / HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\nHost: x\nHOST: x\n\n", 400),
        ("GET / HTTP/1.0\nHost: x\nHost: y\n\n", 400),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: x\n\n", 400),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 3\nContent-Length: 4\n\nabcd", 400),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 3\nTransfer-Encoding: chunked\n\nabcd", 400),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),  # somebody speaks TLS
        ("PUT /x HTTP/1.1\nHost: x\nContent-Length: 0\n\n", 405),
        ("DELETE /x HTTP/1.1\nHost: x\n\n", 405),
        ("OPTIONS * HTTP/1.1\nHost: x\n\n", 405),
        ("CONNECT x:1 HTTP/1.1\nHost: x\n\n", 405),
        (f"GET /{'a' * 20000} HTTP/1.1\nHost: x\n\n", 431),
        (f"GET / HTTP/1.1\nHost: x\nX: {'a' * 20000}\n\n", 431),
        ("GET / HTTP/1.1\n" + "".join(f"X{i}: {'a' * 50}\n" for i in range(400)) + "\n", 431),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 70000\n\n" + "a" * 70000, 413),
    ],
)
def test_refused(httpd: Httpd, site: Site, request_text: str, status: int) -> None:
    answer = httpd.exchange(request_text.replace("\n", "\r\n").encode("latin-1"))
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert site.requests == []


def test_a_header_that_never_ends_is_cut_off(httpd: Httpd) -> None:
    with httpd.connect() as client:
        client.send("GET / HTTP/1.1\nX: ")
        try:
            for _ in range(1000):
                client.sock.sendall(b"a" * 4096)
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            pytest.fail("4 MB of one header were taken")


def test_what_came_before_the_nonsense_is_answered(httpd: Httpd) -> None:
    with httpd.connect() as client:
        client.send("GET /1 HTTP/1.1\nHost: x\n\nGET /2 HTTP/1.1\nHost: x\n\nNONSENSE\n\n")
        assert client.response()[2] == b'["GET","/1","",0]'
        assert client.response()[2] == b'["GET","/2","",0]'
        assert client.response()[0] == 400
        assert client.rest() == b""


def test_upgrade_is_not_taken_up(httpd: Httpd) -> None:
    assert curl("--http2", httpd.url("/x")) == b'["GET","/x","",0]'


def test_a_bug_in_the_handler_is_a_500_and_harms_nobody(httpd: Httpd) -> None:
    with httpd.connect() as client:
        client.send("GET /bug HTTP/1.1\nHost: x\n\n")
        assert client.response()[0] == 500
        client.send("GET /bytes HTTP/1.1\nHost: x\n\n")
        assert client.response()[2] == b"0123456789"


# -- what is bounded ---------------------------------------------------------------------------------------------------


def test_a_reader_that_stops_is_given_up(site: Site) -> None:
    with Httpd(site, Limits(stall_timeout=0.2)) as httpd, httpd.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send("GET /big HTTP/1.1\nHost: x\n\n")
        assert site.ended.wait(60)
        site.was_cut_off()
        assert len(client.rest()) < BIG
        assert httpd.count("slow-reader") == 1


def test_a_reader_that_is_slower_than_the_slowest_is_given_up(site: Site) -> None:
    """It never stops, so that only the average gives it away."""
    with Httpd(site, Limits(stall_timeout=0.5, slowest=1e12)) as httpd, httpd.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send("GET /big HTTP/1.1\nHost: x\n\n")
        try:
            while not site.ended.is_set() and client.sock.recv(512):
                site.ended.wait(0.01)
        except ConnectionResetError:
            pass
        assert site.ended.wait(60)
        site.was_cut_off()


def test_a_request_that_does_not_end_is_answered_408(site: Site) -> None:
    with Httpd(site, Limits(request_timeout=0.2)) as httpd:
        answer = b""
        while not answer:  # on a slow machine the time may be over before the first byte: closed without an answer
            answer = httpd.exchange(b"GET / HTTP/1.1\r\nHost:")
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_a_request_is_closed(site: Site) -> None:
    with Httpd(site, Limits(request_timeout=0.2)) as httpd, httpd.connect() as client:
        assert client.rest() == b""
        assert httpd.count("idle") == 1


def test_an_idle_connection_is_closed(site: Site) -> None:
    with Httpd(site, Limits(idle_timeout=0.2)) as httpd, httpd.connect() as client:
        client.send("GET /bytes HTTP/1.1\nHost: x\n\n")
        client.response()
        assert client.rest() == b""
        assert httpd.count("idle") == 1


def test_the_handler_may_take_longer_than_every_timeout(site: Site) -> None:
    with Httpd(site, Limits(idle_timeout=0.1, stall_timeout=0.1, linger=0.1)) as httpd, httpd.connect() as client:
        client.send("GET /wait HTTP/1.1\nHost: x\n\n")
        with httpd.connect() as other:
            other.send("GET /bytes HTTP/1.1\nHost: x\n\n")
            other.response()
            assert other.rest() == b"", "it was idle and has been closed meanwhile"
        httpd.loop.call(site.release.set)
        assert client.response()[2] == b"waited"


def test_an_idle_connection_makes_room_for_a_new_one(site: Site) -> None:
    with Httpd(site, Limits(connections=2)) as httpd, httpd.connect() as old, httpd.connect() as busy:
        old.send("GET /bytes HTTP/1.1\nHost: x\n\n")
        old.response()
        busy.send("GET /wait HTTP/1.1\nHost: x\n\n")
        while len(site.requests) < 2:
            httpd.loop.call(lambda: None)
        with httpd.connect() as new:
            new.send("GET /bytes HTTP/1.1\nHost: x\n\n")
            assert new.response()[2] == b"0123456789"
            assert old.rest() == b""
            assert httpd.server.connections == 2
        httpd.loop.call(site.release.set)
        assert busy.response()[2] == b"waited"


def test_when_all_are_busy_a_new_one_waits_its_turn(site: Site) -> None:
    with Httpd(site, Limits(connections=1)) as httpd, httpd.connect() as busy:
        busy.send("GET /wait HTTP/1.1\nHost: x\n\n")
        while not site.requests:
            httpd.loop.call(lambda: None)
        with httpd.connect() as waiting:  # in the kernel's queue
            waiting.send("GET /bytes HTTP/1.1\nHost: x\n\n")
            httpd.loop.call(site.release.set)
            assert busy.response()[2] == b"waited"
            busy.sock.close()
            assert waiting.response()[2] == b"0123456789"


# -- what is survived --------------------------------------------------------------------------------------------------


def test_a_client_that_resets_in_the_middle_of_a_download(httpd: Httpd, site: Site) -> None:
    client = httpd.connect()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send("GET /big HTTP/1.1\nHost: x\n\n")
    client.sock.recv(100)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()
    assert site.ended.wait(60)
    site.was_cut_off()
    assert curl("--range", "0-3", httpd.url("/big")) == site.big.read_bytes()[:4]


def test_a_client_that_resets_between_requests(httpd: Httpd) -> None:
    client = httpd.connect()
    client.send("GET /bytes HTTP/1.1\nHost: x\n\n")
    client.response()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()
    while httpd.loop.call(lambda: httpd.server.connections):
        pass
    assert curl(httpd.url("/bytes")) == b"0123456789"


def test_without_descriptors_a_client_waits(httpd: Httpd) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket()
    lowest = os.dup(waiting.fileno())
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        waiting.connect(("127.0.0.1", httpd.port))
        waiting.sendall(b"GET /bytes HTTP/1.0\r\n\r\n")
        while not httpd.count("accept-errors"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with waiting:
        waiting.settimeout(60)
        assert waiting.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_note_that_fails_harms_nobody(httpd: Httpd, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "sent", None)
    with httpd.connect() as client:
        for _ in range(2):
            client.send("GET /empty HTTP/1.1\nHost: x\n\n")
            assert client.response()[0] == 200


def test_a_client_that_goes_while_the_handler_works(httpd: Httpd, site: Site) -> None:
    client = httpd.connect()
    client.send("GET /wait HTTP/1.1\nHost: x\n\n")
    while not site.requests:
        httpd.loop.call(lambda: None)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()
    httpd.loop.call(site.release.set)
    assert site.ended.wait(60)
    assert curl(httpd.url("/bytes")) == b"0123456789"


@pytest.mark.parametrize("harm", ["shorter", "rewritten", "longer"])
def test_a_file_that_changes_while_it_is_sent_cuts_the_connection(httpd: Httpd, site: Site, harm: str) -> None:
    with httpd.connect() as client:
        client.send("GET /big HTTP/1.1\nHost: x\n\n")
        client.sock.recv(1, socket.MSG_PEEK)
        if harm == "shorter":
            os.truncate(site.big, 0)
        else:
            with site.big.open("r+b" if harm == "rewritten" else "ab") as file:
                file.write(b"other bytes")
        assert len(client.rest()) < BIG
        assert site.ended.wait(60)
        assert [complete for _, _, complete in site.sent] == [False]
        assert httpd.count("changed") == 1
    site.big.unlink()  # the next test makes it anew


@pytest.mark.parametrize("harm", ["replaced", "deleted"])
def test_a_file_that_is_replaced_or_deleted_while_it_is_sent_arrives_as_it_was(
    httpd: Httpd, site: Site, harm: str
) -> None:
    wanted = site.big.read_bytes()
    with httpd.connect() as client:
        client.send("GET /big HTTP/1.1\nHost: x\n\n")
        client.sock.recv(1, socket.MSG_PEEK)
        if harm == "replaced":
            site.big.with_name("new").write_bytes(b"x" * BIG)
            site.big.with_name("new").rename(site.big)
        else:
            site.big.unlink()
        assert client.response()[2] == wanted
    site.big.unlink(missing_ok=True)


def test_stop_lets_a_response_end(site: Site) -> None:
    httpd = Httpd(site)
    with httpd, httpd.connect() as idle, httpd.connect() as busy:
        busy.send("GET /wait HTTP/1.1\nHost: x\n\n")
        while not site.requests:
            httpd.loop.call(lambda: None)
        stopping = asyncio.run_coroutine_threadsafe(httpd.server.stop(60), httpd.loop._loop)
        assert idle.rest() == b""
        httpd.loop.call(site.release.set)
        assert busy.response()[2] == b"waited"
        assert busy.rest() == b"", "the connection is not kept"
        busy.sock.close()
        stopping.result(60)
    with pytest.raises(ConnectionRefusedError):
        httpd.connect()


def test_stop_cuts_off_what_does_not_end(site: Site) -> None:
    with Httpd(site) as httpd, httpd.connect() as client:
        client.send("GET /wait HTTP/1.1\nHost: x\n\n")
        while not site.requests:
            httpd.loop.call(lambda: None)
        httpd.loop.run(httpd.server.stop(0.05))
        assert client.rest() == b""
        httpd.loop.call(site.release.set)


def test_a_taken_port_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = BootHttp(("127.0.0.1",), taken.getsockname()[1], lambda _: Response.text(200, ""))
        with pytest.raises(OperatorError, match=rf"is taken by .* \(pid {os.getpid()}\)\. Another port can be set"):
            server.open()


def test_many_readers_at_once(httpd: Httpd, site: Site) -> None:
    wanted = hashlib.sha256(site.big.read_bytes()).digest()
    clients = [httpd.connect() for _ in range(30)]
    for client in clients:
        client.send("GET /big HTTP/1.1\nHost: x\n\n")
    digests = [hashlib.sha256(client.response()[2]).digest() for client in clients]
    for client in clients:
        client.sock.close()
    assert set(digests) == {wanted}
