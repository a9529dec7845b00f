"""Reports on their way in: whose they are, what they say of their receiver, and that they can be believed."""

from libc.stdint cimport uint64_t

from pxed._ext.cast cimport CAST_REASONS, CastReport
from pxed._ext.cast_session cimport Receiver, Session
from pxed._ext.linux_net cimport pxed_path

# Why a datagram changed nothing, beside the reasons of the codec. Names: DROP_NAMES in cast_figures.pyx.
cdef enum DropReason:
    DROP_NOT_A_REPORT = CAST_REASONS     # DATA, MARK or ORDER: a sender takes none
    DROP_NO_SESSION
    DROP_RECEIVER                        # was not admitted
    DROP_ADDRESS                         # not the one that was admitted
    DROP_STALE                           # older than one that came before
    DROP_REPEATED                        # this part came already
    DROP_FUTURE                          # speaks of DATA that was not sent yet
    DROP_CHUNKS                          # chunks or symbols that do not exist
    DROP_NO_MEMORY
    DROPS


# Takes a well-formed part; `r` is its receiver, NULL when there is none. CAST_OK, or why it changed nothing.
cdef int report_take(Session *s, Receiver *r, const CastReport *report, const pxed_path *path, uint64_t now
                     ) noexcept nogil
