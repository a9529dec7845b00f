"""Files of every size and number, on real sockets: above and below the cache's limit, changing, many, on a bad disk."""

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pxed.service import blobs
from support.tftp_service import Running, Socket, fetch, go_on
from support.tftp_sim import ack, error, options_of, rrq

SOURCE = Path(__file__).parents[2]
PATIENCE = 120  # seconds for a client on a busy machine
DATA = random.Random(6).randbytes(700_001)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """Its cache holds 100,000 bytes: the file is above that."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(DATA)
    (root / "small").write_bytes(DATA[:50_000])
    running = Running(root, ("127.0.0.1",))
    running.service._blobs = blobs.BlobCache(100_000, lambda: time.time_ns() + 3600 * 10**9)
    yield running
    running.stop()


def client(*command: str, cwd: Path) -> str:
    """Run one that writes to `out`; what it said. The sanitizers' libraries are not for it."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


# -- large -------------------------------------------------------------------------------------------------------------


def test_file_beyond_4_gib(server: Running) -> None:
    """Not copied, read as it goes: it begins at once."""
    with (server.root / "big").open("wb") as file:
        file.truncate((4 << 30) + 1)
        file.write(DATA)
    sock = Socket("127.0.0.1", server.port)
    sock.send(rrq("big", tsize=0))
    assert options_of(sock.receive()) == {"tsize": (4 << 30) + 1}
    sock.send(ack(0))
    assert sock.receive() == b"\0\3\0\1" + DATA[:512]
    assert DATA[:512] + go_on(sock, 1, 40) == DATA[: 40 * 512]
    sock.send(error(0))
    sock.close()
    assert server.wait_until(lambda figures: figures["outcome.closed"] == 1)["cached"] == 0


def test_large_file_goes_round_the_block_numbers(server: Running, tmp_path: Path) -> None:
    """66,000 blocks, most of them a hole."""
    size = 66_000 * 1428 + 99
    with (server.root / "long").open("wb") as file:
        file.truncate(size)
        for at in (0, 65_535 * 1428, 65_536 * 1428, size - 1000):
            os.pwrite(file.fileno(), DATA[at % 99_000 :][:1000], at)
    options = ["--option", "blksize 1428", "--option", "windowsize 16"]
    client("atftp", *options, "-g", "-r", "long", "-l", "out", "127.0.0.1", str(server.port), cwd=tmp_path)
    assert (tmp_path / "out").stat().st_size == size
    with (tmp_path / "out").open("rb") as got, (server.root / "long").open("rb") as wanted:
        while piece := got.read(1 << 20):
            assert piece == wanted.read(1 << 20)


def test_netascii_of_a_large_file_is_refused_in_words(server: Running, tmp_path: Path) -> None:
    """Its conversion would need a copy in memory."""
    os.truncate(server.root / "file", blobs.LARGEST_TEXT + 1)
    said = client(*f"tftp -m netascii 127.0.0.1 {server.port} -c get file out".split(), cwd=tmp_path)
    assert "too large for mode netascii: use mode octet" in said
    assert not client(*f"tftp -m netascii 127.0.0.1 {server.port} -c get small out".split(), cwd=tmp_path)


def descriptors_of(path: Path) -> int:
    """How many descriptors of this process are of a file."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found += link.readlink() == path
    return found


def test_clients_of_a_large_file_share_one_descriptor(server: Running) -> None:
    """It is not copied, and lives as long as it is being sent; refusals and ends leave nothing."""
    sockets = [Socket("127.0.0.1", server.port) for _ in range(3)]
    for sock in sockets:
        sock.send(rrq("file", blksize=1468, windowsize=16))
        assert sock.receive()[:2] == b"\0\6"
    assert descriptors_of(server.root / "file") == 1
    for sock in sockets:
        sock.send(error(8, "enough"))
        sock.send(rrq("missing"))
        assert sock.receive() == error(1, "file not found")
        sock.close()
    server.wait_until(lambda _: not server.service._running)
    assert descriptors_of(server.root / "file") == 0


# -- changing ----------------------------------------------------------------------------------------------------------


def change(path: Path, how: str) -> None:
    if how == "truncate":
        os.truncate(path, 100)
    elif how == "replace":
        (path.parent / "new").write_bytes(b"new")
        (path.parent / "new").replace(path)
    elif how == "delete":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.write(b"x" * path.stat().st_size)


@pytest.mark.parametrize("how", ["truncate", "replace", "delete", "overwrite"])
@pytest.mark.parametrize("name", ["small", "file"])
def test_file_changed_during_a_transfer(server: Running, name: str, how: str) -> None:
    """A copy goes on as it began. A file without a copy shows what is in it; cut, it ends in an ERROR. Other transfers
    notice nothing, and the next request gets what is there then."""
    path = server.root / name
    data = path.read_bytes()
    (server.root / "other").write_bytes(DATA)
    other, sock = Socket("127.0.0.1", server.port), Socket("127.0.0.1", server.port)
    begun = fetch(other, "other", 5)
    start = fetch(sock, name, 10)
    change(path, how)
    if name == "small" or how in ("replace", "delete"):
        assert start + go_on(sock, 10) == data
    elif how == "overwrite":
        assert go_on(sock, 10) == b"x" * (len(data) - len(start))
    else:
        sock.send(ack(10))
        assert sock.receive() == error(0, "the file cannot be read any more")
    sock.close()
    assert begun + go_on(other, 5) == DATA
    other.close()
    after = Socket("127.0.0.1", server.port)
    after.send(rrq(name))
    wanted = {"truncate": data[:100], "replace": b"new", "overwrite": b"x" * 512}
    assert after.receive() == (error(1, "file not found") if how == "delete" else b"\0\3\0\1" + wanted[how])
    after.close()


# -- many --------------------------------------------------------------------------------------------------------------


def test_ten_thousand_files(server: Running) -> None:
    """Each arrives; what is kept of them stays within the cache's limit, and so do descriptors."""
    count, at_once = 10_000, 100
    for i in range(count):
        (server.root / f"f{i}").write_bytes(b"%d" % i * 20)
    open_before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    sockets = [Socket("127.0.0.1", server.port) for _ in range(at_once)]
    most = 0
    for first in range(0, count, at_once):
        for i, sock in enumerate(sockets):
            sock.send(rrq(f"f{first + i}"))
        for i, sock in enumerate(sockets):
            assert sock.receive() == b"\0\3\0\1" + b"%d" % (first + i) * 20
            sock.send(ack(1))
        most = max(most, server.service.statistics["cached_bytes"])
    for sock in sockets:
        sock.close()
    figures = server.wait_until(lambda figures: figures["outcome.ok"] == count)
    assert 50_000 < figures["cached_bytes"] <= most <= 100_000
    assert figures["cached"] < 2000
    assert figures["running"] == figures["loading"] == 0
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= open_before + 2


# -- a disk that hangs -------------------------------------------------------------------------------------------------

SERVER = """
import sys
from pathlib import Path
from pxed.service import blobs
from support.tftp_service import Running
running = Running(Path(sys.argv[1]), ("127.0.0.1",))
running.service._blobs = blobs.BlobCache(100_000)
print(running.port, flush=True)
sys.stdin.read()
running.stop()
"""


@pytest.fixture
def slow_server(tmp_path: Path) -> Iterator[tuple[Path, int, Path, subprocess.Popen[str]]]:
    """(root, port, gate, process): files of 650,000 bytes cannot be read before somebody opens the gate."""
    root, library, gate = tmp_path / "root", tmp_path / "slow.so", tmp_path / "gate"
    root.mkdir()
    os.mkfifo(gate)
    source = SOURCE / "tests/support/slow_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join([*os.environ.get("LD_PRELOAD", "").split(), str(library)]),
        "SLOW_GATE": str(gate),
        "SLOW_SIZE": "650000",
        "PYTHONPATH": f"{SOURCE / 'src'}:{SOURCE / 'tests'}",
    }
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, root], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout
    try:
        yield root, int(server.stdout.readline()), gate, server
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        server.stdout.close()


def test_disk_that_hangs_holds_up_only_its_own_files(
    slow_server: tuple[Path, int, Path, subprocess.Popen[str]],
) -> None:
    """Ten clients of a large file wait for it; what is in memory is served at once; in the end all have everything."""
    root, port, gate, server = slow_server
    (root / "slow").write_bytes(DATA[:650_000])
    (root / "large").write_bytes(DATA)
    (root / "small").write_bytes(DATA[:5000])
    waiting = [Socket("127.0.0.1", port) for _ in range(10)]
    for sock in waiting:
        sock.send(rrq("slow", tsize=0, blksize=1468))
        assert options_of(sock.receive()) == {"tsize": 650_000, "blksize": 1468}
        sock.send(ack(0))
    for name, size in (("large", len(DATA)), ("small", 5000)):
        sock = Socket("127.0.0.1", port)
        assert fetch(sock, name, 3) + go_on(sock, 3) == DATA[:size]
        sock.close()
    assert not select.select([sock.sock for sock in waiting], [], [], 0)[0]
    writer = os.open(gate, os.O_RDWR)
    for sock in waiting:
        assert go_on(sock, 0) == DATA[:650_000]
        sock.close()
    os.close(writer)
    server.communicate(timeout=PATIENCE)
    assert server.returncode == 0
