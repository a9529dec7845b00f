"""Engine: sockets, a sender and its timers, run by one native thread that never holds the GIL.

The control plane hears of events through `event_fd` (an eventfd, for `loop.add_reader`) and answers with commands;
both cross as linked lists under a mutex that is held for a few pointer writes. A control plane that stalls delays new
requests only, never a running transfer.
"""

import os
import threading

from pxed._ext.tftp_events import Request

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdint cimport UINT64_MAX, uint32_t, uint64_t
from posix.unistd cimport close as close_fd, read, write

from pxed._ext.blob cimport Blob
from pxed._ext.linux_net cimport (
    POLLIN,
    POLLOUT,
    PXED_INBOX_MESSAGES,
    pollfd,
    pxed_batch,
    pxed_batch_clear,
    pxed_bound_address,
    pxed_clock,
    pxed_inbox,
    pxed_inbox_data,
    pxed_inbox_init,
    pxed_inbox_truncated,
    pxed_poll,
)
from pxed._ext.orders cimport Order, forget_command, join_command, list_command, refuse_command, send_command
from pxed._ext.pacer cimport Pacer
from pxed._ext.sender cimport Command, Event, Sender, free_command, free_events
from pxed._ext.tftp_events cimport Ledger
from pxed._ext.tftp_sender cimport TftpSender
from pxed._ext.tftp_tids cimport TID_SOCKETS
from pxed._ext.udp cimport UdpSocket, receive_batch, send_batch

from pxed._ext.udp import open_socket

cimport cython

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef enum:
    SOCKETS = TID_SOCKETS  # of one engine: an address that is served has one, or some
    ROUNDS = 8         # batches in or out per turn: bounds how long ACKs wait behind data and data behind ACKs

# What does not leave within this time is dropped, as a network would: one neighbour that does not answer ARP must not
# hold everybody else's data.
cdef uint64_t STUCK = 20_000_000


@cython.final
@cython.no_gc_clear
cdef class Engine:
    """One native thread that serves TFTP. `seed` keys its hash tables: random in production.

    `limit` bounds the transfers at one time, `places` those that are served at full speed (0: all of them), and `pacer`
    what they send together; it may be other engines' too.

    `seed` and `limit` are those of a TftpSender; another `sender` takes its place.

    Life: `bind`, `start`, then `drain` whenever `event_fd` is readable and `send` or `refuse` for each Request, `stop`.
    All methods belong to one thread of the control plane. It cannot be started again.
    """

    cdef Sender sender
    cdef TftpSender tftp            # the same; None when another sender takes its place
    cdef Ledger ledger
    cdef list addresses             # (address, port) of each socket
    cdef list pacers                # kept alive for the sender
    cdef UdpSocket udp[SOCKETS]     # their descriptors are the engine's own
    cdef unsigned int socket_count
    cdef pxed_inbox *inbox
    cdef pxed_batch *batch
    cdef uint64_t batch_at          # when the batch was filled
    cdef bint more                  # the sender has more than was sent in this turn
    cdef int wake_fd
    cdef readonly int event_fd
    cdef pthread_mutex_t lock       # guards the two lists
    cdef Command *first_command
    cdef Command *last_command
    cdef Event *first_event
    cdef Event *last_event
    cdef bint stopping              # written by stop, read by the thread after a wake-up
    cdef object thread
    cdef uint64_t joined            # requests that another engine received
    cdef uint64_t received
    cdef uint64_t too_long
    cdef uint64_t stuck

    def __cinit__(self, uint64_t seed=0, size_t limit=20_000, size_t places=0, Pacer pacer=None, *,
                  Sender sender=None):
        self.wake_fd = self.event_fd = -1
        pthread_mutex_init(&self.lock, NULL)
        self.tftp = TftpSender(seed, limit, places) if sender is None else None
        self.sender = self.tftp if sender is None else sender
        self.pacers = [pacer]
        if pacer is not None:
            self.sender.lines.whole = &pacer.c
        self.ledger = Ledger(self.sender)
        self.addresses = []
        self.inbox = <pxed_inbox *>PyMem_RawCalloc(1, sizeof(pxed_inbox))
        self.batch = <pxed_batch *>PyMem_RawCalloc(1, sizeof(pxed_batch))
        if self.inbox is NULL or self.batch is NULL:
            raise MemoryError
        pxed_inbox_init(self.inbox)
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __dealloc__(self):
        # The thread holds a reference to the engine, so it has ended (or never began). Nothing of Python is used here:
        # in a cycle of garbage it may have been taken apart already.
        self._close_sockets()
        if self.wake_fd >= 0:
            close_fd(self.wake_fd)
        if self.event_fd >= 0:
            close_fd(self.event_fd)
        PyMem_RawFree(self.inbox)
        PyMem_RawFree(self.batch)
        self._free_commands(self._take_commands())
        free_events(self.first_event)
        pthread_mutex_destroy(&self.lock)

    @property
    def places(self) -> int:
        """Transfers that are served at full speed at one time. May be set while it runs."""
        return self.tftp.admission.places if self.tftp is not None else 0

    @places.setter
    def places(self, size_t places):
        if places == 0 or self.tftp is None:
            raise ValueError("there must be a place at least, and a TftpSender to have it")
        self.tftp.admission.places = places

    def bind(self, addresses, *, join: bool = False, Pacer pacer=None, multicast_ttl: int = 0,
             bulk: bool = False) -> list:
        """Open a socket per (address, port), port 0 for any; returns them as bound. Before `start`.

        `pacer` limits what is sent there; the same for all addresses of one interface.

        With `join` the ports are those that another engine of this process has bound; the two share the clients. With
        `multicast_ttl` they send to groups, `bulk` is for data that nobody waits for (udp.open_socket).

        Raises OSError (address in use, not ours, no permission) naming the address; nothing is bound then.
        """
        if self.thread is not None:
            raise RuntimeError("the engine runs")
        if self.socket_count + len(addresses) > SOCKETS:
            raise ValueError(f"an engine serves at most {SOCKETS} addresses")
        opened = []
        try:
            for address, port in addresses:
                try:
                    opened.append(
                        open_socket(address, port, join=join, multicast_ttl=multicast_ttl, bulk=bulk))
                except OSError as error:
                    raise OSError(error.errno, f"{error.strerror}: UDP {address} port {port}") from error
        except BaseException:
            for sock in opened:
                sock.close()
            raise
        return self._take(opened, pacer)

    def bind_transfers(self, ports, int count, *, Pacer pacer=None) -> list:
        """Give the transfers that are asked for at the address bound last ports of their own there, in turn: the first
        `count` of the iterator `ports` that are free. Returns them; it has none when none was free. Before `start`.
        """
        cdef unsigned int asked = self.socket_count - 1
        if self.thread is not None or not self.addresses or self.tftp is None:
            raise RuntimeError("first bind, then start")
        address = self.addresses[asked][0]
        opened = []
        for port in ports:
            if self.socket_count + len(opened) >= SOCKETS:
                break
            try:
                opened.append(open_socket(address, port))
            except OSError:
                continue  # somebody else has it
            if len(opened) >= count:
                break
        self.tftp.tids.give(asked, self.socket_count, len(opened))
        return [port for _address, port in self._take(opened, pacer)]

    def _take(self, opened, Pacer pacer):
        cdef UdpSocket *mine
        taken = [sock.getsockname()[:2] for sock in opened]
        for sock in opened:
            mine = &self.udp[self.socket_count]
            mine.fd = sock.detach()
            mine.bound = pxed_bound_address(mine.fd, mine.local)
            if pacer is not None:
                self.sender.lines.pace(self.socket_count, &pacer.c)
            self.socket_count += 1
        self.addresses += taken
        self.pacers.append(pacer)
        return taken

    cdef void _close_sockets(self) noexcept nogil:
        cdef unsigned int i
        for i in range(self.socket_count):
            if self.udp[i].fd >= 0:
                close_fd(self.udp[i].fd)
                self.udp[i].fd = -1

    def start(self) -> None:
        """Start the thread."""
        if self.thread is not None:
            raise RuntimeError("an engine starts once")
        self.thread = threading.Thread(target=self._thread_main, name="pxed-engine", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the thread and every transfer, close the sockets. Waits for the thread: some milliseconds."""
        if self.thread is not None and self.thread.is_alive():
            self.stopping = True
            os.eventfd_write(self.wake_fd, 1)
            self.thread.join()
        self._close_sockets()
        self.sender.close()

    def drain(self) -> list:
        """The events since the last call, oldest first: tftp_events.Request, Finished and Listing, and what kinds of
        records the sender has of its own.
        """
        cdef Event *first
        cdef uint64_t count
        read(self.event_fd, &count, sizeof(count))
        pthread_mutex_lock(&self.lock)
        first = self.first_event
        self.first_event = self.last_event = NULL
        pthread_mutex_unlock(&self.lock)
        return self.ledger.take(first)

    def send(self, id: int, Blob blob, group: tuple | None = None, *, quiet: int = 0) -> None:
        """Answer request `id` with a blob (already converted for mode netascii); nothing if it ended meanwhile.

        `group`: the (address, port) that a sender of groups sends it to. `quiet`: seconds of silence after it.
        """
        self._post(send_command(id, blob, group, quiet))

    def refuse(self, id: int, code: int, text: str) -> None:
        """Answer request `id` with ERROR `code`; nothing if it ended meanwhile."""
        self._post(refuse_command(id, code, text))

    def forget(self, id: int) -> None:
        """Request `id` gets no answer from this engine; it ends as "moved"."""
        self._post(forget_command(id))

    def join(self, request: Request, Blob blob) -> int:
        """Serve a request that another engine received; its events have the id that is returned.

        Raises ValueError when no socket here has the address that the client asked.
        """
        cdef uint32_t index = [address for address, _port in self.addresses].index(request.local_address)
        self.joined += 1
        cdef Command *command = join_command(self.joined, request, blob, index)
        self.ledger.names[self.joined] = request.name
        self._post(command)
        return self.joined

    def post(self, Order order) -> None:
        """Give the sender an order of its own kinds. Raises ValueError when it was posted before."""
        self._post(order.take())

    def ask_listing(self, size_t first=0) -> None:
        """Ask what runs, from place `first` of the table on: a Listing comes with the events, some 256 transfers."""
        self._post(list_command(first))

    def statistics(self) -> dict:
        """Counters since the start, and gauges: the sender's, and those of the sockets."""
        cdef unsigned int i
        statistics = self.sender.statistics()
        statistics["received"] = self.received
        statistics["stuck"] = self.stuck
        statistics["send_errors"] = sum([self.udp[i].send_errors for i in range(self.socket_count)])
        statistics["receive_errors"] = sum([self.udp[i].receive_errors for i in range(self.socket_count)])
        statistics["drop.too-long"] = self.too_long
        return statistics

    # -- between the threads -----------------------------------------------------------------------------------------

    cdef void _post(self, Command *command):
        cdef uint64_t one = 1
        pthread_mutex_lock(&self.lock)
        if self.last_command is NULL:
            self.first_command = command
        else:
            self.last_command.next = command
        self.last_command = command
        pthread_mutex_unlock(&self.lock)
        write(self.wake_fd, &one, sizeof(one))

    cdef Command *_take_commands(self) noexcept nogil:
        cdef Command *first
        pthread_mutex_lock(&self.lock)
        first = self.first_command
        self.first_command = self.last_command = NULL
        pthread_mutex_unlock(&self.lock)
        return first

    cdef void _free_commands(self, Command *command) noexcept nogil:
        cdef Command *after
        while command is not NULL:
            after = command.next
            free_command(command)
            command = after

    cdef void _publish(self) noexcept nogil:
        # Hands the sender's events over, and wakes the control plane.
        cdef Event *last = self.sender.last_event
        cdef Event *first = self.sender.take_events()
        cdef uint64_t one = 1
        if first is NULL:
            return
        pthread_mutex_lock(&self.lock)
        if self.last_event is NULL:
            self.first_event = first
        else:
            self.last_event.next = first
        self.last_event = last
        pthread_mutex_unlock(&self.lock)
        write(self.event_fd, &one, sizeof(one))

    # -- the thread --------------------------------------------------------------------------------------------------

    def _thread_main(self):
        with nogil:
            while not self.stopping:
                self._turn()

    cdef void _turn(self) noexcept nogil:
        cdef pollfd fds[SOCKETS + 1]
        cdef unsigned int i
        cdef uint64_t now
        cdef uint64_t count
        cdef Command *commands
        cdef Command *command
        fds[0].fd = self.wake_fd
        fds[0].events = POLLIN
        for i in range(self.socket_count):
            fds[i + 1].fd = self.udp[i].fd
            fds[i + 1].events = POLLIN
        if self.batch.sent < self.batch.count:
            fds[self.batch.path[self.batch.sent].socket + 1].events = POLLIN | POLLOUT
        if pxed_poll(fds, self.socket_count + 1, self._patience(pxed_clock())) < 0:
            return  # EINTR
        now = pxed_clock()
        if fds[0].revents:
            read(self.wake_fd, &count, sizeof(count))
            commands = self._take_commands()
            command = commands
            while command is not NULL:
                self.sender.command(command, now)
                command = command.next
            self._free_commands(commands)
        for i in range(self.socket_count):
            if fds[i + 1].revents & ~POLLOUT:
                self._receive(i, now)
        self.sender.on_timer(now)
        self._transmit(now)
        self._publish()

    cdef uint64_t _patience(self, uint64_t now) noexcept nogil:
        # How long to sleep, in ns.
        cdef uint64_t until = self.sender.next_timer()
        if self.batch.sent < self.batch.count:
            until = min(until, self.batch_at + STUCK)
        elif self.more:
            return 0
        if until == UINT64_MAX:
            return until
        return until - now if until > now else 0

    cdef void _receive(self, unsigned int index, uint64_t now) noexcept nogil:
        cdef int _round, i, n
        for _round in range(ROUNDS):
            n = receive_batch(self.inbox, self.udp, index)
            self.received += n
            for i in range(n):
                if pxed_inbox_truncated(self.inbox, i):
                    self.too_long += 1
                else:
                    self.sender.receive(pxed_inbox_data(self.inbox, i), self.inbox.message[i].msg_len,
                                        &self.inbox.path[i], now)
            if n < PXED_INBOX_MESSAGES:
                return

    cdef void _transmit(self, uint64_t now) noexcept nogil:
        cdef int _round
        if self.batch.sent < self.batch.count and not send_batch(self.batch, self.udp):
            if now - self.batch_at < STUCK:
                return
            self.stuck += self.batch.count - self.batch.sent
        for _round in range(ROUNDS):
            if self.batch.unsent:
                self.sender.unsent(self.batch)
            pxed_batch_clear(self.batch)
            self.batch_at = now
            self.more = self.sender.fill(self.batch, now)
            if not send_batch(self.batch, self.udp) or not self.more:
                return
