"""A network in virtual time: faults of the machines' cables, the port of the server, and downloads over TCP.

Everything here is asked for a time and answers with times; nothing reads a clock, and all chance comes from one
seeded generator.
"""

import heapq
import math
import random
from typing import Generic, TypeVar

from msgspec import Struct

__all__ = ["Downloads", "Faults", "Port", "Trouble"]

T = TypeVar("T")
_FRAME = 66  # bytes on the wire besides the UDP payload: preamble 8, Ethernet 14 + 4, gap 12, IPv4 20, UDP 8
_TCP_SHARE = 1448 / 1538  # of the wire, that a download's bytes get: TCP with timestamps, MTU 1500
_SEGMENT = 1448


class Trouble(Struct, frozen=True):
    """What is wrong with the network; shares are 0 to 1, times seconds."""

    loss: float = 0.0
    """Share of datagrams that a machine's cable loses, each way."""
    duplicate: float = 0.0
    reorder: float = 0.0
    """Share of datagrams that are held back, so that later ones overtake them."""
    held: float = 0.002
    """How long."""
    mtu_hole: int = 0
    """UDP payloads longer than this never arrive; 0: no hole."""
    late: float = 0.0
    """The server answers nothing before this time."""
    delay: float = 0.0002
    """One way, without queues."""


class Faults:
    """The machines' cables."""

    def __init__(self, trouble: Trouble, seed: int) -> None:
        self.trouble = trouble
        self._random = random.Random(seed)
        self._simple = not (trouble.duplicate or trouble.reorder or trouble.mtu_hole)
        self.lost = 0

    def arrivals(self, size: int, at: float) -> tuple[float, ...]:
        """When a datagram of `size` bytes that sets off at `at` arrives: once, not at all, or twice."""
        trouble, chance = self.trouble, self._random.random
        if (trouble.loss and chance() < trouble.loss) or (trouble.mtu_hole and size > trouble.mtu_hole):
            self.lost += 1
            return ()
        arrival = at + trouble.delay
        if self._simple:
            return (arrival,)
        if trouble.reorder and chance() < trouble.reorder:
            arrival += trouble.held
        if trouble.duplicate and chance() < trouble.duplicate:
            return (arrival, arrival)
        return (arrival,)

    def connect_time(self, shortest: float, longest: float) -> float | None:
        """Seconds until a TCP connection stands, whose SYN is repeated after `shortest`, then twice as long, until
        that would exceed `longest`; None when it never does."""
        total, wait = 2 * self.trouble.delay, shortest
        while self._random.random() < 1 - (1 - self.trouble.loss) ** 2:
            if wait > longest:
                return None
            total, wait = total + wait, wait * 2
        return total


class Port:
    """The slowest port on the way: datagrams leave one after the other.

    With a queue it is a switch's, behind the server: a full queue drops what comes. Without one it is the server's
    own: the kernel keeps what a socket has sent until it has left, and the engine waits while that is `SOCKET` bytes.
    """

    SOCKET = 1 << 18

    def __init__(self, rate: float, queue: int | None) -> None:
        """rate: bits per second, 0: without limit. queue: bytes that wait at most; None: the server's own port."""
        self._seconds_per_byte = 8 / rate if rate else 0.0
        self._limit = math.inf if queue is None else queue * self._seconds_per_byte
        self._full = self.SOCKET * self._seconds_per_byte if queue is None else math.inf
        self._free = 0.0
        self.bytes = 0
        self.dropped = 0

    def opens(self, now: float) -> float:
        """When the engine may send again; `now` when it may."""
        return max(now, self._free - self._full / 2) if self._free - now > self._full else now

    def leave(self, size: int, now: float) -> float | None:
        """When a datagram's last bit has left; None: dropped."""
        free = max(self._free, now)
        if free - now > self._limit:
            self.dropped += 1
            return None
        self.bytes += size + _FRAME
        self._free = free + (size + _FRAME) * self._seconds_per_byte
        return self._free


class Downloads(Generic[T]):
    """TCP downloads from the server's port as a fluid: all under way get the same share of what the datagrams leave.

    No packets: a share is bounded by what TCP reaches with this loss and round trip (Mathis et al. 1997), and a lost
    SYN costs its repetition. Real TCP is less even than this.
    """

    def __init__(self, rate: float, trouble: Trouble) -> None:
        self._whole = rate / 8 * _TCP_SHARE if rate else math.inf
        self._ceiling = math.inf
        if trouble.loss:
            self._ceiling = _SEGMENT / (2 * trouble.delay) * math.sqrt(1.5 / trouble.loss)
        self._served = 0.0  # bytes that a download has got which has been there from the beginning
        self._at = 0.0
        self._heap: list[tuple[float, int, T]] = []
        self._number = 0
        self.taken = 0.0  # share of the port that datagrams have now, 0 to 1

    def _speed(self) -> float:
        count = len(self._heap)
        return min(self._whole * (1 - self.taken) / count, self._ceiling, 1e12) if count else 0.0

    def _advance(self, now: float) -> None:
        self._served += (now - self._at) * self._speed()
        self._at = now

    def begin(self, size: int, what: T, now: float) -> None:
        """A download of `size` bytes begins to flow."""
        self._advance(now)
        self._number += 1
        heapq.heappush(self._heap, (self._served + size, self._number, what))

    def use(self, taken: float, now: float) -> None:
        """From now on datagrams take this share of the port."""
        self._advance(now)
        self.taken = min(taken, 0.99)

    def next_end(self) -> float | None:
        """When the next one ends, if nothing changes."""
        if not self._heap:
            return None
        return self._at + max(0.0, self._heap[0][0] - self._served) / self._speed()

    def ended(self, now: float) -> list[T]:
        """Those that have ended by now."""
        self._advance(now)
        found = []
        while self._heap and self._heap[0][0] <= self._served + 0.5:  # half a byte: rounding
            found.append(heapq.heappop(self._heap)[2])
        return found
