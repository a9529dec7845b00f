"""Drives one virtual machine by hand: what it sends and when, and answers in bytes."""

from collections.abc import Callable

from pxed.bench.firmware import Row, TftpHabits, row
from pxed.bench.fleet.machine import Machine, Program, Send
from pxed.bench.fleet.plan import identity
from pxed.bench.fleet.tftp import read

SERVER = "10.0.0.1"
RTT = 0.001


class Wire:
    """A machine and the datagrams that it has sent, with their times."""

    def __init__(
        self, boot: Callable[[Machine], Program[None]], row: Row, known: dict[str, bytes] | None = None
    ) -> None:
        self.machine = Machine(0, row, identity(0), known or {}, boot)
        self.now = 0.0
        self.sent: list[tuple[float, Send]] = []
        self.machine.start(0.0)
        self._collect()

    def _collect(self) -> None:
        for what in self.machine.out:
            assert isinstance(what, Send)
            self.sent.append((self.now, what))
        self.machine.out.clear()

    def payloads(self) -> list[bytes]:
        """What it has sent at last."""
        return [send.payload for _, send in self.sent]

    def answer(self, payload: bytes, after: float = RTT, source: tuple[str, int] = (SERVER, 69)) -> list[bytes]:
        """A datagram reaches the machine's open port; what it says to that."""
        self.sent.clear()
        self.now += after
        self.machine.receive(payload, source, self.machine.port, self.now)
        self._collect()
        return self.payloads()

    def silence(self, until: float = 1e6) -> list[float]:
        """Nothing comes any more: the times at which it sends, until it gives up or `until`."""
        self.sent.clear()
        while self.machine.deadline is not None and self.machine.deadline <= until:
            self.now = self.machine.deadline
            self.machine.on_timer(self.now)
            self._collect()
        return [round(at, 6) for at, _ in self.sent]


def reading(habits: TftpHabits, name: str = "file", content: bytes | None = None) -> Wire:
    """A machine that reads one file from SERVER and is done then."""

    def boot(machine: Machine) -> Program[None]:
        machine.address, machine.server = "10.0.0.9", SERVER
        with machine.step("reading"):
            body = yield from read(machine, name, habits)
        machine.reason = f"{len(body)} bytes"

    return Wire(boot, row("uefi"), {name: content} if content is not None else None)


def data(block: int, content: bytes) -> bytes:
    return b"\0\3" + (block % 65536).to_bytes(2, "big") + content


def ack(block: int) -> bytes:
    return b"\0\4" + (block % 65536).to_bytes(2, "big")


def oack(**options: int) -> bytes:
    return b"\0\6" + b"".join(f"{name}\0{value}\0".encode() for name, value in options.items())
