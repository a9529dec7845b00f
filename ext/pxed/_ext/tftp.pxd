"""TFTP packets: bytes to small structs and back, bounds-checked. RFC 1350, 2090, 2347, 2348, 2349, 7440."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum Opcode:
    OP_RRQ = 1
    OP_WRQ = 2
    OP_DATA = 3
    OP_ACK = 4
    OP_ERROR = 5
    OP_OACK = 6

cdef enum ErrorCode:
    ERR_NOT_DEFINED = 0
    ERR_NOT_FOUND = 1
    ERR_ACCESS = 2
    ERR_DISK_FULL = 3
    ERR_ILLEGAL = 4
    ERR_UNKNOWN_TID = 5
    ERR_EXISTS = 6
    ERR_NO_USER = 7
    ERR_OPTIONS_REFUSED = 8

cdef enum Mode:
    MODE_OCTET
    MODE_NETASCII
    MODE_MAIL
    MODE_OTHER

# Bits of TftpRequest.options and of what an OACK holds.
cdef enum Option:
    OPT_BLKSIZE = 1
    OPT_TSIZE = 2
    OPT_TIMEOUT = 4
    OPT_WINDOWSIZE = 8
    OPT_MULTICAST = 16

cdef enum:
    DATA_HEADER = 4
    OACK_LIMIT = 128        # the five options with their longest values need 106 bytes
    ERROR_TEXT_LIMIT = 400  # an ERROR stays well below 512 bytes, which every client can take

cdef struct TftpRequest:
    Mode mode
    uint32_t options       # those with an acceptable value
    uint16_t blksize       # as asked, 65464 for more
    uint16_t windowsize
    uint16_t timeout       # seconds
    const uint8_t *name    # not terminated by NUL within name_size
    size_t name_size

cdef int opcode(const uint8_t *data, size_t size) noexcept nogil
cdef bint parse_request(const uint8_t *data, size_t size, TftpRequest *request) noexcept nogil
cdef uint64_t hash_request(const uint8_t *data, size_t size) noexcept nogil
cdef int parse_block(const uint8_t *data, size_t size) noexcept nogil
cdef void write_data_header(uint8_t *out, uint64_t block) noexcept nogil
cdef size_t write_oack(uint8_t *out, uint32_t options, uint32_t blksize, uint64_t tsize, uint32_t timeout,
                       uint32_t windowsize) noexcept nogil
cdef size_t write_multicast(uint8_t *out, const uint8_t *group, uint16_t port, bint master) noexcept nogil
cdef size_t write_error(uint8_t *out, uint32_t code, const uint8_t *text, size_t size) noexcept nogil
