"""The TFTP service on real sockets: the field's clients, many at once, and files that change under their feet."""

import ctypes
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.errors import OperatorError
from pxed.service import blobs
from pxed.service.tftp import TftpService
from support.tftp_service import Running, Socket, fetch, go_on
from support.tftp_sim import ack, error, number, options_of, rrq

PATIENCE = 120  # seconds for a client on a busy machine
# The sanitizers' run preloads their libraries into us; the clients are not built for them.
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
DATA = random.Random(5).randbytes(700_001)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(DATA)
    running = Running(root, ("127.0.0.1",))
    yield running
    running.stop()


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )


def an_hour_later(limit: int) -> blobs.BlobCache:
    """A cache for which the files that a test has written are not of this very moment."""
    return blobs.BlobCache(limit, lambda: time.time_ns() + 3600 * 10**9)


def succeed(*command: str | Path, cwd: Path) -> bytes:
    """Run a client that writes to `out`; what it wrote."""
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return (cwd / "out").read_bytes()


# -- the field's clients -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blksize", [None, 8, 512, 1024, 1468, 8192])
def test_curl(server: Running, tmp_path: Path, blksize: int | None) -> None:
    """8 bytes a block: the numbers wrap after 65535."""
    options = ["--tftp-blksize", str(blksize)] if blksize else ["--tftp-no-options"]
    url = f"tftp://127.0.0.1:{server.port}/file"
    assert succeed("curl", "-sS", *options, "-o", "out", url, cwd=tmp_path) == DATA
    figures = server.wait_until(lambda now: now["outcome.ok"] == 1)
    assert figures["bytes"] >= len(DATA)
    assert server.names.delivered_names == [("file", "127.0.0.1", len(DATA))]
    assert server.names.asked == [("file", "127.0.0.1", "127.0.0.1")]


@pytest.mark.parametrize("mode", ["octet", "netascii"])
def test_tftp_hpa(server: Running, tmp_path: Path, mode: str) -> None:
    text = b"one\ntwo\r\nthree\rfour\n" * 3000
    (server.root / "text").write_bytes(text)
    command = f"tftp -m {mode} 127.0.0.1 {server.port} -c get text out"
    assert succeed(*command.split(), cwd=tmp_path) == text


def test_tftp_hpa_wraps_at_512_bytes(server: Running, tmp_path: Path) -> None:
    data = os.urandom(1024) * 33_000  # 66,001 blocks
    (server.root / "long").write_bytes(data)
    command = f"tftp -m octet 127.0.0.1 {server.port} -c get long out"
    assert succeed(*command.split(), cwd=tmp_path) == data


@pytest.mark.parametrize(
    "options", [[], ["blksize 1432"], ["blksize 1428", "windowsize 16"], ["windowsize 4", "tsize"]]
)
def test_atftp(server: Running, tmp_path: Path, options: list[str]) -> None:
    words = [word for option in options for word in ("--option", option)]
    command = ["atftp", *words, "-g", "-r", "file", "-l", "out", "127.0.0.1", str(server.port)]
    assert succeed(*command, cwd=tmp_path) == DATA


@pytest.mark.parametrize("blksize", [128, 512, 1400, 65464])
def test_busybox(server: Running, tmp_path: Path, blksize: int) -> None:
    command = f"busybox tftp -g -b {blksize} -r file -l out 127.0.0.1 {server.port}"
    assert succeed(*command.split(), cwd=tmp_path) == DATA


def test_busybox_empty_file_and_exact_block(server: Running, tmp_path: Path) -> None:
    for size in (0, 512, 1024):
        (server.root / "exact").write_bytes(DATA[:size])
        command = f"busybox tftp -g -r exact -l out 127.0.0.1 {server.port}"
        assert succeed(*command.split(), cwd=tmp_path) == DATA[:size]


def test_bytes_made_for_a_machine(server: Running, tmp_path: Path) -> None:
    server.names.made["pxed/boot.ipxe"] = b"#!ipxe\n"
    url = f"tftp://127.0.0.1:{server.port}/pxed/boot.ipxe"
    assert succeed("curl", "-sS", "-o", "out", url, cwd=tmp_path) == b"#!ipxe\n"


def test_missing_file(server: Running, tmp_path: Path) -> None:
    done = run("curl", "-sS", "-o", "out", f"tftp://127.0.0.1:{server.port}/nothing", cwd=tmp_path)
    assert done.returncode == 68  # CURLE_TFTP_NOTFOUND
    command = f"tftp 127.0.0.1 {server.port} -c get nothing out"
    assert "file not found" in run(*command.split(), cwd=tmp_path).stdout
    assert not server.names.delivered_names


def test_write_is_refused_in_words(server: Running, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    command = f"tftp 127.0.0.1 {server.port} -c put mine"
    assert "pxed does not accept files" in run(*command.split(), cwd=tmp_path).stdout


def test_ipv6(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    running = Running(tmp_path, ("::1",))
    try:
        url = f"tftp://[::1]:{running.port}/file"
        assert succeed("curl", "-sS", "--tftp-blksize", "1400", "-o", "out", url, cwd=tmp_path) == DATA
        assert running.names.asked == [("file", "::1", "::1")]
    finally:
        running.stop()


def test_many_clients_at_once(server: Running, tmp_path: Path) -> None:
    """40 clients of four kinds; each gets every byte."""
    server.service._blobs = an_hour_later(blobs.CACHE_BYTES)
    commands = []
    for i in range(10):
        url = f"tftp://127.0.0.1:{server.port}/file"
        commands += [
            (f"c{i}", ["curl", "-sS", "--tftp-blksize", "1400", "-o", f"c{i}", url]),
            (f"b{i}", f"busybox tftp -g -b 1432 -r file -l b{i} 127.0.0.1 {server.port}".split()),
            (f"h{i}", f"tftp -m octet 127.0.0.1 {server.port} -c get file h{i}".split()),
            (
                f"a{i}",
                ["atftp", "--option", "windowsize 8", "-g", "-r", "file", "-l", f"a{i}", "127.0.0.1", str(server.port)],
            ),
        ]
    running = [
        subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        for _, command in commands
    ]
    assert [process.wait(PATIENCE) for process in running] == [0] * 40
    assert all((tmp_path / name).read_bytes() == DATA for name, _ in commands)
    figures = server.wait_until(lambda now: now["outcome.ok"] == 40)
    assert figures["cached"] == 1  # read once for all of them


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_reply_comes_from_the_address_that_was_asked(tmp_path: Path) -> None:
    """One socket for all addresses, and each client hears from the one that it knows."""
    (tmp_path / "file").write_bytes(DATA)
    running = Running(tmp_path, ("0.0.0.0",))
    try:
        for address in ("127.0.0.1", "127.0.0.5", "127.9.9.9"):
            sock = Socket(address, running.port)  # Socket.receive checks the source
            assert fetch(sock, "file", 3) + go_on(sock, 3) == DATA
            sock.close()
        assert [local for _, _, local in running.names.asked] == ["127.0.0.1", "127.0.0.5", "127.9.9.9"]
    finally:
        running.stop()


def test_two_servers_addresses_are_two_transfers(tmp_path: Path) -> None:
    """The same client port asks two of our addresses."""
    (tmp_path / "file").write_bytes(DATA)
    running = Running(tmp_path, ("127.0.0.1", "127.0.0.2"))
    try:
        sock = Socket("127.0.0.1", running.port)
        fetch(sock, "file", 1)
        sock.server = running.service.bound[1]
        assert fetch(sock, "file", 1) == DATA[:512]
        assert running.statistics()["running"] == 2
        sock.close()
    finally:
        running.stop()


def test_windowed_run_arrives_as_single_datagrams(server: Running) -> None:
    """UDP_SEGMENT is the kernel's business: the client sees ordinary datagrams."""
    sock = Socket("127.0.0.1", server.port)
    sock.send(rrq("file", blksize=1400, windowsize=16))
    assert options_of(sock.receive()) == {"blksize": 1400, "windowsize": 16}
    sock.send(ack(0))
    datagrams = [sock.receive() for _ in range(16)]
    assert [number(datagram) for datagram in datagrams] == list(range(1, 17))
    assert b"".join(datagram[4:] for datagram in datagrams) == DATA[: 16 * 1400]
    sock.close()


def test_size_probe_and_transfer_are_one_boot(server: Running) -> None:
    """EDK2 asks for the size, ends that with an ERROR, and comes again from another port."""
    sock = Socket("127.0.0.1", server.port)
    sock.send(rrq("file", tsize=0, blksize=1468))
    assert options_of(sock.receive()) == {"tsize": len(DATA), "blksize": 1468}
    sock.send(error(8, "User aborted the transfer"))
    server.wait_until(lambda now: now["outcome.probe"] == 1)
    assert not server.names.delivered_names
    sock.close()
    sock = Socket("127.0.0.1", server.port)
    assert fetch(sock, "file", 1) + go_on(sock, 1) == DATA
    figures = server.wait_until(lambda now: now["outcome.ok"] == 1)
    assert (figures["outcome.probe"], figures["outcome.client-error"]) == (1, 0)
    assert server.names.delivered_names == [("file", "127.0.0.1", len(DATA))]
    sock.close()


def test_bug_in_the_names_is_an_error_for_one_client(server: Running) -> None:
    sock = Socket("127.0.0.1", server.port)
    sock.send(rrq("broken"))
    assert sock.receive() == error(0, "internal error")
    assert fetch(sock, "file", 2) == DATA[:1024]
    sock.close()


def test_directory_is_not_a_file(server: Running) -> None:
    (server.root / "dir").mkdir()
    sock = Socket("127.0.0.1", server.port)
    sock.send(rrq("dir"))
    assert sock.receive()[:4] == b"\0\5\0\0"
    sock.close()


def test_garbage_does_not_disturb_a_transfer(server: Running) -> None:
    """20,000 datagrams of nonsense, counted by reason, while a transfer runs."""
    chance = random.Random(9)
    flood = Socket("127.0.0.1", server.port)
    sock = Socket("127.0.0.1", server.port)
    start = fetch(sock, "file", 5)
    for i in range(20_000):
        flood.send(bytes([0, chance.choice([0, 3, 4, 6, 7, 255])]) + chance.randbytes(i % 60))
    flood.send(b"\0\1" + b"x" * 60_000)
    assert start + go_on(sock, 5) == DATA
    figures = server.wait_until(lambda now: now["outcome.ok"] == 1)
    assert figures["drop.opcode"] > 0
    assert figures["drop.unknown-peer"] > 0
    flood.close()
    sock.close()


def test_too_long_datagram_is_counted(server: Running) -> None:
    sock = Socket("127.0.0.1", server.port)
    sock.send(b"\0\1" + b"x" * 3000 + b"\0octet\0")
    server.wait_until(lambda now: now["drop.too-long"] == 1)
    sock.close()


READER = """
import hashlib, os, socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(60)
server = ("127.0.0.1", int(sys.argv[1]))
sock.sendto(b"\\0\\1file\\0octet\\0", server)
data, block, datagram = b"", 1, sock.recv(2000)
os.write(1, b"begun\\n")
sys.stdin.buffer.read(1)
while True:
    if datagram[:4] == b"\\0\\3" + block.to_bytes(2, "big"):
        data += datagram[4:]
        sock.sendto(b"\\0\\4" + datagram[2:4], server)
        if len(datagram) < 516:
            break
        block += 1
    datagram = sock.recv(2000)
os.write(1, hashlib.sha256(data).hexdigest().encode())
"""


def test_stalled_python_does_not_stall_transfers(server: Running) -> None:
    """A transfer that has begun runs to its end while this process's interpreter lock is held all the time."""
    libc = ctypes.PyDLL(None)  # keeps the lock during its calls
    digest = ctypes.create_string_buffer(64)
    interval = sys.getswitchinterval()
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(server.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as reader:
        assert reader.stdin
        assert reader.stdout
        assert os.read(reader.stdout.fileno(), 6) == b"begun\n"
        sys.setswitchinterval(3600)  # nor is it given up between them
        try:
            libc.write(reader.stdin.fileno(), b"x", 1)
            received = libc.read(reader.stdout.fileno(), digest, 64)  # returns when the reader has everything
            delivered = list(server.names.delivered_names)
        finally:
            sys.setswitchinterval(interval)
    assert received == 64, "the reader gave up"
    assert digest.raw.decode() == hashlib.sha256(DATA).hexdigest()
    assert delivered == [], "the control plane ran meanwhile"
    server.wait_until(lambda figures: figures["outcome.ok"] == 1)


# -- life --------------------------------------------------------------------------------------------------------------


def test_port_that_is_taken_is_told(server: Running) -> None:
    second = TftpService(("127.0.0.1",), server.port, server.names)
    with pytest.raises(OperatorError, match=str(server.port)):
        second.open()
    server.call(second.stop())


def test_threads_share_the_clients(tmp_path: Path) -> None:
    """Each transfer lives in one thread, wherever the kernel puts it: had an ACK gone to another one, it would be of an
    unknown peer. Both addresses are shared, and the port is still nobody else's.
    """
    (tmp_path / "file").write_bytes(DATA[:5000])
    running = Running(tmp_path, ("127.0.0.1", "127.0.0.2"), threads=3)
    sockets = [Socket(*running.service.bound[i % 2]) for i in range(64)]
    try:
        for sock in sockets:
            sock.send(rrq("file"))
        for sock in sockets:
            assert sock.receive() == b"\0\3\0\1" + DATA[:512]
        for sock in sockets:
            sock.send(ack(1))
            assert sock.receive() == b"\0\3\0\2" + DATA[512:1024]
            assert go_on(sock, 2) == DATA[1024:5000]
        figures = running.wait_until(lambda figures: figures["outcome.ok"] == 64)
        assert figures["drop.unknown-peer"] == 0
        second = TftpService(("127.0.0.1",), running.port, running.names, threads=3)
        with pytest.raises(OperatorError, match=str(running.port)):
            second.open()
        running.call(second.stop())
    finally:
        for sock in sockets:
            sock.close()
        running.stop()


def test_request_without_a_name_is_answered(server: Running) -> None:
    sock = Socket("127.0.0.1", server.port)
    sock.send(rrq(""))
    assert sock.receive() == error(1, "file not found")
    sock.close()


def test_stop_in_the_middle_of_transfers(tmp_path: Path) -> None:
    """No hang, no leak of descriptors or threads."""
    (tmp_path / "file").write_bytes(DATA)

    def once() -> None:
        running = Running(tmp_path, ("127.0.0.1",))
        sockets = [Socket("127.0.0.1", running.port) for _ in range(5)]
        for sock in sockets:
            fetch(sock, "file", 3)
            sock.close()
        running.stop()

    once()
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    threads = threading.active_count()
    for _ in range(5):
        once()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= descriptors
    assert threading.active_count() <= threads
