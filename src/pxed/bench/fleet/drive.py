"""Virtual machines on a real network: their datagrams and downloads through sockets, each from its own address.

One thread, one epoll. Requests for an address leave as packets from 0.0.0.0, as firmware sends them; the
site's DHCP server answers here in the process, over cables as lossy as the rest. Everything else is ordinary sockets.
"""

import gc
import heapq
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from pxed.bench.fleet.machine import Fetch, Machine, Send
from pxed.bench.fleet.network import Faults, Trouble
from pxed.bench.fleet.runner import Runner
from pxed.bench.fleet.server import SiteDhcp
from pxed.errors import OperatorError
from pxed.net.dhcp import checksum, ip_udp_packet
from pxed.wire.iana import BROADCAST, CLIENT_PORT, SERVER_PORT

__all__ = ["Download", "Driver"]

_CHADDR = slice(28, 34)
_ETH_P_IP = 0x0800
_IP_HEADER, _IP_SUM = 20, slice(10, 12)
_DATAGRAM = 2048
_BATCH = 64  # datagrams of one socket in one go
_STREAMS = 16  # downloads that are looked at between datagrams
_LOOK = 0.5  # seconds between two looks at what has gone silent, and of `progress`
_SILENCE = 60.0  # seconds without a byte after which a download is lost; iPXE's TCP waits for the server as long
# What a download's socket gathers before it is read: 2,000 reads per Gbit/s, and a window as large as iPXE's.
_GATHER = 64 << 10
_WINDOW = 512 << 10
_BUFFER = 1 << 20
_HEAD = 16 << 10  # a response's head is shorter


def _with_checksum(packet: bytes) -> bytes:
    """An IPv4 packet whose header's checksum the kernel does not fill in."""
    return packet[: _IP_SUM.start] + checksum(packet[:_IP_HEADER]).to_bytes(2, "big") + packet[_IP_SUM.stop :]


class Download:
    """One response: its head, then a body that is compared where it is known, and collected where it is not."""

    def __init__(self, machine: Machine, known: bytes | None) -> None:
        self.machine, self.known = machine, known
        self.heard = 0.0
        self._head = b""
        self._parts: list[bytes] = []
        self._left = -1  # of the body; -1: its length is not known yet
        self._offset = 0

    def take(self, data: memoryview) -> str:
        """Bytes that came; a sentence when they are wrong."""
        if self._left < 0:
            self._head += bytes(data)
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return "" if len(self._head) < _HEAD else "the response has no end of its head"
            problem = self._begin(head.decode("latin-1"))
            return problem or self.take(memoryview(rest))
        size = len(data)
        self._left -= size
        if self._left < 0:
            return "more came than was announced"
        if self.known is None:
            self._parts.append(bytes(data))
        elif not self.known.startswith(data, self._offset):
            return f"a wrong byte after offset {self._offset}"
        self._offset += size
        return ""

    def _begin(self, head: str) -> str:
        status, *lines = head.split("\r\n")
        if status.split(" ")[1:2] != ["200"]:
            return status.partition(" ")[2] or "no response of HTTP"
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = fields.get("content-length", "")
        if not length.isdigit():
            return "a response without a length"
        self._left = int(length)
        if self.known is not None and self._left != len(self.known):
            return f"{self._left} bytes are announced, not {len(self.known)}"
        return ""

    @property
    def whole(self) -> bool:
        """Has everything come?"""
        return self._left == 0

    @property
    def body(self) -> bytes:
        """What came."""
        return b"".join(self._parts) if self.known is None else self.known


class Driver(Runner):
    """To be made inside the clients' network namespace. interface: that all leave by; site: the DHCP server of the
    network, which is ours; known: contents by name."""

    def __init__(
        self, machines: Sequence[Machine], power_on: Sequence[float], interface: str, site: SiteDhcp,
        known: Mapping[str, bytes], trouble: Trouble, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(machines, power_on)
        self._site = site
        self._known = known
        self._faults = Faults(trouble, seed)
        self._by_mac = {machine.mac: machine for machine in machines}
        self._sockets: list[tuple[socket.socket, tuple[str, int]] | None] = [None] * len(machines)
        self._downloads: dict[socket.socket, Download] = {}
        # Whatever a download has to say comes after the datagrams, which firmware answers within a millisecond.
        self._poll, self._streams = select.epoll(), select.epoll()
        self._poll.register(self._streams, select.EPOLLIN)
        self._readers: dict[int, Callable[[], None]] = {}
        self._buffer = bytearray(_BUFFER)
        self.refused = 0  # datagrams that our kernel did not take
        # An IP socket would put the host's address in the place of 0.0.0.0.
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        self._everybody = (interface, _ETH_P_IP, 0, 0, b"\xff" * 6)
        self._broadcasts = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._broadcasts.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        self._broadcasts.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._broadcasts.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._broadcasts.bind(("", CLIENT_PORT))
        self._read(self._broadcasts, self._on_broadcasts)

    def run(self, alive: Callable[[], None], progress: Callable[[int], None]) -> None:
        """Until every machine has its outcome. alive: raises OperatorError when the server has ended."""
        began, look = time.monotonic(), 0.0
        self._readers[self._streams.fileno()] = self._on_streams
        gc.disable()  # nothing here makes cycles, and a collection keeps all machines waiting
        try:
            while self.left:
                self.now = time.monotonic() - began
                while self.queue and self.queue[0][0] <= self.now:
                    _, _, call, arguments = heapq.heappop(self.queue)
                    call(*arguments)
                if self.now >= look:
                    look = self.now + _LOOK
                    self._look()
                    alive()
                    progress(self.ready)
                wait = min(self.queue[0][0] if self.queue else look, look) - self.now
                for fd, _ in self._poll.poll(max(0.0, wait)):
                    self.now = time.monotonic() - began
                    reader = self._readers.get(fd)
                    if reader is not None:
                        reader()
            progress(self.ready)
        finally:
            gc.enable()
            self._close()

    def _close(self) -> None:
        for sock in self._downloads:
            sock.close()
        for pair in self._sockets:
            if pair is not None:
                pair[0].close()
        self._wire.close()
        self._broadcasts.close()
        self._streams.close()
        self._poll.close()

    def _on_streams(self) -> None:
        for fd, _ in self._streams.poll(0, _STREAMS):
            self._readers[fd]()

    def _read(self, sock: socket.socket, reader: Callable[[], None]) -> None:
        self._readers[sock.fileno()] = reader
        self._poll.register(sock, select.EPOLLIN)

    def _drop(self, sock: socket.socket) -> None:
        del self._readers[sock.fileno()]
        sock.close()  # which takes it from the epoll

    # -- datagrams -------------------------------------------------------------------------------------------------

    def send(self, machine: Machine, sent: Send) -> None:
        """Through the socket of the machine's port, or raw for a broadcast."""
        try:
            if sent.to[0] == BROADCAST:
                self._wire.sendto(_with_checksum(ip_udp_packet(sent.payload, sent.source, sent.to)), self._everybody)
                self._ask_site(machine, sent.payload)
            else:
                self._socket(machine, sent.source).sendto(sent.payload, sent.to)
        except BlockingIOError:
            self.refused += 1  # lost, like any other

    def _socket(self, machine: Machine, source: tuple[str, int]) -> socket.socket:
        """The one that is bound to this address and port; a former one of the machine goes."""
        pair = self._sockets[machine.number]
        if pair is not None:
            if pair[1] == source:
                return pair[0]
            self._drop(pair[0])
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(source)
        self._sockets[machine.number] = (sock, source)
        self._read(sock, lambda: self._on_datagrams(machine, sock, source[1]))
        return sock

    def _on_datagrams(self, machine: Machine, sock: socket.socket, port: int) -> None:
        for _ in range(_BATCH):
            try:
                payload, peer = sock.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            self.receive(machine, payload, peer, port)
            pair = self._sockets[machine.number]
            if pair is None or pair[0] is not sock:  # it has gone on to another port
                return

    def _on_broadcasts(self) -> None:
        for _ in range(_BATCH):
            try:
                payload, peer = self._broadcasts.recvfrom(_DATAGRAM)
            except BlockingIOError:
                return
            machine = self._by_mac.get(payload[_CHADDR])
            if machine is not None:
                self.receive(machine, payload, peer, CLIENT_PORT)

    def _ask_site(self, machine: Machine, payload: bytes) -> None:
        answer = self._site.answer(payload)
        if answer is None or not self._faults.arrivals(len(payload), self.now):
            return
        for arrival in self._faults.arrivals(len(answer), self.now):
            self.at(arrival, self.receive, machine, answer, (self._site.address, SERVER_PORT), CLIENT_PORT)

    # -- downloads -------------------------------------------------------------------------------------------------

    def fetch(self, machine: Machine, fetch: Fetch) -> None:
        """One connection for each, as firmware's loaders do."""
        parts = urlsplit(fetch.url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        request = f"GET {path} HTTP/1.1\r\nHost: {parts.hostname}\r\nConnection: close\r\n\r\n".encode()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        download = Download(machine, self._known.get(parts.path.lstrip("/")))
        download.heard = self.now
        try:
            sock.bind((machine.address, 0))
            sock.connect((str(parts.hostname), parts.port or 80))
        except BlockingIOError:
            pass
        except OSError as error:
            sock.close()
            raise OperatorError(f"The virtual machines cannot connect to {fetch.url}: {error.strerror}.") from error
        self._downloads[sock] = download
        self._readers[sock.fileno()] = lambda: self._on_connected(sock, download, request)
        self._streams.register(sock, select.EPOLLOUT)

    def _on_connected(self, sock: socket.socket, download: Download, request: bytes) -> None:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(sock, "no connection by TCP")
            return
        sock.send(request)
        if download.known is not None and len(download.known) > 2 * _GATHER:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, _GATHER)  # what is less comes with the end
        self._readers[sock.fileno()] = lambda: self._on_bytes(sock, download)
        self._streams.modify(sock, select.EPOLLIN)

    def _on_bytes(self, sock: socket.socket, download: Download) -> None:
        try:
            size = sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(sock, f"the connection broke: {error.strerror}")
            return
        if not size:
            self._end(sock, "" if download.whole else "the connection ended early")
            return
        download.heard = self.now
        with memoryview(self._buffer) as view:
            problem = download.take(view[:size])
        if problem or download.whole:
            self._end(sock, problem)

    def _end(self, sock: socket.socket, problem: str) -> None:
        download = self._downloads.pop(sock)
        self._drop(sock)
        self.fetched(download.machine, b"" if problem else download.body, problem)

    def _look(self) -> None:
        """Downloads that have gone silent."""
        for sock in [one for one, download in self._downloads.items() if self.now - download.heard > _SILENCE]:
            self._end(sock, f"nothing came for {_SILENCE:.0f} s")
