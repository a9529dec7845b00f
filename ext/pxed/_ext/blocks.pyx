"""Bit sets (the functions of blocks.pxd), as Python sees them: for tests."""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint64_t


cdef class Bits:
    """A set of numbers below `size`."""

    cdef uint64_t *words
    cdef size_t size

    def __cinit__(self, size: int) -> None:
        self.size = size
        self.words = <uint64_t *>PyMem_Calloc(bits_words(self.size) + 1, sizeof(uint64_t))
        if self.words is NULL:
            raise MemoryError

    def __dealloc__(self) -> None:
        PyMem_Free(self.words)

    cdef size_t _inside(self, size_t i, size_t limit) except? 0:
        if i > limit:
            raise IndexError(i)
        return i

    def __len__(self) -> int:
        """How many are in the set."""
        return bits_count(self.words, self.size)

    def __contains__(self, i: int) -> bool:
        return 0 <= i < self.size and bits_test(self.words, i)

    def add(self, begin: int, stop: int) -> None:
        """Take in the numbers from `begin` to `stop` (exclusive); IndexError beyond the set."""
        bits_set_run(self.words, self._inside(begin, self.size), self._inside(stop, self.size))

    def discard(self, begin: int, stop: int) -> None:
        """Take out the numbers from `begin` to `stop` (exclusive); IndexError beyond the set."""
        bits_clear_run(self.words, self._inside(begin, self.size), self._inside(stop, self.size))

    def next(self, at: int) -> int:
        """The first number of the set that is not below `at`, or `size`."""
        return bits_next(self.words, self.size, at)

    def next_clear(self, at: int) -> int:
        """The first number that is not in the set and not below `at`, or `size`."""
        return bits_next_clear(self.words, self.size, at)

    def runs(self) -> list[tuple[int, int]]:
        """The set as ascending (begin, stop)."""
        cdef size_t begin = 0
        cdef size_t stop = 0
        found = []
        while bits_run(self.words, self.size, &begin, &stop):
            found.append((begin, stop))
            begin = stop
        return found

    def octets(self) -> bytes:
        """The bits as in a packet: bit i is bit i % 8 of octet i // 8."""
        cdef bytes out = bytes((self.size + 7) >> 3)
        bits_to_octets(self.words, self.size, <uint8_t *><char *>out)
        return out

    def add_octets(self, octets: bytes, bits: int) -> None:
        """Take in the first `bits` bits of `octets`, as far as the set goes; IndexError when there are fewer."""
        self._inside((bits + 7) >> 3, len(octets))
        bits_add_octets(self.words, self.size, <const uint8_t *><const char *>octets, bits)
