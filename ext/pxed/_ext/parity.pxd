"""Parity symbols of cast frames, by ISA-L. What they are is written down in pxed/wire/cast.py.

A frame is K * `symbol` bytes of memory: its `stored` bytes, and zeros behind them. Nothing is allocated; the stack
takes some 70 KiB. No function needs the GIL, and none can fail but as it says.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

# Writes `count` parity symbols (numbers within their block, below CAST_PARITIES) of block `block`, `symbol` bytes each.
cdef void parity_encode(const uint8_t *frame, uint32_t stored, uint32_t symbol, uint32_t block,
                        const uint8_t *parities, uint32_t count, uint8_t *const *out) noexcept nogil

# Writes the missing source symbols of block `block` into the frame. `missing`: bit set of all K source symbols, which
# stays as it is; `parities`: `count` different numbers, `held`: those symbols. False, and nothing done, when fewer are
# held than are missing. Wrong parity makes wrong bytes: the chunk's hash decides.
cdef bint parity_repair(uint8_t *frame, uint32_t stored, uint32_t symbol, uint32_t block, const uint64_t *missing,
                        const uint8_t *parities, const uint8_t *const *held, uint32_t count) noexcept nogil
