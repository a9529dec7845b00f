"""Transfers with ports of their own (RFC 1350 section 4), on real sockets."""

import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.service.tftp import TRANSFER_PORTS, TftpService
from support.tftp_service import Running
from support.tftp_sim import ack, error, rrq

PORTS = range(40_000, 41_000)
PATIENCE = 120  # seconds for a client on a busy machine
DATA = random.Random(7).randbytes(200_001)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/file").write_bytes(DATA)
    (tmp_path / "root/other").write_bytes(DATA[::-1])
    return tmp_path / "root"


@pytest.fixture
def server(root: Path) -> Iterator[Running]:
    running = Running(root, ("127.0.0.1",), threads=2, transfer_ports=PORTS)
    yield running
    running.stop()


class Peer:
    """One port of a client, and what came to it from where."""

    def __init__(self, server: Running, address: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(PATIENCE)
        self.asked = (address, server.port)

    def ask(self, name: str) -> None:
        self.sock.sendto(rrq(name), self.asked)

    def receive(self) -> tuple[bytes, tuple[str, int]]:
        datagram, source = self.sock.recvfrom(65536)
        assert source[0] == self.asked[0]
        assert source[1] in PORTS
        return datagram, source

    def close(self) -> None:
        self.sock.close()


@pytest.mark.parametrize(
    "command",
    [
        "curl -sS --tftp-blksize 1400 -o out tftp://127.0.0.1:{port}/file",
        "tftp -m octet 127.0.0.1 {port} -c get file out",
        "atftp --option windowsize\0{window} -g -r file -l out 127.0.0.1 {port}",
        "busybox tftp -g -b 1432 -r file -l out 127.0.0.1 {port}",
    ],
    ids=["curl", "tftp-hpa", "atftp", "busybox"],
)
def test_clients(server: Running, tmp_path: Path, command: str) -> None:
    words = [word.replace("\0", " ") for word in command.format(port=server.port, window=8).split(" ")]
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    subprocess.run(words, cwd=tmp_path, env=environment, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=True)
    assert (tmp_path / "out").read_bytes() == DATA
    server.wait_until(lambda figures: figures["outcome.ok"] == 1)


def test_two_transfers_of_one_client_port_at_once(server: Running) -> None:
    """Each is known by its port; in single-port mode the second would end the first."""
    peer = Peer(server)
    received: dict[tuple[str, int], bytes] = {}
    for name in ("file", "other"):
        peer.ask(name)
    ended = 0
    while ended < 2:
        datagram, source = peer.receive()
        got = received.setdefault(source, b"")
        block = int.from_bytes(datagram[2:4])
        if block == len(got) // 512 + 1:
            received[source] = got + datagram[4:]
            ended += len(datagram) < 516
        peer.sock.sendto(ack(block), source)
    assert sorted(received.values()) == sorted([DATA, DATA[::-1]])
    figures = server.wait_until(lambda figures: figures["outcome.ok"] == 2)
    assert figures["outcome.superseded"] == 0
    peer.close()


def test_request_sent_again_is_the_same_transfer(server: Running) -> None:
    peer = Peer(server)
    peer.ask("file")
    _, source = peer.receive()
    peer.ask("file")
    server.wait_until(lambda figures: figures["drop.merged"] == 1)
    peer.sock.sendto(ack(1), source)
    datagram, again = peer.receive()
    assert again == source
    assert datagram == b"\0\3\0\2" + DATA[512:1024]
    assert [name for name, _, _ in server.names.asked] == ["file"]
    peer.close()


def test_next_transfer_of_a_client_port_has_another_port(server: Running) -> None:
    """What is left of the last one on the network cannot be taken for it."""
    peer = Peer(server)
    sources = set()
    for i in range(5):
        (server.root / f"small{i}").write_bytes(b"x")
        peer.ask(f"small{i}")
        _, source = peer.receive()
        peer.sock.sendto(ack(1), source)
        sources.add(source)
    assert len(sources) > 1
    peer.ask("missing")
    assert peer.receive()[0] == error(1, "file not found")
    peer.close()


def test_address_that_was_asked_and_only_requests_at_the_known_port(root: Path) -> None:
    """With one socket for all addresses, too."""
    running = Running(root, ("0.0.0.0",), transfer_ports=PORTS)
    try:
        peer = Peer(running, "127.0.0.5")
        peer.ask("file")
        _, source = peer.receive()
        peer.sock.sendto(rrq("other"), source)
        running.wait_until(lambda figures: figures["drop.opcode"] == 1)
        peer.sock.sendto(ack(1), source)
        datagram, again = peer.receive()
        assert (datagram, again) == (b"\0\3\0\2" + DATA[512:1024], source)
        peer.close()
    finally:
        running.stop()


def test_ports_that_others_have_are_left_out(root: Path) -> None:
    """And when all are taken, the operator hears of it."""
    holders = []
    for port in range(41_100, 41_164):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", port))
        holders.append(sock)
    try:
        running = Running(root, ("127.0.0.1",), transfer_ports=range(41_100, 41_200))
        try:
            peer = Peer(running)
            peer.ask("file")
            source = peer.sock.recvfrom(2000)[1]
            assert 41_164 <= source[1] < 41_164 + TRANSFER_PORTS
            peer.close()
            service = TftpService(("127.0.0.1",), 0, running.names, transfer_ports=range(41_100, 41_164))
            with pytest.raises(OperatorError, match=r"\[tftp\] ports 41100-41163"):
                service.open()
            running.call(service.stop())
        finally:
            running.stop()
    finally:
        for sock in holders:
            sock.close()
