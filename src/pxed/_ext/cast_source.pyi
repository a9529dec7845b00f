"""CastSource: where the frames of an image lie, for cast senders to send from there without a copy."""

from typing import final

@final
class CastSource:
    """The stored frames of one image, by ordinal. Add them all, then give it to sessions (cast_events.open_session).

    With `read_ahead` a thread of its own brings frames into memory before they are sent; without, whoever sends waits
    for the disk (tests in virtual time). Raises MemoryError.
    """

    def __new__(cls, *, read_ahead: bool = True) -> CastSource: ...
    def add(self, fd: int, offset: int, length: int) -> None:
        """The next frame: `length` bytes at `offset` of a pack. The pack is mapped as long as it is when it is first
        named; its descriptor stays the caller's, and must mean the same file until the last `add`.

        Raises OSError: ENODATA when the pack ends before the frame does, EINVAL when it is no regular file or empty,
        ENOMEM; RuntimeError once a session has the source; ValueError for a frame of no bytes.
        """

    @property
    def size(self) -> int:
        """Bytes of all frames."""

    def __len__(self) -> int: ...
    def frame(self, ordinal: int) -> bytes:
        """A copy of a frame. Raises IndexError, and OSError: ENODATA when its pack has been cut off, else the
        disk's.
        """
