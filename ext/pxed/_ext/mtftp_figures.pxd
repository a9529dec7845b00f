"""What a GroupSender tells about itself: its counters, and whom it serves."""

from libc.stdint cimport uint64_t

from pxed._ext.mtftp_groups cimport Counters
from pxed._ext.mtftp_members cimport Member
from pxed._ext.tftp_figures cimport Running

# The members in the buckets from `after` on, at most LISTED. Returns how many; `after`: where to go on, 0 at the end.
cdef size_t list_members(Member **buckets, size_t *after, Running *running, uint64_t now) noexcept nogil
cdef dict counters_dict(const Counters *counters, size_t groups, size_t members, size_t unproven)
