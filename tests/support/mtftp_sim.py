"""A network in virtual time with multicast: a TftpSender, a GroupSender beside it, and clients of RFC 2090.

As in `tftp_sim`, nothing reads a clock, and faults are seeded objects. A datagram to a group reaches each client that
has joined it by a way of its own, with faults of its own.
"""

from collections.abc import Iterable
from functools import partial

from pxed._ext.blob import Blob
from pxed._ext.mtftp_groups import GroupSender, carries
from pxed._ext.tftp_events import Finished
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import Fault, ack, number, rrq
from support.virtual_network import VirtualNetwork

Address = tuple[str, int]
SERVER = "10.0.0.1"


class Multicast:
    """An RFC 2090 client that keeps a map of what it has; with the manners of atftp.

    It acknowledges only while it is the master: its first gap, after the OACK that says so and after each DATA that it
    asked for. Other DATA is thrown away then, and it asks once more. A slave takes all, and waits with everything to be
    made master; it acknowledges the last block then.
    """

    timeout = 5.0
    tries = 3
    hears_multicast = True
    picky = True  # as the master

    def __init__(self, name: str, peer: Address, *, blksize: int = 512, pause: float = 0.0) -> None:
        """`pause`: seconds that it needs for each packet."""
        self.name, self.peer, self.pause = name, peer, pause
        self.options: dict[str, int | str] = {"multicast": "", "blksize": blksize, "tsize": 0}
        self.blksize = blksize
        self.blocks: dict[int, bytes] = {}
        self.gap = 1  # the first block that it misses
        self.last = 0  # number of the last block, once seen
        self.group: Address | None = None
        self.master = self.asked_again = False
        self.server_port = 69
        self.deadline: float | None = None
        self.silent = 0
        self.done = self.dead = False
        self.failed = ""
        self.started_at = self.first_data_at = self.finished_at = 0.0
        self.was_master = 0

    @property
    def received(self) -> bytes:
        return b"".join(self.blocks[block] for block in sorted(self.blocks))

    def start(self, now: float) -> list[bytes]:
        self.started_at = now
        self.deadline = now + self.timeout
        return [rrq(self.name, **self.options)]

    def on_timer(self, now: float) -> list[bytes]:
        self.silent += 1
        if self.silent > self.tries:
            self.failed, self.deadline = "timed out", None
            return []
        self.deadline = now + self.timeout
        if self.master:
            return [ack(self.gap - 1)]
        if self.blocks:
            return []
        return [rrq(self.name, **self.options)]

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        if self.done or self.failed:
            return []
        self.deadline, self.silent = now + self.timeout, 0
        match datagram[1]:
            case 5:
                self.failed, self.deadline = datagram[4:-1].decode(), None
                return []
            case 6:
                return self._on_oack(datagram, now)
            case _:
                return self._on_data(datagram, now)

    def _on_oack(self, datagram: bytes, now: float) -> list[bytes]:
        words = datagram[2:].split(b"\0")[:-1]
        options = {words[i].decode(): words[i + 1].decode() for i in range(0, len(words), 2)}
        assert set(options) <= set(self.options)
        self.blksize = int(options.get("blksize", "512"))
        self.master = True  # of itself, when served alone
        if "multicast" in options:
            address, port, mc = options["multicast"].split(",")
            self.group, self.master = (address, int(port)), mc == "1"
        self.was_master += self.master
        self.asked_again = False
        return self._after_oack(now)

    def _after_oack(self, now: float) -> list[bytes]:
        return self._acknowledge(now) if self.master else []

    def _on_data(self, datagram: bytes, now: float) -> list[bytes]:
        block = number(datagram)
        self.first_data_at = self.first_data_at or now
        assert block > 0
        if self.picky and self.master and block != self.gap:
            again, self.asked_again = not self.asked_again, True
            return [ack(self.gap - 1)] if again else []
        self.asked_again = False
        assert self.blocks.setdefault(block, datagram[4:]) == datagram[4:], "two contents of one block"
        if len(datagram) < 4 + self.blksize:
            self.last = block
        while self.gap in self.blocks:
            self.gap += 1
        return self._after_data(now)

    def _after_data(self, now: float) -> list[bytes]:
        return self._acknowledge(now) if self.master else []

    def _acknowledge(self, now: float) -> list[bytes]:
        if self.last and self.gap > self.last:
            self.done, self.deadline, self.finished_at = True, None, now
        return [ack(self.gap - 1)]


class Edk2(Multicast):
    """EDK2's Mtftp4Dxe: acknowledges every OACK, slave or not, and the last block as soon as it has them all."""

    timeout = 4.0
    tries = 6
    picky = False

    def _after_oack(self, now: float) -> list[bytes]:
        return self._acknowledge(now)

    def _after_data(self, now: float) -> list[bytes]:
        complete = self.last and self.gap > self.last
        return self._acknowledge(now) if self.master or complete else []


class Ipxe(Multicast):
    """iPXE's tftm://: takes nothing that is sent to the group; answers any unicast packet; gives up after 16 s."""

    hears_multicast = False
    picky = False
    timeout = 0.25
    tries = 5

    def receive(self, datagram: bytes, now: float) -> list[bytes]:
        said = super().receive(datagram, now)
        return said or ([] if self.done or self.failed else [ack(self.gap - 1)])

    def on_timer(self, now: float) -> list[bytes]:
        said = super().on_timer(now)
        if self.deadline is not None:
            self.deadline = now + self.timeout * 2**self.silent
        return [] if self.server_port != 69 and not self.master else said


class Group(VirtualNetwork[Multicast]):
    """The network, the two senders and what the control plane does between them. Clients are known by their ports."""

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        down: Iterable[Fault] = (),
        up: Iterable[Fault] = (),
        delay: float = 0.0002,
        addresses: int = 16,
    ) -> None:
        self.unicast = VirtualTftp(seed=1)
        self.groups = VirtualTftp(sender=GroupSender("239.255.78.0", addresses, 1758, seed=2))
        super().__init__((self.unicast, self.groups), down=down, up=up, delay=delay)
        self.multicast_bytes = 0
        self._files = {name: Blob(data) for name, data in files.items()}

    def add(self, client: Multicast) -> Multicast:
        """A client begins now."""
        self._begin(client.peer, client)
        return client

    def fail(self, client: Multicast) -> None:
        """Somebody pulls its plug."""
        client.dead, client.deadline = True, None

    def _arrive(self, client: Multicast, datagram: bytes, port: int | None, by_group: bool) -> None:
        if port is not None:
            server = self.unicast if port == 69 else self.groups
            server.receive(datagram, client.peer, self.now, SERVER)
        elif not client.dead and (client.hears_multicast or not by_group):
            self._say(client, client.receive(datagram, self.now))

    def _say(self, client: Multicast, said: Iterable[bytes]) -> None:
        for datagram in said:
            port = 69 if datagram[1] == 1 else client.server_port
            self._travel(client, datagram, port, self._up, client.pause)

    def _travel(
        self,
        client: Multicast,
        datagram: bytes,
        port: int | None,
        faults: tuple[Fault, ...],
        later: float = 0.0,
        by_group: bool = False,
    ) -> None:
        arrow = "->" if port is not None else "<=" if by_group else "<-"
        self._send(
            f"{client.peer[0]}:{client.peer[1]}", f"{arrow} {datagram[:40]!r}", datagram, faults, later,
            partial(self._arrive, client, datagram, port, by_group),
        )  # fmt: skip

    def _serve(self) -> None:
        for event in self.unicast.events():
            if isinstance(event, Finished):
                continue
            blob = self._files[event.name]
            if carries(event, blob):
                self.unicast.forget(event.id, self.now)
                self.groups.join(event, blob, self.now)
            else:
                self.unicast.send(event.id, blob, self.now)
        for port, server in ((69, self.unicast), (1758, self.groups)):
            for to, datagram in server.drain(self.now):
                self._deliver(to, datagram, port)
        self.finished += [event for event in self.groups.events() if isinstance(event, Finished)]

    def _deliver(self, to: Address, datagram: bytes, port: int) -> None:
        if to in self.clients:
            self.clients[to].server_port = port
            self._travel(self.clients[to], datagram, None, self._down)
            return
        self.multicast_bytes += len(datagram) - 4
        for client in self.clients.values():
            if client.group == to and not (client.done or client.dead):
                self._travel(client, datagram, None, self._down, by_group=True)
