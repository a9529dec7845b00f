# Cursors over bytes that belong to somebody else: a reader and a writer, C structs with inline functions.
#
# Rules: a cursor never leaves [p, end]. An access that would do so does nothing, gives zeros, and sets `bad`;
# `bad` never goes back, so a codec may make all its accesses first and look once. No function raises or needs the GIL.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset


cdef extern from "endian_pxed.h" nogil:
    uint16_t load_be16 "pxed_load_be16"(const uint8_t *p)
    uint32_t load_be32 "pxed_load_be32"(const uint8_t *p)
    uint64_t load_be64 "pxed_load_be64"(const uint8_t *p)
    void store_be16 "pxed_store_be16"(uint8_t *p, uint16_t v)
    void store_be32 "pxed_store_be32"(uint8_t *p, uint32_t v)
    void store_be64 "pxed_store_be64"(uint8_t *p, uint64_t v)


ctypedef struct Reader:
    const uint8_t *p
    const uint8_t *end
    bint bad


ctypedef struct Writer:
    uint8_t *p
    uint8_t *end
    bint bad


cdef inline Reader reader(const void *data, size_t size) noexcept nogil:
    cdef Reader r
    r.p = <const uint8_t *>data
    r.end = r.p + size
    r.bad = False
    return r


cdef inline size_t left(const Reader *r) noexcept nogil:
    return <size_t>(r.end - r.p)


# The next `size` bytes, or NULL (and `bad`) when fewer are left.
cdef inline const uint8_t *take(Reader *r, size_t size) noexcept nogil:
    cdef const uint8_t *p = r.p
    if size > left(r):
        r.p = r.end
        r.bad = True
        return NULL
    r.p += size
    return p


cdef inline uint8_t get_u8(Reader *r) noexcept nogil:
    cdef const uint8_t *p = take(r, 1)
    return p[0] if p != NULL else 0


cdef inline uint16_t get_u16(Reader *r) noexcept nogil:
    cdef const uint8_t *p = take(r, 2)
    return load_be16(p) if p != NULL else 0


cdef inline uint32_t get_u32(Reader *r) noexcept nogil:
    cdef const uint8_t *p = take(r, 4)
    return load_be32(p) if p != NULL else 0


cdef inline Writer writer(void *data, size_t size) noexcept nogil:
    cdef Writer w
    w.p = <uint8_t *>data
    w.end = w.p + size
    w.bad = False
    return w


# Room for `size` bytes, or NULL (and `bad`).
cdef inline uint8_t *room(Writer *w, size_t size) noexcept nogil:
    cdef uint8_t *p = w.p
    if size > <size_t>(w.end - w.p):
        w.bad = True
        return NULL
    w.p += size
    return p


cdef inline void put_u8(Writer *w, uint8_t v) noexcept nogil:
    cdef uint8_t *p = room(w, 1)
    if p != NULL:
        p[0] = v


cdef inline void put_u16(Writer *w, uint16_t v) noexcept nogil:
    cdef uint8_t *p = room(w, 2)
    if p != NULL:
        store_be16(p, v)


cdef inline void put_u32(Writer *w, uint32_t v) noexcept nogil:
    cdef uint8_t *p = room(w, 4)
    if p != NULL:
        store_be32(p, v)


cdef inline void put_bytes(Writer *w, const void *data, size_t size) noexcept nogil:
    cdef uint8_t *p = room(w, size)
    if p != NULL and size:
        memcpy(p, data, size)


# `data`, then zeros up to `field` bytes; data longer than the field is `bad`.
cdef inline void put_field(Writer *w, const void *data, size_t size, size_t field) noexcept nogil:
    cdef uint8_t *p
    if size > field:
        w.bad = True
        return
    p = room(w, field)
    if p == NULL:
        return
    if size:
        memcpy(p, data, size)
    memset(p + size, 0, field - size)
