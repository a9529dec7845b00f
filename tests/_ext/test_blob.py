"""Blobs: copies that nothing done to the file can change."""

import errno
import os
from pathlib import Path

import pytest

from pxed._ext.blob import Blob

SIZES = [0, 1, 65535, 65536, 65537, 3_000_001]  # around the border between heap and memfd


@pytest.mark.parametrize("size", SIZES)
def test_copies(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(min(7, size))
        from_file = Blob.from_fd(file.fileno())
        assert file.tell() == min(7, size)
    path.write_bytes(b"something else")
    for blob in (from_file, Blob(data), Blob.from_bytes(memoryview(data))):
        assert len(blob) == size
        assert bytes(blob) == data  # type: ignore[arg-type]
        assert memoryview(blob).readonly  # type: ignore[arg-type]


def test_truncated_file_harms_no_blob(tmp_path: Path) -> None:
    """Reading a mapping of the file itself would be SIGBUS here."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_000)
    with path.open("rb") as file:
        blob = Blob.from_fd(file.fileno())
    os.truncate(path, 0)
    assert bytes(blob) == b"x" * 1_000_000  # type: ignore[arg-type]


def open_memfds() -> int:
    """Descriptors of this process that are blobs' memfds."""
    entries = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return sum("pxed-blob" in str(entry.readlink()) for entry in entries)


def test_no_descriptor_and_no_memory_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1_000_000)
    before = open_memfds()
    with path.open("rb") as file:
        blobs = [Blob.from_fd(file.fileno()) for _ in range(100)]
    assert open_memfds() == before
    assert Path("/proc/self/maps").read_text().count("pxed-blob") >= 100
    del blobs
    assert Path("/proc/self/maps").read_text().count("pxed-blob") == 0


def test_refusals(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    read_end, write_end = os.pipe()
    try:
        for fd in (directory, read_end):
            with pytest.raises(OSError) as caught:
                Blob.from_fd(fd)
            assert caught.value.errno == errno.EINVAL
    finally:
        for fd in (directory, read_end, write_end):
            os.close(fd)
    with pytest.raises(OSError) as caught:
        Blob.from_fd(-1)
    assert caught.value.errno == errno.EBADF


def test_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with path.open("rb") as file:
        assert len(Blob.from_fd(file.fileno(), 5)) == 5
        with pytest.raises(OSError) as caught:
            Blob.from_fd(file.fileno(), 4)
    assert caught.value.errno == errno.EFBIG


def test_more_than_there_is_memory_for(tmp_path: Path) -> None:
    """A sparse file of 4 TiB is an error at once; the kernel would kill somebody rather than refuse the pages."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with path.open("rb") as file, pytest.raises(OSError) as caught:
        Blob.from_fd(file.fileno(), 1 << 50)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize(
    ("data", "converted"),
    [
        (b"", b""),
        (b"plain", b"plain"),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"a\rb", b"a\r\0b"),
        (b"\r\n", b"\r\0\r\n"),
        (b"\n" * 50_000, b"\r\n" * 50_000),
    ],
)
def test_netascii(data: bytes, converted: bytes) -> None:
    assert bytes(Blob(data).netascii()) == converted  # type: ignore[arg-type]
