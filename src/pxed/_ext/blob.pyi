"""Blob: immutable bytes for senders: a sealed copy of a file, or bytes made for one machine."""

import sys
from typing import final

from typing_extensions import Buffer

CHECKED_SIZE: int
RESERVE: int

@final
class Blob:
    """Immutable: a copy of a bytes-like object. Supports len() and the (read-only) buffer protocol.

    Raises OSError when there is no memory.
    """

    def __new__(cls, data: Buffer = ...) -> Blob: ...
    @staticmethod
    def from_fd(fd: int, limit: int = ...) -> Blob:
        """Copy a whole regular file; the descriptor's position is left alone, and it stays the caller's.

        Without the GIL for the length of the read: call it from a worker thread. Raises OSError: EFBIG above `limit`
        bytes, EINVAL when `fd` is not a regular file, ENOMEM when the copy would leave less than
        RESERVE of the host's available memory, or the errno of the read.
        """

    @staticmethod
    def from_large_file(fd: int) -> Blob:
        """The regular file itself, without a copy; `fd` stays the caller's. Has no buffer, and is for transfers only.

        Transfers read it as they go. A change of the file shows in them; one that has become shorter ends them with an
        error. Raises OSError: EINVAL when `fd` is not a regular file, or out of descriptors.
        """

    @staticmethod
    def from_bytes(data: Buffer) -> Blob:
        """The same as Blob(data)."""

    def netascii(self) -> Blob:
        """A copy converted for TFTP mode netascii: LF to CR LF, CR to CR NUL. Raises OSError: no memory."""

    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
