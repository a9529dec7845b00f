"""Frames under assembly: the symbols of each that are here, in any order and of any transport, and what is lacking."""

import sys
from typing import final

from typing_extensions import Buffer

@final
class CastLayout:
    """How long each frame of an image is; one object for all that receive it.

    lengths: u32, little-endian, by ordinal. Raises ValueError when they are none, or one of them is 0.
    """

    @property
    def frames(self) -> int:
        """How many."""

    @property
    def size(self) -> int:
        """Bytes of all frames."""

    @property
    def longest(self) -> int:
        """Bytes of the longest frame."""

    def __new__(cls, lengths: Buffer) -> CastLayout: ...
    def length(self, ordinal: int) -> int:
        """Bytes of one frame. Raises IndexError."""

@final
class CastFrame(Buffer):
    """The bytes of a complete frame, for `memoryview` and whatever takes a buffer; they live as long as it."""

    def __new__(cls) -> CastFrame: ...
    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class CastFrames:
    """At most `memory` bytes of incomplete frames; with `keep` False their bytes count, but are not kept."""

    @property
    def symbol(self) -> int:
        """Bytes of a symbol."""

    @property
    def memory(self) -> int:
        """The limit."""

    @property
    def used(self) -> int:
        """Bytes that incomplete frames take."""

    def __new__(cls, layout: CastLayout, symbol: int, memory: int, keep: bool) -> CastFrames: ...
