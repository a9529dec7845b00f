"""UDP sockets that move datagrams in batches, for native threads."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from pxed._ext.linux_net cimport pxed_batch, pxed_inbox

cdef struct UdpSocket:
    int fd
    bint bound                # to one address, which is `local`: then no datagram needs to carry it
    uint8_t local[16]
    bint no_segmentation      # the device or kernel refused UDP_SEGMENT
    uint64_t send_errors      # datagrams or runs that the kernel refused, but for a full buffer
    uint64_t receive_errors

# Send what is left of a batch over its sockets; False when a socket's buffer is full (call again later).
cdef bint send_batch(pxed_batch *batch, UdpSocket *sockets) noexcept nogil
# Fill the inbox; the number of datagrams, 0 when there is none.
cdef int receive_batch(pxed_inbox *inbox, UdpSocket *sockets, uint32_t index) noexcept nogil
