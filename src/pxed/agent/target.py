"""The disk that is written: a block device, or (in tests) a plain file of the same size."""

import errno
import fcntl
import mmap
import os
import stat
import struct
import sys
from pathlib import Path

from pxed.agent.failure import AgentFailure
from pxed.types import Step

__all__ = ["ALIGNMENT", "Target", "aligned_buffer"]

ALIGNMENT = 4096  # of O_DIRECT: memory, offset and length; no disk has larger logical sectors

# <linux/fs.h>: numbers of an ABI that does not change.
BLKRRPART = 0x125F
BLKZEROOUT = 0x127F
BLKSSZGET = 0x1268

ZERO_BLOCK = 4 << 20  # bytes per write where the device cannot zero by itself


def aligned_buffer(length: int) -> memoryview:
    """Memory that O_DIRECT accepts."""
    return memoryview(mmap.mmap(-1, length))


class Target:
    """An open disk. Reads and writes may come from several threads at once."""

    def __init__(self, path: Path) -> None:
        """Open for writing, past the page cache where the filesystem or device allows it.

        Raises AgentFailure when the disk is in use (O_EXCL on a block device) or refuses.
        """
        flags = os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
        try:
            try:
                self._fd = os.open(path, flags | os.O_DIRECT)
            except OSError:  # tmpfs, some filesystems of test machines
                self._fd = os.open(path, flags)
        except OSError as error:
            raise AgentFailure(Step.TARGET, f"The disk {path} cannot be opened: {error.strerror}.") from error
        self.path = path
        self.size = os.lseek(self._fd, 0, os.SEEK_END)
        self._is_device = stat.S_ISBLK(os.fstat(self._fd).st_mode)
        if not self._is_device:
            self._lock()
        self._device_zeroes = self._is_device
        self._zeros = aligned_buffer(ZERO_BLOCK)

    def _lock(self) -> None:
        """What O_EXCL is for a block device."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise AgentFailure(Step.TARGET, f"{self.path} is being written by another process.") from error

    def close(self) -> None:
        """Close the disk; it is not flushed."""
        os.close(self._fd)

    @property
    def sector(self) -> int:
        """Bytes of a block device's logical sector; 0 of a file, which has none."""
        if not self._is_device:
            return 0
        return int.from_bytes(fcntl.ioctl(self._fd, BLKSSZGET, bytes(4)), sys.byteorder)

    @property
    def allocated(self) -> int:
        """Bytes of the filesystem that a file takes."""
        return os.fstat(self._fd).st_blocks * 512

    @property
    def room(self) -> int:
        """Bytes that a file can take at most: its own and what is free."""
        found = os.statvfs(self._fd)
        return self.allocated + found.f_bavail * found.f_frsize

    def resize(self, size: int) -> None:
        """Cut a file off, or let it end with a hole. Raises AgentFailure."""
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise AgentFailure(
                Step.TARGET, f"The file {self.path} cannot have {size} bytes: {error.strerror}."
            ) from error
        self.size = size

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data`, which lies in an `aligned_buffer`. Raises AgentFailure naming the place."""
        self._write(offset, data, 0)

    def write_through(self, offset: int, data: memoryview) -> None:
        """As `write`; it is on the medium afterwards, whatever else the disk still keeps for later."""
        self._write(offset, data, os.RWF_DSYNC)

    def _write(self, offset: int, data: memoryview, flags: int) -> None:
        done = 0
        while done < len(data):
            try:
                done += os.pwritev(self._fd, [data[done:]], offset + done, flags)
            except OSError as error:
                raise AgentFailure(
                    Step.RESTORE,
                    f"The disk {self.path} refuses to be written at byte {offset + done}: {error.strerror}.",
                ) from error

    def read(self, offset: int, into: memoryview) -> None:
        """Fill an `aligned_buffer` from the disk. Raises AgentFailure naming the place."""
        done = 0
        while done < len(into):
            try:
                got = os.preadv(self._fd, [into[done:]], offset + done)
            except OSError as error:
                raise AgentFailure(
                    Step.VERIFY, f"The disk {self.path} cannot be read at byte {offset + done}: {error.strerror}."
                ) from error
            if not got:
                raise AgentFailure(Step.VERIFY, f"The disk {self.path} ends at byte {offset + done}.")
            done += got

    def zero(self, offset: int, length: int) -> None:
        """Make a range read as zeros: by the device itself (BLKZEROOUT), else by writing them.

        Not by discarding alone: what a discarded block reads as is left to the device. Holes of a file are left.
        """
        if not self._is_device and self._is_hole(offset, length):
            return
        if self._device_zeroes:
            try:
                fcntl.ioctl(self._fd, BLKZEROOUT, struct.pack("=QQ", offset, length))
                return
            except OSError:
                self._device_zeroes = False
        for start in range(offset, offset + length, ZERO_BLOCK):
            self.write(start, self._zeros[: min(ZERO_BLOCK, offset + length - start)])

    def _is_hole(self, offset: int, length: int) -> bool:
        try:
            return os.lseek(self._fd, offset, os.SEEK_DATA) >= offset + length
        except OSError as error:
            return error.errno == errno.ENXIO  # no data from there on

    def flush(self) -> None:
        """Everything written so far is on the medium afterwards. Raises AgentFailure when the disk says otherwise."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise AgentFailure(
                Step.RESTORE, f"The disk {self.path} failed to store what was written: {error.strerror}."
            ) from error

    def reread_table(self) -> None:
        """Tell the kernel to look at the partition table again; a file has no partitions. Raises OSError."""
        if self._is_device:
            fcntl.ioctl(self._fd, BLKRRPART)
