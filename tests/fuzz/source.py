"""How a target turns a fuzzer's bytes into choices, and hands bytes on so that a sanitizer sees where they end."""

from array import array
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Source:
    """Choices read from bytes, front to back; zeros when they are used up, so that every input means something."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next bytes, fewer at the end."""
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))

    def number(self, size: int) -> int:
        """A number of so many bytes, big-endian."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def piece(self) -> bytes:
        """A length byte, and so many bytes."""
        return self.take(self.number(1))

    def pick(self, choices: Sequence[T]) -> T:
        """One of at most 256 things."""
        return choices[self.number(1) % len(choices)]


def exact(data: bytes) -> memoryview:
    """The same bytes in memory of exactly their size. Behind a `bytes` there is a NUL, which a reading past the end
    would find unnoticed, and an array made of bytes has room to grow; an array times n has neither, and
    AddressSanitizer sees its end."""
    memory = memoryview(array("B", b"\0") * len(data))
    memory[:] = data
    return memory
