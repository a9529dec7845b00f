"""Who wants what: bits of whole chunks and claims of symbols, with their counts. Rules: cast_wants.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from pxed._ext.cast cimport CastReport
from pxed._ext.cast_session cimport Claim, Receiver, Session

# Chunks [begin, stop): those that were not sent since sequence `heard` are wanted whole, or no longer.
cdef bint wants_set_run(Session *s, Receiver *r, uint32_t begin, uint32_t stop, uint64_t heard) noexcept nogil
cdef void wants_clear_run(Session *s, Receiver *r, uint32_t begin, uint32_t stop) noexcept nogil
cdef void claims_forget(Session *s, Receiver *r, uint32_t begin, uint32_t stop) noexcept nogil
# A report's part that is known to be well-formed and of this session; `heard`: sequence it speaks of.
cdef void wants_merge(Session *s, Receiver *r, const CastReport *report, uint64_t heard) noexcept nogil
# The chunk is going to be sent whole, or what is claimed of it: nobody wants it any more until they say so again.
cdef void chunk_unwant(Session *s, uint32_t chunk) noexcept nogil
# The chunk cannot be read: nobody gets it from here. `failed` is to be told.
cdef void chunk_give_up(Session *s, uint32_t chunk) noexcept nogil
cdef void claim_free(Session *s, Claim *claim) noexcept nogil
# Whether the wants of a report fit the image.
cdef bint wants_fit(const Session *s, const CastReport *report) noexcept nogil
# What the counts should be, found anew: the number of counts that are wrong.
cdef size_t wants_audit(const Session *s) noexcept nogil
