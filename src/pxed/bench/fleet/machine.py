"""One virtual machine: its firmware and what it loads, from power-on to the kernel's start. Sans-I/O.

Whoever runs it hands in datagrams, ends of HTTP downloads and the time; it leaves what it wants to send in `out` and
says in `deadline` when it wants to be called again. Inside it reads like firmware: generators that yield the time
until which they wait, and get an event, or None when that time has come.
"""

import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from msgspec import Struct

from pxed.bench.firmware import Row
from pxed.errors import PxedError
from pxed.types import Identity

__all__ = ["Datagram", "Fetch", "Fetched", "Lost", "Machine", "NoWork", "Program", "Send", "Step"]

T = TypeVar("T")
FIRST_PORT, LAST_PORT = 1024, 65000
UNSPECIFIED = "0.0.0.0"  # noqa: S104 (the protocol's word for "no address")


class Datagram(NamedTuple):
    """One that arrived on the open port."""

    payload: bytes
    source: tuple[str, int]


class Fetched(NamedTuple):
    """The end of a download; `problem` is a sentence when it failed."""

    body: bytes
    problem: str = ""


class Send(NamedTuple):
    """A datagram that leaves. The source's address is all zero before the machine has one."""

    payload: bytes
    source: tuple[str, int]
    to: tuple[str, int]


class Fetch(NamedTuple):
    """A download by HTTP begins."""

    url: str


Event = Datagram | Fetched | None
Program = Generator[float, Event, T]


class Lost(PxedError):
    """Firmware gives up, for this reason."""


class NoWork(PxedError):
    """The machine is told to boot its own disk."""


class Step(Struct):
    """One step of the way. Times are seconds of whoever runs it."""

    name: str
    began: float
    ended: float = 0.0
    repeats: int = 0
    bytes: int = 0


class Machine:
    """A machine that is off. `boot` is its program; `known` are the contents that it expects under names, so that
    every byte can be compared (names without a leading slash). `restarts`: how often it is switched on again when it
    was lost.
    """

    def __init__(
        self, number: int, row: Row, identity: Identity, known: Mapping[str, bytes],
        boot: "Callable[[Machine], Program[None]]", *, seed: int = 1, restarts: int = 0,
    ) -> None:  # fmt: skip
        self.number = number
        self.row = row
        self.identity = identity
        self.mac = bytes.fromhex(identity.mac.replace(":", ""))
        self.known = known
        self.restarts = restarts
        self.address = UNSPECIFIED
        self.server = ""  # that it boots from
        self.port = 0  # the open one; what comes to others is nobody's
        self.now = 0.0
        self.deadline: float | None = None
        self.out: list[Send | Fetch] = []
        self.steps: list[Step] = []
        self.outcome = ""  # "done", "no work" or "lost", at last
        self.reason = ""
        self.random = random.Random(seed << 32 | number)
        self._program = boot(self)

    def start(self, now: float) -> None:
        """Power on."""
        self.now = now
        self._resume(None)

    def receive(self, payload: bytes, source: tuple[str, int], port: int, now: float) -> None:
        """A datagram came to one of its ports."""
        if port == self.port and self.deadline is not None:
            self.now = now
            self._resume(Datagram(payload, source))

    def fetched(self, body: bytes, problem: str, now: float) -> None:
        """The download has ended."""
        self.now = now
        self._resume(Fetched(body, problem))

    def on_timer(self, now: float) -> None:
        """The deadline has come."""
        self.now = now
        self._resume(None)

    def _resume(self, event: Event) -> None:
        try:
            self.deadline = self._program.send(event)
            return
        except StopIteration:
            self.outcome = "done"
        except NoWork as told:
            self.outcome, self.reason = "no work", str(told)
        except Lost as why:
            self.outcome, self.reason = "lost", str(why)
        self.deadline = None
        self.port = 0

    # -- for its program -------------------------------------------------------------------------------------------

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """What follows is this step."""
        step = Step(name, self.now)
        self.steps.append(step)
        try:
            yield step
        finally:
            step.ended = self.now

    def send(self, payload: bytes, to: tuple[str, int]) -> None:
        """From the open port."""
        self.out.append(Send(payload, (self.address, self.port), to))

    def repeated(self) -> None:
        """Something was sent again because nothing came."""
        self.steps[-1].repeats += 1

    def open_port(self) -> int:
        """A new port for a transfer; datagrams for earlier ones are dropped."""
        self.port = self.random.randrange(FIRST_PORT, LAST_PORT)
        return self.port

    def sleep(self, seconds: float) -> Program[None]:
        """Nothing is listened to meanwhile."""
        self.port = 0
        end = self.now + seconds
        while (yield end) is not None:
            pass

    def fetch(self, url: str) -> Program[bytes]:
        """Download by HTTP. Raises Lost."""
        self.port = 0
        self.out.append(Fetch(url))
        event = None
        while not isinstance(event, Fetched):
            event = yield float("inf")
        if event.problem:
            raise Lost(event.problem)
        self.steps[-1].bytes += len(event.body)
        return event.body
