"""Many TFTP clients in one thread, for measuring servers: a client is a small struct, and every byte is compared in C.

The clients read one file whose content is known, all at once, over IPv4. They follow RFC 1350, 2347-2349 and 7440 the
way careful firmware does: an ACK for each block or full window, an ACK of the last block in order when something is
missing (once per loss), a patient clock, and no ACK for a block that is not the next one otherwise.
"""
import ipaddress
import select
import socket

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, strlen

cimport cython

from pxed._ext.load_box cimport (
    LOAD_HEADERS, LOAD_MESSAGES, LOAD_OUT_BYTES, load_box, load_box_free, load_box_new, load_clock, load_data,
    load_flush, load_length, load_port, load_receive, load_remote, load_send, load_use_wire,
)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32

    ctypedef struct epoll_event "struct epoll_event":
        epoll_data_t data

    int epoll_wait(int epoll, epoll_event *events, int size, int milliseconds)

cdef extern from "<strings.h>" nogil:
    int strcasecmp(const char *a, const char *b)

cdef extern from "<stdlib.h>" nogil:
    long strtol(const char *text, char **end, int base)

cdef extern from "endian_pxed.h" nogil:
    uint16_t pxed_load_be16(const uint8_t *p)
    void pxed_store_be16(uint8_t *p, uint16_t v)

cdef enum:
    RRQ = 1
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6

    UNKNOWN_TID = 5
    OPTION_REFUSED = 8

    TICK_MS = 20      # how often clocks are looked at; far below RETRY_FIRST
    EVENTS = 64
    ROUNDS = 16       # reads of one socket before the clocks and the others have a turn

cdef uint64_t SECOND = 1_000_000_000
# Between a repeat every 250 ms (iPXE) and every 4 s (EDK2); doubled for as long as nothing comes.
cdef uint64_t RETRY_FIRST = SECOND
cdef uint64_t RETRY_LONGEST = 4 * SECOND
# A receive buffer for a full window of each of thousands of clients; the kernel may grant less.
RECEIVE_BUFFER = 64 << 20
IP_PKTINFO = 8           # <bits/in.h>; the socket module has neither
IP_MTU_DISCOVER = 10
SO_RCVBUFFORCE = 33
SOL_PACKET = 263         # <linux/if_packet.h>
PACKET_QDISC_BYPASS = 20

cdef enum State:
    ASKING
    READING
    ENDED

cdef enum Outcome:
    GOOD
    SILENT        # nothing came for `patience`; detail: bytes read so far
    REFUSED       # the server sent ERROR; detail: its code
    WRONG_BYTE    # detail: offset
    TOO_LONG      # detail: offset at which the file should have ended
    TOO_SHORT     # detail: offset at which it ended
    BAD_OPTIONS   # an OACK with what was not asked for, or a wrong tsize; detail: 0

OUTCOMES = ("good", "silent", "refused", "wrong byte", "too long", "too short", "bad options")

cdef struct Client:
    State state
    Outcome outcome
    uint32_t local
    uint16_t port            # the server's, once it has answered
    uint16_t expected        # block
    uint16_t window          # granted
    uint16_t unacked         # blocks in order since the last ACK
    uint32_t blksize         # granted
    bint nagged              # the ACK that says "something is missing" has been sent, and nothing in order came since
    uint32_t repeats         # RRQs and ACKs sent again because nothing came
    uint32_t duplicates      # blocks that had come before
    uint32_t gaps            # losses seen: a block came before its turn
    uint64_t offset
    uint64_t detail
    uint64_t deadline
    uint64_t wait
    uint64_t heard           # last progress
    uint64_t ended


@cython.final
cdef class Load:
    """One storm: `Load(...)` makes the sockets (in the network namespace of the calling thread), `run()` plays it.

    clients: how many. first_address: client i has the address that is i after it, all on one socket; they must be
    local to the host. Without it each client has a port of its own and the kernel chooses the address.
    server: IPv4 address, port. name: the file; content: what it must be. blksize, windowsize: asked for (512 and 1 are
    not asked for, being what a server does unasked). patience: seconds without progress after which a client gives up.
    link: (interface, its MAC, the server's MAC, six bytes each): packets leave by the link directly (needs root and
    first_address), which costs a third less.
    Raises OSError, ValueError.
    """

    cdef Client *client
    cdef readonly int clients
    cdef bint shared
    cdef uint32_t first, server
    cdef uint16_t port
    cdef uint16_t asked_window
    cdef uint32_t asked_blksize
    cdef bytes request, content
    cdef const char *ask_bytes
    cdef size_t ask_size
    cdef const uint8_t *file
    cdef uint64_t size, patience, began, finished
    cdef list sockets, wires
    cdef object poller
    cdef int *fd
    cdef int epoll, left
    cdef load_box *inbox
    cdef load_box *outbox

    def __cinit__(self, int clients, str server, int port, str name, bytes content, *, str first_address="",
                  int blksize=512, int windowsize=1, double patience=30.0, tuple link=None):
        if clients < 1 or not 8 <= blksize <= 65464 or not 1 <= windowsize <= 65535 or not 1 <= port <= 65535:
            raise ValueError("clients, port, blksize (8 to 65464) or windowsize (1 to 65535) out of range")
        self.clients = clients
        self.shared = bool(first_address)
        self.first = int(ipaddress.IPv4Address(first_address)) if first_address else 0
        self.server = int(ipaddress.IPv4Address(server))
        self.port = <uint16_t>port
        self.asked_blksize = blksize
        self.asked_window = <uint16_t>windowsize
        self.request = _request(name, blksize, windowsize)
        if len(self.request) > LOAD_OUT_BYTES:
            raise ValueError("the file's name is too long")
        self.ask_bytes = PyBytes_AS_STRING(self.request)
        self.ask_size = len(self.request)
        self.content = content
        self.file = <const uint8_t *>PyBytes_AS_STRING(content)
        self.size = len(content)
        self.patience = <uint64_t>(patience * SECOND)
        self.client = <Client *>PyMem_Calloc(clients, sizeof(Client))
        self.fd = <int *>PyMem_Calloc(clients, sizeof(int))
        self.inbox = load_box_new(blksize + 64)
        self.outbox = load_box_new(LOAD_OUT_BYTES + LOAD_HEADERS)
        if not self.client or not self.fd or not self.inbox or not self.outbox:
            raise MemoryError
        self.sockets, self.wires = [], []
        self.poller = select.epoll()
        self.epoll = self.poller.fileno()
        for i in range(1 if self.shared else clients):
            sock = udp_socket(0)
            self.sockets.append(sock)
            self.fd[i] = sock.fileno()
            # The event carries the descriptor; clients of their own sockets are found by it.
            self.poller.register(self.fd[i], select.EPOLLIN)
        if link is not None:
            interface, own, theirs = link
            self.use_link(interface, own, theirs)

    def __dealloc__(self):
        PyMem_Free(self.client)
        PyMem_Free(self.fd)
        load_box_free(self.inbox)
        load_box_free(self.outbox)

    cdef use_link(self, str interface, bytes own, bytes server):
        if not self.shared or len(own) != 6 or len(server) != 6:
            raise ValueError("a link needs clients with addresses of their own, and MACs of six bytes")
        wire = wire_socket(interface)
        self.wires.append(wire)
        load_use_wire(self.outbox, wire.fileno(), <const uint8_t *>PyBytes_AS_STRING(server),
                      <const uint8_t *>PyBytes_AS_STRING(own), <uint16_t>self.sockets[0].getsockname()[1])

    def close(self):
        """Close the sockets."""
        self.poller.close()
        for sock in self.sockets + self.wires:
            sock.close()
        self.sockets, self.wires = [], []

    def run(self):
        """Play the storm to its end, without the GIL; signals are looked at. Returns (seconds, transfers, refused).

        transfers: per client a tuple (outcome of OUTCOMES, detail, seconds, bytes, repeats, duplicates, gaps, blksize,
        windowsize). refused: datagrams that the own kernel did not take.
        """
        cdef int i
        cdef dict place = {sock.fileno(): i for i, sock in enumerate(self.sockets)}
        if self.began:
            raise RuntimeError("a storm is played once")
        cdef int highest = max(place)
        cdef int *owner = <int *>PyMem_Calloc(highest + 1, sizeof(int))
        if not owner:
            raise MemoryError
        try:
            for fd, i in place.items():
                owner[<int>fd] = i
            with nogil:
                self.play(owner)
        finally:
            PyMem_Free(owner)
        transfers = [_transfer(&self.client[i], self.began) for i in range(self.clients)]
        return (self.finished - self.began) / 1e9, transfers, self.outbox.refused

    cdef int play(self, int *owner) except -1 nogil:
        cdef epoll_event events[EVENTS]
        cdef int asked = 0, ready, i, fd
        cdef uint64_t now = load_clock(), look = 0
        self.began = self.finished = now
        self.left = self.clients
        while self.left:
            # Requests go out a batch at a time between reads, so that early answers find room in the buffer.
            for i in range(asked, min(asked + <int>LOAD_MESSAGES, self.clients)):
                self.begin(i, load_clock())
                asked = i + 1
            ready = epoll_wait(self.epoll, events, EVENTS, TICK_MS if asked == self.clients else 0)
            for i in range(ready):
                fd = <int>events[i].data.u32
                self.read(fd, owner[fd])
            now = load_clock()
            if now >= look:
                look = now + TICK_MS * <uint64_t>1_000_000
                self.look_at_clocks(asked, now)
                with gil:
                    PyErr_CheckSignals()
        return 0

    cdef void begin(self, int i, uint64_t now) noexcept nogil:
        cdef Client *c = &self.client[i]
        c.state = ASKING
        c.local = self.first + i if self.shared else 0
        c.blksize = 512
        c.window = 1
        c.expected = 1
        c.heard = now
        c.wait = RETRY_FIRST
        c.deadline = now + min(c.wait, self.patience)
        self.ask(i)
        load_flush(self.outbox, self.fd_of(i))

    cdef int fd_of(self, int i) noexcept nogil:
        return self.fd[0] if self.shared else self.fd[i]

    cdef void ask(self, int i) noexcept nogil:
        load_send(self.outbox, self.fd_of(i), self.client[i].local, self.server, self.port, self.ask_bytes,
                  self.ask_size)

    cdef void acknowledge(self, int i, uint16_t block) noexcept nogil:
        cdef uint8_t ack[4]
        cdef Client *c = &self.client[i]
        pxed_store_be16(ack, ACK)
        pxed_store_be16(ack + 2, block)
        load_send(self.outbox, self.fd_of(i), c.local, self.server, c.port, ack, sizeof(ack))

    cdef void complain(self, int i, uint16_t port, uint16_t code) noexcept nogil:
        """An ERROR without text, to the port that spoke."""
        cdef uint8_t error[5]
        pxed_store_be16(error, ERROR)
        pxed_store_be16(error + 2, code)
        error[4] = 0
        load_send(self.outbox, self.fd_of(i), self.client[i].local, self.server, port, error, sizeof(error))

    cdef void end(self, int i, Outcome outcome, uint64_t detail, uint64_t now) noexcept nogil:
        cdef Client *c = &self.client[i]
        if outcome in (WRONG_BYTE, TOO_LONG, TOO_SHORT, BAD_OPTIONS):
            self.complain(i, c.port, OPTION_REFUSED if outcome == BAD_OPTIONS else 0)
        c.state = ENDED
        c.outcome = outcome
        c.detail = detail
        c.ended = now
        self.finished = now
        self.left -= 1

    cdef void look_at_clocks(self, int asked, uint64_t now) noexcept nogil:
        cdef int i, fd = self.fd[0]
        cdef Client *c
        for i in range(asked):
            c = &self.client[i]
            if c.state == ENDED or now < c.deadline:
                continue
            if self.fd_of(i) != fd:
                load_flush(self.outbox, fd)
                fd = self.fd_of(i)
            if now - c.heard >= self.patience:
                self.end(i, SILENT, c.offset, now)
                continue
            c.wait = min(2 * c.wait, RETRY_LONGEST)
            c.deadline = min(now + c.wait, c.heard + self.patience)
            c.repeats += 1
            c.unacked = 0
            c.nagged = False
            if c.state == ASKING:
                self.ask(i)
            else:
                self.acknowledge(i, <uint16_t>(c.expected - 1))
        load_flush(self.outbox, fd)

    cdef void read(self, int fd, int owner) noexcept nogil:
        """What one socket holds, a batch at a time; the answers leave after each batch."""
        cdef int n, m, i
        cdef size_t size
        cdef uint64_t now
        for _ in range(ROUNDS):
            n = load_receive(self.inbox, fd)
            now = load_clock()
            for m in range(n):
                i = <int>(self.inbox.local[m] - self.first) if self.shared else owner
                size = load_length(self.inbox, m)
                if 0 <= i < self.clients and size >= 4 and load_remote(self.inbox, m) == self.server:
                    self.receive(i, load_port(self.inbox, m), load_data(self.inbox, m), size, now)
            load_flush(self.outbox, fd)
            if n < LOAD_MESSAGES:
                return

    cdef void receive(self, int i, uint16_t port, const uint8_t *data, size_t size, uint64_t now) noexcept nogil:
        cdef Client *c = &self.client[i]
        cdef uint16_t opcode = pxed_load_be16(data)
        if c.state == ENDED:
            if opcode == DATA and port == c.port and c.outcome == GOOD:
                # The last ACK was lost.
                c.duplicates += 1
                self.acknowledge(i, <uint16_t>(c.expected - 1))
            return
        if c.state == ASKING:
            c.port = port
        elif port != c.port:
            # A second session that a repeated request began (RFC 1350, section 4).
            if opcode != ERROR:
                self.complain(i, port, UNKNOWN_TID)
            return
        if opcode == DATA:
            c.state = READING
            self.receive_block(i, pxed_load_be16(data + 2), data + 4, size - 4, now)
        elif opcode == ERROR:
            self.end(i, REFUSED, pxed_load_be16(data + 2), now)
        elif opcode == OACK and c.expected == 1 and c.offset == 0 and c.unacked == 0:
            if c.state == ASKING and not self.grant(c, <const char *>data + 2, size - 2):
                self.end(i, BAD_OPTIONS, 0, now)
                return
            c.state = READING
            self.progress(c, now)
            self.acknowledge(i, 0)

    cdef void progress(self, Client *c, uint64_t now) noexcept nogil:
        c.heard = now
        c.wait = RETRY_FIRST
        c.deadline = now + min(c.wait, self.patience)

    cdef void receive_block(self, int i, uint16_t block, const uint8_t *data, size_t size, uint64_t now) noexcept nogil:
        cdef Client *c = &self.client[i]
        cdef size_t at = 0
        cdef bint ahead
        if block != c.expected:
            ahead = <uint16_t>(block - c.expected) < 0x8000
            if ahead:
                c.gaps += not c.nagged
            else:
                c.duplicates += 1
            # Alone in its window, a block that came before asks for its lost ACK; within windows, one ACK tells the
            # server where to go on, and more would make it go back more than once.
            if c.window == 1 and not ahead or c.window > 1 and not c.nagged:
                self.acknowledge(i, <uint16_t>(c.expected - 1))
                c.nagged = True
                c.unacked = 0
            return
        if size > c.blksize or c.offset + size > self.size:
            self.end(i, TOO_LONG, self.size, now)
            return
        if memcmp(data, self.file + c.offset, size) != 0:
            while data[at] == self.file[c.offset + at]:
                at += 1
            self.end(i, WRONG_BYTE, c.offset + at, now)
            return
        c.offset += size
        c.expected += 1
        c.nagged = False
        self.progress(c, now)
        if size < c.blksize and c.offset < self.size:
            self.end(i, TOO_SHORT, c.offset, now)
            return
        c.unacked += 1
        if c.unacked == c.window or size < c.blksize:
            self.acknowledge(i, block)
            c.unacked = 0
        if size < c.blksize:
            self.end(i, GOOD, 0, now)

    cdef bint grant(self, Client *c, const char *options, size_t size) noexcept nogil:
        """Take over what an OACK grants; False when it grants what was not asked for."""
        cdef const char *end = options + size
        cdef const char *value
        cdef long number
        if size < 2 or (end - 1)[0] != 0:
            return False
        while options < end:
            value = options + strlen(options) + 1
            if value >= end:
                return False
            number = strtol(value, NULL, 10)
            if strcasecmp(options, b"blksize") == 0 and 8 <= number <= <long>self.asked_blksize:
                c.blksize = <uint32_t>number
            elif strcasecmp(options, b"windowsize") == 0 and 1 <= number <= self.asked_window:
                c.window = <uint16_t>number
            elif strcasecmp(options, b"tsize") != 0 or number != <long>self.size:
                return False
            options = value + strlen(value) + 1
        return True


cdef bytes _request(str name, int blksize, int windowsize):
    options = [name, "octet", "tsize", "0"]
    if blksize != 512:
        options += ["blksize", str(blksize)]
    if windowsize != 1:
        options += ["windowsize", str(windowsize)]
    return b"\0\1" + b"".join(option.encode() + b"\0" for option in options)


def udp_socket(int port):
    """A non-blocking UDP socket of any address, that says to which address a datagram came. port 0: a free one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 0)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:  # not root: as much as net.core.rmem_max allows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(("", port))
    except BaseException:
        sock.close()
        raise
    return sock


def wire_socket(str interface):
    """A packet socket that sends whole frames by an interface, past its queue, and receives nothing."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: it receives nothing
    try:
        sock.bind((interface, 0))
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
    except BaseException:
        sock.close()
        raise
    return sock


cdef tuple _transfer(const Client *c, uint64_t began):
    return (OUTCOMES[<int>c.outcome], c.detail, (c.ended - began) / 1e9, c.offset, c.repeats, c.duplicates, c.gaps,
            c.blksize, c.window)
