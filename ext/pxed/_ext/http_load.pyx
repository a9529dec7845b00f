"""Many HTTP clients in one thread, for measuring servers: a client is a small struct, and every byte is compared in C.

The clients read one file whose content is known, over IPv4: whole or in ranges, once or several times, on kept
connections or on one connection for each request. Of RFC 9112 they know what a boot server needs: a status line,
Content-Length, Content-Range, Connection; an answer of any other kind ends the client.
"""
import ipaddress
import select

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.string cimport memcmp, memcpy

cimport cython

cdef extern from "<string.h>" nogil:
    void *memmem(const void *where, size_t size, const void *what, size_t length)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32

    ctypedef struct epoll_event "struct epoll_event":
        epoll_data_t data

    int epoll_wait(int epoll, epoll_event *events, int size, int milliseconds)

cdef extern from "<sys/socket.h>" nogil:
    enum: MSG_NOSIGNAL
    ssize_t send(int fd, const void *data, size_t size, int flags)
    ssize_t recv(int fd, void *data, size_t size, int flags)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "http_load.h" nogil:
    ctypedef struct http_head:
        int status
        int closes
        int has_length
        int has_range
        uint64_t length
        uint64_t first
        uint64_t last
        uint64_t whole

    uint64_t http_clock()
    int http_connect(int epoll, uint32_t number, uint32_t local, uint32_t server, uint16_t port)
    int http_connected(int epoll, uint32_t number, int fd)
    void http_wake_at(int fd, uint64_t bytes)
    int http_parse(const char *text, http_head *head)

cdef enum:
    HEAD = 2047              # bytes of a response's head
    RECEIVE = 256 << 10      # one read; it and what it is compared with stay in the processor's cache
    READS = 4                # of one client before the others have a turn
    WAKE = 128 << 10         # bytes worth being woken for in the middle of a body
    REQUEST = 2048           # bytes of a request
    TICK_MS = 20
    EVENTS = 256
    BATCH = 64               # connections begun between two looks at the sockets

# Times kept of downloads: 8 bytes each.
MOST_DOWNLOADS = 10_000_000

cdef enum State:
    CONNECTING
    WAITING       # for the head of a response, or in the middle of it
    READING       # its body
    ENDED

cdef enum Outcome:
    GOOD
    SILENT        # nothing came for `patience`; detail: bytes of this download so far
    REFUSED       # another status than was wanted; detail: the status
    WRONG_BYTE    # detail: offset
    TOO_LONG      # more than was asked for; detail: the length that was announced, or where the body should have ended
    TOO_SHORT     # detail: the length that was announced
    CUT_OFF       # closed or reset; detail: bytes of this download so far
    BAD_HEAD      # a response that is not understood, or of another range than was asked for; detail: its status
    UNCONNECTED   # detail: errno

OUTCOMES = (
    "good", "silent", "refused", "wrong byte", "too long", "too short", "cut off", "bad head", "unconnected",
)

cdef struct Client:
    State state
    Outcome outcome
    int fd
    bint proven              # this connection has carried a response
    bint closes              # it will not carry another one
    uint32_t head_size
    uint32_t downloads       # done
    uint32_t connections
    uint32_t requests
    uint64_t offset          # of the file: the next byte
    uint64_t stop            # where the answer to this request ends
    uint64_t low             # what SO_RCVLOWAT was set to
    uint64_t bytes           # of bodies
    uint64_t detail
    uint64_t began           # this download
    uint64_t heard           # last progress
    char head[HEAD + 1]


@cython.final
cdef class Load:
    """One storm: `Load(...)`, then `run()` plays it, with sockets of the network namespace of the calling thread.

    clients: how many. server: IPv4 address, port. path: of the request; content: what it must be. first_address: client
    i has the address that is i after it; they must be local to the host. downloads: of each client, one after another.
    piece: bytes of each ranged request, 0 for the whole at once. keep: connections are kept. patience: seconds
    without progress after which a client gives up. Raises ValueError.
    """

    cdef Client *client
    cdef readonly int clients
    cdef uint32_t first, server
    cdef uint16_t port
    cdef bint keep
    cdef uint32_t downloads
    cdef bytes request, content
    cdef const char *request_bytes
    cdef size_t request_size
    cdef const uint8_t *file
    cdef uint64_t size, piece, patience, began, finished
    cdef uint8_t *buffer
    cdef double *seconds
    cdef uint64_t done
    cdef object poller
    cdef int epoll, left

    def __cinit__(self, int clients, str server, int port, str path, bytes content, *, str first_address="",
                  int downloads=1, uint64_t piece=0, bint keep=True, double patience=30.0):
        if clients < 1 or downloads < 1 or clients * <uint64_t>downloads > MOST_DOWNLOADS or not 1 <= port <= 65535:
            raise ValueError("clients, downloads or port out of range")
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise ValueError("the path is not one of a URL")
        self.clients = clients
        self.first = int(ipaddress.IPv4Address(first_address)) if first_address else 0
        self.server = int(ipaddress.IPv4Address(server))
        self.port = <uint16_t>port
        self.downloads = downloads
        self.keep = keep
        self.piece = piece
        self.patience = <uint64_t>(patience * 1e9)
        kind = "keep-alive" if keep else "close"
        lines = (f"GET {path} HTTP/1.1", f"Host: {server}:{port}", "User-Agent: pxed-bench", f"Connection: {kind}", "")
        self.request = "\r\n".join(lines).encode()
        if len(self.request) > REQUEST - 100:
            raise ValueError("the path is too long")
        self.request_bytes = PyBytes_AS_STRING(self.request)
        self.request_size = len(self.request)
        self.content = content
        self.file = <const uint8_t *>PyBytes_AS_STRING(content)
        self.size = len(content)
        self.client = <Client *>PyMem_Calloc(clients, sizeof(Client))
        self.buffer = <uint8_t *>PyMem_Calloc(1, RECEIVE)
        self.seconds = <double *>PyMem_Calloc(clients * <size_t>downloads, sizeof(double))
        if not self.client or not self.buffer or not self.seconds:
            raise MemoryError
        for i in range(clients):
            self.client[i].fd = -1
        self.poller = select.epoll()
        self.epoll = self.poller.fileno()

    def __dealloc__(self):
        PyMem_Free(self.client)
        PyMem_Free(self.buffer)
        PyMem_Free(self.seconds)

    def close(self):
        """Close the sockets."""
        for i in range(self.clients):
            self.hang_up(&self.client[i])
        self.poller.close()

    def run(self):
        """Play the storm to its end, without the GIL; signals are looked at. Returns (seconds, times, clients).

        times: seconds of each download that was completed, in the order of their ends. clients: per client a tuple
        (outcome of OUTCOMES, detail, bytes, requests answered, connections).
        """
        cdef int i
        if self.began:
            raise RuntimeError("a storm is played once")
        with nogil:
            self.play()
        return (self.finished - self.began) / 1e9, [self.seconds[at] for at in range(self.done)], [
            (OUTCOMES[<int>self.client[i].outcome], self.client[i].detail, self.client[i].bytes,
             self.client[i].requests, self.client[i].connections)
            for i in range(self.clients)
        ]

    cdef int play(self) except -1 nogil:
        cdef epoll_event events[EVENTS]
        cdef int begun = 0, ready, i
        cdef uint64_t now = http_clock(), look = 0
        self.began = self.finished = now
        self.left = self.clients
        while self.left:
            for i in range(begun, min(begun + <int>BATCH, self.clients)):
                begun = i + 1
                now = http_clock()
                self.client[i].began = self.client[i].heard = now
                self.open(i, now)
            ready = epoll_wait(self.epoll, events, EVENTS, TICK_MS if begun == self.clients else 0)
            now = http_clock()
            for i in range(ready):
                self.serve(<int>events[i].data.u32, now)
            if now >= look:
                look = now + TICK_MS * <uint64_t>1_000_000
                self.look_at_clocks(begun, now)
                with gil:
                    PyErr_CheckSignals()
        return 0

    cdef void look_at_clocks(self, int begun, uint64_t now) noexcept nogil:
        cdef int i
        cdef Client *c
        for i in range(begun):
            c = &self.client[i]
            if c.state not in (ENDED, CONNECTING) and now > c.heard + self.patience:
                self.serve(i, now)  # a trickle that woke nobody
            if c.state != ENDED and now > c.heard + self.patience:
                self.end(i, SILENT, c.offset, now)

    # -- one client ----------------------------------------------------------------------------------------------------

    cdef void hang_up(self, Client *c) noexcept nogil:
        if c.fd >= 0:
            close(c.fd)  # epoll forgets it, too
            c.fd = -1

    cdef void end(self, int i, Outcome outcome, uint64_t detail, uint64_t now) noexcept nogil:
        cdef Client *c = &self.client[i]
        self.hang_up(c)
        c.state = ENDED
        c.outcome = outcome
        c.detail = detail
        self.finished = now
        self.left -= 1

    cdef void open(self, int i, uint64_t now) noexcept nogil:
        cdef Client *c = &self.client[i]
        self.hang_up(c)
        c.connections += 1
        c.proven = c.closes = False
        c.low = 1
        c.state = CONNECTING
        c.fd = http_connect(self.epoll, <uint32_t>i, self.first + i if self.first else 0, self.server, self.port)
        if c.fd < 0:
            self.end(i, UNCONNECTED, errno, now)

    cdef void ask(self, int i, uint64_t now) noexcept nogil:
        """Send the next request: for the next piece of the file, or for the whole."""
        cdef Client *c = &self.client[i]
        cdef char text[REQUEST]
        cdef size_t size = self.request_size
        cdef ssize_t sent
        memcpy(text, self.request_bytes, size)
        c.stop = self.size
        if self.piece and self.size:
            c.stop = min(self.size, c.offset + self.piece)
            size += snprintf(text + size, REQUEST - size, b"Range: bytes=%llu-%llu\r\n",
                             <unsigned long long>c.offset, <unsigned long long>(c.stop - 1))
        memcpy(text + size, b"\r\n", 2)
        size += 2
        c.head_size = 0
        c.state = WAITING
        sent = send(c.fd, text, size, MSG_NOSIGNAL)
        if sent != <ssize_t>size:  # the socket's buffer is empty: either all of it fits, or the connection is broken
            self.broken(i, now)

    cdef void broken(self, int i, uint64_t now) noexcept nogil:
        """The connection has ended, and not by our doing."""
        cdef Client *c = &self.client[i]
        if c.proven and c.state == WAITING and c.head_size == 0:
            # Kept connections may be closed at any time (RFC 9112 9.3.1): the request goes out again.
            self.open(i, now)
        else:
            self.end(i, CUT_OFF, c.offset, now)

    cdef void serve(self, int i, uint64_t now) noexcept nogil:
        """Its socket is ready."""
        cdef Client *c = &self.client[i]
        cdef int error
        cdef ssize_t got
        if c.state == ENDED:
            return
        if c.state == CONNECTING:
            error = http_connected(self.epoll, <uint32_t>i, c.fd)
            if error:
                self.end(i, UNCONNECTED, error, now)
            else:
                self.ask(i, now)
            return
        for _ in range(READS):
            got = recv(c.fd, self.buffer, RECEIVE, 0)
            if got < 0 and errno == EINTR:
                continue
            if got < 0 and errno == EAGAIN:
                return
            if got <= 0:
                self.broken(i, now)
                return
            c.heard = now
            if not self.take(i, self.buffer, got) or got < RECEIVE:
                return

    cdef bint take(self, int i, const uint8_t *data, size_t size) noexcept nogil:
        """What came on its connection; False when there is another connection, or none."""
        cdef Client *c = &self.client[i]
        cdef size_t n
        while size:
            if c.state == WAITING:
                n = self.take_head(i, data, size)
                if c.state == ENDED:
                    return False
            else:
                n = min(size, c.stop - c.offset)
                if memcmp(data, self.file + c.offset, n) != 0:
                    self.wrong(i, data)
                    return False
                c.offset += n
                c.bytes += n
            data += n
            size -= n
            if c.state == READING and c.offset == c.stop:
                if size:
                    self.end(i, TOO_LONG, c.stop, c.heard)
                    return False
                return self.answered(i, http_clock())
        self.set_wake(c)
        return True

    cdef void set_wake(self, Client *c) noexcept nogil:
        """A wake-up for each packet would cost more than the bytes."""
        cdef uint64_t low = min(<uint64_t>WAKE, c.stop - c.offset) if c.state == READING else 1
        if low != c.low:
            c.low = low
            http_wake_at(c.fd, low)

    cdef void wrong(self, int i, const uint8_t *data) noexcept nogil:
        cdef Client *c = &self.client[i]
        cdef size_t at = 0
        while data[at] == self.file[c.offset + at]:
            at += 1
        self.end(i, WRONG_BYTE, c.offset + at, c.heard)

    cdef size_t take_head(self, int i, const uint8_t *data, size_t size) noexcept nogil:
        """Collect the head; the bytes of it in `data`."""
        cdef Client *c = &self.client[i]
        cdef size_t before = c.head_size, searched = before - 3 if before > 3 else 0
        cdef size_t n = min(size, <size_t>HEAD - before)
        cdef http_head head
        cdef char *end
        memcpy(c.head + before, data, n)
        c.head_size += <uint32_t>n
        end = <char *>memmem(c.head + searched, c.head_size - searched, b"\r\n\r\n", 4)
        if end == NULL:
            if c.head_size == HEAD:
                self.end(i, BAD_HEAD, 0, c.heard)
            return n
        end[2] = 0
        if not http_parse(c.head, &head):
            self.end(i, BAD_HEAD, head.status, c.heard)
        else:
            self.begin_body(i, &head)
        return <size_t>(end + 4 - c.head) - before

    cdef void begin_body(self, int i, const http_head *head) noexcept nogil:
        """Whether this is the answer to what was asked."""
        cdef Client *c = &self.client[i]
        cdef uint64_t wanted = c.stop - c.offset
        cdef bint ranged = self.piece and self.size
        c.closes = head.closes or not self.keep
        if head.status != (206 if ranged else 200):
            self.end(i, REFUSED, head.status, c.heard)
        elif not head.has_length or ranged and (
            not head.has_range or head.first != c.offset or head.last != c.stop - 1 or head.whole != self.size
        ):
            self.end(i, BAD_HEAD, head.status, c.heard)
        elif head.length != wanted:
            self.end(i, TOO_LONG if head.length > wanted else TOO_SHORT, head.length, c.heard)
        else:
            c.state = READING

    cdef bint answered(self, int i, uint64_t now) noexcept nogil:
        """A response is complete: on to what comes next; False when there is another connection, or none."""
        cdef Client *c = &self.client[i]
        c.requests += 1
        c.proven = True
        if c.offset == self.size:
            self.seconds[self.done] = (now - c.began) / 1e9
            self.done += 1
            c.downloads += 1
            c.offset = 0
            c.began = now
            if c.downloads == self.downloads:
                self.end(i, GOOD, 0, now)
                return False
        if c.closes:
            self.open(i, now)
            return False
        self.ask(i, now)
        self.set_wake(c)
        return False
