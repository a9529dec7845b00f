"""Requests as kinds: what one firmware's requests have in common, apart from what is each machine's own.

Hundreds of machines of one model ask in the same words. `read` separates a request into its kind, by which a decision
can be found again, and its own part: transaction id, addresses, the last half of the MAC, the values of options 97 and
82. A `Template` is the reply to one request of a kind; filled with the own part of another, it is the reply to that.
No policy: what replies may depend on is in the kind, and what is not in it no reply may depend on.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

cimport cython

from pxed._ext.buf cimport Reader, get_u8, left, load_be32, reader, take

cdef extern from "Python.h":
    str PyUnicode_FromFormat(const char *format, ...)

cdef enum:
    HEADER_SIZE = 240    # fixed fields and the cookie (RFC 2131 section 2)
    COOKIE = 0x63825363
    XID = 4
    FLAGS = 10
    CIADDR = 12
    GIADDR = 24
    CHADDR = 28
    ADDRESS_SIZE = 4
    MAC_SIZE = 6
    OUI_SIZE = 3
    PAD = 0
    REQUESTED_ADDRESS = 50
    OVERLOAD = 52
    RELAY_INFO = 82
    CLIENT_UUID = 97
    END = 255
    MOST_KIND = 512      # bytes of a kind; real ones have some 100

# Options whose values belong to the kind: boot tags, message, server, size limit, class, user class, architecture,
# network interface, iPXE's features.
_OF_KIND = (43, 53, 54, 57, 60, 77, 93, 94, 175)
cdef uint8_t[256] of_kind
memset(of_kind, 0, sizeof(of_kind))
for _code in _OF_KIND:
    of_kind[<uint8_t>_code] = 1


cdef str _dotted(uint32_t address):
    return PyUnicode_FromFormat(b"%d.%d.%d.%d", <int>(address >> 24), <int>(address >> 16 & 255),
                                <int>(address >> 8 & 255), <int>(address & 255))


@cython.final
cdef class Request:
    """One request, as `read` makes it."""

    cdef readonly bytes kind
    cdef readonly bytes data
    cdef uint32_t _ciaddr, _giaddr
    cdef uint16_t uuid, relay, wanted        # offsets of the values; 0: there is none
    cdef uint8_t uuid_size, relay_size

    @property
    def mac(self) -> bytes:
        """The six bytes of chaddr."""
        return self.data[CHADDR:CHADDR + MAC_SIZE]

    @property
    def identity(self) -> bytes:
        """What tells this machine from others: the MAC, and the value of option 97."""
        return self.data[CHADDR:CHADDR + MAC_SIZE] + self.data[self.uuid:self.uuid + self.uuid_size]

    @property
    def ciaddr(self) -> str:
        """The client's own address, as in `Packet`."""
        return _dotted(self._ciaddr)

    @property
    def giaddr(self) -> str:
        """The relay agent that the answer goes to."""
        return _dotted(self._giaddr)

    @property
    def addresses(self) -> tuple:
        """What the client calls its own address: ciaddr, and the one that it wants to have (option 50)."""
        cdef list found = []
        cdef uint32_t wanted = 0
        if not self._ciaddr and not self.wanted:
            return ()
        if self.wanted:
            wanted = load_be32(<const uint8_t *>PyBytes_AS_STRING(self.data) + self.wanted)
        if self._ciaddr:
            found.append(_dotted(self._ciaddr))
        if wanted:
            found.append(_dotted(wanted))
        return tuple(found)


def read(bytes data not None):
    """The request in `data`, or None where it has no kind of its own: it is malformed, has option 52, an option twice
    (RFC 3396), or no Ethernet address. Such a request is decided by itself."""
    cdef Request request
    cdef Reader r
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef const uint8_t *value
    cdef size_t size = <size_t>PyBytes_GET_SIZE(data)
    cdef uint8_t kind[MOST_KIND]
    cdef uint8_t seen[256]
    cdef size_t at = 0
    cdef uint8_t code, length
    if size < HEADER_SIZE or size > 0xFFFF or p[2] != MAC_SIZE or load_be32(p + HEADER_SIZE - 4) != COOKIE:
        return None
    if not (p[CHADDR] | p[CHADDR + 1] | p[CHADDR + 2] | p[CHADDR + 3] | p[CHADDR + 4] | p[CHADDR + 5]):
        return None
    request = Request.__new__(Request)
    request.data = data
    request._ciaddr = load_be32(p + CIADDR)
    request._giaddr = load_be32(p + GIADDR)
    kind[0] = p[0]
    kind[1] = p[1]
    memcpy(kind + 2, p + FLAGS, 2)
    kind[4] = request._ciaddr != 0
    kind[5] = p[GIADDR]          # whether a relay's address can be one is a question of its first byte
    kind[6] = request._giaddr != 0
    memcpy(kind + 7, p + CHADDR, OUI_SIZE)
    at = 7 + OUI_SIZE
    memset(seen, 0, sizeof(seen))
    r = reader(p + HEADER_SIZE, size - HEADER_SIZE)
    while left(&r):
        code = get_u8(&r)
        if code == PAD:
            continue
        if code == END:
            break
        length = get_u8(&r)
        value = take(&r, length)
        if r.bad or seen[code] or code == OVERLOAD:
            return None
        seen[code] = 1
        if code == REQUESTED_ADDRESS and length == ADDRESS_SIZE:
            request.wanted = <uint16_t>(value - p)
        if not of_kind[code] and code != CLIENT_UUID and code != RELAY_INFO:
            continue
        if at + 2 + length > MOST_KIND:
            return None
        kind[at] = code
        kind[at + 1] = length
        at += 2
        if code == CLIENT_UUID:
            request.uuid = <uint16_t>(value - p)
            request.uuid_size = length
        elif code == RELAY_INFO:
            request.relay = <uint16_t>(value - p)
            request.relay_size = length
        else:
            memcpy(kind + at, value, length)
            at += length
    request.kind = PyBytes_FromStringAndSize(<const char *>kind, <Py_ssize_t>at)
    return request


@cython.final
cdef class Template:
    """The reply to one request of a kind, made from it."""

    cdef bytes payload
    cdef uint16_t uuid, relay       # offsets of the values; 0: there is none
    cdef uint8_t uuid_size, relay_size
    cdef bint copies_ciaddr

    def __init__(self, bytes payload not None, Request request not None):
        """ValueError when `payload` is no DHCP message, or not a reply to that request."""
        cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(payload)
        cdef const uint8_t *asked = <const uint8_t *>PyBytes_AS_STRING(request.data)
        cdef Reader r
        cdef uint8_t code, length
        cdef const uint8_t *value
        if len(payload) < HEADER_SIZE or memcmp(p + XID, asked + XID, 4):
            raise ValueError("not the reply to this request")
        if memcmp(p + CHADDR, asked + CHADDR, MAC_SIZE):
            raise ValueError("the reply to another machine")
        self.payload = payload
        self.copies_ciaddr = request._ciaddr != 0 and load_be32(p + CIADDR) == request._ciaddr
        r = reader(p + HEADER_SIZE, <size_t>len(payload) - HEADER_SIZE)
        while left(&r):
            code = get_u8(&r)
            if code == PAD:
                continue
            if code == END:
                break
            length = get_u8(&r)
            value = take(&r, length)
            if r.bad:
                raise ValueError("the options run past the end")
            if code == CLIENT_UUID:
                self.uuid, self.uuid_size = <uint16_t>(value - p), length
            elif code == RELAY_INFO:
                self.relay, self.relay_size = <uint16_t>(value - p), length
        if self.uuid and self.uuid_size != request.uuid_size or self.relay and self.relay_size != request.relay_size:
            raise ValueError("not the reply to this request")

    def fill(self, Request request not None):
        """The reply to another request of the same kind. ValueError when it is of another."""
        cdef bytes out
        cdef uint8_t *p
        cdef const uint8_t *asked = <const uint8_t *>PyBytes_AS_STRING(request.data)
        if self.uuid and self.uuid_size != request.uuid_size or self.relay and self.relay_size != request.relay_size:
            raise ValueError("a request of another kind")
        out = PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.payload), PyBytes_GET_SIZE(self.payload))
        p = <uint8_t *>PyBytes_AS_STRING(out)
        memcpy(p + XID, asked + XID, 4)
        if self.copies_ciaddr:
            memcpy(p + CIADDR, asked + CIADDR, ADDRESS_SIZE)
        memcpy(p + GIADDR, asked + GIADDR, ADDRESS_SIZE)
        memcpy(p + CHADDR, asked + CHADDR, MAC_SIZE)
        if self.uuid:
            memcpy(p + self.uuid, asked + request.uuid, self.uuid_size)
        if self.relay:
            memcpy(p + self.relay, asked + request.relay, self.relay_size)
        return out
