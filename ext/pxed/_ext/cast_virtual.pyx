"""A cast session in virtual time: the sender, receivers by the hundred, and the lines between them.

The state machines are the real ones; what lies between is made of chance with fixed seeds: loss, one by one or in
bursts, at one line or at all of them, narrow switch ports, datagrams that come twice or late, slow disks, machines that
join late or die. A datagram is decoded once and heard by all; frames of most receivers are counted without their
bytes, so that a thousand receivers fit in seconds and in memory. For tests and for the bench.
"""

import heapq
import os
import random
from array import array

from libc.math cimport log, log1p
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from pxed._ext.cast cimport (
    CAST_DATA, CAST_HEADER, CAST_LARGEST_SYMBOL, CAST_MARK, CAST_OK, CAST_REPORT_LARGEST, CastData, CastMark,
    CastOrder, CastSession, cast_get_data, cast_get_mark, cast_get_order, cast_symbols,
)
from pxed._ext.cast_assembler cimport CastAssembler
from pxed._ext.cast_frames cimport CastLayout, Partial, free_partial
from pxed._ext.cast_sender cimport CastSender
from pxed._ext.cast_source cimport CastSource
from pxed._ext.linux_net cimport iovec, pxed_batch, pxed_batch_clear, pxed_path, pxed_path_equal, pxed_path_parse
from pxed._ext.orders cimport Order
from pxed._ext.sender cimport Command, free_command

from pxed._ext.cast_events import admit, direct, open_session, set_rate

cimport cython

cdef enum:
    SERVER_PORT = 1759
    LATEST = 8               # datagrams that overtake one that is late, at most
    SESSION = 1

cdef uint64_t NEVER = UINT64_MAX
cdef uint64_t SECOND = 1_000_000_000
# What a datagram of a machine takes to the server and back, in ns.
cdef uint64_t LATENCY = 300_000
# A switch port holds so much, in ns of its own time.
cdef uint64_t PORT_BUFFER = 20_000_000
# So long the room goes on after the last machine is done: what the sender does not know yet costs, and counts.
cdef uint64_t SETTLE = 2 * SECOND
KEY = b"a virtual key..."


# Lines ----------------------------------------------------------------------------------------------------------------

# One that loses datagrams: `loss` of them, in bursts of `burst` on average.
cdef struct Line:
    uint64_t random
    double loss
    double burst
    uint64_t gap                 # datagrams that pass before the next are lost
    uint64_t run                 # so many


cdef uint64_t _draw(uint64_t *state) noexcept nogil:
    cdef uint64_t z
    state[0] += <uint64_t>0x9e3779b97f4a7c15
    z = state[0]
    z = (z ^ (z >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    z = (z ^ (z >> 27)) * <uint64_t>0x94d049bb133111eb
    return z ^ (z >> 31)


cdef double _chance(uint64_t *state) noexcept nogil:
    # Above 0, at most 1.
    return ((_draw(state) >> 11) + 1) / 9007199254740992.0


cdef uint64_t _tries(uint64_t *state, double p) noexcept nogil:
    # Failures before the first success.
    if p >= 1:
        return 0
    return <uint64_t>min(log(_chance(state)) / log1p(-p), 1e15)


cdef void _set_line(Line *line, uint64_t seed, double loss, double burst) noexcept nogil:
    line.random = seed
    line.loss = loss
    line.burst = burst
    line.run = 0
    if loss > 0:
        line.gap = _tries(&line.random, 1 / (1 + burst * (1 - loss) / loss))


cdef inline bint _lost(Line *line) noexcept nogil:
    if line.loss <= 0:
        return False
    if line.run == 0:
        if line.gap:
            line.gap -= 1
            return False
        line.run = 1 + _tries(&line.random, 1 / line.burst)
    line.run -= 1
    if line.run == 0:
        line.gap = _tries(&line.random, 1 / (1 + line.burst * (1 - line.loss) / line.loss))
    return True


# Machines -------------------------------------------------------------------------------------------------------------

cdef struct Machine:
    pxed_path path
    Line down
    Line up
    double duplicate
    double reorder
    double disk                  # ns for a byte; 0: no time
    double port
    uint64_t joins_at
    uint64_t dies_at
    uint64_t wrote_at            # when the frame that is being written will be
    uint64_t port_free_at
    uint64_t done_at
    Partial *writing
    uint32_t wrong
    bint joined
    bint dead
    bint keep
    uint64_t lost
    uint64_t late_in             # datagrams until the late one comes; 0: there is none
    CastData late
    uint8_t *late_symbol


@cython.final
@cython.no_gc_clear
cdef class VirtualCast:
    """An image of frames of `lengths` bytes, sent at `rate` bytes of symbols in a second. Times are seconds.

    `common`: loss at the server's own line, that is of all receivers together, in bursts of `common_burst` on average.
    """

    cdef CastSender sender
    cdef CastSource source
    cdef CastLayout layout
    cdef CastSession session
    cdef bytes content
    cdef uint64_t *offset
    cdef Machine *machines
    cdef uint32_t count
    cdef uint32_t room
    cdef list assemblers
    cdef list arrivals                   # heap of (time, count, machine, datagram)
    cdef Line line
    cdef uint64_t now
    cdef uint64_t settled                # when all are done, and what that cost is known
    cdef uint64_t seed
    cdef uint64_t reports
    cdef uint64_t report_bytes
    cdef uint64_t sent
    cdef uint64_t parity
    cdef uint64_t marks
    cdef uint64_t needed
    cdef double period
    cdef pxed_batch *batch

    def __cinit__(self, lengths: list, symbol: int, rate: int, *, seed: int = 1, period: float = 1.0,
                  common: float = 0.0, common_burst: float = 1.0, machines: int = 4096):
        self.machines = <Machine *>calloc(machines, sizeof(Machine))
        self.batch = <pxed_batch *>malloc(sizeof(pxed_batch))
        self.offset = <uint64_t *>calloc(len(lengths) + 1, sizeof(uint64_t))
        if self.machines is NULL or self.batch is NULL or self.offset is NULL:
            raise MemoryError
        self.room = machines
        self.assemblers = []
        self.arrivals = []
        self.seed = seed
        self.period = period
        self.now = SECOND
        self.settled = NEVER
        self.session.session = SESSION
        self.session.symbol = symbol
        cdef bytes key = KEY
        memcpy(self.session.key, <const char *>key, 16)
        self.layout = CastLayout(array("I", lengths))
        self.content = random.Random(seed).randbytes(sum(lengths))
        _set_line(&self.line, seed * 2 + 1, common, common_burst)
        self._open(lengths, rate)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            free(self.machines[i].late_symbol)
            if self.machines[i].writing is not NULL:
                free_partial(self.machines[i].writing)
        free(self.machines)
        free(self.offset)
        free(self.batch)

    def _open(self, list lengths, rate: int):
        cdef uint32_t i
        cdef int fd = os.memfd_create("frames", os.MFD_CLOEXEC)
        self.source = CastSource(read_ahead=False)
        try:
            with open(fd, "wb", closefd=False) as pack:
                pack.write(self.content)
            for i in range(len(lengths)):
                self.source.add(fd, self.offset[i], lengths[i])
                self.offset[i + 1] = self.offset[i] + lengths[i]
                self.needed += cast_symbols(lengths[i], self.session.symbol)
        finally:
            os.close(fd)
        self.sender = CastSender()
        self._order(open_session(SESSION, KEY, ("239.255.79.1", SERVER_PORT), self.source, rate=rate,
                                 symbol=self.session.symbol, period=self.period))

    def _order(self, Order order):
        cdef Command *command = order.take()
        self.sender.command(command, self.now)
        free_command(command)

    def add(self, *, loss: float = 0.0, burst: float = 1.0, port: float = 0.0, disk: float = 0.0, joins: float = 0.0,
            dies: float = 0.0, duplicate: float = 0.0, reorder: float = 0.0, keep: bool = False,
            memory: int = 256 << 20, queue: int = 64 << 20) -> int:
        """A machine; returns its number.

        `loss` of what comes and goes, in bursts of `burst`; `port` and `disk`: bytes in a second, 0 is no limit;
        `joins` and `dies`: when, a death at 0 never; `duplicate` and `reorder`: of the datagrams; `keep`: bytes are
        kept and compared; `memory` and `queue` as of CastAssembler. Raises ValueError when there are too many.
        """
        cdef uint32_t i = self.count
        cdef Machine *m = &self.machines[i]
        if i == self.room:
            raise ValueError(f"more than {self.room} machines")
        seed = random.Random(self.seed * 65536 + i).getrandbits(62)
        _set_line(&m.down, seed, loss, burst)
        _set_line(&m.up, seed + 1, loss, 1)
        pxed_path_parse(&m.path, f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}".encode(), SERVER_PORT, b"")
        m.duplicate = duplicate
        m.reorder = reorder
        m.disk = 1e9 / disk if disk else 0
        m.port = 1e9 / port if port else 0
        m.joins_at = self.now + <uint64_t>(joins * 1e9)
        m.dies_at = self.now + <uint64_t>(dies * 1e9) if dies else NEVER
        m.wrote_at = m.done_at = self.settled = NEVER
        m.keep = keep
        if reorder:
            m.late_symbol = <uint8_t *>malloc(self.session.symbol)
        self.assemblers.append(CastAssembler(self.layout, memory=memory, queue=queue, symbol=self.session.symbol,
                                             seed=seed & 0xffffffff, keep=keep))
        self.count += 1
        return i

    # -- time ----------------------------------------------------------------------------------------------------------

    def run(self, limit: float) -> bool:
        """Let time pass until all machines are done that live, and some seconds more, or until `limit` (seconds of the
        room's life). Whether they are done.
        """
        cdef uint64_t stop = SECOND + <uint64_t>(limit * 1e9)
        cdef uint64_t at
        while self.now < stop:
            if self.settled == NEVER and self._all_done():
                self.settled = self.now + SETTLE
            at = self._next()
            if at >= self.settled:
                return True
            self.now = max(at, self.now + 1000)
            self._arrive()
            self._turn_machines()
            if self.sender.next_timer() <= self.now:
                self.sender.on_timer(self.now)
            self._send()
        return False

    cdef bint _all_done(self):
        cdef uint32_t i
        for i in range(self.count):
            if self.machines[i].done_at == NEVER and not self.machines[i].dead:
                return False
        return True

    cdef uint64_t _next(self):
        cdef uint64_t at = self.sender.next_timer()
        cdef Machine *m
        cdef uint32_t i
        if self.arrivals:
            at = min(at, <uint64_t>self.arrivals[0][0])
        for i in range(self.count):
            m = &self.machines[i]
            if m.dead:
                continue
            if m.joined:
                at = min(at, (<CastAssembler>self.assemblers[i]).due())
            else:
                at = min(at, m.joins_at)
            at = min(at, min(m.dies_at, m.wrote_at))
        return at

    cdef _turn_machines(self):
        cdef uint32_t i
        cdef Machine *m
        for i in range(self.count):
            m = &self.machines[i]
            if m.dead:
                continue
            if m.dies_at <= self.now:
                m.dead = True
                continue
            if not m.joined and m.joins_at <= self.now:
                m.joined = True
                self._order(admit(SESSION, i, f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"))
                (<CastAssembler>self.assemblers[i]).join_session(&self.session, i, <uint64_t>(self.period * 1e9),
                                                                 self.now)
            if m.wrote_at <= self.now:
                self._written(i, m)
            if m.joined and (<CastAssembler>self.assemblers[i]).due() <= self.now:
                self._report(i, m)

    # -- to the server -------------------------------------------------------------------------------------------------

    cdef _report(self, uint32_t i, Machine *m):
        cdef uint8_t out[CAST_REPORT_LARGEST]
        cdef CastAssembler assembler = self.assemblers[i]
        cdef size_t size = assembler.speak(out, self.now)
        while size:
            self.reports += 1
            self.report_bytes += size
            if not _lost(&m.up):
                heapq.heappush(self.arrivals, (self.now + LATENCY, self.reports, i, out[:size]))
            size = assembler.speak(out, self.now)

    cdef _arrive(self):
        cdef bytes data
        while self.arrivals and self.arrivals[0][0] <= self.now:
            _, _, i, data = heapq.heappop(self.arrivals)
            self.sender.receive(<const uint8_t *><const char *>data, len(data), &self.machines[<uint32_t>i].path,
                                self.now)

    # -- from the server -----------------------------------------------------------------------------------------------

    cdef _send(self):
        cdef bint more = True
        cdef unsigned int i
        while more:
            pxed_batch_clear(self.batch)
            more = self.sender.fill(self.batch, self.now)
            for i in range(self.batch.count):
                self._pass_on(i)
            more = more and self.batch.count

    cdef _pass_on(self, unsigned int message):
        # One message, cut into datagrams: a header each, and a symbol behind it if it is DATA.
        cdef iovec *pieces = self.batch.message[message].msg_hdr.msg_iov
        cdef size_t count = self.batch.message[message].msg_hdr.msg_iovlen
        cdef uint8_t data[CAST_HEADER + CAST_LARGEST_SYMBOL]
        cdef size_t size
        cdef size_t at = 0
        while at < count:
            size = pieces[at].iov_len
            memcpy(data, pieces[at].iov_base, size)
            at += 1
            if data[2] == CAST_DATA:
                memcpy(data + size, pieces[at].iov_base, pieces[at].iov_len)
                size += pieces[at].iov_len
                at += 1
            self._datagram(data, size, &self.batch.path[message])

    cdef _datagram(self, const uint8_t *data, size_t size, const pxed_path *path):
        cdef CastData d
        cdef CastMark m
        cdef uint32_t i
        if data[2] == CAST_DATA:
            if cast_get_data(data, size, &self.session, &d) != CAST_OK:
                raise AssertionError("the sender sent what nobody understands")
            self.sent += 1
            self.parity += d.number >= d.symbols
            if not _lost(&self.line):
                for i in range(self.count):
                    if self.machines[i].joined and not self.machines[i].dead:
                        self._data(i, &self.machines[i], &d)
        elif data[2] == CAST_MARK:
            if cast_get_mark(data, size, &self.session, &m) != CAST_OK:
                raise AssertionError("the sender sent what nobody understands")
            self.marks += 1
            if not _lost(&self.line):
                for i in range(self.count):
                    if self.machines[i].joined and not self.machines[i].dead and not _lost(&self.machines[i].down):
                        (<CastAssembler>self.assemblers[i]).hear_mark(&m, self.now)
        else:
            self._tell(data, size, path)

    cdef _tell(self, const uint8_t *data, size_t size, const pxed_path *path):
        # ORDER, to one.
        cdef CastOrder order
        cdef uint32_t i
        if cast_get_order(data, size, &self.session, &order) != CAST_OK:
            raise AssertionError("the sender sent what nobody understands")
        for i in range(self.count):
            if pxed_path_equal(path, &self.machines[i].path) and not self.machines[i].dead and not _lost(
                    &self.machines[i].down):
                (<CastAssembler>self.assemblers[i]).hear_order(&order)

    cdef int _data(self, uint32_t i, Machine *m, const CastData *d) except -1:
        if _lost(&m.down):
            m.lost += 1
            return 0
        if m.port:
            if m.port_free_at > self.now + PORT_BUFFER:
                m.lost += 1
                return 0
            m.port_free_at = max(m.port_free_at, self.now) + <uint64_t>((d.size + CAST_HEADER) * m.port)
        if m.reorder and m.late_in == 0 and _chance(&m.up.random) < m.reorder:
            m.late = d[0]
            memcpy(m.late_symbol, d.payload, d.size)
            m.late.payload = m.late_symbol
            m.late_in = 1 + _draw(&m.up.random) % LATEST
            return 0
        self._hear(i, m, d)
        if m.duplicate and _chance(&m.up.random) < m.duplicate:
            self._hear(i, m, d)
        if m.late_in:
            m.late_in -= 1
            if m.late_in == 0:
                self._hear(i, m, &m.late)
        return 0

    cdef int _hear(self, uint32_t i, Machine *m, const CastData *d) except -1:
        cdef CastAssembler assembler = self.assemblers[i]
        assembler.hear_data(d, self.now)
        if assembler.image.first is not NULL:
            self._write(assembler, m)
        return 0

    # -- disks ---------------------------------------------------------------------------------------------------------

    cdef int _write(self, CastAssembler assembler, Machine *m) except -1:
        cdef Partial *p
        while m.writing is NULL:
            p = assembler.image.pop()
            if p is NULL:
                return 0
            if m.disk:
                m.writing = p
                m.wrote_at = self.now + <uint64_t>(p.stored * m.disk)
            else:
                self._finish(assembler, m, p)
        return 0

    cdef int _written(self, uint32_t i, Machine *m) except -1:
        cdef Partial *p = m.writing
        m.writing = NULL
        m.wrote_at = NEVER
        self._finish(self.assemblers[i], m, p)
        return self._write(self.assemblers[i], m)

    cdef int _finish(self, CastAssembler assembler, Machine *m, Partial *p) except -1:
        cdef bint ok = True
        cdef const char *content = self.content
        if m.keep:
            ok = memcmp(p.octets, content + self.offset[p.ordinal], p.stored) == 0
            m.wrong += not ok
        assembler.image.finish(p.ordinal, ok)
        free_partial(p)
        if assembler.image.undone == 0:
            m.done_at = self.now
            assembler.talk.ask(self.now)
        return 0

    # -- figures -------------------------------------------------------------------------------------------------------

    def direct(self, machine: int, direction: str, reason: str) -> None:
        """Tell a machine what it is to do, in the words of cast_events.direct."""
        self._order(direct(SESSION, machine, direction, reason))

    def set_rate(self, rate: int) -> None:
        """Send at another rate."""
        self._order(set_rate(SESSION, rate))

    def figures(self) -> dict:
        """What was sent: DATA in all, of it parity, MARKs; how much the image is; reports and their bytes; the time."""
        return {"needed": self.needed, "sent": self.sent, "parity": self.parity, "marks": self.marks,
                "reports": self.reports, "report_bytes": self.report_bytes, "time": (self.now - SECOND) / 1e9}

    def machine(self, i: int) -> dict:
        """What became of a machine: seconds from its joining to its last frame (None: not done), datagrams that its
        line lost, frames with wrong bytes, and what its receiver counted.
        """
        if not 0 <= i < self.count:
            raise IndexError(i)
        cdef Machine *m = &self.machines[<uint32_t>i]
        done = None if m.done_at == NEVER else (m.done_at - m.joins_at) / 1e9
        return {"done": done, "dead": bool(m.dead), "lost": m.lost, "compared_wrong": m.wrong,
                **(<CastAssembler>self.assemblers[i]).figures()}

    def sender_statistics(self) -> dict:
        """The sender's own counters; `audit`: wants that it counts wrongly, none unless there is a mistake."""
        return {**self.sender.statistics(), "audit": self.sender.audit()}
