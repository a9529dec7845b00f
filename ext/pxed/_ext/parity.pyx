"""Parity symbols of cast frames (pxed/wire/cast.py has the code that they are of), as a thin binding of ISA-L.

Parity p of a block is the sum over its source symbols j of inv((192 + p) XOR j) * source[j] in GF(2^8), polynomial
0x11d: a Cauchy matrix, of which every square part can be inverted, so that any e parity symbols make up for any e lost
ones. Lost ones are computed from the e parities and the symbols that are there in a single pass: with M the part of the
matrix that belongs to the lost ones and C the rest,

    lost = M^-1 * (parity + C * there) = [M^-1 * C, M^-1] * [there, parity]
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.string cimport memcpy, memset

from pxed._ext.blocks cimport bits_set, bits_test, bits_words
from pxed._ext.cast cimport (
    CAST_BLOCK, CAST_LARGEST_SYMBOL, CAST_MOST_SYMBOLS, CAST_PARITIES, CAST_SYMBOL_WORDS, cast_block_symbols,
    cast_blocks, cast_symbols
)


cdef extern from "isa-l/erasure_code.h" nogil:
    void ec_init_tables(int columns, int rows, unsigned char *matrix, unsigned char *tables)
    void ec_encode_data(int size, int columns, int rows, unsigned char *tables, unsigned char **data,
                        unsigned char **coding)
    int gf_invert_matrix(unsigned char *matrix, unsigned char *inverse, const int n)
    unsigned char gf_mul(unsigned char a, unsigned char b)
    unsigned char gf_inv(unsigned char a)


cdef enum:
    ROWS = 8                     # results of one pass; more need more passes over the same symbols
    TABLE = 32                   # bytes that ISA-L makes of a coefficient
    ROW = 6144                   # CAST_BLOCK * TABLE


# The coefficient of source symbol j in parity symbol p is [p][j]: as a number, and as ISA-L multiplies with it.
cdef uint8_t coefficients[CAST_PARITIES][CAST_BLOCK]
cdef uint8_t tables[CAST_PARITIES][ROW]


cdef void _make_tables() noexcept nogil:
    cdef int p, j
    for p in range(CAST_PARITIES):
        for j in range(CAST_BLOCK):
            coefficients[p][j] = gf_inv(<uint8_t>((CAST_BLOCK + p) ^ j))
        ec_init_tables(CAST_BLOCK, 1, coefficients[p], tables[p])


_make_tables()


cdef void parity_encode(const uint8_t *frame, uint32_t stored, uint32_t symbol, uint32_t block,
                        const uint8_t *parities, uint32_t count, uint8_t *const *out) noexcept nogil:
    cdef uint8_t work[ROWS * ROW]
    cdef unsigned char *source[CAST_BLOCK]
    cdef unsigned char *target[ROWS]
    cdef uint32_t symbols = cast_symbols(stored, symbol)
    cdef uint32_t blocks = cast_blocks(symbols)
    cdef uint32_t columns = cast_block_symbols(symbols, blocks, block)
    cdef uint32_t i, rows
    cdef uint32_t done = 0
    for i in range(columns):
        source[i] = <unsigned char *>frame + <size_t>(block + i * blocks) * symbol
    while done < count:
        rows = count - done if count - done < ROWS else <uint32_t>ROWS
        for i in range(rows):
            memcpy(work + i * columns * TABLE, tables[parities[done + i]], columns * TABLE)
            target[i] = <unsigned char *>out[done + i]
        ec_encode_data(symbol, columns, rows, work, source, target)
        done += rows


# One row of [M^-1 * C, M^-1], for the columns [there, parity].
cdef void _repair_row(uint8_t *row, const uint8_t *inverse, uint32_t lost, const uint8_t *there, uint32_t count,
                      const uint8_t *parities) noexcept nogil:
    cdef uint32_t i, k
    cdef uint8_t total
    for i in range(count):
        total = 0
        for k in range(lost):
            total ^= gf_mul(inverse[k], coefficients[parities[k]][there[i]])
        row[i] = total
    memcpy(row + count, inverse, lost)


cdef bint parity_repair(uint8_t *frame, uint32_t stored, uint32_t symbol, uint32_t block, const uint64_t *missing,
                        const uint8_t *parities, const uint8_t *const *held, uint32_t count) noexcept nogil:
    cdef uint8_t work[ROWS * ROW]
    cdef uint8_t matrix[CAST_PARITIES * CAST_PARITIES]
    cdef uint8_t inverse[CAST_PARITIES * CAST_PARITIES]
    cdef uint8_t rows[ROWS * CAST_BLOCK]
    cdef uint8_t there[CAST_BLOCK]
    cdef uint8_t gone[CAST_PARITIES]
    cdef unsigned char *source[CAST_BLOCK]
    cdef unsigned char *target[ROWS]
    cdef uint32_t symbols = cast_symbols(stored, symbol)
    cdef uint32_t blocks = cast_blocks(symbols)
    cdef uint32_t columns = cast_block_symbols(symbols, blocks, block)
    cdef uint32_t lost = 0
    cdef uint32_t kept = 0
    cdef uint32_t i, k, n
    for i in range(columns):
        if not bits_test(missing, block + i * blocks):
            there[kept] = <uint8_t>i
            source[kept] = frame + <size_t>(block + i * blocks) * symbol
            kept += 1
        elif lost == count or lost == CAST_PARITIES:
            return False
        else:
            gone[lost] = <uint8_t>i
            lost += 1
    if lost == 0:
        return True
    for i in range(lost):
        source[kept + i] = <unsigned char *>held[i]
        for k in range(lost):
            matrix[i * lost + k] = coefficients[parities[i]][gone[k]]
    if gf_invert_matrix(matrix, inverse, lost) != 0:
        return False             # a number stands there twice
    i = 0
    while i < lost:
        n = lost - i if lost - i < ROWS else <uint32_t>ROWS
        for k in range(n):
            _repair_row(rows + k * columns, inverse + (i + k) * lost, lost, there, kept, parities)
            target[k] = frame + <size_t>(block + gone[i + k] * blocks) * symbol
        ec_init_tables(columns, n, rows, work)
        ec_encode_data(symbol, columns, n, work, source, target)
        i += n
    memset(frame + stored, 0, <size_t>symbols * symbol - stored)     # whatever wrong parity made of it
    return True


# As Python sees it, for tests -----------------------------------------------------------------------------------------

cdef uint32_t _checked(size_t stored, object symbol, object block) except 0:
    # The frame's source symbols.
    if not 1 <= symbol <= CAST_LARGEST_SYMBOL or not 1 <= stored <= symbol * CAST_MOST_SYMBOLS:
        raise ValueError("no such frame")
    cdef uint32_t symbols = cast_symbols(<uint32_t>stored, symbol)
    if not 0 <= block < cast_blocks(symbols):
        raise ValueError("no such block")
    return symbols


cdef uint8_t *_padded(bytes frame, size_t size) except NULL:
    cdef uint8_t *memory = <uint8_t *>PyMem_Calloc(size, 1)
    if memory is NULL:
        raise MemoryError
    memcpy(memory, <const char *>frame, len(frame))
    return memory


cdef uint32_t _numbers(object wanted, uint8_t *out) except? 0:
    cdef uint32_t count = 0
    if len(wanted) > CAST_PARITIES or not all(0 <= number < CAST_PARITIES for number in wanted):
        raise ValueError("parity symbols: at most 64, numbers below 64")
    for number in wanted:
        out[count] = number
        count += 1
    return count


def encode(frame: bytes, symbol: int, block: int, parities: list) -> list:
    """The parity symbols of these numbers of one block. ValueError for what no frame has."""
    cdef uint32_t symbols = _checked(len(frame), symbol, block)
    cdef uint8_t numbers[CAST_PARITIES]
    cdef uint8_t *out[CAST_PARITIES]
    cdef uint32_t count = _numbers(parities, numbers)
    cdef uint32_t i
    cdef uint8_t *memory = _padded(frame, symbols * <size_t>symbol)
    found = [bytearray(symbol) for _ in range(count)]
    for i in range(count):
        out[i] = <uint8_t *><char *>found[i]
    parity_encode(memory, len(frame), symbol, block, numbers, count, out)
    PyMem_Free(memory)
    return [bytes(one) for one in found]


def repair(frame: bytes, symbol: int, block: int, missing: list, parities: dict) -> bytes | None:
    """The frame with the missing source symbols of one block computed; None when more are missing than `parities` has.

    `missing` are symbols of the whole frame; what stands in their places does not matter. `parities`: number within
    the block -> symbol. ValueError for what no frame has.
    """
    cdef uint32_t symbols = _checked(len(frame), symbol, block)
    cdef uint8_t numbers[CAST_PARITIES]
    cdef const uint8_t *held[CAST_PARITIES]
    cdef uint64_t words[CAST_SYMBOL_WORDS]
    cdef uint32_t count = _numbers(parities, numbers)
    cdef uint32_t i = 0
    cdef bytes parity
    memset(words, 0, bits_words(symbols) * 8)
    for number in missing:
        if not 0 <= number < symbols:
            raise ValueError("no such symbol")
        bits_set(words, number)
    for parity in parities.values():
        if len(parity) != symbol:
            raise ValueError("a parity symbol is as long as any")
        held[i] = <const uint8_t *><const char *>parity
        i += 1
    cdef uint8_t *memory = _padded(frame, symbols * <size_t>symbol)
    done = parity_repair(memory, len(frame), symbol, block, words, numbers, held, count)
    result = memory[:len(frame)] if done else None
    PyMem_Free(memory)
    return result
