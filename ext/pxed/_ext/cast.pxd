"""Datagrams of cast sessions: bytes to small structs and back. The protocol is written down in pxed/wire/cast.py.

Rules: a `get` function looks at any bytes and says why it refuses them; it reads nothing beyond `size`, and what it has
accepted needs no further look: entries of a report are well-formed and in order. A `put` function writes a whole
datagram, MAC included, and says its length. Reserved fields are sent as zero and not looked at.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum CastType:
    CAST_DATA = 1
    CAST_MARK = 2
    CAST_REPORT = 3
    CAST_ORDER = 4

# Why a datagram is refused. Names: REASONS in cast.pyx.
cdef enum CastReason:
    CAST_OK
    CAST_LENGTH              # too short, or not as long as its fields say
    CAST_MAGIC
    CAST_VERSION
    CAST_TYPE                # unknown, or not the one that was asked for
    CAST_SESSION             # of another session
    CAST_MAC
    CAST_FIELDS              # its fields contradict each other, or what the protocol allows
    CAST_ENTRIES             # of a report: cut, unknown, not ascending, outside of its window
    CAST_REASONS

cdef enum CastMarkKind:
    CAST_ALIVE = 1
    CAST_REPORT_NOW = 2

cdef enum CastFlag:
    CAST_DONE = 1            # all is written
    CAST_LEAVING = 2
    CAST_TAKES_HTTP = 4      # fetches what is missing by HTTP now

cdef enum CastOrderCode:
    CAST_ORDER_HTTP = 1      # fetch the rest by HTTP and leave the group
    CAST_ORDER_LISTEN = 2    # take what passes; HTTP only when told, or when the group is silent
    CAST_ORDER_CLOSED = 3    # the session closes: join again
    CAST_ORDER_UNKNOWN = 4   # not joined: join again

cdef enum CastOrderReason:
    CAST_WHY_DISK = 1
    CAST_WHY_PORT = 2
    CAST_WHY_LOSS = 3
    CAST_WHY_FEW = 4         # few remain
    CAST_WHY_CLOSING = 5
    CAST_WHY_UNKNOWN = 6
    CAST_WHY_STORE = 7       # the sender cannot read what is left

cdef enum CastWantKind:
    CAST_WHOLE = 1
    CAST_RUNS = 2
    CAST_BITMAP = 3

cdef enum:
    CAST_PORT = 1759
    CAST_MAGIC_BYTE = 0xc5
    CAST_VERSION_BYTE = 1
    CAST_HEADER = 36             # of DATA; all of MARK and ORDER
    CAST_REPORT_HEADER = 64
    CAST_MAC_BYTES = 8
    CAST_REPORT_LARGEST = 1472   # a part of a report fits in a packet of 1500 bytes
    CAST_MOST_PARTS = 32
    CAST_SYMBOL = 1436           # the usual bytes of a symbol: 1500 - 20 (IPv4) - 8 (UDP) - 36
    CAST_LARGEST_SYMBOL = 8916   # the same for a packet of 8980 bytes
    CAST_MOST_SYMBOLS = 8192     # of one frame: their bitmap fits in a report
    CAST_SYMBOL_WORDS = 128      # of a bit set for them
    CAST_BLOCK = 192             # source symbols of a block, at most
    CAST_PARITIES = 64           # parity symbols of a block


# What both sides know of a session.
cdef struct CastSession:
    uint64_t session
    uint8_t key[16]
    uint16_t symbol              # bytes

cdef struct CastData:
    uint32_t sequence
    uint32_t chunk               # ordinal of the frame
    uint32_t stored              # length of the frame, bytes
    uint16_t number              # of the symbol: below `symbols` source, else parity
    uint16_t symbols             # source symbols of the frame
    const uint8_t *payload       # get only
    uint32_t size                # of the payload, get only

cdef struct CastMark:
    uint32_t sequence            # of the last DATA
    uint32_t live                # receivers
    uint16_t period              # ms between reports
    uint16_t spread              # ms
    uint8_t kind

cdef struct CastReport:
    uint32_t receiver
    uint32_t number
    uint8_t part
    uint8_t parts
    uint16_t flags
    uint32_t highest             # sequence
    uint32_t received            # DATA since the join, mod 2**32, as all counters
    uint32_t expected
    uint32_t written             # chunks proved and written
    uint32_t wrong               # chunks whose hash was wrong
    uint32_t disk_rate           # KiB/s
    uint16_t disk_queue          # permille
    uint32_t refused             # DATA not taken: queue or memory full
    uint32_t begin               # window of chunks that this part speaks of
    uint32_t stop                # exclusive
    const uint8_t *entries       # get only
    uint32_t size                # of the entries, get only

cdef struct CastOrder:
    uint32_t receiver
    uint32_t number              # of the report that it answers
    uint8_t order
    uint8_t reason

# One entry of a report.
cdef struct CastWant:
    uint8_t kind
    uint32_t chunk               # the first one, of CAST_WHOLE
    uint32_t count               # CAST_WHOLE: chunks; CAST_RUNS: runs; CAST_BITMAP: bits
    const uint8_t *octets        # runs of two u16 (first, count), or the bitmap

cdef struct CastWants:
    const uint8_t *p
    const uint8_t *end

# A report under construction.
cdef struct CastReportWriter:
    uint8_t *out
    uint8_t *p
    uint8_t *end                 # of the entries: the MAC fits behind
    uint8_t *whole               # the last entry, if it can be continued; else NULL


# Geometry of a frame -------------------------------------------------------------------------------------------------

# K: source symbols of a frame of `stored` bytes.
cdef inline uint32_t cast_symbols(uint32_t stored, uint32_t symbol) noexcept nogil:
    return <uint32_t>((<uint64_t>stored + symbol - 1) // symbol)


# B: interleaved blocks. Source symbol i is number i // B of block i % B.
cdef inline uint32_t cast_blocks(uint32_t symbols) noexcept nogil:
    return (symbols + CAST_BLOCK - 1) // CAST_BLOCK


# Source symbols of block b.
cdef inline uint32_t cast_block_symbols(uint32_t symbols, uint32_t blocks, uint32_t b) noexcept nogil:
    return (symbols - b + blocks - 1) // blocks


# Bytes of a symbol on the wire: the last source symbol may be shorter, parity symbols never are.
cdef inline uint32_t cast_symbol_size(uint32_t stored, uint32_t symbol, uint32_t symbols, uint32_t number
                                      ) noexcept nogil:
    if number + 1 == symbols:
        return stored - number * symbol
    return symbol


# Codec ---------------------------------------------------------------------------------------------------------------

cdef uint64_t cast_mac(const CastSession *s, const uint8_t *data, size_t size) noexcept nogil
# What any datagram of cast says of itself: type and session, to find whom it concerns. No MAC is looked at.
cdef int cast_peek(const uint8_t *data, size_t size, uint8_t *kind, uint64_t *session) noexcept nogil
cdef int cast_get_data(const uint8_t *data, size_t size, const CastSession *s, CastData *out) noexcept nogil
cdef int cast_get_mark(const uint8_t *data, size_t size, const CastSession *s, CastMark *out) noexcept nogil
cdef int cast_get_report(const uint8_t *data, size_t size, const CastSession *s, CastReport *out) noexcept nogil
cdef int cast_get_order(const uint8_t *data, size_t size, const CastSession *s, CastOrder *out) noexcept nogil

# CAST_HEADER bytes each; the payload of DATA follows from elsewhere.
cdef void cast_put_data(uint8_t *out, const CastSession *s, const CastData *data) noexcept nogil
cdef void cast_put_mark(uint8_t *out, const CastSession *s, const CastMark *mark) noexcept nogil
cdef void cast_put_order(uint8_t *out, const CastSession *s, const CastOrder *order) noexcept nogil

# Entries of an accepted report, in order: cast_wants, then cast_next_want until it says False.
cdef CastWants cast_wants(const CastReport *report) noexcept nogil
cdef bint cast_next_want(CastWants *wants, CastWant *want) noexcept nogil
# Adds the missing symbols of a CAST_RUNS or CAST_BITMAP to a bit set of `symbols` bits; what is beyond is left out.
cdef void cast_want_symbols(const CastWant *want, uint64_t *words, size_t symbols) noexcept nogil

# A report: begin, add entries in ascending order until one says False (no room: the window ends there), end.
# `limit` is at most the room at `out`; the returned size of `end` is what is to be sent.
cdef void cast_report_begin(CastReportWriter *w, uint8_t *out, size_t limit) noexcept nogil
cdef bint cast_report_whole(CastReportWriter *w, uint32_t chunk, uint32_t count) noexcept nogil
# `missing`: bit set of `symbols` bits, with at least one set.
cdef bint cast_report_partial(CastReportWriter *w, uint32_t chunk, const uint64_t *missing, size_t symbols
                              ) noexcept nogil
cdef size_t cast_report_end(CastReportWriter *w, const CastSession *s, const CastReport *report) noexcept nogil
