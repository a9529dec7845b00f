"""What an import reads: a raw file or block device, or a virtual disk file of another format.

The format is asked from `qemu-img info`. A raw disk whose first sector was written by somebody else can look like a
qcow2 that names any file of this host as its backing file; so a file that refers to others is only taken when its
format was said, not guessed.
"""

import errno
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, Protocol

from pxed.errors import OperatorError
from pxed.images.chunk import CHUNK
from pxed.images.nbd import NbdDisk, qemu_reason

__all__ = ["FORMATS", "Source", "open_source"]

FORMATS = ("raw", "qcow2", "vmdk", "vhdx", "vpc", "vdi")
"""What can be imported, by qemu's names (vpc is VHD)."""

SECTOR = 512  # what every size of a disk is a multiple of

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7z",
}


class Source(Protocol):
    """A disk that can be read from several threads."""

    path: Path
    format: str
    size: int

    def chunk_indexes(self) -> list[int]:
        """The chunks that may hold something; all others are known to be zero."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`; the whole of it lies inside the disk."""

    def check_unchanged(self) -> None:
        """Raise OperatorError when the file has been written to since it was opened."""

    def close(self) -> None:
        """Give back what it holds."""


def open_source(path: Path, image_format: str | None, threads: int) -> Source:
    """Open a disk file for an import by `threads` threads. `image_format` None: found out.

    Raises OperatorError when it cannot be imported, with the reason.
    """
    path = path.absolute()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise OperatorError(f"{path} is not a file or a block device.")
    if stat.S_ISREG(mode) and path.stat().st_size == 0:
        raise OperatorError(f"{path} is empty.")
    if image_format is None:
        image_format = "raw" if stat.S_ISBLK(mode) else _probe(path)
    if image_format not in FORMATS:
        raise OperatorError(f"{path}: format {image_format} cannot be imported; known are {', '.join(FORMATS)}.")
    source = _RawSource(path) if image_format == "raw" else _QemuSource(path, image_format, threads)
    if source.size == 0 or source.size % SECTOR:
        size = source.size
        source.close()
        raise OperatorError(
            f"The {size} bytes of {path} are not a whole number of sectors: the file is cut off or no disk."
        )
    return source


class _File:
    """The opened file's identity, to notice a write during the import."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._before = self._stamp()

    def _stamp(self) -> tuple[int, int, int]:
        found = self.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def check_unchanged(self) -> None:
        if self._stamp() != self._before:
            raise OperatorError(f"{self.path} was changed while it was being imported: import it again.")


class _RawSource(_File):
    format = "raw"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OperatorError(f"{path} cannot be read: {error.strerror}.") from None
        self.size = os.lseek(self._fd, 0, os.SEEK_END)

    def chunk_indexes(self) -> list[int]:
        """By SEEK_DATA and SEEK_HOLE where the file system has them."""
        ranges = []
        start = 0
        try:
            while start < self.size:
                start = os.lseek(self._fd, start, os.SEEK_DATA)
                end = os.lseek(self._fd, start, os.SEEK_HOLE)
                ranges.append((start, end - start))
                start = end
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: no data after here
                ranges = [(0, self.size)]  # a block device or file system that does not know
        return _touched(ranges, self.size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        while buffer:
            try:
                count = os.preadv(self._fd, [buffer], offset)
            except OSError as error:
                raise OperatorError(f"{self.path} cannot be read at byte {offset}: {error.strerror}.") from None
            if count == 0:
                raise OperatorError(f"{self.path} became shorter while it was being imported.")
            offset += count
            buffer = buffer[count:]

    def close(self) -> None:
        os.close(self._fd)


class _QemuSource(_File):
    def __init__(self, path: Path, image_format: str, threads: int) -> None:
        super().__init__(path)
        self.format = image_format
        # Asked before qemu-nbd opens the file: no other process then stands in its way.
        _check_whole(path, image_format)
        self._map = _qemu_img("map", "--output=json", "-f", image_format, str(path))
        if image_format == "vdi":  # its check does not look at the file's end
            end = max((area["offset"] + area["length"] for area in self._map if "offset" in area), default=0)
            if end > path.stat().st_size:
                raise OperatorError(f"{path} is cut off: it refers to {end} bytes of itself.")
        self._disk = NbdDisk(path, image_format, threads)
        self.size = self._disk.size

    def chunk_indexes(self) -> list[int]:
        ranges = [(area["start"], area["length"]) for area in self._map if not area["zero"]]
        return _touched(ranges, self.size)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._disk.read_into(offset, buffer)

    def close(self) -> None:
        self._disk.close()


def _touched(ranges: list[tuple[int, int]], size: int) -> list[int]:
    """The indexes of the chunks that these ascending byte ranges touch."""
    indexes: list[int] = []
    following = 0
    for start, length in ranges:
        end = min(start + length, size)
        if start < end:
            first = max(start // CHUNK, following)
            following = max(following, (end - 1) // CHUNK + 1)
            indexes.extend(range(first, following))
    return indexes


def _probe(path: Path) -> str:
    """The format of a file by its content."""
    with path.open("rb") as file:
        head = file.read(8)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise OperatorError(f"{path} is a {name} file: decompress it first, or say --format raw if it is a disk.")
    info = _qemu_img("info", "--output=json", str(path))
    found = str(info["format"])
    data = info.get("format-specific", {}).get("data", {})
    others = [info.get("full-backing-filename") or info.get("backing-filename"), data.get("data-file")]
    extents = [Path(extent["filename"]) for extent in data.get("extents", ())]
    others += [str(extent) for extent in extents if extent.resolve().parent != path.resolve().parent]
    for other in others:
        if other:
            raise OperatorError(
                f"{path} looks like {found} and refers to another file, {other}: "
                f"say --format {found} if that is meant, or --format raw if it is a raw disk."
            )
    return found


def _check_whole(path: Path, image_format: str) -> None:
    """Raise OperatorError for a damaged file, above all one that was cut off: its missing end would read as zeros."""
    done = subprocess.run(
        ["qemu-img", "check", "-f", image_format, str(path)], capture_output=True, check=False, text=True
    )
    # 3: only space is lost; 63: the format has no check, and then opening it finds what there is to find.
    if done.returncode not in (0, 3, 63):
        said = qemu_reason(done.stderr.strip() or done.stdout, path) or "qemu-img check failed"
        raise OperatorError(f"{path} is damaged or cut off: {said}.")


def _qemu_img(*arguments: str) -> Any:
    try:
        done = subprocess.run(["qemu-img", *arguments], capture_output=True, check=False, text=True)
    except FileNotFoundError:
        raise OperatorError("qemu-img is missing on this host: install the package qemu-utils.") from None
    if done.returncode:
        raise OperatorError(f"{arguments[-1]} cannot be read: {qemu_reason(done.stderr, Path(arguments[-1]))}.")
    return json.loads(done.stdout)
