"""UDP sockets for engines: how they are set up, and sendmmsg/recvmmsg on them.

Replies leave from the address that was asked: by itself when the socket is bound to it, with IP_PKTINFO when it is
bound to every address. DF is not
set (IP_PMTUDISC_DONT): a block that is too long for some link arrives in fragments rather than never.
"""
import socket

from libc.errno cimport EAGAIN, EFAULT, EINTR, EIO, errno
from libc.stdint cimport uint8_t, uint32_t

from pxed._ext.linux_net cimport (
    mmsghdr,
    pxed_batch_control,
    pxed_batch_send_singly,
    pxed_bound_address,
    pxed_inbox_receive,
)

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL
    int sendmmsg(int fd, mmsghdr *messages, unsigned int count, int flags)

# <bits/in.h>; the socket module does not have them.
IP_PKTINFO = 8
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
SO_SNDBUFFORCE = 32
# Ahead of bulk TCP in this host's own queue (pfifo_fast's first band): one block at a time waits for its turn a hundred
# times, and firmware gives up where TCP only slows down. No privilege is needed up to 6.
INTERACTIVE = 6
# Beside bulk TCP.
BULK = 0
SO_RCVBUFFORCE = 33

# A burst of ACKs or requests of thousands of clients waits here while the thread is busy (2 KiB of truesize or less
# each); the send side holds a few whole batches of runs.
BUFFER = 8 << 20


def open_socket(address: str, port: int, *, join: bool = False, multicast_ttl: int = 0,
                bulk: bool = False) -> socket.socket:
    """A bound, non-blocking UDP socket for `address` (IPv4 or IPv6). Raises OSError: as socket(2) and bind(2).

    With `join` it shares the port of a socket that was opened here before: the kernel gives all datagrams of one
    client's port to the same socket (SO_REUSEPORT).

    With `multicast_ttl`, and only then, it sends to groups: through the interface that has `address` (IPv4), whatever
    the routes are, and not to this host. `bulk`: nobody waits for each of its datagrams, others go first.
    """
    cdef uint8_t local[16]
    v6 = ":" in address
    family = socket.AF_INET6 if v6 else socket.AF_INET
    pktinfo = (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO) if v6 else (socket.IPPROTO_IP, IP_PKTINFO)
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(*pktinfo, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, BULK if bulk else INTERACTIVE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, join)
        if v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        if multicast_ttl:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, multicast_ttl)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        _set_buffer(sock, SO_RCVBUFFORCE, socket.SO_RCVBUF)
        _set_buffer(sock, SO_SNDBUFFORCE, socket.SO_SNDBUF)
        sock.bind((address, port))
        if pxed_bound_address(sock.fileno(), local):
            sock.setsockopt(*pktinfo, 0)
        # Only now: the first socket of an address finds out whether somebody else has the port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _set_buffer(sock: socket.socket, force: int, plain: int) -> None:
    # Beyond net.core.[rw]mem_max only with CAP_NET_ADMIN; without it the kernel's limit must do.
    try:
        sock.setsockopt(socket.SOL_SOCKET, force, BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, plain, BUFFER)


cdef bint send_batch(pxed_batch *batch, UdpSocket *sockets) noexcept nogil:
    cdef unsigned int i, end
    cdef UdpSocket *sock
    cdef int n
    if batch.sent == 0:
        for i in range(batch.count):
            pxed_batch_control(batch, i, sockets[batch.path[i].socket].bound)
    while batch.sent < batch.count:
        i = batch.sent
        sock = &sockets[batch.path[i].socket]
        if sock.no_segmentation and batch.segments[i] > 1:
            pxed_batch_send_singly(batch, i, sock.fd, sock.bound)
            batch.sent += 1
            continue
        end = i + 1
        while (end < batch.count and batch.path[end].socket == batch.path[i].socket
               and not (sock.no_segmentation and batch.segments[end] > 1)):
            end += 1
        n = sendmmsg(sock.fd, &batch.message[i], end - i, MSG_DONTWAIT | MSG_NOSIGNAL)
        if n > 0:
            batch.sent += n
        elif errno == EAGAIN:
            return False
        elif errno != EINTR:
            _refused(batch, i, sock, errno)
            batch.sent += 1
    return True


cdef void _refused(pxed_batch *batch, unsigned int i, UdpSocket *sock, int error) noexcept nogil:
    # One message cannot be sent: a run goes out singly, a single datagram is lost (its timer will see to it).
    # EINVAL, EMSGSIZE: segments beyond the path's MTU. EIO: the device has no checksum offload, for good. EFAULT:
    # bytes of some cannot be read; the others leave, and it is noted which did not.
    if batch.segments[i] > 1 or error == EFAULT:
        if error == EIO:
            sock.no_segmentation = True
        pxed_batch_send_singly(batch, i, sock.fd, sock.bound)
    else:
        sock.send_errors += 1


cdef int receive_batch(pxed_inbox *inbox, UdpSocket *sockets, uint32_t index) noexcept nogil:
    cdef UdpSocket *sock = &sockets[index]
    cdef int n = pxed_inbox_receive(inbox, sock.fd, index, sock.local if sock.bound else NULL)
    if n >= 0:
        return n
    if n != -EAGAIN and n != -EINTR:
        sock.receive_errors += 1
    return 0
