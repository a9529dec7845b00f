"""The clients notice whatever a server does wrong. The server is a few lines of Python on loopback."""

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from pxed._ext.tftp_load import Load
from pxed.cli import main

CONTENT = bytes(range(256)) * 16 + b"the end"
BLKSIZE = 1000


class Server:
    """Answers each request and each ACK as `answer(block)` says; block 0 is asked for by the request."""

    def __init__(self, answer: Callable[[int], list[bytes]]) -> None:
        self._answer = answer
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self.requests: list[bytes] = []
        self.errors: list[bytes] = []

    def serve(self) -> None:
        while True:
            packet, peer = self._socket.recvfrom(2048)
            if packet == b"stop":
                return self._socket.close()
            (opcode,) = struct.unpack_from("!H", packet)
            if opcode == 5:
                self.errors.append(packet)
                continue
            if opcode == 1:
                self.requests.append(packet)
            block = 0 if opcode == 1 else struct.unpack_from("!H", packet, 2)[0] + 1
            for answer in self._answer(block):
                self._socket.sendto(answer, peer)


@contextmanager
def serving(answer: Callable[[int], list[bytes]]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"stop", ("127.0.0.1", server.port))
        thread.join(60)
        assert not thread.is_alive()


def data(block: int, content: bytes = CONTENT, blksize: int = BLKSIZE) -> bytes:
    return struct.pack("!HH", 3, block & 0xFFFF) + content[(block - 1) * blksize : block * blksize]


def oack(**options: int) -> bytes:
    return b"\0\6" + b"".join(f"{name}\0{value}\0".encode() for name, value in options.items())


def good(block: int) -> list[bytes]:
    if block == 0:
        return [oack(blksize=BLKSIZE, tsize=len(CONTENT))]
    return [data(block)] if block <= len(CONTENT) // BLKSIZE + 1 else []


def fetch(
    server: Server, clients: int = 1, **options: int | str
) -> list[tuple[str, int, float, int, int, int, int, int, int]]:
    asked: dict[str, int | str] = {"blksize": BLKSIZE, **options}
    with closing(
        Load(clients, "127.0.0.1", server.port, "a file", CONTENT, patience=60.0, **asked)  # type: ignore[arg-type]
    ) as load:
        return load.run()[1]


def test_a_good_server_serves_all_each_from_a_port_of_its_own() -> None:
    with serving(good) as server:
        transfers = fetch(server, clients=7)
    assert [transfer[0] for transfer in transfers] == ["good"] * 7
    assert {transfer[3] for transfer in transfers} == {len(CONTENT)}
    assert {transfer[7] for transfer in transfers} == {BLKSIZE}
    assert server.requests[0] == b"\0\1a file\0octet\0tsize\0000\0blksize\x001000\0"
    assert server.errors == []


def test_clients_have_addresses_of_their_own() -> None:
    with serving(good) as server:
        transfers = fetch(server, clients=5, first_address="127.9.0.1")
    assert [transfer[0] for transfer in transfers] == ["good"] * 5


@pytest.mark.parametrize("offset", [0, 999, 1000, 3456, len(CONTENT) - 1])
def test_one_wrong_byte_is_found(offset: int) -> None:
    doctored = bytearray(CONTENT)
    doctored[offset] ^= 0x10

    def answer(block: int) -> list[bytes]:
        return good(0) if block == 0 else [data(block, bytes(doctored))]

    with serving(answer) as server:
        ((outcome, detail, *_),) = fetch(server)
    assert (outcome, detail) == ("wrong byte", offset)
    assert len(server.errors) == 1


def test_a_file_too_short_or_too_long_is_found() -> None:
    with serving(lambda block: [data(block, CONTENT[:2500])] if block else [oack(blksize=BLKSIZE)]) as server:
        assert fetch(server)[0][:2] == ("too short", 2500)
    with serving(lambda block: [data(block, CONTENT + b"more")] if block else [oack(blksize=BLKSIZE)]) as server:
        assert fetch(server)[0][:2] == ("too long", len(CONTENT))


@pytest.mark.parametrize(
    "reply", [oack(blksize=1001), oack(tsize=1), oack(windowsize=2), oack(cheese=1), b"\0\6blksize\x001000"]
)
def test_options_that_were_not_asked_for_are_refused(reply: bytes) -> None:
    with serving(lambda block: [reply]) as server:
        assert fetch(server)[0][0] == "bad options"
    assert [error[2:4] for error in server.errors] == [b"\0\x08"]


def test_an_error_ends_the_transfer() -> None:
    with serving(lambda block: [b"\0\5\0\1gone\0"]) as server:
        assert fetch(server)[0][:2] == ("refused", 1)


def test_a_server_without_options_gets_blocks_of_512() -> None:
    with serving(lambda block: [data(max(block, 1), blksize=512)]) as server:
        (transfer,) = fetch(server)
    assert (transfer[0], transfer[7], transfer[8]) == ("good", 512, 1)


def test_a_repeated_block_is_counted_and_acknowledged_again() -> None:
    with serving(lambda block: good(block) * (2 if block == 2 else 1)) as server:
        (transfer,) = fetch(server)
    assert transfer[0] == "good"
    assert transfer[5] >= 1


def test_a_gap_in_a_window_is_told_once() -> None:
    """The server loses block 2 of the first window of three, and goes on from the ACK of block 1."""
    acknowledged = []

    def answer(block: int) -> list[bytes]:
        acknowledged.append(block - 1)
        if block == 0:
            return [oack(blksize=BLKSIZE, windowsize=3)]
        last = len(CONTENT) // BLKSIZE + 1
        window = [n for n in range(block, block + 3) if n <= last]
        return [data(n) for n in window if n != 2 or block == 2]

    with serving(answer) as server:
        (transfer,) = fetch(server, windowsize=3)
    assert (transfer[0], transfer[6], transfer[8]) == ("good", 1, 3)
    assert acknowledged == [-1, 0, 1, 4, 5]


def test_silence_is_told() -> None:
    with serving(lambda block: good(block) if block < 2 else []) as server:
        load = Load(2, "127.0.0.1", server.port, "a file", CONTENT, blksize=BLKSIZE, patience=0.05)
        with closing(load):
            assert [transfer[:2] for transfer in load.run()[1]] == [("silent", BLKSIZE)] * 2


def test_the_command_measures_a_running_server(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(CONTENT)
    with serving(good) as server:
        arguments = ["bench", "tftp", "--server", "127.0.0.1", "--port", str(server.port), "--file", str(copy)]
        arguments += ["--clients", "3", "--runs", "2", "--blksize", str(BLKSIZE), "--pid", str(os.getpid())]
        result = CliRunner().invoke(main, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        assert [run["bytes"] for run in json.loads(result.stdout)["servers"][0]["runs"]] == [3 * len(CONTENT)] * 2
        copy.write_bytes(CONTENT + b"more")
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert "does not serve copy: bad options" in result.stderr


def test_nonsense_is_refused() -> None:
    for clients, blksize, windowsize in ((0, 512, 1), (1, 7, 1), (1, 512, 0)):
        with pytest.raises(ValueError, match="out of range"):
            Load(clients, "127.0.0.1", 69, "f", b"", blksize=blksize, windowsize=windowsize)
    with pytest.raises(ValueError, match="name is too long"):
        Load(1, "127.0.0.1", 69, "f" * 600, b"")
