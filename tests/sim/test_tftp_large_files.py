"""Files without a copy in memory: read as the transfer goes, whatever happens to them meanwhile."""

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from pxed._ext.blob import Blob
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import Client, Edk2, Ipxe, Loss, Simulation, Windowed, ack, error, number, options_of, rrq

PEER = ("10.0.0.7", 2070)
DATA = random.Random(9).randbytes(700_001)


class Window64(Windowed):
    """Several turns in one batch, so that a batch must end before the next stretch is read."""

    options = {"blksize": 1432, "windowsize": 64}  # noqa: RUF012


def from_file(path: Path, data: bytes) -> Blob:
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return Blob.from_large_file(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 1432, 65536, 1432 * 45, len(DATA)])
@pytest.mark.parametrize("kind", [Ipxe, Window64, Edk2])
def test_arrives_whole_over_a_lossy_network(tmp_path: Path, kind: type[Client], size: int) -> None:
    simulation = Simulation({}, up=[Loss(0.02, 1)], down=[Loss(0.02, 2)])
    simulation.files["f"] = from_file(tmp_path / "f", DATA[:size])
    clients = [simulation.add(kind("f", (f"10.0.0.{i}", 2070))) for i in range(10)]
    simulation.run()
    assert [bytes(client.received) for client in clients] == [DATA[:size]] * 10


def test_file_that_is_cut_ends_its_transfers_in_words(tmp_path: Path) -> None:
    """No SIGBUS, no short file that looks whole, and the next client is served."""
    server = VirtualTftp()
    blob = from_file(tmp_path / "f", DATA)
    server.receive(rrq("f"), PEER, 0)
    (request,) = server.events()
    server.send(request.id, blob, 0)
    ((_, datagram),) = server.drain(0)
    os.truncate(tmp_path / "f", 100_000)
    block, now = 1, 0.0
    while datagram[1] == 3:
        assert number(datagram) == block
        server.receive(ack(block), PEER, now)
        block, now = block + 1, now + 0.001
        ((_, datagram),) = server.drain(now)
    assert datagram == error(0, "the file cannot be read any more")
    (end,) = server.events()
    assert (end.outcome, end.blocks) == ("refused", block - 1)
    assert block >= 100_000 // 512
    assert server.statistics()["running"] == 0


def test_file_that_is_deleted_goes_on(tmp_path: Path) -> None:
    simulation = Simulation({})
    simulation.files["f"] = from_file(tmp_path / "f", DATA)
    client = simulation.add(Ipxe("f", PEER))
    simulation.run(0.01)
    assert not client.done
    (tmp_path / "f").unlink()
    simulation.run()
    assert bytes(client.received) == DATA


FOUR_GIB = """
import os, resource
from pxed._ext.blob import Blob
from pxed._ext.tftp_virtual import VirtualTftp
size = 4 << 30
fd = os.memfd_create("sparse")
os.truncate(fd, size)
for at in (0, 65536 * 1468, size - 4):
    os.pwrite(fd, b"mark", at)
blob = Blob.from_large_file(fd)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(*VirtualTftp().read_through(b"\\0\\1f\\0octet\\0blksize\\x001468\\0windowsize\\x0016\\0", blob), sep="\\n")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_four_gib_in_bounded_memory() -> None:
    """Every block of a sparse file of 4 GiB, in order, round the block numbers 44 times."""
    done = subprocess.run([sys.executable, "-c", FOUR_GIB], capture_output=True, text=True, timeout=300, check=True)
    blocks, size, found, growth = done.stdout.splitlines()
    last = (4 << 30) // 1468 + 1
    assert (int(blocks), int(size)) == (last, 4 << 30)
    marked = {number: data.index(b"mark") for number, data in ast.literal_eval(found).items()}
    assert marked == {1: 0, 65537: 0, last: (4 << 30) % 1468 - 4}
    assert int(growth) < 8 << 10  # KiB


def test_what_the_disk_must_fetch_first(tmp_path: Path) -> None:
    """Not in the page cache: the readers fetch it."""
    data = DATA * 12
    path = tmp_path / "f"
    blob = from_file(path, data)
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    _, size, found = VirtualTftp().read_through(rrq("f", blksize=1468, windowsize=4), blob)
    assert size == len(data)
    assert b"".join(found[block] for block in sorted(found)) == data


def test_size_beyond_4_gib_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f"
    size = (4 << 30) + 5000
    path.touch()
    os.truncate(path, size)
    fd = os.open(path, os.O_RDONLY)
    blob = Blob.from_large_file(fd)
    os.close(fd)
    server = VirtualTftp()
    server.receive(rrq("f", tsize=0), PEER, 0)
    (request,) = server.events()
    server.send(request.id, blob, 0)
    ((_, oack),) = server.drain(0)
    assert options_of(oack) == {"tsize": len(blob)} == {"tsize": size}


def test_only_regular_files() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            Blob.from_large_file(fd)
    finally:
        os.close(fd)
