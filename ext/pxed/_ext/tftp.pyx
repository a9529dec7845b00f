"""TFTP codec (RFC 1350; options RFC 2347, blksize 2348, timeout and tsize 2349, windowsize 7440, multicast 2090).

Any bytes may come in. The C functions read nothing beyond `size` and never fail otherwise than by their result; the
Python functions at the end are the same code, for the control plane and for tests.
"""

from ipaddress import IPv4Address
from typing import NamedTuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.string cimport memchr


cdef int opcode(const uint8_t *data, size_t size) noexcept nogil:
    """The opcode, or -1 when the packet has none."""
    if size < 2:
        return -1
    return data[0] << 8 | data[1]


cdef uint64_t hash_request(const uint8_t *data, size_t size) noexcept nogil:
    # FNV-1a: tells one request from the next one of the same client, nothing more.
    cdef uint64_t h = 0xcbf29ce484222325
    cdef size_t i
    for i in range(size):
        h = (h ^ data[i]) * <uint64_t>0x100000001b3
    return h


cdef int parse_block(const uint8_t *data, size_t size) noexcept nogil:
    """The block number of an ACK or the code of an ERROR; -1 when it is cut. Bytes behind it are allowed."""
    if size < 4:
        return -1
    return data[2] << 8 | data[3]


cdef bint _equal(const uint8_t *data, size_t size, const char *lower) noexcept nogil:
    # ASCII without regard to case (RFC 2347: option names; RFC 1350: modes).
    cdef size_t i
    cdef uint8_t c
    for i in range(size):
        c = data[i]
        if c >= 65 and c <= 90:
            c += 32
        if lower[i] == 0 or c != <uint8_t>lower[i]:
            return False
    return lower[size] == 0


cdef bint _string(const uint8_t *data, size_t size, size_t *at, const uint8_t **out, size_t *length) noexcept nogil:
    # The NUL-terminated string at at[0], and move behind it; False when there is no whole one.
    cdef const uint8_t *end
    if at[0] >= size:
        return False
    end = <const uint8_t *>memchr(data + at[0], 0, size - at[0])
    if end is NULL:
        return False
    out[0] = data + at[0]
    length[0] = end - out[0]
    at[0] += length[0] + 1
    return True


cdef int64_t _number(const uint8_t *data, size_t size) noexcept nogil:
    # A decimal number below 10**18; -1 for anything else.
    cdef int64_t value = 0
    cdef size_t i
    if size == 0 or size > 18:
        return -1
    for i in range(size):
        if data[i] < 48 or data[i] > 57:
            return -1
        value = value * 10 + (data[i] - 48)
    return value


cdef void _option(TftpRequest *request, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size
                  ) noexcept nogil:
    # Takes note of one option. What is unknown, repeated or out of range is left out of the OACK (RFC 2347).
    cdef int64_t number = _number(value, size)
    cdef uint32_t option = 0
    if size == 0 and _equal(name, name_size, b"multicast"):
        request.options |= OPT_MULTICAST
    if number < 0:
        return
    if _equal(name, name_size, b"blksize"):
        if number >= 8:
            option = OPT_BLKSIZE
            if not request.options & option:
                request.blksize = <uint16_t>(number if number < 65464 else 65464)
    elif _equal(name, name_size, b"tsize"):
        option = OPT_TSIZE
    elif _equal(name, name_size, b"timeout"):
        if 1 <= number <= 255:
            option = OPT_TIMEOUT
            if not request.options & option:
                request.timeout = <uint16_t>number
    elif _equal(name, name_size, b"windowsize"):
        if 1 <= number <= 65535:
            option = OPT_WINDOWSIZE
            if not request.options & option:
                request.windowsize = <uint16_t>number
    request.options |= option


cdef bint parse_request(const uint8_t *data, size_t size, TftpRequest *request) noexcept nogil:
    """An RRQ or WRQ; the opcode has been looked at. False when name or mode is cut.

    A trailing option without its value is ignored: some clients pad their requests (RFC 1350 has no length field).
    """
    cdef size_t at = 2
    cdef const uint8_t *mode
    cdef const uint8_t *name
    cdef const uint8_t *value
    cdef size_t mode_size, name_size, value_size
    request.options = 0
    request.blksize = 512
    request.windowsize = 1
    request.timeout = 0
    if not _string(data, size, &at, &request.name, &request.name_size):
        return False
    if not _string(data, size, &at, &mode, &mode_size):
        return False
    if _equal(mode, mode_size, b"octet"):
        request.mode = MODE_OCTET
    elif _equal(mode, mode_size, b"netascii"):
        request.mode = MODE_NETASCII
    elif _equal(mode, mode_size, b"mail"):
        request.mode = MODE_MAIL
    else:
        request.mode = MODE_OTHER
    while _string(data, size, &at, &name, &name_size) and _string(data, size, &at, &value, &value_size):
        _option(request, name, name_size, value, value_size)
    return True


cdef void write_data_header(uint8_t *out, uint64_t block) noexcept nogil:
    """DATA_HEADER bytes. Block numbers wrap to 0 after 65535."""
    out[0] = 0
    out[1] = OP_DATA
    out[2] = (block >> 8) & 0xff
    out[3] = block & 0xff


cdef size_t _text(uint8_t *out, const char *text) noexcept nogil:
    cdef size_t n = 0
    while text[n]:
        out[n] = <uint8_t>text[n]
        n += 1
    out[n] = 0
    return n + 1


cdef size_t _decimal(uint8_t *out, uint64_t value) noexcept nogil:
    cdef uint8_t digits[20]
    cdef size_t n = 0
    cdef size_t i
    while True:
        digits[n] = <uint8_t>(48 + value % 10)
        n += 1
        value //= 10
        if value == 0:
            break
    for i in range(n):
        out[i] = digits[n - 1 - i]
    out[n] = 0
    return n + 1


cdef size_t write_oack(uint8_t *out, uint32_t options, uint32_t blksize, uint64_t tsize, uint32_t timeout,
                       uint32_t windowsize) noexcept nogil:
    """At most OACK_LIMIT bytes; only the options named by the bits."""
    cdef size_t n = 2
    out[0] = 0
    out[1] = OP_OACK
    if options & OPT_BLKSIZE:
        n += _text(out + n, b"blksize")
        n += _decimal(out + n, blksize)
    if options & OPT_TSIZE:
        n += _text(out + n, b"tsize")
        n += _decimal(out + n, tsize)
    if options & OPT_TIMEOUT:
        n += _text(out + n, b"timeout")
        n += _decimal(out + n, timeout)
    if options & OPT_WINDOWSIZE:
        n += _text(out + n, b"windowsize")
        n += _decimal(out + n, windowsize)
    return n


cdef size_t write_multicast(uint8_t *out, const uint8_t *group, uint16_t port, bint master) noexcept nogil:
    """The multicast option of an OACK, to be appended to one: four bytes of address, and who acknowledges (RFC 2090).

    RFC 2090 lets later OACKs leave address and port out; no client is known to need that, and some to misread it.
    """
    cdef size_t n = _text(out, b"multicast")
    cdef size_t i
    for i in range(4):
        n += _decimal(out + n, group[i])
        out[n - 1] = 44 if i == 3 else 46  # a comma behind the address, dots within; both over the NUL
    n += _decimal(out + n, port)
    out[n - 1] = 44
    return n + _text(out + n, b"1" if master else b"0")


cdef size_t write_error(uint8_t *out, uint32_t code, const uint8_t *text, size_t size) noexcept nogil:
    """At most ERROR_TEXT_LIMIT + 5 bytes; the text ends at its first NUL or at the limit."""
    cdef size_t n = 0
    out[0] = 0
    out[1] = OP_ERROR
    out[2] = (code >> 8) & 0xff
    out[3] = code & 0xff
    while n < size and n < ERROR_TEXT_LIMIT and text[n] != 0:
        out[4 + n] = text[n]
        n += 1
    out[4 + n] = 0
    return n + 5


class Request(NamedTuple):
    """A read or write request (RRQ, WRQ). Names and options as text; bytes that are not UTF-8 are surrogate-escaped."""

    write: bool
    name: str
    mode: str  # "octet", "netascii", "mail" or "other"
    options: dict[str, int]  # blksize, timeout, windowsize as asked and in range; tsize, multicast: 0


class Ack(NamedTuple):
    """Acknowledgement of a block; the number wraps at 65536."""

    block: int


class Error(NamedTuple):
    """ERROR from a peer."""

    code: int
    text: str


def parse(data) -> Request | Ack | Error | None:
    """Decode what a client sends; None for a packet that is malformed or that only servers send."""
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _parse(<const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef object _parse(const uint8_t *data, size_t size):
    cdef TftpRequest request
    cdef int code = opcode(data, size)
    cdef int number
    cdef const uint8_t *end
    if code == OP_RRQ or code == OP_WRQ:
        if not parse_request(data, size, &request):
            return None
        options = {}
        if request.options & OPT_BLKSIZE:
            options["blksize"] = request.blksize
        if request.options & OPT_TSIZE:
            options["tsize"] = 0
        if request.options & OPT_TIMEOUT:
            options["timeout"] = request.timeout
        if request.options & OPT_WINDOWSIZE:
            options["windowsize"] = request.windowsize
        if request.options & OPT_MULTICAST:
            options["multicast"] = 0
        name = request.name[:request.name_size].decode("utf-8", "surrogateescape")
        return Request(code == OP_WRQ, name, ("octet", "netascii", "mail", "other")[request.mode], options)
    if code == OP_ACK or code == OP_ERROR:
        number = parse_block(data, size)
        if number < 0:
            return None
        if code == OP_ACK:
            return Ack(number)
        end = <const uint8_t *>memchr(data + 4, 0, size - 4)
        text = data[4:(end - data if end is not NULL else <ssize_t>size)]
        return Error(number, text.decode("utf-8", "replace"))
    return None


def build_data(block: int, data: bytes) -> bytes:
    """A DATA packet; `block` is counted from 1 without wrapping."""
    cdef uint8_t header[DATA_HEADER]
    write_data_header(header, block)
    return header[:DATA_HEADER] + data


def build_oack(*, blksize: int | None = None, tsize: int | None = None, timeout: int | None = None,
               windowsize: int | None = None, multicast: tuple | None = None) -> bytes:
    """An OACK with the options that are not None, always in this order.

    `multicast`: the group's address and port, and whether the client is the one that acknowledges. Raises ValueError
    for an address that is not of IPv4.
    """
    cdef uint8_t out[OACK_LIMIT]
    cdef uint32_t options = 0
    cdef bytes group
    if blksize is not None:
        options |= OPT_BLKSIZE
    if tsize is not None:
        options |= OPT_TSIZE
    if timeout is not None:
        options |= OPT_TIMEOUT
    if windowsize is not None:
        options |= OPT_WINDOWSIZE
    cdef size_t size = write_oack(out, options, blksize or 0, tsize or 0, timeout or 0, windowsize or 0)
    if multicast is not None:
        address, port, master = multicast
        group = IPv4Address(address).packed
        size += write_multicast(out + size, group, port, master)
    return out[:size]


def build_error(code: int, text: str) -> bytes:
    """An ERROR; the text is cut at 400 bytes and at a NUL."""
    cdef uint8_t out[ERROR_TEXT_LIMIT + 5]
    cdef bytes encoded = text.encode("utf-8", "replace")
    cdef size_t size = write_error(out, code, encoded, len(encoded))
    return out[:size]
