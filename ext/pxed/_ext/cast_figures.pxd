"""What a CastSender tells about itself: records of sessions and receivers, and its counters."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pxed._ext.cast_intake cimport DROPS
from pxed._ext.cast_session cimport Session

cdef enum:
    LISTED = 256                 # receivers in one listing

cdef enum TellingKind:
    TELL_LISTING
    TELL_UNREADABLE              # `value`: the chunk, `error`: its errno
    TELL_CLOSED
    TELL_REFUSED                 # an order came to nothing; `error`: errno


# The beginning of an EVENT_OWN's data; a listing has figures behind it.
cdef struct Telling:
    TellingKind kind
    uint32_t error
    uint64_t session
    uint64_t value
    uint32_t count               # receivers in the listing
    uint32_t after               # where the next goes on; 0 at the end


cdef struct SessionFigures:
    uint64_t rate
    uint64_t sequence
    uint64_t passes
    uint64_t sent
    uint64_t repaired
    uint64_t parity
    uint64_t needed
    uint64_t bytes
    uint64_t marks
    uint64_t reports
    uint64_t stale_wants
    double loss
    uint32_t chunks
    uint32_t wanted
    uint32_t repairs
    uint32_t unreadable
    uint32_t receivers
    uint32_t live
    bint held
    bint closing


cdef struct ReceiverFigures:
    double loss
    uint64_t quiet               # ns since its last report; UINT64_MAX: there was none
    uint32_t number
    uint8_t address[4]
    uint32_t state
    uint32_t written
    uint32_t wanted
    uint32_t wrong
    uint32_t received
    uint32_t expected
    uint32_t refused
    uint32_t refused_lately
    uint32_t disk_rate
    uint16_t disk_queue
    uint16_t flags
    uint8_t order
    uint8_t reason


cdef struct ListingFigures:
    Telling telling
    SessionFigures session
    ReceiverFigures receivers[LISTED]


cdef struct Counters:
    uint64_t received            # reports
    uint64_t orders              # told
    uint64_t data
    uint64_t bytes               # of symbols
    uint64_t repaired
    uint64_t parity
    uint64_t marks
    uint64_t opened
    uint64_t receivers           # of the sessions that there are
    uint64_t unreadable
    uint64_t drop[DROPS]


# Receivers from place `first` on. Returns the bytes of the listing that are used.
cdef size_t list_session(const Session *s, uint32_t first, ListingFigures *out, uint64_t now) noexcept nogil
cdef dict counters_dict(const Counters *counters, size_t sessions)
