"""What a GroupSender tells about itself: its counters, and whom it serves. No I/O."""

from pxed._ext.tftp_figures import OUTCOME_NAMES

from libc.string cimport memset

from pxed._ext.mtftp_members cimport BUCKETS
from pxed._ext.tftp_figures cimport LISTED
from pxed._ext.tftp_table cimport STATE_OPTIONS, STATE_SENDING

# In the order of the enumeration in mtftp_groups.pxd.
DROP_NAMES = ("malformed", "opcode", "unknown-peer", "stale-ack", "slave-ack", "no-memory", "busy", "stranger")


cdef size_t list_members(Member **buckets, size_t *after, Running *running, uint64_t now) noexcept nogil:
    cdef Running *one
    cdef Member *m
    cdef size_t count = 0
    cdef size_t bucket = after[0]
    while bucket < BUCKETS and count < LISTED // 2:  # the last bucket has room for all of any sane chain
        m = buckets[bucket]
        while m is not NULL and count < LISTED:
            one = &running[count]
            memset(one, 0, sizeof(Running))
            one.id = m.id
            one.path = m.path
            one.state = STATE_SENDING if m.answered else STATE_OPTIONS
            one.whole = m.group.blob.size
            one.bytes = min(m.asked * m.group.blksize, one.whole)
            one.retransmits = m.retransmits
            one.age = now - m.started
            one.quiet = now - max(m.answered_at, m.started)
            one.srtt = m.group.rto.srtt if m.group.master == m else 0
            one.blksize = m.group.blksize
            one.windowsize = one.burst = 1
            count += 1
            m = m.chain
        bucket += 1
    after[0] = bucket if bucket < BUCKETS else 0
    return count


cdef dict counters_dict(const Counters *counters, size_t groups, size_t members, size_t unproven):
    """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
    statistics = {
        "groups": groups,
        "running": members,
        "unproven": unproven,
        "joined": counters.joined,
        "datagrams": counters.datagrams,
        "bytes": counters.bytes,
        "unicast_bytes": counters.unicast_bytes,
        "retransmits": counters.retransmits,
        "timeouts": counters.timeouts,
        "elections": counters.elections,
        "silent_masters": counters.silent_masters,
        "slow_masters": counters.slow_masters,
        "deaf": counters.deaf,
    }
    statistics.update({f"outcome.{name}": counters.outcome[i] for i, name in enumerate(OUTCOME_NAMES)})
    statistics.update({f"drop.{name}": counters.drop[i] for i, name in enumerate(DROP_NAMES)})
    return statistics
