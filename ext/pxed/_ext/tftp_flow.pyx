"""What a transfer learns about the way to its client: how long an answer takes, how many datagrams it takes in one go,
and how large they may be.

Retransmit timeout: RFC 6298, but in milliseconds. It doubles with each try, and progress without a measurement halves
it again (no round trip is measured on a block that was sent twice: Karn).

Bursts: a client that was granted a window acknowledges its end only (RFC 7440), so a smaller window would wait for the
client's clock. What shrinks is the burst: when a client takes the same first few blocks of window after window, its
receive ring or a switch's buffer holds no more, and from then on it gets so many at a time with a pause between. After
some windows that arrive whole the burst doubles, up to the window. Single losses, here and there, do not shrink it.

Block sizes: behind a tunnel or a wrong MTU the small packets pass and full-size DATA never arrives. The client cannot
be told in the middle of a transfer; its next request gets smaller blocks.
"""

from pxed._ext.linux_net cimport pxed_client_hash

cimport cython

cdef uint64_t MS = 1_000_000
# Until a round trip has been measured (RFC 6298 section 2.1), unless the client names its own timeout.
cdef uint64_t FIRST_TIMEOUT = 1000 * MS
# Firmware polls its NIC on timer ticks of up to 55 ms (the PC's clock) and writes progress to slow consoles.
cdef uint64_t SHORTEST_TIMEOUT = 50 * MS
# Clients give up after 5 to 30 s of silence, so several tries must fit into that.
cdef uint64_t LONGEST_TIMEOUT = 2000 * MS
# A client's limit is forgotten after this time without a request: links get repaired.
cdef uint64_t LIMIT_LASTS = 3_600_000 * MS

cdef enum:
    SAME_LOSS = 3      # windows in a row cut at the same block (give or take one): hardly ever by chance
    CALM = 32          # whole windows before a larger burst is tried; a try that fails costs a timeout, so the next
    MOST_CALM = 4096   # one waits twice as long, up to this


cdef void rto_start(Rto *rto, uint32_t client_timeout) noexcept nogil:
    rto.timeout = client_timeout * 1000 * MS if client_timeout else FIRST_TIMEOUT


cdef void rto_measure(Rto *rto, uint64_t rtt) noexcept nogil:
    # RFC 6298 section 2 in integers.
    cdef uint64_t error = rtt - rto.srtt if rtt > rto.srtt else rto.srtt - rtt
    if rto.srtt == 0:
        rto.srtt = rtt
        rto.rttvar = rtt // 2
    else:
        rto.rttvar = (3 * rto.rttvar + error) // 4
        rto.srtt = (7 * rto.srtt + rtt) // 8
    rto.timeout = _measured(rto)


cdef uint64_t _measured(const Rto *rto) noexcept nogil:
    return max(SHORTEST_TIMEOUT, min(rto.srtt + 4 * rto.rttvar, LONGEST_TIMEOUT))


cdef void rto_progress(Rto *rto) noexcept nogil:
    # No clean measurement, but progress: take the back-off back by halves, in case the path became slow.
    if rto.srtt != 0:
        rto.timeout = max(rto.timeout // 2, _measured(rto))


cdef void rto_back_off(Rto *rto) noexcept nogil:
    if rto.timeout < LONGEST_TIMEOUT:  # the client's own choice may be longer
        rto.timeout = min(rto.timeout * 2, LONGEST_TIMEOUT)


cdef bint burst_progress(Burst *burst, uint64_t taken, uint16_t window, bint whole) noexcept nogil:
    burst.sent = 0
    if whole:
        burst.times = 0
        burst.calm += burst.size < window
        if burst.size < window and burst.calm >= burst.patience:
            burst.calm = 0
            burst.times = SAME_LOSS - 1  # if the first window comes short in the old place, that was too much again
            burst.taken = burst.size
            burst.size = min(2 * burst.size, window)
        return False
    if burst.times != 0 and taken <= <uint64_t>burst.taken + 1 and burst.taken <= taken + 1:
        burst.times += 1
        burst.taken = <uint16_t>min(taken, burst.taken)
    else:
        burst.times = 1
        burst.taken = <uint16_t>min(taken, window)
    if burst.times < SAME_LOSS or burst.taken == 0 or burst.taken >= burst.size:
        return False
    burst.size = burst.taken
    burst.times = 0
    burst.calm = 0
    burst.patience = min(2 * burst.patience, MOST_CALM) if burst.patience else CALM
    return True


@cython.final
@cython.no_gc
cdef class BlockSizes:
    """The largest blocks for clients that full-size ones do not reach. One entry per hash of an address, the later
    one wins: bounded, and at worst a client gets smaller blocks than it could, or meets the hole once more.
    """

    def __cinit__(self, uint64_t seed=0):
        self.seed = seed

    cdef Limit *_at(self, const pxed_path *path, uint64_t *client) noexcept nogil:
        client[0] = pxed_client_hash(path, self.seed)
        return &self.limits[client[0] % REMEMBERED]

    cdef uint16_t largest(self, const pxed_path *path, uint64_t now) noexcept nogil:
        cdef uint64_t client
        cdef Limit *limit = self._at(path, &client)
        if limit.blksize == 0 or limit.client != client:
            return 0xffff
        if now >= limit.until:
            limit.blksize = 0
            return 0xffff
        limit.until = now + LIMIT_LASTS
        return limit.blksize

    cdef bint lower(self, const pxed_path *path, uint16_t blksize, uint64_t now) noexcept nogil:
        cdef uint64_t client
        cdef Limit *limit = self._at(path, &client)
        if blksize <= 512:
            return False
        limit.client = client
        limit.until = now + LIMIT_LASTS
        limit.blksize = 1024 if blksize > 1024 else 512
        return True

    cdef void forget(self, const pxed_path *path) noexcept nogil:
        cdef uint64_t client
        cdef Limit *limit = self._at(path, &client)
        if limit.client == client:
            limit.blksize = 0
