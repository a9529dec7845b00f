"""ERROR packets that wait to leave: answers to requests that become no transfer."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.lines cimport Lines
from pxed._ext.linux_net cimport pxed_batch, pxed_path
from pxed._ext.tftp cimport ERROR_TEXT_LIMIT

cdef struct ControlPacket:
    pxed_path path
    uint16_t size
    uint8_t data[ERROR_TEXT_LIMIT + 5]

cdef enum:
    CONTROL_LIMIT = 256          # that wait for the next batch; more at once are a flood


cdef class Control:
    cdef ControlPacket packets[CONTROL_LIMIT]
    cdef size_t first
    cdef size_t count
    cdef uint64_t blocked_until
    cdef uint64_t sent

    # False when there is no room for it.
    cdef bint add(self, const pxed_path *path, uint32_t code, const uint8_t *text, size_t size) noexcept nogil
    # False when the batch is full.
    cdef bint fill(self, pxed_batch *batch, Lines lines, uint64_t now) noexcept nogil
    # When to fill again what a pacer refused; UINT64_MAX for never.
    cdef uint64_t wake_at(self) noexcept nogil
