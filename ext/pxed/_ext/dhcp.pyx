"""DHCP messages: bytes to `Packet` and back (RFC 2131 section 2, RFC 2132, RFC 3396).

No policy and no I/O here. Any bytes decode to a Packet or to a short reason; nothing is read past their end.
What options mean is `pxed.wire`'s business.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcpy, memset

cimport cython

from pxed._ext.buf cimport (
    Reader, Writer, get_u8, get_u16, get_u32, left, put_bytes, put_field, put_u8, put_u16, put_u32, reader, take,
    writer,
)
from pxed._ext.debug cimport PXED_DEBUG

cdef extern from "Python.h":
    object PyUnicode_FromFormat(const char *format, ...)

cdef enum:
    PAD = 0
    OVERLOAD = 52
    BOOT_FILE = 67
    RELAY_INFO = 82
    END = 255
    COOKIE = 0x63825363
    CHADDR_SIZE = 16
    SNAME_SIZE = 64
    FILE_SIZE = 128
    HEADER_SIZE = 240  # fixed fields and the cookie
    PIECE = 255  # an option's longest piece; longer values are split (RFC 3396)

# Sizes of one scan over the option areas. `total` is per option code over all areas: RFC 3396 makes one value
# of all the pieces of a code, in the order options field, file, sname.
cdef struct Scan:
    size_t total[256]
    bint seen[256]
    uint8_t order[256]
    int codes
    uint8_t overload


cdef bint _scan(Reader area, Scan *scan, bint main) noexcept nogil:
    """Add the sizes of one area's options. False: an option runs past the area's end or is impossible."""
    cdef uint8_t code, size
    cdef const uint8_t *value
    while left(&area):
        code = get_u8(&area)
        if code == PAD:
            continue
        if code == END:
            break
        size = get_u8(&area)
        value = take(&area, size)
        if area.bad:
            return False
        if code == OVERLOAD:
            if not main:  # only the options field can say where else options lie (RFC 3396 section 6)
                continue
            if size != 1 or value[0] < 1 or value[0] > 3:
                return False
            scan.overload = value[0]
            continue
        if not scan.seen[code]:
            scan.seen[code] = True
            scan.order[scan.codes] = code
            scan.codes += 1
        scan.total[code] += size
    return True


cdef void _gather(Reader area, char **target) noexcept nogil:
    """Copy one area's values behind each other; `target` has a write position per code. `_scan` passed before."""
    cdef uint8_t code, size
    cdef const uint8_t *value
    while left(&area):
        code = get_u8(&area)
        if code == PAD:
            continue
        if code == END:
            break
        size = get_u8(&area)
        value = take(&area, size)
        if code == OVERLOAD or value == NULL:
            continue
        memcpy(target[code], value, size)
        target[code] += size


cdef bytes _text(const uint8_t *field, size_t size):
    """A fixed field up to its first NUL."""
    cdef const void *nul = memchr(field, 0, size)
    if nul != NULL:
        size = <size_t>(<const uint8_t *>nul - field)
    return PyBytes_FromStringAndSize(<const char *>field, size)


cdef str _dotted(uint32_t address):
    return PyUnicode_FromFormat(b"%d.%d.%d.%d", <int>(address >> 24), <int>(address >> 16 & 255),
                                <int>(address >> 8 & 255), <int>(address & 255))


cdef uint32_t _address(str text) except? 0xFFFFFFFF:
    cdef uint32_t address = 0
    cdef list parts = text.split(".")
    if len(parts) != 4:
        raise ValueError(f"not an IPv4 address: {text!r}")
    for part in parts:
        if not (part.isascii() and part.isdecimal() and len(part) <= 3 and int(part) <= 255):
            raise ValueError(f"not an IPv4 address: {text!r}")
        address = address << 8 | <uint32_t>int(part)
    return address


@cython.auto_pickle(False)
@cython.final
cdef class Packet:
    """One DHCP message.

    Addresses are dotted strings. `chaddr` has `hlen` bytes; `sname` and `file` end before their first NUL and are
    empty where option 52 made them hold options. `options` maps a code to its whole value (RFC 3396), in the order
    of first appearance, without PAD, END and 52.
    """

    cdef readonly uint8_t op
    cdef readonly uint8_t htype
    cdef readonly uint8_t hlen
    cdef readonly uint8_t hops
    cdef readonly uint32_t xid
    cdef readonly uint16_t secs
    cdef readonly uint16_t flags
    cdef uint32_t _ciaddr
    cdef uint32_t _yiaddr
    cdef uint32_t _siaddr
    cdef uint32_t _giaddr
    cdef readonly bytes chaddr
    cdef readonly bytes sname
    cdef readonly bytes file
    cdef readonly dict options

    def __init__(self, *, uint8_t op=1, uint8_t htype=1, uint8_t hops=0, uint32_t xid=0, uint16_t secs=0,
                 uint16_t flags=0, str ciaddr="0.0.0.0", str yiaddr="0.0.0.0", str siaddr="0.0.0.0",
                 str giaddr="0.0.0.0", bytes chaddr=b"", bytes sname=b"", bytes file=b"", dict options=None):
        """`hlen` is the length of `chaddr`. Raises ValueError for a field that is too long or no address."""
        if len(chaddr) > CHADDR_SIZE or len(sname) > SNAME_SIZE or len(file) > FILE_SIZE:
            raise ValueError("chaddr, sname or file is longer than its field (16, 64, 128 bytes)")
        self.op = op
        self.htype = htype
        self.hlen = <uint8_t>len(chaddr)
        self.hops = hops
        self.xid = xid
        self.secs = secs
        self.flags = flags
        self._ciaddr = _address(ciaddr)
        self._yiaddr = _address(yiaddr)
        self._siaddr = _address(siaddr)
        self._giaddr = _address(giaddr)
        self.chaddr = chaddr
        self.sname = sname
        self.file = file
        self.options = {} if options is None else options

    @property
    def ciaddr(self) -> str:
        """The client's own address, when it has one that it can answer for."""
        return _dotted(self._ciaddr)

    @property
    def yiaddr(self) -> str:
        """The address that a DHCP server gives to the client."""
        return _dotted(self._yiaddr)

    @property
    def siaddr(self) -> str:
        """The server of the next step of the boot."""
        return _dotted(self._siaddr)

    @property
    def giaddr(self) -> str:
        """The relay agent that the answer goes to."""
        return _dotted(self._giaddr)

    cdef tuple _fields(self):
        return (self.op, self.htype, self.hlen, self.hops, self.xid, self.secs, self.flags, self._ciaddr,
                self._yiaddr, self._siaddr, self._giaddr, self.chaddr, self.sname, self.file, self.options)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packet):
            return NotImplemented
        return self._fields() == (<Packet>other)._fields()

    __hash__ = None

    def __repr__(self) -> str:
        return (f"Packet(op={self.op}, htype={self.htype}, hops={self.hops}, xid={self.xid:#010x}, secs={self.secs}, "
                f"flags={self.flags:#06x}, ciaddr={self.ciaddr!r}, yiaddr={self.yiaddr!r}, siaddr={self.siaddr!r}, "
                f"giaddr={self.giaddr!r}, chaddr={self.chaddr!r}, sname={self.sname!r}, file={self.file!r}, "
                f"options={self.options!r})")


def decode(data):
    """A `Packet`, or the reason (str) why these bytes are none.

    Reasons: "truncated" (shorter than the fixed fields and the cookie), "bad-op" (neither request nor reply),
    "bad-cookie" (plain BOOTP, or not DHCP at all), "bad-hlen" (hardware address longer than its field),
    "bad-option" (an option runs past the end, or option 52 is senseless). A missing END is tolerated.
    """
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _decode(<const uint8_t *>view.buf, <size_t>view.len)
    finally:
        PyBuffer_Release(&view)


cdef object _decode(const uint8_t *data, size_t size):
    cdef Reader r = reader(data, size)
    cdef Scan scan
    cdef const uint8_t *chaddr
    cdef const uint8_t *sname
    cdef const uint8_t *file
    cdef Packet packet
    if size < HEADER_SIZE:
        return "truncated"
    packet = Packet.__new__(Packet)
    packet.op = get_u8(&r)
    packet.htype = get_u8(&r)
    packet.hlen = get_u8(&r)
    packet.hops = get_u8(&r)
    packet.xid = get_u32(&r)
    packet.secs = get_u16(&r)
    packet.flags = get_u16(&r)
    packet._ciaddr = get_u32(&r)
    packet._yiaddr = get_u32(&r)
    packet._siaddr = get_u32(&r)
    packet._giaddr = get_u32(&r)
    chaddr = take(&r, CHADDR_SIZE)
    sname = take(&r, SNAME_SIZE)
    file = take(&r, FILE_SIZE)
    if packet.op != 1 and packet.op != 2:
        return "bad-op"
    if get_u32(&r) != COOKIE:
        return "bad-cookie"
    if packet.hlen > CHADDR_SIZE:
        return "bad-hlen"
    memset(&scan, 0, sizeof(scan))
    if not _scan(r, &scan, True):
        return "bad-option"
    if scan.overload & 1 and not _scan(reader(file, FILE_SIZE), &scan, False):
        return "bad-option"
    if scan.overload & 2 and not _scan(reader(sname, SNAME_SIZE), &scan, False):
        return "bad-option"
    packet.chaddr = PyBytes_FromStringAndSize(<const char *>chaddr, packet.hlen)
    packet.sname = b"" if scan.overload & 2 else _text(sname, SNAME_SIZE)
    packet.file = b"" if scan.overload & 1 else _text(file, FILE_SIZE)
    packet.options = _options(r, reader(file, FILE_SIZE), reader(sname, SNAME_SIZE), &scan)
    return packet


cdef dict _options(Reader main, Reader file, Reader sname, const Scan *scan):
    """One value per code. Sizes are known from the scan, so the work is linear however small the pieces are."""
    cdef char *target[256]
    cdef bytes value
    cdef dict options = {}
    cdef int i
    for i in range(scan.codes):
        value = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>scan.total[scan.order[i]])
        target[scan.order[i]] = PyBytes_AS_STRING(value)
        options[scan.order[i]] = value
    _gather(main, target)
    if scan.overload & 1:
        _gather(file, target)
    if scan.overload & 2:
        _gather(sname, target)
    return options


def encode(Packet packet not None, Py_ssize_t minimum=300):
    """The packet's bytes, zero-padded behind END to at least `minimum` (BOOTP's 300 by default).

    Options go out in the dict's order, except 82, which is last (RFC 3046 section 2.1). A value over 255 bytes is
    split (RFC 3396). A PAD follows option 67: EDK2 writes a NUL over the byte behind it. Option 52 is never
    written, as shim and ROMs read `file` and `sname` raw: ValueError, as for codes outside 1-254.
    """
    cdef Py_ssize_t size = HEADER_SIZE + 1
    cdef int code
    cdef bytes value, out
    cdef Writer w
    for key, item in packet.options.items():
        code = key
        value = item
        if code <= PAD or code >= END or code == OVERLOAD:
            raise ValueError(f"option {key} cannot be written")
        size += _room_for(code, PyBytes_GET_SIZE(value))
    size = max(size, minimum)
    out = PyBytes_FromStringAndSize(NULL, size)
    w = writer(PyBytes_AS_STRING(out), <size_t>size)
    _put_header(&w, packet)
    for key, item in packet.options.items():
        if key != RELAY_INFO:
            _put_option(&w, <uint8_t>key, <bytes>item)
    if RELAY_INFO in packet.options:
        _put_option(&w, RELAY_INFO, <bytes>packet.options[RELAY_INFO])
    put_u8(&w, END)
    memset(w.p, 0, <size_t>(w.end - w.p))
    if PXED_DEBUG:
        assert not w.bad
    return out


cdef Py_ssize_t _room_for(int code, Py_ssize_t size) noexcept:
    """Bytes that an option takes: code and length per piece, and the PAD behind 67."""
    cdef Py_ssize_t pieces = max(1, (size + PIECE - 1) // PIECE)
    return size + 2 * pieces + (code == BOOT_FILE)


cdef void _put_header(Writer *w, Packet packet) noexcept:
    put_u8(w, packet.op)
    put_u8(w, packet.htype)
    put_u8(w, packet.hlen)
    put_u8(w, packet.hops)
    put_u32(w, packet.xid)
    put_u16(w, packet.secs)
    put_u16(w, packet.flags)
    put_u32(w, packet._ciaddr)
    put_u32(w, packet._yiaddr)
    put_u32(w, packet._siaddr)
    put_u32(w, packet._giaddr)
    put_field(w, PyBytes_AS_STRING(packet.chaddr), <size_t>PyBytes_GET_SIZE(packet.chaddr), CHADDR_SIZE)
    put_field(w, PyBytes_AS_STRING(packet.sname), <size_t>PyBytes_GET_SIZE(packet.sname), SNAME_SIZE)
    put_field(w, PyBytes_AS_STRING(packet.file), <size_t>PyBytes_GET_SIZE(packet.file), FILE_SIZE)
    put_u32(w, COOKIE)


cdef void _put_option(Writer *w, uint8_t code, bytes value) noexcept:
    cdef const char *data = PyBytes_AS_STRING(value)
    cdef size_t size = <size_t>PyBytes_GET_SIZE(value)
    cdef size_t piece
    while True:
        piece = min(size, <size_t>PIECE)
        put_u8(w, code)
        put_u8(w, <uint8_t>piece)
        put_bytes(w, data, piece)
        data += piece
        size -= piece
        if not size:
            break
    if code == BOOT_FILE:
        put_u8(w, PAD)
