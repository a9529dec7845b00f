"""Datagrams of cast sessions (pxed/wire/cast.py has the protocol): DATA, MARK, REPORT, ORDER.

Any bytes may come in: what is refused is named by a CastReason. The Python functions at the end are the same code, for
the control plane and for tests.
"""

from typing import NamedTuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcpy, memset

from pxed._ext.blocks cimport bits_add_octets, bits_count, bits_run, bits_set_run, bits_to_octets
from pxed._ext.buf cimport load_be16, load_be32, load_be64, store_be16, store_be32, store_be64


cdef extern from "sodium/crypto_shorthash_siphash24.h" nogil:
    int crypto_shorthash_siphash24(unsigned char *out, const unsigned char *data, unsigned long long size,
                                   const unsigned char *key)


REASONS = ("ok", "length", "magic", "version", "type", "session", "mac", "fields", "entries")

# Octets of an entry before its list: kind, chunk, count (WHOLE); kind, chunk, runs; kind, chunk, bits.
cdef enum:
    WHOLE_BYTES = 9
    RUNS_BYTES = 6
    BITMAP_BYTES = 7
    MOST_RUNS = 255


cdef uint64_t cast_mac(const CastSession *s, const uint8_t *data, size_t size) noexcept nogil:
    """SipHash-2-4 as a number whose big-endian octets are the ones that libsodium writes."""
    cdef uint8_t out[CAST_MAC_BYTES]
    crypto_shorthash_siphash24(out, data, size, s.key)
    return load_be64(out)


cdef inline bint _mac_differs(const CastSession *s, const uint8_t *data, size_t size) noexcept nogil:
    # One comparison of words: it takes the same time wherever the difference is.
    return cast_mac(s, data, size) != load_be64(data + size)


cdef inline void _sign(uint8_t *out, const CastSession *s, size_t size) noexcept nogil:
    store_be64(out + size, cast_mac(s, out, size))


# What goes in ---------------------------------------------------------------------------------------------------------

cdef int cast_peek(const uint8_t *data, size_t size, uint8_t *kind, uint64_t *session) noexcept nogil:
    if size < 1 or data[0] != CAST_MAGIC_BYTE:
        return CAST_MAGIC
    if size < 2 or data[1] != CAST_VERSION_BYTE:
        return CAST_VERSION
    if size < CAST_HEADER:
        return CAST_LENGTH
    if data[2] < CAST_DATA or data[2] > CAST_ORDER:
        return CAST_TYPE
    kind[0] = data[2]
    session[0] = load_be64(data + 4)
    return CAST_OK


cdef int _common(const uint8_t *data, size_t size, const CastSession *s, uint8_t wanted) noexcept nogil:
    cdef uint8_t kind = 0
    cdef uint64_t session = 0
    cdef int reason = cast_peek(data, size, &kind, &session)
    if reason != CAST_OK:
        return reason
    if kind != wanted:
        return CAST_TYPE
    if session != s.session:
        return CAST_SESSION
    return CAST_OK


cdef int _fixed(const uint8_t *data, size_t size, const CastSession *s, uint8_t wanted) noexcept nogil:
    # A datagram that is a header and nothing else.
    cdef int reason = _common(data, size, s, wanted)
    if reason != CAST_OK:
        return reason
    if size != CAST_HEADER:
        return CAST_LENGTH
    if _mac_differs(s, data, CAST_HEADER - CAST_MAC_BYTES):
        return CAST_MAC
    return CAST_OK


cdef int cast_get_data(const uint8_t *data, size_t size, const CastSession *s, CastData *out) noexcept nogil:
    cdef uint32_t symbols
    cdef int reason = _common(data, size, s, CAST_DATA)
    if reason != CAST_OK:
        return reason
    if _mac_differs(s, data, CAST_HEADER - CAST_MAC_BYTES):
        return CAST_MAC
    out.sequence = load_be32(data + 12)
    out.chunk = load_be32(data + 16)
    out.stored = load_be32(data + 20)
    out.number = load_be16(data + 24)
    out.symbols = load_be16(data + 26)
    symbols = out.symbols
    if out.stored == 0 or symbols > CAST_MOST_SYMBOLS or symbols != cast_symbols(out.stored, s.symbol):
        return CAST_FIELDS
    if out.number >= symbols + CAST_PARITIES * cast_blocks(symbols):
        return CAST_FIELDS
    if size - CAST_HEADER != cast_symbol_size(out.stored, s.symbol, symbols, out.number):
        return CAST_LENGTH
    out.payload = data + CAST_HEADER
    out.size = <uint32_t>(size - CAST_HEADER)
    return CAST_OK


cdef int cast_get_mark(const uint8_t *data, size_t size, const CastSession *s, CastMark *out) noexcept nogil:
    cdef int reason = _fixed(data, size, s, CAST_MARK)
    if reason != CAST_OK:
        return reason
    out.sequence = load_be32(data + 12)
    out.live = load_be32(data + 16)
    out.period = load_be16(data + 20)
    out.spread = load_be16(data + 22)
    out.kind = data[24]
    if out.period == 0 or out.kind < CAST_ALIVE or out.kind > CAST_REPORT_NOW:
        return CAST_FIELDS
    return CAST_OK


cdef int cast_get_order(const uint8_t *data, size_t size, const CastSession *s, CastOrder *out) noexcept nogil:
    cdef int reason = _fixed(data, size, s, CAST_ORDER)
    if reason != CAST_OK:
        return reason
    out.receiver = load_be32(data + 12)
    out.number = load_be32(data + 16)
    out.order = data[20]
    out.reason = data[21]
    if out.order < CAST_ORDER_HTTP or out.order > CAST_ORDER_UNKNOWN:
        return CAST_FIELDS
    return CAST_OK


cdef int cast_get_report(const uint8_t *data, size_t size, const CastSession *s, CastReport *out) noexcept nogil:
    cdef int reason = _common(data, size, s, CAST_REPORT)
    if reason != CAST_OK:
        return reason
    if size < CAST_REPORT_HEADER + CAST_MAC_BYTES or size > CAST_REPORT_LARGEST:
        return CAST_LENGTH
    if _mac_differs(s, data, size - CAST_MAC_BYTES):
        return CAST_MAC
    out.receiver = load_be32(data + 12)
    out.number = load_be32(data + 16)
    out.part = data[20]
    out.parts = data[21]
    out.flags = load_be16(data + 22)
    out.highest = load_be32(data + 24)
    out.received = load_be32(data + 28)
    out.expected = load_be32(data + 32)
    out.written = load_be32(data + 36)
    out.wrong = load_be32(data + 40)
    out.disk_rate = load_be32(data + 44)
    out.disk_queue = load_be16(data + 48)
    out.refused = load_be32(data + 52)
    out.begin = load_be32(data + 56)
    out.stop = load_be32(data + 60)
    out.entries = data + CAST_REPORT_HEADER
    out.size = <uint32_t>(size - CAST_REPORT_HEADER - CAST_MAC_BYTES)
    if out.part >= out.parts or out.parts > CAST_MOST_PARTS or out.begin > out.stop or out.disk_queue > 1000:
        return CAST_FIELDS
    return CAST_OK if _entries_in_order(out) else CAST_ENTRIES


cdef bint _symbols_in_order(const CastWant *want) noexcept nogil:
    # Runs ascend, do not touch and stay below CAST_MOST_SYMBOLS; a bitmap has a bit, and none beyond its size.
    cdef uint32_t i, first, count
    cdef uint32_t at = 0
    cdef uint8_t any_bit = 0
    if want.kind == CAST_RUNS:
        for i in range(want.count):
            first = load_be16(want.octets + 4 * i)
            count = load_be16(want.octets + 4 * i + 2)
            if count == 0 or first + count > CAST_MOST_SYMBOLS or (i and first <= at):
                return False
            at = first + count
        return True
    for i in range((want.count + 7) >> 3):
        any_bit |= want.octets[i]
    return any_bit != 0 and (want.count & 7 == 0 or want.octets[want.count >> 3] >> (want.count & 7) == 0)


cdef bint _entries_in_order(const CastReport *report) noexcept nogil:
    cdef CastWants wants = cast_wants(report)
    cdef CastWant want
    cdef uint64_t at = report.begin
    while wants.p != wants.end:
        if not _take_entry(&wants, &want) or want.chunk < at:
            return False
        at = <uint64_t>want.chunk + (want.count if want.kind == CAST_WHOLE else 1)
        if at > report.stop or (want.kind != CAST_WHOLE and not _symbols_in_order(&want)):
            return False
    return True


cdef bint _take_entry(CastWants *wants, CastWant *want) noexcept nogil:
    # The entry at the cursor; False when it is cut, empty or of an unknown kind.
    cdef size_t left = wants.end - wants.p
    cdef size_t size
    cdef const uint8_t *p = wants.p
    if left < RUNS_BYTES:
        return False
    want.kind = p[0]
    want.chunk = load_be32(p + 1)
    want.octets = NULL
    if want.kind == CAST_WHOLE:
        size = WHOLE_BYTES
        if left < size:
            return False
        want.count = load_be32(p + 5)
    elif want.kind == CAST_RUNS:
        want.count = p[5]
        want.octets = p + RUNS_BYTES
        size = RUNS_BYTES + 4 * <size_t>want.count
    elif want.kind == CAST_BITMAP and left >= BITMAP_BYTES:
        want.count = load_be16(p + 5)
        want.octets = p + BITMAP_BYTES
        size = BITMAP_BYTES + ((<size_t>want.count + 7) >> 3)
        if want.count > CAST_MOST_SYMBOLS:
            return False
    else:
        return False
    if want.count == 0 or left < size:
        return False
    wants.p = p + size
    return True


cdef CastWants cast_wants(const CastReport *report) noexcept nogil:
    cdef CastWants wants
    wants.p = report.entries
    wants.end = report.entries + report.size
    return wants


cdef bint cast_next_want(CastWants *wants, CastWant *want) noexcept nogil:
    return wants.p != wants.end and _take_entry(wants, want)


cdef void cast_want_symbols(const CastWant *want, uint64_t *words, size_t symbols) noexcept nogil:
    cdef uint32_t i
    cdef size_t first, stop
    if want.kind == CAST_BITMAP:
        bits_add_octets(words, symbols, want.octets, want.count)
    elif want.kind == CAST_RUNS:
        for i in range(want.count):
            first = load_be16(want.octets + 4 * i)
            stop = first + load_be16(want.octets + 4 * i + 2)
            bits_set_run(words, first, stop if stop < symbols else symbols)


# What goes out --------------------------------------------------------------------------------------------------------

cdef void _put_common(uint8_t *out, const CastSession *s, uint8_t kind) noexcept nogil:
    out[0] = CAST_MAGIC_BYTE
    out[1] = CAST_VERSION_BYTE
    out[2] = kind
    out[3] = 0
    store_be64(out + 4, s.session)


cdef void cast_put_data(uint8_t *out, const CastSession *s, const CastData *data) noexcept nogil:
    _put_common(out, s, CAST_DATA)
    store_be32(out + 12, data.sequence)
    store_be32(out + 16, data.chunk)
    store_be32(out + 20, data.stored)
    store_be16(out + 24, data.number)
    store_be16(out + 26, data.symbols)
    _sign(out, s, CAST_HEADER - CAST_MAC_BYTES)


cdef void cast_put_mark(uint8_t *out, const CastSession *s, const CastMark *mark) noexcept nogil:
    memset(out, 0, CAST_HEADER)
    _put_common(out, s, CAST_MARK)
    store_be32(out + 12, mark.sequence)
    store_be32(out + 16, mark.live)
    store_be16(out + 20, mark.period)
    store_be16(out + 22, mark.spread)
    out[24] = mark.kind
    _sign(out, s, CAST_HEADER - CAST_MAC_BYTES)


cdef void cast_put_order(uint8_t *out, const CastSession *s, const CastOrder *order) noexcept nogil:
    memset(out, 0, CAST_HEADER)
    _put_common(out, s, CAST_ORDER)
    store_be32(out + 12, order.receiver)
    store_be32(out + 16, order.number)
    out[20] = order.order
    out[21] = order.reason
    _sign(out, s, CAST_HEADER - CAST_MAC_BYTES)


cdef void cast_report_begin(CastReportWriter *w, uint8_t *out, size_t limit) noexcept nogil:
    if limit > CAST_REPORT_LARGEST:
        limit = CAST_REPORT_LARGEST
    w.out = out
    w.p = out + CAST_REPORT_HEADER
    w.end = out + limit - CAST_MAC_BYTES
    w.whole = NULL


cdef bint cast_report_whole(CastReportWriter *w, uint32_t chunk, uint32_t count) noexcept nogil:
    cdef uint32_t before
    if w.whole != NULL:
        before = load_be32(w.whole + 5)
        if load_be32(w.whole + 1) + before == chunk:
            store_be32(w.whole + 5, before + count)
            return True
    if w.end - w.p < WHOLE_BYTES:
        return False
    w.whole = w.p
    w.p[0] = CAST_WHOLE
    store_be32(w.p + 1, chunk)
    store_be32(w.p + 5, count)
    w.p += WHOLE_BYTES
    return True


cdef bint cast_report_partial(CastReportWriter *w, uint32_t chunk, const uint64_t *missing, size_t symbols
                              ) noexcept nogil:
    cdef size_t bitmap = BITMAP_BYTES + ((symbols + 7) >> 3)
    cdef size_t left = w.end - w.p
    cdef size_t begin = 0
    cdef size_t stop = 0
    cdef size_t runs = 0
    cdef size_t size
    while runs <= MOST_RUNS and bits_run(missing, symbols, &begin, &stop):
        runs += 1
        begin = stop
    size = RUNS_BYTES + 4 * runs
    if runs > MOST_RUNS or size > bitmap:
        size = bitmap
    if size > left:
        return False
    store_be32(w.p + 1, chunk)
    if size == bitmap:
        w.p[0] = CAST_BITMAP
        store_be16(w.p + 5, <uint16_t>symbols)
        bits_to_octets(missing, symbols, w.p + BITMAP_BYTES)
    else:
        w.p[0] = CAST_RUNS
        w.p[5] = <uint8_t>runs
        _put_runs(w.p + RUNS_BYTES, missing, symbols)
    w.p += size
    w.whole = NULL
    return True


cdef void _put_runs(uint8_t *out, const uint64_t *missing, size_t symbols) noexcept nogil:
    cdef size_t begin = 0
    cdef size_t stop = 0
    while bits_run(missing, symbols, &begin, &stop):
        store_be16(out, <uint16_t>begin)
        store_be16(out + 2, <uint16_t>(stop - begin))
        out += 4
        begin = stop


cdef size_t cast_report_end(CastReportWriter *w, const CastSession *s, const CastReport *report) noexcept nogil:
    cdef uint8_t *out = w.out
    cdef size_t size = w.p - out
    _put_common(out, s, CAST_REPORT)
    store_be32(out + 12, report.receiver)
    store_be32(out + 16, report.number)
    out[20] = report.part
    out[21] = report.parts
    store_be16(out + 22, report.flags)
    store_be32(out + 24, report.highest)
    store_be32(out + 28, report.received)
    store_be32(out + 32, report.expected)
    store_be32(out + 36, report.written)
    store_be32(out + 40, report.wrong)
    store_be32(out + 44, report.disk_rate)
    store_be16(out + 48, report.disk_queue)
    store_be16(out + 50, 0)
    store_be32(out + 52, report.refused)
    store_be32(out + 56, report.begin)
    store_be32(out + 60, report.stop)
    _sign(out, s, size)
    return size + CAST_MAC_BYTES


# As Python sees it ----------------------------------------------------------------------------------------------------

class Session(NamedTuple):
    """What both sides know: the id, the key of 16 bytes, bytes of a symbol."""

    id: int
    key: bytes
    symbol: int


class Data(NamedTuple):
    """DATA: one symbol of a frame."""

    sequence: int
    chunk: int
    stored: int
    number: int
    symbols: int
    payload: bytes


class Mark(NamedTuple):
    """MARK: the sender lives; kind 1 alive, 2 report now."""

    sequence: int
    live: int
    period: int
    spread: int
    kind: int


class Report(NamedTuple):
    """REPORT, one part. `wants`: (first, count) for chunks missing whole, (chunk, runs) for one that lacks symbols."""

    receiver: int
    number: int
    part: int
    parts: int
    flags: int
    highest: int
    received: int
    expected: int
    written: int
    wrong: int
    disk_rate: int
    disk_queue: int
    refused: int
    begin: int
    stop: int
    wants: tuple


class Order(NamedTuple):
    """ORDER: what a receiver is told in answer to a report."""

    receiver: int
    number: int
    order: int
    reason: int


cdef int _session(object session, CastSession *out) except -1:
    cdef bytes key = session.key
    if len(key) != 16 or not 1 <= session.symbol <= CAST_LARGEST_SYMBOL:
        raise ValueError("a key has 16 bytes, a symbol from 1 to 8916")
    out.session = session.id
    memcpy(out.key, <const char *>key, 16)
    out.symbol = session.symbol
    return 0


cdef tuple _python_wants(const CastReport *report):
    cdef CastWants wants = cast_wants(report)
    cdef CastWant want
    cdef uint64_t words[CAST_SYMBOL_WORDS]
    cdef size_t begin, stop
    found = []
    while cast_next_want(&wants, &want):
        if want.kind == CAST_WHOLE:
            found.append((want.chunk, want.count))
            continue
        memset(words, 0, sizeof(words))
        cast_want_symbols(&want, words, CAST_MOST_SYMBOLS)
        runs = []
        begin = 0
        while bits_run(words, CAST_MOST_SYMBOLS, &begin, &stop):
            runs.append((begin, stop - begin))
            begin = stop
        found.append((want.chunk, tuple(runs)))
    return tuple(found)


cdef object _decode(const uint8_t *data, size_t size, const CastSession *s):
    cdef uint8_t kind = 0
    cdef uint64_t session = 0
    cdef CastData d
    cdef CastMark m
    cdef CastReport r
    cdef CastOrder o
    cdef int reason = cast_peek(data, size, &kind, &session)
    if reason == CAST_OK:
        if kind == CAST_DATA:
            reason = cast_get_data(data, size, s, &d)
            if reason == CAST_OK:
                return Data(d.sequence, d.chunk, d.stored, d.number, d.symbols, d.payload[:d.size])
        elif kind == CAST_MARK:
            reason = cast_get_mark(data, size, s, &m)
            if reason == CAST_OK:
                return Mark(m.sequence, m.live, m.period, m.spread, m.kind)
        elif kind == CAST_REPORT:
            reason = cast_get_report(data, size, s, &r)
            if reason == CAST_OK:
                return Report(r.receiver, r.number, r.part, r.parts, r.flags, r.highest, r.received, r.expected,
                              r.written, r.wrong, r.disk_rate, r.disk_queue, r.refused, r.begin, r.stop,
                              _python_wants(&r))
        else:
            reason = cast_get_order(data, size, s, &o)
            if reason == CAST_OK:
                return Order(o.receiver, o.number, o.order, o.reason)
    return REASONS[reason]


def decode(data: bytes | bytearray | memoryview, session: Session) -> Data | Mark | Report | Order | str:
    """The datagram in `data`, or the reason why it is refused (one of REASONS). ValueError: `session` is none."""
    cdef CastSession s
    cdef Py_buffer view
    _session(session, &s)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _decode(<const uint8_t *>view.buf, view.len, &s)
    finally:
        PyBuffer_Release(&view)


def mac(data: bytes, session: Session) -> bytes:
    """The MAC of `data`: SipHash-2-4, 8 bytes."""
    cdef CastSession s
    cdef uint8_t out[CAST_MAC_BYTES]
    _session(session, &s)
    store_be64(out, cast_mac(&s, <const uint8_t *><const char *>data, len(data)))
    return out[:CAST_MAC_BYTES]


def encode_data(data: Data, session: Session) -> bytes:
    """A DATA datagram; nothing is checked but that the fields fit."""
    cdef CastSession s
    cdef CastData d
    cdef uint8_t out[CAST_HEADER]
    _session(session, &s)
    d.sequence, d.chunk, d.stored, d.number, d.symbols = data[:5]
    cast_put_data(out, &s, &d)
    return out[:CAST_HEADER] + data.payload


def encode_mark(mark: Mark, session: Session) -> bytes:
    """A MARK datagram."""
    cdef CastSession s
    cdef CastMark m
    cdef uint8_t out[CAST_HEADER]
    _session(session, &s)
    m.sequence, m.live, m.period, m.spread, m.kind = mark
    cast_put_mark(out, &s, &m)
    return out[:CAST_HEADER]


def encode_order(order: Order, session: Session) -> bytes:
    """An ORDER datagram."""
    cdef CastSession s
    cdef CastOrder o
    cdef uint8_t out[CAST_HEADER]
    _session(session, &s)
    o.receiver, o.number, o.order, o.reason = order
    cast_put_order(out, &s, &o)
    return out[:CAST_HEADER]


cdef bint _add_want(CastReportWriter *w, tuple want, size_t symbols) except -1:
    cdef uint64_t words[CAST_SYMBOL_WORDS]
    if isinstance(want[1], int):
        return cast_report_whole(w, want[0], want[1])
    memset(words, 0, sizeof(words))
    for first, count in want[1]:
        if not 0 <= first < first + count <= symbols:
            raise ValueError(f"no run of symbols below {symbols}: {first}, {count}")
        bits_set_run(words, first, first + count)
    if not bits_count(words, symbols):
        raise ValueError("a chunk that lacks nothing is not named")
    return cast_report_partial(w, want[0], words, symbols)


def encode_report(report: Report, session: Session, symbols: int = CAST_MOST_SYMBOLS) -> bytes:
    """A REPORT datagram; `symbols`: source symbols of the frames that are partly there.

    Raises ValueError for runs of symbols that are none, OverflowError when the entries need more than one part.
    """
    cdef CastSession s
    cdef CastReport r
    cdef CastReportWriter w
    cdef uint8_t out[CAST_REPORT_LARGEST]
    if not 0 < symbols <= CAST_MOST_SYMBOLS:
        raise ValueError(f"symbols: {symbols}")
    _session(session, &s)
    (r.receiver, r.number, r.part, r.parts, r.flags, r.highest, r.received, r.expected, r.written, r.wrong,
     r.disk_rate, r.disk_queue, r.refused, r.begin, r.stop) = report[:15]
    cast_report_begin(&w, out, CAST_REPORT_LARGEST)
    for want in report.wants:
        if not _add_want(&w, want, symbols):
            raise OverflowError("the entries need more than one part")
    cdef size_t size = cast_report_end(&w, &s, &r)
    return out[:size]
