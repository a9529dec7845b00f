"""What a session sends next: repairs, and the walk. Rules: cast_jobs.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from pxed._ext.cast_session cimport Job, Session

# The job whose turn it is. NULL: nothing can be sent now; `send_at` says when to look again if a disk is waited for,
# and `failed` which chunk cannot be read.
cdef Job *job_choose(Session *s, uint64_t now) noexcept nogil
# A symbol of it was sent, the last one of its chunk maybe.
cdef void job_sent(Session *s, Job *job, uint64_t now) noexcept nogil
# The kernel could not read bytes of a chunk that were in memory: it is not sent any further.
cdef void job_unsent(Session *s, uint32_t chunk) noexcept nogil
# All that is claimed is to be repaired now, whoever has not spoken.
cdef void repairs_promote_all(Session *s) noexcept nogil
