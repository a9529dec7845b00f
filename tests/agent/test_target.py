"""The disk: a plain file everywhere, a loop device where there is one and we are root."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pxed.agent.failure import AgentFailure
from pxed.agent.session import run
from pxed.agent.target import BLKZEROOUT, ZERO_BLOCK, Target, aligned_buffer
from pxed.cli import main
from support.agent_machine import FakeMachine
from support.image_server import ImageServer, store

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Target]:
    path = tmp_path / "disk"
    path.write_bytes(b"\xaa" * (2 * ZERO_BLOCK + 512))
    target = Target(path)
    yield target
    target.close()


@pytest.mark.parametrize(("offset", "length"), [(0, 512), (512, ZERO_BLOCK), (4096, 2 * ZERO_BLOCK - 4096 + 512)])
def test_zeros_are_read_back_and_nothing_else_is_touched(disk: Target, offset: int, length: int) -> None:
    disk.zero(offset, length)
    disk.flush()
    content = disk.path.read_bytes()
    assert content[offset : offset + length] == bytes(length)
    assert set(content[:offset] + content[offset + length :]) <= {0xAA}
    assert disk.size == len(content)


def test_what_is_written_is_read(disk: Target) -> None:
    buffer, back = aligned_buffer(MIB), aligned_buffer(MIB)
    buffer[:] = os.urandom(MIB)
    disk.write(MIB, buffer)
    disk.read(MIB, back)
    assert back == buffer


def test_reading_past_the_end_is_a_failure_with_a_place(disk: Target) -> None:
    with pytest.raises(AgentFailure, match=f"ends at byte {disk.size}"):
        disk.read(disk.size - 512, aligned_buffer(4096))


def test_a_disk_that_refuses_is_named_with_the_place(disk: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(5, "Input/output error")

    for name in ("pwritev", "preadv", "fsync"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(AgentFailure, match="refuses to be written at byte 512: Input/output error"):
        disk.write(512, aligned_buffer(512))
    with pytest.raises(AgentFailure, match="cannot be read at byte 0"):
        disk.read(0, aligned_buffer(512))
    with pytest.raises(AgentFailure, match="failed to store"):
        disk.flush()


def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AgentFailure, match="cannot be opened: No such file"):
        Target(tmp_path / "none")


@pytest.fixture(params=[512, 4096])
def loop(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, int]]:
    """A block device with sectors of 512 and of 4096 bytes, full of dirt."""
    backing = tmp_path / "backing"
    backing.write_bytes(b"\xaa" * (24 * MIB))
    command = ["losetup", "--find", "--show", "--sector-size", str(request.param), str(backing)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    yield Path(device), request.param
    subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.root
def test_a_block_device_zeroes_by_itself_or_is_written(loop: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    device, _ = loop
    calls: list[int] = []
    ioctl = fcntl.ioctl

    def record(descriptor: int, number: int, *arguments: bytes) -> object:
        calls.append(number)
        if len(calls) > 1:
            raise OSError(95, "Operation not supported")
        return ioctl(descriptor, number, *arguments)

    monkeypatch.setattr(fcntl, "ioctl", record)
    target = Target(device)
    target.zero(MIB, 8 * MIB)
    target.zero(10 * MIB, 8 * MIB)  # refused, so written
    target.zero(20 * MIB, MIB)  # not asked again
    target.flush()
    target.close()
    assert calls == [BLKZEROOUT] * 2
    content = device.read_bytes()
    expected = bytearray(b"\xaa" * (24 * MIB))
    for start, length in ((1, 8), (10, 8), (20, 1)):
        expected[start * MIB : (start + length) * MIB] = bytes(length * MIB)
    assert content == expected


@pytest.mark.root
def test_the_whole_agent_on_a_block_device(loop: tuple[Path, int], machine: FakeMachine) -> None:
    device, sector = loop
    content = os.urandom(5 * MIB) + bytes(9 * MIB) + os.urandom(2 * MIB + 4096)
    machine.add_disk("vda", 512, size=24 * MIB // 512, queue__logical_block_size=sector).unlink()
    (machine.dev / "vda").symlink_to(device)
    with ImageServer(store(content, sector)) as server:
        run(machine, machine.options(server))
    assert server.finish is not None
    assert server.finish.ok, server.finish.reason
    assert device.read_bytes()[: len(content)] == content


@pytest.mark.root
def test_an_image_is_fetched_to_a_block_device_of_its_sector_size(loop: tuple[Path, int]) -> None:
    device, sector = loop
    before = device.read_bytes()
    content = os.urandom(5 * MIB) + bytes(9 * MIB) + os.urandom(2 * MIB + 4096)
    with ImageServer(store(content, 512), public=True) as server:
        words = ["agent", "fetch", "golden", "--server", f"127.0.0.1:{server.port}", "--to", str(device)]
        done = CliRunner().invoke(main, words, catch_exceptions=False)
    if sector == 512:
        assert done.exit_code == 0, done.output
        assert device.read_bytes()[: len(content)] == content
        assert "Multicast is off" in done.output
    else:
        assert done.exit_code == 1
        assert "sectors of 4096 bytes, the image was made for 512" in done.output
        assert device.read_bytes() == before


@pytest.mark.root
def test_a_block_device_that_is_too_small_is_left_alone(loop: tuple[Path, int]) -> None:
    device, sector = loop
    before = device.read_bytes()
    with ImageServer(store(os.urandom(4096) + bytes(30 * MIB), sector), public=True) as server:
        words = ["agent", "fetch", "golden", "--server", f"127.0.0.1:{server.port}", "--to", str(device)]
        done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 1
    assert "too small" in done.output
    assert device.read_bytes() == before
