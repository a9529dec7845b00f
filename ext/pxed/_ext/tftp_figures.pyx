"""What a TftpSender tells about itself: its counters, and what runs. No I/O."""

# In the order of the enumerations in tftp_table.pxd and tftp_sender.pxd.
STATE_NAMES = ("asked", "queued", "options", "sending", "ended")
OUTCOME_NAMES = (
    "ok", "probe", "closed", "client-error", "timeout", "no-answer", "refused", "superseded", "abandoned",
    "evicted", "moved",
)
DROP_NAMES = (
    "malformed", "opcode", "unknown-peer", "stale-ack", "merged", "busy", "no-memory", "control-full",
    "stranger",
)


cdef size_t list_running(Transfer **slots, size_t count, size_t *after, Running *running, uint64_t now) noexcept nogil:
    cdef Transfer *t
    cdef Running *one
    cdef size_t found = 0
    cdef size_t slot = min(after[0], count)
    cdef size_t stop = min(slot + LOOKED_AT, count)
    while slot < stop and found < LISTED:
        t = slots[slot]
        slot += 1
        if t is NULL:
            continue
        one = &running[found]
        found += 1
        one.path = t.path
        one.id = t.id
        one.whole = t.blob.size if t.blob is not NULL else 0
        one.bytes = min(t.acked * t.blksize, one.whole)
        one.retransmits = t.retransmits
        one.age = now - t.started
        one.quiet = now - t.progress_at
        one.srtt = t.rto.srtt
        one.blksize = t.blksize
        one.windowsize = t.windowsize
        one.burst = t.burst.size
        one.state = t.state
    after[0] = slot if slot < count else 0
    return found


cdef void end_figures(Event *event, const Transfer *t, bint whole, uint64_t now) noexcept nogil:
    event.whole = t.blob.size if t.blob is not NULL else 0
    event.blocks = t.high - 1 if whole else t.acked
    event.bytes = min(event.blocks * t.blksize, event.whole)
    event.retransmits = t.retransmits
    event.duration = now - t.started
    event.answered = t.answered
    event.blksize = t.blksize
    event.windowsize = t.windowsize
    event.burst = t.burst.size


cdef dict counters_dict(const Counters *counters, size_t running, size_t asked):
    """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
    statistics = {
        "running": running,
        "asked": asked,
        "requests": counters.requests,
        "datagrams": counters.datagrams,
        "bytes": counters.bytes,
        "retransmits": counters.retransmits,
        "go_backs": counters.go_backs,
        "timeouts": counters.timeouts,
        "bursts_shrunk": counters.bursts_shrunk,
        "blksize_lowered": counters.blksize_lowered,
        "writes_refused": counters.writes_refused,
    }
    statistics.update({f"outcome.{name}": counters.outcome[i] for i, name in enumerate(OUTCOME_NAMES)})
    statistics.update({f"drop.{name}": counters.drop[i] for i, name in enumerate(DROP_NAMES)})
    return statistics
