"""A network in virtual time between a TftpSender and clients that behave like real firmware.

Nothing here reads a clock: `Simulation.run` jumps from event to event. Faults are objects with a seeded random
generator, so every run of a test is the same run. `Simulation.log` holds every datagram, for failing tests to print.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable

from pxed._ext.blob import Blob
from pxed._ext.tftp_events import Finished, Request
from pxed._ext.tftp_virtual import VirtualTftp

Fault = Callable[[bytes, float], list[float]]  # (datagram, its arrival time) -> times at which it arrives


class Loss:
    """Drops a share of the datagrams."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rate, self._random = rate, random.Random(seed)

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        return [] if self._random.random() < self._rate else [at]


class Duplicate:
    """Delivers a share of the datagrams twice, the copy `later` seconds after."""

    def __init__(self, rate: float, seed: int, later: float = 0.003) -> None:
        self._rate, self._later, self._random = rate, later, random.Random(seed)

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        return [at, at + self._later] if self._random.random() < self._rate else [at]


class Reorder:
    """Holds a share of the datagrams back, so that later ones overtake them."""

    def __init__(self, rate: float, seed: int, by: float = 0.002) -> None:
        self._rate, self._by, self._random = rate, by, random.Random(seed)

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        return [at + self._by if self._random.random() < self._rate else at]


class DropNth:
    """Drops exactly the datagrams with these numbers (from 0) of those that match."""

    def __init__(self, numbers: Iterable[int], match: Callable[[bytes], bool] = lambda datagram: True) -> None:
        self._numbers, self._match, self._seen = set(numbers), match, itertools.count()

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        return [] if self._match(datagram) and next(self._seen) in self._numbers else [at]


class SmallRing:
    """A client's receive ring of `size` datagrams that its firmware empties every `interval` seconds."""

    def __init__(self, size: int, interval: float = 0.001) -> None:
        self.size, self._interval = size, interval
        self._filled: dict[int, int] = {}

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        poll = int(at / self._interval) + 1
        self._filled[poll] = self._filled.get(poll, 0) + 1
        return [poll * self._interval] if self._filled[poll] <= self.size else []


class LinkMtu:
    """A link that swallows datagrams with more than `size` bytes of UDP payload."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        return [at] if len(datagram) <= self.size else []


def rrq(name: str, mode: str = "octet", **options: int | str) -> bytes:
    """A read request with options in the order given."""
    words = [name, mode, *itertools.chain.from_iterable((key, str(value)) for key, value in options.items())]
    return b"\0\1" + b"".join(word.encode() + b"\0" for word in words)


def ack(block: int) -> bytes:
    return b"\0\4" + (block % 65536).to_bytes(2, "big")


def error(code: int, text: str = "") -> bytes:
    return b"\0\5" + code.to_bytes(2, "big") + text.encode() + b"\0"


def number(datagram: bytes) -> int:
    """The block number of DATA or ACK."""
    return int.from_bytes(datagram[2:4], "big")


def is_data(datagram: bytes) -> bool:
    return datagram[:2] == b"\0\3"


def options_of(oack: bytes) -> dict[str, int]:
    """The options of an OACK."""
    words = oack[2:].split(b"\0")[:-1]
    return {words[i].decode(): int(words[i + 1]) for i in range(0, len(words), 2)}


class Client:
    """A lock-step client with iPXE's manners: 0.25 s doubling to 10 s, the last packet again, and any DATA but the
    wanted one is answered with the last ACK. Subclasses change what their firmware does otherwise.
    """

    first_timeout = 0.25
    longest_timeout = 10.0
    tries = 12
    options: dict[str, int | str] = {"blksize": 1432, "tsize": 0}  # noqa: RUF012 (subclasses replace it)

    def __init__(self, name: str, peer: tuple[str, int]) -> None:
        self.name, self.peer = name, peer
        self.received = bytearray()
        self.blocks = 0
        self.blksize = 512
        self.window = 1
        self.deadline: float | None = None
        self.timeout = self.first_timeout
        self.tries_left = self.tries
        self.last: bytes = b""
        self.done = False
        self.failed = ""
        self.finished_at = 0.0

    def start(self, now: float) -> list[bytes]:
        return self._say(rrq(self.name, **self.options), now)

    def _say(self, datagram: bytes, now: float) -> list[bytes]:
        # A new packet: the retransmit clock starts over.
        self.last, self.timeout, self.tries_left = datagram, self.first_timeout, self.tries
        self.deadline = now + self.timeout
        return [datagram]

    def on_timer(self, now: float) -> list[bytes]:
        self.tries_left -= 1
        if self.tries_left == 0:
            self.failed, self.deadline = "timed out", None
            return []
        self.timeout = min(self.timeout * 2, self.longest_timeout)
        self.deadline = now + self.timeout
        return [self.last]

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        if self.done or self.failed:
            return []
        opcode = datagram[1]
        if opcode == 5:
            self.failed, self.deadline = datagram[4:-1].decode(), None
            return []
        if opcode == 6:
            return self._on_oack(options_of(datagram), now) if self.blocks == 0 else []
        assert opcode == 3, datagram[:4]
        return self._on_data(datagram, now)

    def _on_oack(self, options: dict[str, int], now: float) -> list[bytes]:
        assert set(options) <= set(self.options)
        self.blksize = options.get("blksize", 512)
        self.window = options.get("windowsize", 1)
        return self._say(ack(0), now)

    def _on_data(self, datagram: bytes, now: float) -> list[bytes]:
        if number(datagram) != (self.blocks + 1) % 65536:
            return self._unexpected(datagram, now)
        self.blocks += 1
        self.received += datagram[4:]
        self.tries_left = self.tries
        if len(datagram) < 4 + self.blksize:
            return self._end(now)
        return self._after_block(now)

    def _unexpected(self, datagram: bytes, now: float) -> list[bytes]:
        return [ack(self.blocks)]

    def _after_block(self, now: float) -> list[bytes]:
        return self._say(ack(self.blocks), now)

    def _end(self, now: float) -> list[bytes]:
        self.done, self.deadline, self.finished_at = True, None, now
        return [ack(self.blocks)]


class Ipxe(Client):
    """iPXE: as the base class."""


class Plain(Client):
    """A ROM of the nineties (or shim): no options, 512 bytes, one ACK each, silent about duplicates."""

    options = {}  # noqa: RUF012
    first_timeout = 1.0
    tries = 8

    def _unexpected(self, datagram: bytes, now: float) -> list[bytes]:
        return []


class Grub(Client):
    """GRUB: 1024 bytes; closes with ERROR 0 instead of the last ACK."""

    options = {"blksize": 1024, "tsize": 0}  # noqa: RUF012

    def _end(self, now: float) -> list[bytes]:
        super()._end(now)
        return [error(0, "closed")]


class Windowed(Client):
    """RFC 7440 as written: ACK at the end of a window, at the first gap, and by time."""

    options = {"blksize": 1408, "windowsize": 16}  # noqa: RUF012

    def __init__(self, name: str, peer: tuple[str, int]) -> None:
        super().__init__(name, peer)
        self.since_ack = 0
        self.gap_told = -1

    def _after_block(self, now: float) -> list[bytes]:
        self.since_ack += 1
        if self.since_ack < self.window:
            self.last, self.deadline = ack(self.blocks), now + self.first_timeout
            return []
        self.since_ack = 0
        return self._say(ack(self.blocks), now)

    def _unexpected(self, datagram: bytes, now: float) -> list[bytes]:
        if self.gap_told == self.blocks:
            return []
        self.gap_told, self.since_ack = self.blocks, 0
        return [ack(self.blocks)]


class Edk2(Windowed):
    """UEFI's own client: 1468 bytes, windowsize 4, 4 s and 6 tries, an ACK for every DATA it did not expect."""

    options = {"blksize": 1468, "windowsize": 4}  # noqa: RUF012
    first_timeout = 4.0
    longest_timeout = 4.0
    tries = 6

    def _unexpected(self, datagram: bytes, now: float) -> list[bytes]:
        self.since_ack = 0
        return [ack(self.blocks)]


class Edk2Probe(Edk2):
    """UEFI's question for the size, before it asks for the file: OACK, ERROR 8."""

    options = {"blksize": 1468, "tsize": 0, "windowsize": 4}  # noqa: RUF012

    def _on_oack(self, options: dict[str, int], now: float) -> list[bytes]:
        self.done, self.deadline, self.finished_at = True, None, now
        self.size = options["tsize"]
        return [error(8, "User aborted the transfer")]


class Simulation:
    """One server, its files, any number of clients; faults apply in both directions."""

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        up: Iterable[Fault] = (),
        down: Iterable[Fault] = (),
        delay: float = 0.0002,
        server: VirtualTftp | None = None,
    ) -> None:
        self.server = server or VirtualTftp(seed=1)
        self.now = 0.0
        self.log: list[str] = []
        self.requests: list[Request] = []
        self.finished: list[Finished] = []
        self.sent_to: dict[tuple[str, int], list[bytes]] = {}
        self.files = {name: Blob(data) for name, data in files.items()}
        self._up, self._down, self._delay = tuple(up), tuple(down), delay
        self._clients: dict[tuple[str, int], Client] = {}
        self._queue: list[tuple[float, int, tuple[str, int], bytes, bool]] = []
        self._clocks: list[tuple[float, int, Client]] = []  # deadlines, outdated ones among them
        self._order = itertools.count()

    def add(self, client: Client) -> Client:
        """A client begins now."""
        self._clients[client.peer] = client
        self._heard(client, client.start(self.now))
        return client

    def _heard(self, client: Client, datagrams: list[bytes]) -> None:
        self.to_server(client.peer, datagrams)
        if client.deadline is not None:
            heapq.heappush(self._clocks, (client.deadline, next(self._order), client))

    def to_server(self, peer: tuple[str, int], datagrams: Iterable[bytes]) -> None:
        """Datagrams set off for the server."""
        for datagram in datagrams:
            self._travel(datagram, peer, self._up, toward_server=True)

    def _travel(
        self, datagram: bytes, peer: tuple[str, int], faults: tuple[Fault, ...], *, toward_server: bool
    ) -> None:
        times = [self.now + self._delay]
        for fault in faults:
            times = [arrival for at in times for arrival in fault(datagram, at)]
        arrow = "->" if toward_server else "<-"
        self.log.append(f"{self.now:9.4f} {peer[0]}:{peer[1]} {arrow} {datagram[:16]!r}{'' if times else ' lost'}")
        for at in times:
            heapq.heappush(self._queue, (at, next(self._order), peer, datagram, toward_server))

    def run(self, until: float = 1000.0) -> None:
        """Until nothing is left to happen, or `until` (virtual seconds)."""
        while True:
            self._serve()
            at = self._next_time()
            if at is None or at > until:
                self.now = min(until, self.now if at is None else until)
                return
            self.now = max(self.now, at)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, peer, datagram, toward_server = heapq.heappop(self._queue)
                if toward_server:
                    self.server.receive(datagram, peer, self.now)
                elif peer in self._clients:
                    self._heard(self._clients[peer], self._clients[peer].receive(datagram, self.now))
            while self._clocks and self._clocks[0][0] <= self.now:
                at, _, client = heapq.heappop(self._clocks)
                if client.deadline == at:
                    self._heard(client, client.on_timer(self.now))
            self.server.on_timer(self.now)

    def _next_time(self) -> float | None:
        while self._clocks and self._clocks[0][2].deadline != self._clocks[0][0]:
            heapq.heappop(self._clocks)
        times = [self.server.next_timer()]
        times += [heap[0][0] for heap in (self._queue, self._clocks) if heap]
        return min((at for at in times if at is not None), default=None)

    def _serve(self) -> None:
        # What the control plane does, at once, and what leaves for the clients.
        for event in self.server.events():
            if isinstance(event, Finished):
                self.finished.append(event)
                continue
            self.requests.append(event)
            if event.name in self.files:
                self.server.send(event.id, self.files[event.name], self.now)
            else:
                self.server.refuse(event.id, 1, "file not found", self.now)
        for peer, datagram in self.server.drain(self.now):
            self.sent_to.setdefault(peer, []).append(datagram)
            self._travel(datagram, peer, self._down, toward_server=False)
        for event in self.server.events():  # what ended while it was served
            assert isinstance(event, Finished)
            self.finished.append(event)
