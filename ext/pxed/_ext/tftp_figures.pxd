"""What a TftpSender tells about itself: its counters, and what runs."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from pxed._ext.linux_net cimport pxed_path
from pxed._ext.sender cimport Event
from pxed._ext.tftp_sender cimport Counters
from pxed._ext.tftp_table cimport Transfer

cdef enum:
    # One listing tells of this many transfers and looks at this many places of the table: some 20 us and 40 KB.
    LISTED = 256
    LOOKED_AT = 4096

cdef struct Running:
    # One record of EVENT_LISTING.
    pxed_path path
    uint64_t id
    uint64_t bytes               # acknowledged
    uint64_t whole
    uint64_t retransmits
    uint64_t age                 # ns since the request
    uint64_t quiet               # ns since the last progress
    uint64_t srtt                # ns; 0: not measured yet
    uint16_t blksize
    uint16_t windowsize
    uint16_t burst
    uint8_t state                # enumeration State of tftp_table.pxd


# The transfers in the slots from `after` on, at most LISTED. Returns how many; `after`: where to go on, 0 at the end.
cdef size_t list_running(Transfer **slots, size_t count, size_t *after, Running *running, uint64_t now) noexcept nogil
# Fills the event of a transfer's end; `whole`: the client has all that was sent.
cdef void end_figures(Event *event, const Transfer *t, bint whole, uint64_t now) noexcept nogil
cdef dict counters_dict(const Counters *counters, size_t running, size_t asked)
