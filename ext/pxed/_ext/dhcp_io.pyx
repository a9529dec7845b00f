"""Datagrams of the DHCP ports in batches, each with its interface and addresses; replies from one of our addresses.

No policy, and nothing is read in what comes.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport uint8_t, uint16_t

cimport cython

cdef extern from "Python.h":
    str PyUnicode_FromString(const char *text)
    const char *PyUnicode_AsUTF8(str text) except NULL

cdef extern from "dhcp_io.h" nogil:
    enum: DHCP_MESSAGES
    enum: INET_ADDRSTRLEN

    ctypedef struct in_addr "struct in_addr":
        pass

    ctypedef struct dhcp_inbox:
        pass

    ctypedef struct dhcp_datagram:
        const uint8_t *data
        size_t size
        in_addr source
        uint16_t source_port
        in_addr local
        in_addr destination
        int index

    int dhcp_receive(dhcp_inbox *inbox, int fd)
    dhcp_datagram dhcp_received(const dhcp_inbox *inbox, int i)
    void dhcp_text(in_addr address, char *out)
    int dhcp_send(int fd, const void *data, size_t size, const char *source, const char *destination, uint16_t port,
                  int index)

BATCH = DHCP_MESSAGES


@cython.final
cdef class Inbox:
    """Room for one batch of datagrams."""

    cdef dhcp_inbox *box

    def __cinit__(self):
        self.box = <dhcp_inbox *>PyMem_Calloc(1, sizeof(dhcp_inbox))
        if not self.box:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.box)

    def receive(self, int fd):
        """At most BATCH datagrams without waiting: a list of (data, source, its port, our address, destination,
        interface index), or the errno of what went wrong (never EAGAIN or EINTR: then there are none)."""
        cdef dhcp_datagram one
        cdef list found = []
        cdef int i, n
        with nogil:
            n = dhcp_receive(self.box, fd)
        if n < 0:
            return found if -n in (EAGAIN, EINTR) else -n
        for i in range(n):
            one = dhcp_received(self.box, i)
            found.append((PyBytes_FromStringAndSize(<const char *>one.data, <Py_ssize_t>one.size), _text(one.source),
                          one.source_port, _text(one.local), _text(one.destination), one.index))
        return found


cdef str _text(in_addr address):
    cdef char text[INET_ADDRSTRLEN]
    dhcp_text(address, text)
    return PyUnicode_FromString(text)


def send(int fd, bytes data not None, str source not None, str destination not None, uint16_t port, int index):
    """Send one datagram from an address of ours. Returns 0, or the kernel's errno. index 0: the routes decide."""
    return dhcp_send(fd, PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), PyUnicode_AsUTF8(source),
                     PyUnicode_AsUTF8(destination), port, index)
