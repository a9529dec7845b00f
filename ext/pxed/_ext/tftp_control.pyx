"""The queue of ERROR packets of a TFTP sender: bounded, first in first out, ahead of all data."""

from libc.stdint cimport UINT64_MAX

from pxed._ext.linux_net cimport pxed_batch_add, pxed_batch_has_room
from pxed._ext.tftp cimport write_error

cimport cython

# After a pacer's refusal.
cdef uint64_t PAUSE = 1_000_000


@cython.final
@cython.no_gc
cdef class Control:
    """All zero is empty."""

    cdef bint add(self, const pxed_path *path, uint32_t code, const uint8_t *text, size_t size) noexcept nogil:
        cdef ControlPacket *packet
        if self.count == CONTROL_LIMIT:
            return False
        packet = &self.packets[(self.first + self.count) % CONTROL_LIMIT]
        self.count += 1
        packet.path = path[0]
        packet.size = <uint16_t>write_error(packet.data, code, text, size)
        return True

    cdef bint fill(self, pxed_batch *batch, Lines lines, uint64_t now) noexcept nogil:
        cdef ControlPacket *packet
        while self.count != 0:
            packet = &self.packets[self.first]
            if not pxed_batch_has_room(batch, packet.size):
                return False
            if not lines.may_send(&packet.path, packet.size, now):
                self.blocked_until = now + PAUSE
                return True
            pxed_batch_add(batch, &packet.path, packet.data, packet.size, NULL, 0)
            self.sent += 1
            self.first = (self.first + 1) % CONTROL_LIMIT
            self.count -= 1
        return True

    cdef uint64_t wake_at(self) noexcept nogil:
        return self.blocked_until if self.count != 0 else UINT64_MAX
