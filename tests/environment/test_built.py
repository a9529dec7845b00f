"""The built environment: the same again, small enough, and alive under an emulator."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import environment as lab
from pxed import environment
from support.image_server import ImageServer, store

pytestmark = pytest.mark.environment

MAC = "52:54:00:12:34:56"
BOOT_LIMIT = 240  # seconds; a boot takes 8 on a machine with nothing else to do


@pytest.fixture(scope="module")
def built() -> Path:
    return lab.ensure()


def test_two_builds_are_one_hash(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment.show(built)
    scratch = tmp_path / "another place to build in"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    second = environment.build(tmp_path / "out", cache=built.parent / "cache")
    assert second.sha256 == first.sha256
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(["manifest.json", *environment.FILES])


def test_it_is_small_and_signed(built: Path) -> None:
    record = environment.show(built)
    assert record.size <= 60e6
    assert record.signed


@contextmanager
def booted(built: Path, append: str, *arguments: str) -> Iterator[Iterator[str]]:
    """An emulated machine that boots the environment; gives its serial console line by line."""
    line = f"console=ttyS0,115200 quiet BOOTIF=01-{MAC.replace(':', '-')} {append}"
    command = [
        *("qemu-system-x86_64", "-accel", "tcg", "-m", "1024", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-serial", "stdio", "-kernel", str(built / "vmlinuz"), "-initrd", str(built / "initramfs.cpio.zst")),
        *("-append", line, "-netdev", "user,id=n", "-device", f"e1000,netdev=n,mac={MAC}", *arguments),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    watchdog = threading.Timer(BOOT_LIMIT, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        yield (raw.decode(errors="replace").strip() for raw in process.stdout)
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(lines: Iterator[str], text: str) -> list[str]:
    """The console up to the line that has `text`."""
    seen = []
    for line in lines:
        seen.append(line)
        if text in line:
            return seen
    raise AssertionError("\n".join(["the machine ended without: " + text, *seen]))


def test_it_boots_to_the_agent_which_restores_a_dirty_disk(built: Path, tmp_path: Path) -> None:
    content = bytes(range(1, 256)) * (1 << 20)
    disk = (content[: 9 << 20] + bytes(3 << 20) + content[: 1 << 20]) + b"the end".rjust(512)
    path = tmp_path / "disk"
    path.write_bytes(b"\xaa" * len(disk))
    server = ImageServer(store(disk))
    with server:
        append = f"pxed.server=http://10.0.2.2:{server.port} pxed.token=token-of-the-test"
        drive = f"file={path},format=raw,if=none,id=d"
        with booted(built, append, "-drive", drive, "-device", "nvme,drive=d,serial=S1") as lines:
            said = until(lines, "The machine restarts")
    assert server.finish is not None, "\n".join(said)
    assert server.finish.ok, server.finish.reason
    assert path.read_bytes() == disk
    (claim,) = server.claims
    assert claim.identity.mac == MAC
    assert (claim.disks[0].path, claim.disks[0].serial) == ("/dev/nvme0n1", "S1")
    assert claim.agent_version == environment.show(built).pxed


def test_a_machine_that_cannot_work_says_so_and_restarts(built: Path) -> None:
    with booted(built, "") as lines:  # no server is named
        said = until(lines, "The machine restarts in 60 seconds")
    assert any("names no server" in line for line in said)
    assert not any("rescue shell" in line for line in said)


def test_a_rescue_shell_only_with_debug(built: Path) -> None:
    with booted(built, "pxed.debug=1") as lines:
        until(lines, "a rescue shell on this console")
