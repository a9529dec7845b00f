"""A CastSender in virtual time: a talk in which the test says every report, and a room of machines."""

import array
import heapq
import itertools
import random
import tempfile
from collections.abc import Sequence

from pxed._ext import cast
from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_events import CastListing, admit, ask_session, open_session
from pxed._ext.cast_frames import CastLayout
from pxed._ext.cast_sender import CastSender
from pxed._ext.cast_source import CastSource
from pxed._ext.orders import Order
from pxed._ext.pacer import Pacer
from pxed._ext.tftp_virtual import VirtualTftp

KEY = bytes(range(16))
GROUP = ("239.255.79.1", 1759)
ALIVE, REPORT_NOW = 1, 2
DONE, LEAVING, TAKES_HTTP = 1, 2, 4
DELAY = 0.0003

Run = tuple[int, int]
Wants = Sequence[Run | tuple[int, Sequence[Run]]]


def source(sizes: Sequence[int], seed: int = 1) -> CastSource:
    """Frames of random bytes."""
    frames = CastSource(read_ahead=False)
    with tempfile.TemporaryFile() as pack:
        pack.write(random.Random(seed).randbytes(sum(sizes)))
        pack.flush()
        for offset, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
            frames.add(pack.fileno(), offset, size)
    return frames


class Talk:
    """One session, whose receivers' every report the test says. `frames` chunks of `symbols` symbols of 100 bytes."""

    def __init__(self, frames: int = 4, symbols: int = 8, *, rate: int = 0, period: float = 1.0, session: int = 77,
                 server: "Talk | None" = None, pacer: Pacer | None = None, held: bool = False) -> None:  # fmt: skip
        self.wire = cast.Session(session, KEY, 100)
        self.sender = server.sender if server else CastSender()
        self.server = server.server if server else VirtualTftp(sender=self.sender, pacer=pacer)
        self.source = source([symbols * 100] * frames, session)
        self.frames, self.symbols = frames, symbols
        self.sequence = 0
        self.numbers: dict[int, int] = {}
        self.post(open_session(session, KEY, GROUP, self.source, rate=rate, symbol=100, period=period, held=held))

    def post(self, order: Order, now: float = 0.0) -> None:
        self.server.post(order, now)

    def admit(self, *receivers: int, now: float = 0.0) -> None:
        """Receivers whose addresses end with their numbers."""
        for receiver in receivers:
            self.post(admit(self.wire.id, receiver, f"10.0.0.{receiver}"), now)

    def report(self, receiver: int, wants: Wants, *, now: float = 0.0, **other: int) -> bytes:
        """The next report of a receiver that has heard everything so far; `other`: fields that are otherwise."""
        self.numbers[receiver] = number = self.numbers.get(receiver, 0) + 1
        report = cast.Report(
            receiver, number, 0, 1, 0, self.sequence, self.sequence, self.sequence, 0, 0, 0, 0, 0, 0, self.frames,
            tuple(wants),
        )._replace(**other)  # fmt: skip
        return cast.encode_report(report, self.wire)

    def say(self, receiver: int, wants: Wants, *, now: float = 0.0, **other: int) -> None:
        """It sends that report."""
        self.send(self.report(receiver, wants, now=now, **other), f"10.0.0.{receiver}", now)

    def send(self, datagram: bytes, address: str, now: float = 0.0) -> None:
        self.server.receive(datagram, (address, 4000), now)

    def drain(self, now: float = 0.0, batches: int = 0) -> list[cast.Data | cast.Mark | cast.Order]:
        """What is sent at that time, decoded; payloads are compared with the source."""
        self.server.on_timer(now)
        said = []
        for _, datagram in self.server.drain(now, batches):
            one = cast.decode(datagram, self.wire)
            if one == "session":
                continue  # another session of the same server
            assert not isinstance(one, cast.Report | str)
            said.append(one)
            if isinstance(one, cast.Data):
                assert one.sequence == self.sequence + 1
                self.sequence = one.sequence
                if one.number < one.symbols:
                    assert one.payload == self.source.frame(one.chunk)[one.number * 100 : (one.number + 1) * 100]
        return said

    def sent(self, now: float = 0.0, batches: int = 0) -> list[tuple[int, int]]:
        """(chunk, symbol) of what is sent."""
        return [(one.chunk, one.number) for one in self.drain(now, batches) if isinstance(one, cast.Data)]

    def told(self, now: float = 0.0) -> list[cast.Mark | cast.Order]:
        """MARKs and ORDERs of what is sent."""
        return [one for one in self.drain(now) if not isinstance(one, cast.Data)]

    def next(self, now: float) -> float:
        """When something is due, at `now` at the earliest."""
        return max(now, self.server.next_timer() or 0.0)

    def listing(self, now: float = 0.0) -> CastListing:
        self.post(ask_session(self.wire.id), now)
        return next(event for event in self.server.events() if isinstance(event, CastListing))

    def whole(self, *chunks: int) -> list[tuple[int, int]]:
        """What is sent of whole chunks."""
        return [(chunk, symbol) for chunk in chunks for symbol in range(self.symbols)]

    def drops(self) -> dict[str, int]:
        """What was counted as dropped, by name."""
        return {key[5:]: n for key, n in self.server.statistics().items() if key.startswith("drop.") and n}


class Machine:
    """A receiver of the room: what it lacks goes by, and some of it gets lost."""

    def __init__(self, number: int, start: float, layout: CastLayout) -> None:
        self.number, self.start = number, start
        self.address = f"10.0.{number // 250}.{number % 250 + 1}"
        self.chance = random.Random(number)
        self.assembler = CastAssembler(layout, keep=False, seed=number)
        self.dead = False
        self.end: float | None = None

    def receive(self, datagram: bytes, now: float) -> None:
        self.assembler.receive(datagram, now)
        while taken := self.assembler.take(0):
            self.assembler.done(taken[0], True)
        if not self.assembler.left:
            self.end = now

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        assert self.end is not None
        return self.end - self.start


class Room:
    """A session of chunks of 1 MiB at `rate` bytes a second, and machines that each lose `loss` of what comes."""

    def __init__(self, size: int, *, rate: int = 21_250_000, loss: float = 0.0) -> None:
        sizes = [min(1 << 20, size - at) for at in range(0, size, 1 << 20)]
        self.layout = CastLayout(array.array("I", sizes).tobytes())
        self.frames = CastSource(read_ahead=False)
        with tempfile.TemporaryFile() as pack:
            pack.truncate(size)
            for at, one in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
                self.frames.add(pack.fileno(), at, one)
        self.sender = CastSender()
        self.server = VirtualTftp(sender=self.sender)
        self.server.post(open_session(77, KEY, GROUP, self.frames, rate=rate), 0.0)
        self.machines: list[Machine] = []
        self.loss = loss
        self.now = 0.0
        self.ideal = size / rate
        self._chance = random.Random(0)
        self._order = itertools.count()
        self._flying: list[tuple[float, int, str, bytes]] = []  # address: the group's, a machine's, or the sender's

    def add(self, count: int = 1) -> list[Machine]:
        """Machines that start now."""
        new = []
        for _ in range(count):
            machine = Machine(len(self.machines) + 1, self.now, self.layout)
            self.server.post(admit(77, machine.number, machine.address), self.now)
            machine.assembler.begin(77, KEY, machine.number, self.now)
            self.machines.append(machine)
            new.append(machine)
        return new

    def run(self, until: float = 100.0) -> None:
        """Until everybody who lives has the image, or that time."""
        while self.now < until and not all(one.end or one.dead for one in self.machines):
            for (address, _), datagram in self.server.drain(self.now):
                self._fly(address, datagram)
            for one in self.machines:
                at = None if one.dead else one.assembler.next_timer()
                if at is not None and at <= self.now:
                    for datagram in one.assembler.reports(self.now):
                        if self._chance.random() >= self.loss:
                            self._fly(f"> {one.address}", datagram)
            self.now = max(self.now, min(self._next(), until))
            self._land()
            self.server.on_timer(self.now)

    def _fly(self, address: str, datagram: bytes) -> None:
        heapq.heappush(self._flying, (self.now + DELAY, next(self._order), address, datagram))

    def _next(self) -> float:
        times = [self.server.next_timer(), self._flying[0][0] if self._flying else None]
        times += [one.assembler.next_timer() for one in self.machines if not one.dead]
        return min(at for at in times if at is not None)

    def _land(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            _, _, address, datagram = heapq.heappop(self._flying)
            if address.startswith("> "):
                self.server.receive(datagram, (address[2:], 4000), self.now)
                continue
            for one in self.machines:
                if (address in (GROUP[0], one.address) and not one.dead and one.end is None
                        and one.chance.random() >= self.loss):  # fmt: skip
                    one.receive(datagram, self.now)

    def figures(self) -> CastListing:
        self.server.post(ask_session(77), self.now)
        return next(event for event in self.server.events() if isinstance(event, CastListing))
