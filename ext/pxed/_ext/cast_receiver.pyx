"""CastReceiver: an assembler with the sockets of a session, and the native thread that feeds it.

The group's socket is bound to the group and is a member on one interface only: what other processes or interfaces
joined does not reach it. Reports leave from another socket, which is connected to the server: only the server's ORDERs
come in there.
"""
import math
import os
import socket
import threading

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.unistd cimport close as close_fd, read

from pxed._ext.cast cimport CAST_ORDER, CAST_REPORT_LARGEST, CAST_SYMBOL
from pxed._ext.cast_assembler cimport CastAssembler, pxed_fair_lock_it, pxed_fair_unlock
from pxed._ext.linux_net cimport POLLIN, pollfd, pxed_clock, pxed_poll

cimport cython

cdef extern from "<sys/socket.h>" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL
    ssize_t recv(int fd, void *data, size_t size, int flags)
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef extern from "cast_inbox.h" nogil:
    ctypedef struct mmsghdr "struct mmsghdr":
        unsigned int msg_len

    ctypedef struct pxed_cast_inbox:
        mmsghdr *message
        uint32_t *segment
        uint32_t overflowed
        uint8_t *at "data[0]"

    enum: PXED_CAST_MESSAGES
    enum: PXED_CAST_BYTES
    int pxed_cast_receive(pxed_cast_inbox *inbox, int fd)

cdef enum:
    ROUNDS = 8               # batches before reports have a turn
    ORDERS = 64              # datagrams of the server to this machine in a turn
    FAREWELLS = 3            # times that the last report is said: datagrams are lost
    NS = 1_000_000_000

# How long it sleeps at most: frames that others complete or write may make a report due meanwhile.
cdef uint64_t NAP = 20_000_000

# <bits/in.h>, <linux/udp.h>, <bits/socket.h>; the socket module does not have them.
IP_MULTICAST_ALL = 49
UDP_GRO = 104
SO_RXQ_OVFL = 40
SO_RCVBUFFORCE = 33

# What may wait while the thread does not run: a quarter of a second of a 1 Gbit/s line.
BUFFER = 32 << 20


@cython.final
@cython.no_gc_clear
cdef class CastReceiver(CastAssembler):
    """Takes part in sessions on the network: `join`, `leave`, `join`, as often as needed; between them HTTP goes on.

    `join`, `leave` and `close` belong to one thread at a time; everything else is as with the assembler, but that
    chance has a part in its phases whatever the seed.
    """

    cdef pxed_cast_inbox *inbox
    cdef object group_socket
    cdef object report_socket
    cdef object thread
    cdef int group_fd
    cdef int report_fd
    cdef int wake_fd
    cdef bint stopping           # written by `leave`, read by the thread after a wake-up
    cdef uint64_t receive_buffer
    cdef uint64_t receive_errors
    cdef uint64_t send_errors
    cdef uint64_t overflowed     # in sessions before

    def __cinit__(self):
        self.group_fd = self.report_fd = self.wake_fd = -1
        self.inbox = <pxed_cast_inbox *>PyMem_RawCalloc(1, sizeof(pxed_cast_inbox))
        if self.inbox is NULL:
            raise MemoryError
        self.talk.random ^= int.from_bytes(os.urandom(8), "big")
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __dealloc__(self):
        # The thread holds a reference to the receiver, so it has ended (or never began): no socket is open. Nothing of
        # Python is used here: in a cycle of garbage it may have been taken apart already.
        if self.wake_fd >= 0:
            close_fd(self.wake_fd)
        PyMem_RawFree(self.inbox)

    def join(self, uint64_t session, bytes key, uint32_t receiver, *, str group, int port, str server,
             str interface="", uint32_t symbol=CAST_SYMBOL, double period=1.0) -> None:
        """Leave the session before, if it is another one, and take part in this one.

        IPv4 addresses: the group; the server, whose same port reports go to; and our own one on the interface where the
        group is, by default that of the route to the server. Raises OSError when there is no such socket or membership,
        ValueError as `begin` does.
        """
        if self.thread is not None and self.session.session == session and self.talk.receiver == receiver:
            # Without a farewell: that would come behind the server's knowing that it has joined again.
            self._end_thread()
            self._close_sockets()
        else:
            self.leave()
        report = _report_socket(server, port, interface)
        try:
            local = report.getsockname()[0]
            incoming = _group_socket(group, port, local)
        except BaseException:
            report.close()
            raise
        try:
            self.begin(session, key, receiver, pxed_clock() / 1e9, symbol=symbol, period=period)
        except BaseException:
            report.close()
            incoming.close()
            raise
        self.group_socket, self.report_socket = incoming, report
        self.group_fd, self.report_fd = incoming.fileno(), report.fileno()
        self.receive_buffer = incoming.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self.inbox.overflowed = 0
        self.stopping = False
        self.thread = threading.Thread(target=self._thread_main, name="pxed-cast", daemon=True)
        self.thread.start()

    def leave(self) -> None:
        """Tell the server, end the thread, close the sockets: some milliseconds. Nothing when it takes part in none."""
        if self.thread is None:
            return
        self._end_thread()
        self.depart(pxed_clock() / 1e9)
        parting = self.reports(pxed_clock() / 1e9)
        for datagram in parting * FAREWELLS:
            try:
                self.report_socket.send(datagram)
            except OSError:
                self.send_errors += 1
        self._close_sockets()

    cdef _end_thread(self):
        self.stopping = True
        os.eventfd_write(self.wake_fd, 1)
        self.thread.join()
        self.thread = None

    cdef _close_sockets(self):
        self.active = False
        self.group_socket.close()
        self.report_socket.close()
        self.group_socket = self.report_socket = None
        self.group_fd = self.report_fd = -1
        self.overflowed += self.inbox.overflowed
        self.inbox.overflowed = 0

    def heard(self) -> float:
        """Seconds since the session's last datagram to its group; infinity: there was none since the join."""
        cdef uint64_t at = self.heard_at
        return (pxed_clock() - at) / 1e9 if at else math.inf

    def figures(self) -> dict:
        """The assembler's, and of the sockets: kernel_drops, receive_buffer (bytes), receive_errors, send_errors."""
        found = CastAssembler.figures(self)
        found["kernel_drops"] = self.overflowed + self.inbox.overflowed
        found["receive_buffer"] = self.receive_buffer
        found["receive_errors"] = self.receive_errors
        found["send_errors"] = self.send_errors
        return found

    def close(self) -> None:
        """`leave`, and wake every `take`, which returns None from now on."""
        self.leave()
        CastAssembler.close(self)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _thread_main(self):
        with nogil:
            while not self.stopping:
                self._turn()

    cdef void _turn(self) noexcept nogil:
        cdef pollfd fds[3]
        cdef uint64_t count
        fds[0].fd = self.wake_fd
        fds[1].fd = self.group_fd
        fds[2].fd = self.report_fd
        fds[0].events = fds[1].events = fds[2].events = <short>POLLIN
        if pxed_poll(fds, 3, self._patience()) < 0:
            return  # EINTR
        if fds[0].revents:
            read(self.wake_fd, &count, sizeof(count))
        if fds[1].revents:
            self._hear_group()
        if fds[2].revents:
            self._hear_server()
        self._report_what_is_due()

    cdef uint64_t _patience(self) noexcept nogil:
        cdef uint64_t now = pxed_clock()
        cdef uint64_t at
        pxed_fair_lock_it(&self.lock)
        at = self.due()
        pxed_fair_unlock(&self.lock)
        if at <= now:
            return 0
        return min(at - now, NAP)

    cdef void _hear_group(self) noexcept nogil:
        cdef uint64_t now
        cdef int _round, i, n
        for _round in range(ROUNDS):
            n = pxed_cast_receive(self.inbox, self.group_fd)
            if n < 0:
                if n != -EAGAIN and n != -EINTR:
                    self.receive_errors += 1
                return
            now = pxed_clock()
            for i in range(n):
                # The lock is free between runs: some microseconds are the most that anybody waits for it.
                pxed_fair_lock_it(&self.lock)
                self._hear_run(self.inbox.at + i * <size_t>PXED_CAST_BYTES, self.inbox.message[i].msg_len,
                               self.inbox.segment[i], now)
                pxed_fair_unlock(&self.lock)
            if n < PXED_CAST_MESSAGES:
                return

    cdef void _hear_run(self, const uint8_t *data, size_t size, size_t segment, uint64_t now) noexcept nogil:
        cdef size_t n
        while True:
            n = min(size, segment)
            if n > 2 and data[2] == CAST_ORDER:
                self.counters.foreign += 1  # those come from the server's address, and to nobody else
            else:
                self.hear(data, n, now)
            if n == size:
                return
            data += n
            size -= n

    cdef void _hear_server(self) noexcept nogil:
        cdef uint8_t data[CAST_REPORT_LARGEST]
        cdef uint64_t now = pxed_clock()
        cdef ssize_t n
        cdef int _round
        for _round in range(ORDERS):
            n = recv(self.report_fd, data, sizeof(data), MSG_DONTWAIT)
            if n < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.receive_errors += 1  # the server's host said that nobody is there
                return
            pxed_fair_lock_it(&self.lock)
            self.hear(data, n, now)
            pxed_fair_unlock(&self.lock)

    cdef void _report_what_is_due(self) noexcept nogil:
        cdef uint8_t out[CAST_REPORT_LARGEST]
        cdef uint64_t now = pxed_clock()
        cdef size_t size
        while True:
            pxed_fair_lock_it(&self.lock)
            size = self.speak(out, now)
            pxed_fair_unlock(&self.lock)
            if size == 0:
                return
            if send(self.report_fd, out, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
                self.send_errors += 1


def _report_socket(server, port, interface):
    """Connected to the server, from our address at `interface` or that of the route."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        if interface:
            sock.bind((interface, 0))
        sock.connect((server, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _group_socket(group, port, local):
    """A member of the group on the interface that has the address `local`."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # receivers on one host share group and port
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # as much of it as the system lets have
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        try:
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        except OSError:
            pass  # before Linux 5.0: datagrams come singly
        sock.bind((group, port))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(local))
    except BaseException:
        sock.close()
        raise
    return sock
