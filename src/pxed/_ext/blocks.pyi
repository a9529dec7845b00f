"""Bit sets, as the compiled core uses them: for tests."""

from typing_extensions import disjoint_base

@disjoint_base
class Bits:
    """A set of numbers below `size`."""

    def __new__(cls, size: int) -> Bits: ...
    def __len__(self) -> int:
        """How many are in the set."""

    def __contains__(self, key: int, /) -> bool: ...
    def add(self, begin: int, stop: int) -> None:
        """Take in the numbers from `begin` to `stop` (exclusive); IndexError beyond the set."""

    def discard(self, begin: int, stop: int) -> None:
        """Take out the numbers from `begin` to `stop` (exclusive); IndexError beyond the set."""

    def next(self, at: int) -> int:
        """The first number of the set that is not below `at`, or `size`."""

    def next_clear(self, at: int) -> int:
        """The first number that is not in the set and not below `at`, or `size`."""

    def runs(self) -> list[tuple[int, int]]:
        """The set as ascending (begin, stop)."""

    def octets(self) -> bytes:
        """The bits as in a packet: bit i is bit i % 8 of octet i // 8."""

    def add_octets(self, octets: bytes, bits: int) -> None:
        """Take in the first `bits` bits of `octets`, as far as the set goes; IndexError when there are fewer."""
