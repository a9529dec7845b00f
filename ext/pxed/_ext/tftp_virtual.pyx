"""A sender driven from Python, in virtual time: bytes and a clock in, bytes and deadlines out. For tests."""

import time

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport UINT64_MAX, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from pxed._ext.tftp_events import Request

from pxed._ext.blob cimport Blob
from pxed._ext.linux_net cimport (
    iovec, pxed_batch, pxed_batch_clear, pxed_clock, pxed_path, pxed_path_parse, pxed_path_port,
)
from pxed._ext.orders cimport Order, forget_command, join_command, list_command, refuse_command, send_command
from pxed._ext.pacer cimport Pacer
from pxed._ext.sender cimport Command, Sender, free_command
from pxed._ext.tftp cimport DATA_HEADER, OP_ACK, OP_OACK, opcode, write_data_header
from pxed._ext.tftp_events cimport Ledger, address_text
from pxed._ext.tftp_sender cimport TftpSender

cimport cython


cdef uint64_t _now(double seconds) noexcept nogil:
    return <uint64_t>(seconds * 1e9 + 0.5)  # what `next_timer` said must come back as the same nanosecond


@cython.final
@cython.no_gc_clear
cdef class VirtualTftp:
    """Times are seconds, peers are (address, port). `seed`, `limit` and `places` as for the sender, or another one."""

    cdef Sender sender
    cdef Ledger ledger
    cdef Pacer pacer
    cdef uint64_t joined

    def __cinit__(self, uint64_t seed=0, size_t limit=20_000, size_t places=0, Pacer pacer=None, *,
                  Sender sender=None):
        self.sender = TftpSender(seed, limit, places) if sender is None else sender
        self.pacer = pacer
        if pacer is not None:
            self.sender.lines.pace(0, &pacer.c)
        self.ledger = Ledger(self.sender)

    def receive(self, data, peer: tuple, double now, local: str = "") -> None:
        """A datagram from `peer`, sent to our address `local`. Raises ValueError for an address that is none."""
        cdef pxed_path path
        cdef Py_buffer view
        if pxed_path_parse(&path, peer[0].encode(), peer[1], local.encode()) < 0:
            raise ValueError(f"not addresses of one family: {peer[0]!r}, {local!r}")
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        self.sender.receive(<const uint8_t *>view.buf, view.len, &path, _now(now))  # cannot raise
        PyBuffer_Release(&view)

    def on_timer(self, double now) -> None:
        """Let the timers run that are due at `now`."""
        self.sender.on_timer(_now(now))

    def next_timer(self) -> float | None:
        """When to call `on_timer` next; None when nothing waits."""
        cdef uint64_t deadline = self.sender.next_timer()
        return None if deadline == UINT64_MAX else deadline / 1e9

    def drain(self, double now, int batches=0) -> list:
        """Every datagram that is ready, as (peer, bytes), in order; with `batches` at most so many of an engine's."""
        cdef pxed_batch *batch = <pxed_batch *>malloc(sizeof(pxed_batch))
        cdef bint more = True
        cdef unsigned int i
        if batch is NULL:
            raise MemoryError
        datagrams = []
        while more:
            pxed_batch_clear(batch)
            more = self.sender.fill(batch, _now(now)) and batches != 1
            batches -= batches > 0
            for i in range(batch.count):
                datagrams += _datagrams(batch, i)
        free(batch)
        return datagrams

    def read_through(self, request, Blob blob) -> tuple:
        """Be the one client of a large `blob`: send a request with options, then acknowledge each window. In real
        time, as there may be a disk to wait for.

        Returns (blocks, bytes, those blocks that are not all zero as {number: bytes}). Raises ValueError with the
        beginning of a datagram that is not the next block.
        """
        cdef pxed_batch *batch = <pxed_batch *>malloc(sizeof(pxed_batch))
        cdef Reading reading
        cdef pxed_path path
        cdef uint8_t answer[4]
        cdef uint64_t now
        cdef unsigned int i
        if batch is NULL:
            raise MemoryError
        memset(&reading, 0, sizeof(reading))
        found = {}
        pxed_path_parse(&path, b"10.0.0.1", 2070, b"")
        try:
            self.receive(request, ("10.0.0.1", 2070), pxed_clock() / 1e9)
            self.send(self.events()[0].id, blob, pxed_clock() / 1e9)
            while not reading.ended:
                now = pxed_clock()
                self.sender.on_timer(now)
                pxed_batch_clear(batch)
                self.sender.fill(batch, now)
                if batch.count == 0:
                    time.sleep(max(self.next_timer() - pxed_clock() / 1e9, 0))
                for i in range(batch.count):
                    _read(batch, i, &reading, found)
                write_data_header(answer, reading.blocks)
                answer[1] = OP_ACK
                self.sender.receive(answer, 4, &path, now)
        finally:
            free(batch)
        return reading.blocks, reading.bytes, found

    def events(self) -> list:
        """The records since the last call."""
        return self.ledger.take(self.sender.take_events())

    def send(self, id: int, Blob blob, double now, group: tuple | None = None, *, quiet: int = 0) -> None:
        """Answer request `id` with a blob, to the (address, port) of a group if the sender knows groups (`quiet`: as
        for Engine.send); nothing when it ended meanwhile.
        """
        self._order(send_command(id, blob, group, quiet), now)

    def refuse(self, id: int, code: int, text: str, double now) -> None:
        """Answer request `id` with an ERROR; nothing when it ended meanwhile."""
        self._order(refuse_command(id, code, text), now)

    def forget(self, id: int, double now) -> None:
        """Request `id` gets no answer."""
        self._order(forget_command(id), now)

    def join(self, request: Request, Blob blob, double now) -> int:
        """Serve a request that another sender received, under the id that is returned."""
        self.joined += 1
        self.ledger.names[self.joined] = request.name
        self._order(join_command(self.joined, request, blob, 0), now)
        return self.joined

    def post(self, Order order, double now) -> None:
        """Give the sender an order of its own kinds. Raises ValueError when it was posted before."""
        self._order(order.take(), now)

    cdef _order(self, Command *command, double now):
        self.sender.command(command, _now(now))
        free_command(command)

    def ask_listing(self, size_t first, double now) -> None:
        """Ask what runs, from place `first` of the table on: a Listing comes with the events."""
        self._order(list_command(first), now)

    def statistics(self) -> dict:
        """Counters since the beginning and gauges; `outcome.NAME` and `drop.REASON` among them."""
        return self.sender.statistics()


cdef list _datagrams(pxed_batch *batch, unsigned int i):
    # One message of a batch, cut as the kernel would cut it.
    cdef size_t piece
    cdef size_t segment = batch.segment[i]
    cdef bytes whole = b""
    for piece in range(batch.message[i].msg_hdr.msg_iovlen):
        whole += (<char *>batch.message[i].msg_hdr.msg_iov[piece].iov_base)[
            :batch.message[i].msg_hdr.msg_iov[piece].iov_len]
    peer = (address_text(&batch.path[i], 0), pxed_path_port(&batch.path[i]))
    return [(peer, whole[at:at + segment]) for at in range(0, len(whole), segment)]


cdef struct Reading:
    uint64_t blocks
    uint64_t bytes
    uint64_t blksize             # of the first block
    bint ended


cdef int _read(pxed_batch *batch, unsigned int message, Reading *reading, dict found) except -1:
    # The datagrams of one message: each is a header, and bytes unless it is an empty last block.
    cdef iovec *pieces = batch.message[message].msg_hdr.msg_iov
    cdef size_t count = batch.message[message].msg_hdr.msg_iovlen
    cdef size_t at = 0
    cdef size_t size
    cdef const uint8_t *data
    if opcode(<uint8_t *>pieces[0].iov_base, pieces[0].iov_len) == OP_OACK:
        return 0
    while at < count:
        header = (<char *>pieces[at].iov_base)[:pieces[at].iov_len]
        reading.blocks += 1
        if header != b"\0\3" + (reading.blocks & 0xffff).to_bytes(2, "big"):
            raise ValueError(header)
        size = pieces[at + 1].iov_len if at + 1 < count and pieces[at + 1].iov_len != DATA_HEADER else 0
        data = <const uint8_t *>pieces[at + 1].iov_base if size else NULL
        if size and (data[0] or memcmp(data, data + 1, size - 1)):
            found[reading.blocks] = (<const char *>data)[:size]
        reading.bytes += size
        reading.blksize = max(reading.blksize, size)
        reading.ended = size < reading.blksize
        at += 2
    return 0
