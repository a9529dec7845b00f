"""A network in virtual time with a PassSender, a TftpSender to fall back to, and the two clients of PXE's MTFTP.

As in `tftp_sim`, nothing reads a clock, and faults are seeded objects. Clients are known by their addresses; they say
which of their ports they listen to. A datagram to a group reaches each client that listens by a way of its own.
"""

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import partial

from pxed._ext.blob import Blob
from pxed._ext.mtftp_pxe import PassSender
from pxed._ext.tftp_events import Finished
from pxed._ext.tftp_virtual import VirtualTftp
from support import tftp_sim
from support.tftp_sim import Fault, ack, number, rrq
from support.virtual_network import VirtualNetwork

Address = tuple[str, int]
SERVER = "10.0.0.1"
CLIENT_PORT = 2056
GROUP: Address = ("239.255.78.255", CLIENT_PORT)
MTFTP, TFTP = 1799, 69  # our ports
Said = list[tuple[int, int, bytes]]  # (port of the client, our port, datagram)


class Client(ABC):
    """What both have: when all fails, plain TFTP on port 69."""

    listen = 2.0
    delay = 2.0

    def __init__(self, name: str, address: str, *, pause: float = 0.0, deaf: bool = False) -> None:
        """`pause`: seconds that it needs for each packet. `deaf`: nothing that is sent to the group reaches it."""
        self.name, self.address, self.pause, self.deaf = name, address, pause, deaf
        self.port = CLIENT_PORT
        self.blocks: dict[int, bytes] = {}
        self.size = 0  # number of the last block, once seen
        self.plain: tftp_sim.Client | None = None
        self.own_deadline: float | None = None
        self.done = self.dead = False
        self.failed = ""
        self.finished_at = 0.0
        self.passes = 0  # that it acknowledged
        self.unicast_blocks = 0

    @property
    def deadline(self) -> float | None:
        return self.plain.deadline if self.plain else self.own_deadline

    @property
    def received(self) -> bytes:
        if self.plain:
            return bytes(self.plain.received)
        return b"".join(self.blocks[block] for block in sorted(self.blocks))

    def listens_to_group(self) -> bool:
        return not (self.done or self.dead or self.deaf or self.plain or self.failed)

    @abstractmethod
    def start(self, now: float) -> Said: ...

    @abstractmethod
    def timer(self, now: float) -> Said: ...

    @abstractmethod
    def heard(self, datagram: bytes, now: float, by_group: bool) -> Said: ...

    def on_timer(self, now: float) -> Said:
        if self.plain:
            return self._plainly(self.plain.on_timer(now))
        return self.timer(now)

    def receive(self, datagram: bytes, port: int, now: float, by_group: bool) -> Said:
        if self.done or self.failed or self.dead:
            return []
        if self.plain:
            if port != self.plain.peer[1] or by_group:
                return []
            said = self._plainly(self.plain.receive(datagram, now))
            self.done, self.failed, self.finished_at = self.plain.done, self.plain.failed, now
            return said
        if port != self.port and not by_group:
            return []
        assert datagram[1] == 3, "PXE's clients would not survive anything but DATA"
        self.unicast_blocks += not by_group
        return self.heard(datagram, now, by_group)

    def keep(self, datagram: bytes) -> int:
        block = number(datagram)
        assert self.blocks.setdefault(block, datagram[4:]) == datagram[4:], "two contents of one block"
        if len(datagram) < 516:
            self.size = block
        return block

    def say(self, datagram: bytes) -> Said:
        return [(self.port, MTFTP, datagram)]

    def finish(self, now: float) -> None:
        assert sorted(self.blocks) == list(range(1, self.size + 1))
        self.done, self.own_deadline, self.finished_at = True, None, now

    def fall_back(self, now: float) -> Said:
        self.own_deadline = None
        self.plain = tftp_sim.Ipxe(self.name, (self.address, 50_000))
        return self._plainly(self.plain.start(now))

    def _plainly(self, datagrams: Iterable[bytes]) -> Said:
        assert self.plain
        return [(self.plain.peer[1], TFTP, datagram) for datagram in datagrams]


class Intel(Client):
    """Intel's base code: LISTEN, OPEN, RECEIVE and recovery by listening again, with its own sums of time.

    It keeps only the run of blocks up to the end that it heard without a gap, and wants what comes before from the next
    pass. A block number that goes back, within a pass, is an error that ends MTFTP.
    """

    state = ""

    def start(self, now: float) -> Said:
        self.wanted = 0  # the last block that it misses; 0: all up to the end
        self.patience = self.listen
        self._listen(now, behind=0)
        return []

    def _listen(self, now: float, behind: int) -> None:
        # Blocks up to `behind` are there.
        self.state, self.behind, self.last, self.run, self.missed = "LISTEN", behind, behind, behind, 0
        self.own_deadline = now + self.patience

    def _open(self, now: float) -> Said:
        self.state, self.tries, self.got = "OPEN", 3, set[str]()
        self.own_deadline = now + self.delay
        return self.say(rrq(self.name))

    def timer(self, now: float) -> Said:
        if self.state == "LISTEN":
            if self.run == self.behind:
                return self._open(now)
            return self._listen_again(now)
        self.tries -= 1
        if self.tries == 0:
            return self.fall_back(now)
        self.own_deadline = now + self.delay
        if self.state == "OPEN":
            self.got = set()
            return self.say(rrq(self.name))
        return self.say(ack(self.last))

    def _listen_again(self, now: float) -> Said:
        self.patience = max(0.0, self.listen - self.missed)
        self._listen(now, behind=0)
        return []

    def heard(self, datagram: bytes, now: float, by_group: bool) -> Said:
        if self.state == "LISTEN":
            return self._on_listening(datagram, now) if by_group else []
        if self.state == "OPEN":
            return self._on_opening(datagram, now, by_group)
        return self._on_receiving(datagram, now) if by_group else []

    def _on_listening(self, datagram: bytes, now: float) -> Said:
        block = number(datagram)
        if block < self.last:
            return self.fall_back(now)
        self.own_deadline = now + (self.delay if self.run != self.behind else self.patience)
        if block == self.last:
            return []
        first = self.run == self.behind
        missed = block - self.last - 1
        self.own_deadline = now + self.delay
        self.last = self.keep(datagram)
        if first or missed:
            self.run = block
        if not first:
            self.missed += missed
        if block not in (self.size, self.wanted):
            return []
        if not self.missed and self.run == self.behind + 1:
            self.finish(now)
            return []
        self.wanted = self.run - 1
        return self._listen_again(now)

    def _on_opening(self, datagram: bytes, now: float, by_group: bool) -> Said:
        self.own_deadline = now + self.delay
        if number(datagram) != 1:  # somebody else acknowledges
            self.patience = self.delay
            behind = 0
            if number(datagram) == 2 and "group" in self.got:
                self.keep(datagram)
                behind = 2
            self._listen(now, behind)
            return []
        self.keep(datagram)
        self.got.add("group" if by_group else "unicast")
        if len(self.got) < 2:
            return []
        self.state, self.last, self.tries = "RECEIVE", 1, 3
        self.passes += 1
        return self._acknowledge(now)

    def _on_receiving(self, datagram: bytes, now: float) -> Said:
        block = number(datagram)
        if block not in (self.last, self.last + 1):
            return self.fall_back(now)
        self.tries = 3
        self.last = self.keep(datagram)
        return self._acknowledge(now)

    def _acknowledge(self, now: float) -> Said:
        self.own_deadline = now + self.delay
        if self.last == self.size:
            self.finish(now)
        return self.say(ack(self.last))


class Ipxe(Client):
    """iPXE's `mtftp://`: opens at once, keeps a map, asks again after 0.25 s of silence, and from a new port each time.

    It acknowledges once a datagram has come to its own port. Four requests that nothing at all answers, and it falls
    back; if it knows the file's end by then, it takes what it has for the file.
    """

    tries = 4

    def start(self, now: float) -> Said:
        self.silent = 0
        self.shortest = 0.25 + random.Random(self.address).random() / 18.2  # its clock ticks as it likes
        self.wait = self.shortest
        return self._reopen(now)

    def _reopen(self, now: float) -> Said:
        self.port += 1
        self.answered = self.acknowledges = False
        return self._request(now)

    def _request(self, now: float) -> Said:
        self.own_deadline = now + self.wait
        return self.say(rrq(self.name))

    def timer(self, now: float) -> Said:
        self.wait = min(2 * self.wait, 10.0)
        if self.answered:
            return self._reopen(now)
        self.silent += 1
        if self.silent < self.tries:
            return self._request(now)
        if self.size:
            self.failed, self.own_deadline = "took a file with gaps", None
            return []
        return self.fall_back(now)

    def heard(self, datagram: bytes, now: float, by_group: bool) -> Said:
        self.answered = True
        self.passes += not by_group and number(datagram) == 1
        self.acknowledges |= not by_group
        self.wait = self.shortest
        self.own_deadline = now + self.wait
        self.keep(datagram)
        gap = next(block for block in itertools.count(1) if block not in self.blocks) if self.acknowledges else 0
        if self.size and len(self.blocks) == self.size:
            self.finish(now)
        return self.say(ack(gap - 1)) if self.acknowledges else []


class Network(VirtualNetwork[Client]):
    """The two senders, what the control plane does for them, and the clients, known by their addresses."""

    def __init__(
        self,
        files: dict[str, bytes],
        *,
        any_order: bool = False,
        down: Iterable[Fault] = (),
        up: Iterable[Fault] = (),
        delay: float = 0.0002,
    ) -> None:
        self.passes = VirtualTftp(sender=PassSender(any_order=any_order, seed=2))
        self.tftp = VirtualTftp(seed=1)
        super().__init__((self.tftp, self.passes), down=down, up=up, delay=delay)
        self.group_bytes = 0
        self.files = {name: Blob(data) for name, data in files.items()}

    def add(self, client: Client) -> Client:
        """A client begins now."""
        self._begin(client.address, client)
        return client

    def fail(self, client: Client) -> None:
        """Somebody pulls its plug."""
        client.dead, client.own_deadline = True, None

    def _arrive(self, client: Client, port: int, ours: int, datagram: bytes, up: bool, by_group: bool) -> None:
        if up:
            server = self.tftp if ours == TFTP else self.passes
            server.receive(datagram, (client.address, port), self.now, SERVER)
        else:
            self._say(client, client.receive(datagram, port, self.now, by_group))

    def _say(self, client: Client, said: Said) -> None:
        for port, ours, datagram in said:
            self._travel(client, port, ours, datagram, self._up, later=client.pause)

    def _travel(
        self,
        client: Client,
        port: int,
        ours: int,
        datagram: bytes,
        faults: tuple[Fault, ...],
        *,
        later: float = 0.0,
        up: bool = True,
        by_group: bool = False,
    ) -> None:
        arrow = "->" if up else "<=" if by_group else "<-"
        self._send(
            f"{client.address}:{port}", f"{arrow} {ours} {datagram[:16]!r}", datagram, faults, later,
            partial(self._arrive, client, port, ours, datagram, up, by_group),
        )  # fmt: skip

    def _serve(self) -> None:
        for event in self.tftp.events():
            if not isinstance(event, Finished):
                self.tftp.send(event.id, self.files[event.name], self.now)
        for event in self.passes.events():
            if isinstance(event, Finished):
                self.finished.append(event)
            elif event.name in self.files:
                self.passes.send(event.id, self.files[event.name], self.now, GROUP, quiet=2)
            else:
                self.passes.refuse(event.id, 1, "file not found", self.now)
        for ours, server in ((TFTP, self.tftp), (MTFTP, self.passes)):
            for to, datagram in server.drain(self.now):
                self._deliver(to, ours, datagram)

    def _deliver(self, to: Address, ours: int, datagram: bytes) -> None:
        if to != GROUP:
            self._travel(self.clients[to[0]], to[1], ours, datagram, self._down, up=False)
            return
        self.group_bytes += len(datagram) - 4
        for client in self.clients.values():
            if client.listens_to_group():
                self._travel(client, to[1], ours, datagram, self._down, up=False, by_group=True)
