"""Many DHCP clients in one thread, for measuring servers: what they say is prepared, what they hear compared in C.

A client has steps: a request to one of the server's ports, and the answer that must come, byte for byte, from the port
that was asked to the port that asked. Only the transaction id is new each time (RFC 2131 section 4.1). A client that is
not answered in time goes on with its next turn: nothing is repeated, so whatever was lost is counted.
"""
import ipaddress
import select

from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

cimport cython

from pxed._ext.load_box cimport (
    LOAD_HEADERS, LOAD_MESSAGES, LOAD_OUT_BYTES, load_box, load_box_free, load_box_new, load_clock, load_data,
    load_flush, load_length, load_receive, load_remote, load_send, load_use_wire,
)
from pxed._ext.tftp_load import udp_socket, wire_socket

cdef extern from "endian_pxed.h" nogil:
    uint32_t pxed_load_be32(const uint8_t *p)
    void pxed_store_be32(uint8_t *p, uint32_t v)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef struct epoll_event "struct epoll_event":
        pass

    int epoll_wait(int epoll, epoll_event *events, int size, int milliseconds)

PORTS = (67, 4011)

cdef enum:
    PORT_COUNT = 2
    STEPS = 4         # of a client, at most
    XID = 4           # its offset
    ANSWER_BYTES = 1500
    TICK_MS = 10      # how often clocks are looked at
    INDEX_BITS = 14   # of a transaction id; the others count turns
    MOST_CLIENTS = 1 << INDEX_BITS
    MOST_TIMES = 1 << 24

cdef struct Step:
    int way                  # index in PORTS
    uint8_t *request
    size_t request_size
    const uint8_t *answer
    size_t answer_size       # 0: whatever comes is learned

cdef struct Client:
    Step step[STEPS]
    int steps
    int at                   # the step that is under way
    bint waiting
    uint32_t turn
    uint32_t xid
    uint32_t local
    uint64_t sent


@cython.final
cdef class Load:
    """One storm: `Load(...)` makes the sockets (in the network namespace of the calling thread), `run()` plays it."""

    cdef Client *client
    cdef readonly int clients
    cdef int outstanding, waiting
    cdef uint32_t turns
    cdef uint32_t first, server
    cdef uint64_t patience, began, finished
    cdef load_box *inbox
    cdef load_box *outbox[PORT_COUNT]
    cdef int fd[PORT_COUNT]
    cdef int *idle           # a ring of clients that have turns left
    cdef int idle_from, idle_count
    cdef uint32_t *times     # nanoseconds, of answers in the order in which they came
    cdef uint64_t answered[PORT_COUNT]
    cdef uint64_t unanswered, strange
    cdef object poller
    cdef list sockets, kept
    cdef dict wrong, learned

    def __init__(self, str server, list clients not None, *, str first_address="", int turns=1, int outstanding=64,
                 double patience=1.0, tuple link=None):
        if not 0 < len(clients) <= MOST_CLIENTS or outstanding < 1 or turns < 1 or patience <= 0:
            raise ValueError("clients, outstanding, turns or patience out of range")
        if <uint64_t>turns << INDEX_BITS > 0xFFFFFFFF:
            raise ValueError(f"more turns than transaction ids: {turns}")
        self.server = <uint32_t>int(ipaddress.IPv4Address(server))
        self.first = <uint32_t>int(ipaddress.IPv4Address(first_address)) if first_address else 0
        self.clients = <int>len(clients)
        self.outstanding = outstanding
        self.turns = <uint32_t>turns
        self.patience = <uint64_t>(patience * 1e9)
        self.kept, self.sockets = [], []
        self.wrong, self.learned = {}, {}
        self.client = <Client *>PyMem_Calloc(<size_t>self.clients, sizeof(Client))
        self.idle = <int *>PyMem_Calloc(<size_t>self.clients, sizeof(int))
        self.inbox = load_box_new(ANSWER_BYTES)
        for way in range(PORT_COUNT):
            self.outbox[way] = load_box_new(LOAD_OUT_BYTES + LOAD_HEADERS)
            if not self.outbox[way]:
                raise MemoryError
        if not self.client or not self.idle or not self.inbox:
            raise MemoryError
        steps = sum([self.take_client(i, one) for i, one in enumerate(clients)])
        if steps * turns > MOST_TIMES:
            raise ValueError(f"more requests than can be measured: {steps * turns}")
        self.times = <uint32_t *>PyMem_Calloc(<size_t>(steps * turns), sizeof(uint32_t))
        if not self.times:
            raise MemoryError
        self.poller = select.epoll()
        try:
            self.open_sockets(link)
        except BaseException:
            self.close()
            raise

    cdef int take_client(self, int i, steps) except -1:
        cdef Client *c = &self.client[i]
        cdef Step *s
        cdef bytearray own
        cdef bytes answer
        if not 0 < len(steps) <= STEPS:
            raise ValueError(f"a client has 1 to {STEPS} steps")
        c.local = self.first + <uint32_t>i if self.first else 0
        for port, request, expected in steps:
            if not XID + 4 <= len(request) <= LOAD_OUT_BYTES or 0 < len(expected) < XID + 4:
                raise ValueError("a request or an answer is too short or too long")
            own, answer = bytearray(request), expected  # the request is written to; the answer's id is never looked at
            self.kept.append((own, answer))
            s = &c.step[c.steps]
            s.way = PORTS.index(port)
            s.request = <uint8_t *>PyByteArray_AS_STRING(own)
            s.request_size = <size_t>len(own)
            s.answer = <const uint8_t *>PyBytes_AS_STRING(answer)
            s.answer_size = <size_t>len(answer)
            c.steps += 1
        return c.steps

    cdef open_sockets(self, tuple link):
        for way in range(PORT_COUNT):
            sock = udp_socket(PORTS[way])
            self.sockets.append(sock)
            self.fd[way] = sock.fileno()
            self.poller.register(sock, select.EPOLLIN)
            if link is not None:
                if not self.first:
                    raise ValueError("a link needs clients with addresses of their own")
                interface, own, theirs = link
                wire = wire_socket(interface)
                self.sockets.append(wire)
                load_use_wire(self.outbox[way], wire.fileno(), <const uint8_t *>PyBytes_AS_STRING(theirs),
                              <const uint8_t *>PyBytes_AS_STRING(own), <uint16_t>PORTS[way])

    def __dealloc__(self):
        PyMem_Free(self.client)
        PyMem_Free(self.idle)
        PyMem_Free(self.times)
        load_box_free(self.inbox)
        for way in range(PORT_COUNT):
            load_box_free(self.outbox[way])

    def close(self):
        """Close the sockets."""
        self.poller.close()
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def run(self):
        """Play the storm to its end, once, without the GIL; signals are looked at."""
        cdef uint64_t i, total
        if self.began:
            raise RuntimeError("a storm is played once")
        epoll = self.poller.fileno()
        cdef int fd = epoll
        with nogil:
            self.play(fd)
        total = self.answered[0] + self.answered[1]
        times = sorted([self.times[i] for i in range(total)])
        answered = {PORTS[way]: self.answered[way] for way in range(PORT_COUNT)}
        return ((self.finished - self.began) / 1e9, times, answered, self.unanswered, self.strange, self.wrong,
                self.outbox[0].refused + self.outbox[1].refused, self.learned)

    cdef int play(self, int epoll) except -1 nogil:
        cdef epoll_event events[PORT_COUNT]
        cdef uint64_t now = load_clock(), look = 0
        cdef int i, way
        self.began = self.finished = now
        for i in range(self.clients):
            self.idle[i] = i
        self.idle_count = self.clients
        while self.idle_count or self.waiting:
            self.fill()
            epoll_wait(epoll, events, PORT_COUNT, TICK_MS)
            for way in range(PORT_COUNT):
                self.read(way)
            now = load_clock()
            if now >= look:
                look = now + TICK_MS * <uint64_t>1_000_000
                self.look_at_clocks(now)
                with gil:
                    PyErr_CheckSignals()
        return 0

    cdef void fill(self) noexcept nogil:
        """Let as many ask as may."""
        cdef int i, way
        while self.idle_count and self.waiting < self.outstanding:
            i = self.idle[self.idle_from]
            self.idle_from = (self.idle_from + 1) % self.clients
            self.idle_count -= 1
            self.waiting += 1
            self.client[i].at = 0
            self.ask(i)
        for way in range(PORT_COUNT):
            load_flush(self.outbox[way], self.fd[way])

    cdef void ask(self, int i) noexcept nogil:
        cdef Client *c = &self.client[i]
        cdef Step *s = &c.step[c.at]
        c.waiting = True
        c.xid = c.turn << INDEX_BITS | <uint32_t>i
        pxed_store_be32(s.request + XID, c.xid)
        c.sent = load_clock()
        load_send(self.outbox[s.way], self.fd[s.way], c.local, self.server, 67 if s.way == 0 else 4011, s.request,
                  s.request_size)

    cdef void end(self, int i) noexcept nogil:
        """A turn is over; whoever has turns left comes again after everybody else."""
        cdef Client *c = &self.client[i]
        c.waiting = False
        c.turn += 1
        self.waiting -= 1
        self.finished = load_clock()
        if c.turn < self.turns:
            self.idle[(self.idle_from + self.idle_count) % self.clients] = i
            self.idle_count += 1

    cdef void look_at_clocks(self, uint64_t now) noexcept nogil:
        cdef int i
        for i in range(self.clients):
            if self.client[i].waiting and now - self.client[i].sent >= self.patience:
                self.unanswered += 1
                self.end(i)

    cdef void read(self, int way) noexcept nogil:
        """What one socket holds, a batch at a time; who is answered asks on after each batch."""
        cdef int n = LOAD_MESSAGES, m
        cdef uint64_t now
        while n == LOAD_MESSAGES:
            n = load_receive(self.inbox, self.fd[way])
            now = load_clock()
            for m in range(n):
                self.receive(way, m, now)
            if n > 0:
                self.fill()

    cdef void receive(self, int way, int m, uint64_t now) noexcept nogil:
        cdef const uint8_t *data = load_data(self.inbox, m)
        cdef size_t size = load_length(self.inbox, m)
        cdef uint32_t xid = pxed_load_be32(data + XID) if size >= XID + 4 else 0
        cdef int i = <int>(xid & (MOST_CLIENTS - 1))
        cdef Client *c = &self.client[i]
        cdef Step *s
        if size < XID + 4 or i >= self.clients or not c.waiting or c.xid != xid:
            self.strange += 1  # nobody's, or too late
            return
        s = &c.step[c.at]
        if s.way != way or load_remote(self.inbox, m) != self.server or c.local and self.inbox.local[m] != c.local:
            self.strange += 1
            return
        if s.answer_size == 0:
            with gil:
                self.learned[i, c.at] = PyBytes_FromStringAndSize(<const char *>data, <Py_ssize_t>size)
        elif size != s.answer_size or memcmp(data, s.answer, XID) or memcmp(data + XID + 4, s.answer + XID + 4,
                                                                            size - XID - 4):
            with gil:
                self.tell_wrong(s, data, size)
            self.end(i)
            return
        self.times[self.answered[0] + self.answered[1]] = <uint32_t>min(now - c.sent, <uint64_t>0xFFFFFFFF)
        self.answered[way] += 1
        c.at += 1
        if c.at < c.steps:
            self.ask(i)
        else:
            self.end(i)

    cdef void tell_wrong(self, Step *s, const uint8_t *data, size_t size) noexcept:
        cdef size_t at = 0
        while at < min(size, s.answer_size) and (XID <= at < XID + 4 or data[at] == s.answer[at]):
            at += 1
        reason = f"has {size} bytes, not {s.answer_size}"
        if at < min(size, s.answer_size):
            reason = f"differs at offset {at}"
        self.wrong[reason] = self.wrong.get(reason, 0) + 1
