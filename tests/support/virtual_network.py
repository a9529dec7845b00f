"""What networks in virtual time with groups have in common: the queue of what is under way, faults, and the clock."""

import heapq
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from pxed._ext.tftp_events import Finished
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import Fault


class Talker(Protocol):
    """A client, as far as every network knows it."""

    @property
    def deadline(self) -> float | None: ...
    def start(self, now: float) -> Any: ...
    def on_timer(self, now: float) -> Any: ...


Client = TypeVar("Client", bound=Talker)


class VirtualNetwork(ABC, Generic[Client]):
    """`now` is its time; `log` has a line for each datagram; `clients` are by what their network knows them by."""

    def __init__(
        self, servers: Iterable[VirtualTftp], *, down: Iterable[Fault] = (), up: Iterable[Fault] = (), delay: float
    ) -> None:
        """`down` is asked for each receiver of a datagram, `up` for each datagram of a client."""
        self.now = 0.0
        self.log: list[str] = []
        self.finished: list[Finished] = []
        self.clients: dict[Any, Client] = {}
        self._servers = tuple(servers)
        self._down, self._up, self._delay = tuple(down), tuple(up), delay
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

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
                heapq.heappop(self._queue)[2]()
            for client in self.clients.values():
                if client.deadline is not None and client.deadline <= self.now:
                    self._say(client, client.on_timer(self.now))
            for server in self._servers:
                server.on_timer(self.now)

    def _begin(self, key: object, client: Client) -> None:
        self.clients[key] = client
        self._say(client, client.start(self.now))

    def _send(
        self, who: str, what: str, datagram: bytes, faults: tuple[Fault, ...], later: float, arrive: Callable[[], None]
    ) -> None:
        """A datagram sets off; `arrive` is called as often as it comes."""
        times = [self.now + self._delay + later]
        for fault in faults:
            times = [arrival for at in times for arrival in fault(datagram, at)]
        self.log.append(f"{self.now:9.4f} {who} {what}{'' if times else ' lost'}")
        for at in times:
            heapq.heappush(self._queue, (at, next(self._order), arrive))

    def _next_time(self) -> float | None:
        times = [client.deadline for client in self.clients.values()]
        times += [server.next_timer() for server in self._servers]
        if self._queue:
            times.append(self._queue[0][0])
        return min((at for at in times if at is not None), default=None)

    @abstractmethod
    def _serve(self) -> None:
        """What the control plane does, at once, and what leaves for the clients."""

    @abstractmethod
    def _say(self, client: Client, said: Any) -> None:
        """What a client says sets off."""
