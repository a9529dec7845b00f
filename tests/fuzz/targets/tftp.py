"""Any conversation with the TFTP sender, in virtual time: nothing breaks, nobody is flooded, others are served."""

import itertools
from collections import Counter

from fuzz.source import Source, exact
from pxed._ext.blob import Blob
from pxed._ext.tftp import Ack, Error, Request, parse
from pxed._ext.tftp_events import Request as Asked
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import ack, error, is_data, number, rrq

# No two blocks of it are alike, so that a wrong one is seen.
FILE = b"".join(index.to_bytes(4, "big") for index in range(2500))
SMALL = FILE[:9000]
BLOB, SMALL_BLOB = Blob(FILE), Blob(SMALL)
OPTIONS: tuple[dict[str, int | str], ...] = (
    {},
    {"blksize": 1468, "windowsize": 4},
    {"blksize": 1432, "tsize": 0},
    {"blksize": 8, "windowsize": 65535},
    {"blksize": 65464, "timeout": 1},
    {"blksize": 512, "windowsize": 16, "timeout": 255, "tsize": 0},
    {"blksize": 1408, "multicast": ""},
    {"blksize": "0x10", "windowsize": "-1", "tsize": 9 * 10**18},
)
MODES = ("octet", "netascii", "mail", "OcTeT")
PEERS = tuple((f"10.0.0.{host}", port) for host in (1, 2, 3) for port in (1000, 1001))
HONEST = "10.0.0.9"
# (limit of the table, places of its admission): much room, a table that gets full, a queue.
SERVERS = ((20_000, 0), (4, 0), (20_000, 1), (5, 2))
WORDS = (
    b"blksize\0",
    b"windowsize\0",
    b"timeout\0",
    b"tsize\0",
    b"multicast\0\0",
    b"octet\0",
    b"netascii\0",
    b"\0\1f\0octet\0",
)
ASKING = (b"\0\1", b"\0\2")
SAY, ASK, ACKNOWLEDGE, ERROR, WAIT, TIMER, SEND, REFUSE = range(8)


def seeds() -> dict[str, bytes]:
    """A raw packet of each kind; transfers with and without options; losses, errors, silence."""
    packets = {
        "rrq": rrq("f", blksize=1468, windowsize=4, tsize=0),
        "wrq": b"\0\2f\0octet\0",
        "ack": ack(1),
        "error": error(4, "no"),
        "data": b"\0\3\0\1x",
        "cut": b"\0\1f\0octet\0blksize\0" + b"9" * 30,
    }
    talks = {f"say-{name}": bytes((SAY, len(data))) + data for name, data in packets.items()}
    for options in range(len(OPTIONS)):
        start = bytes((ASK, options, SEND))
        talks[f"transfer-{options}"] = start + bytes((ACKNOWLEDGE, 0)) * 24
        talks[f"losses-{options}"] = start + bytes((ACKNOWLEDGE, 0, TIMER, ACKNOWLEDGE, 255, WAIT, 40)) * 6
        talks[f"silence-{options}"] = start + bytes((TIMER,)) * 20
    talks["ended"] = bytes((ASK, 1, SEND, ACKNOWLEDGE, 0, ERROR, 0, ASK, 2, REFUSE, ASK, 3, ASK, 3, WAIT, 255, SEND))
    talks["crowd"] = (
        b"".join(bytes((ASK + 8 * peer, peer, WAIT, 20)) for peer in range(len(PEERS))) + bytes((SEND,)) * 6
    )
    return packets | {
        f"{name}-{shape}": bytes((shape,)) + data for name, data in talks.items() for shape in range(len(SERVERS))
    }


def one(data: bytes) -> None:
    """Read one request; or play a conversation, then let time run until nothing waits."""
    _check_parser(data)
    if data[:2] in ASKING:  # nothing but the parser, a hundred times as fast
        return
    source = Source(data)
    talk = Talk(*source.pick(SERVERS))
    for _ in range(400):
        if not source:
            break
        talk.step(source)
        talk.turn()
    talk.finish()


def _check_parser(data: bytes) -> None:
    packet = parse(exact(data))
    if isinstance(packet, Request):
        assert packet.name.encode("utf-8", "surrogateescape") == data[2:].split(b"\0")[0]
        assert set(packet.options) <= {"blksize", "tsize", "timeout", "windowsize", "multicast"}
    else:
        assert packet is None or isinstance(packet, Ack | Error)


class Bystander:
    """An honest lock-step client that answers at once. It begins again, by another port, when it has its file."""

    def __init__(self, port: int) -> None:
        self.peer = (HONEST, port)
        self.answer = rrq("small")
        self.got = bytearray()
        self.blocks = 0

    def receive(self, datagram: bytes) -> None:
        assert is_data(datagram), datagram
        if number(datagram) == self.blocks + 1:
            self.blocks += 1
            self.got += datagram[4:]
            self.answer = ack(self.blocks)

    @property
    def done(self) -> bool:
        return len(self.got) == len(SMALL)


class Talk:
    """A sender, hostile peers, and an honest client whose transfers go on all the time."""

    def __init__(self, limit: int, places: int) -> None:
        self.server = VirtualTftp(seed=7, limit=limit, places=places)
        self.roomy = limit > len(PEERS) and not places
        self.now = 1.0
        self.waiting: list[int] = []  # requests without an answer of the control plane
        self.open: set[int] = set()
        self.last: dict[tuple[str, int], int] = {}  # block last sent to a peer
        self.budget: Counter[tuple[str, int]] = Counter()  # datagrams that a peer may still get unanswered
        self.answered: set[tuple[str, int]] = set()
        self.honest = Bystander(2000)
        self.turn()

    def step(self, source: Source) -> None:
        """One move of a hostile peer, of time, or of the control plane."""
        choice = source.number(1)
        kind, peer = choice & 7, PEERS[(choice >> 3) % len(PEERS)]
        if kind == SAY:
            self._say(source.piece(), peer)
        elif kind == ASK:
            number = source.number(1)
            name, mode = ("f", "g")[number >> 7], MODES[(number >> 5) & 3]
            self._say(rrq(name, mode, **OPTIONS[(number & 31) % len(OPTIONS)]), peer)
        elif kind == ACKNOWLEDGE:  # the last block, or one near it
            offset = source.number(1)
            self._say(ack(self.last.get(peer, 0) + (offset if offset < 128 else offset - 256)), peer)
        elif kind == ERROR:
            self._say(error(source.number(1), "an error"), peer)
        elif kind == WAIT:
            self._pass_time(self.now + source.number(1) ** 2 / 1000)
        elif kind == TIMER:
            self._pass_time(self.server.next_timer() or 0.0)
        elif self.waiting:
            id = self.waiting.pop(0)
            if kind == SEND:
                self.server.send(id, BLOB, self.now)
            else:
                self.server.refuse(id, choice >> 3, "no such file \udcff"[: choice >> 3], self.now)

    def _say(self, datagram: bytes, peer: tuple[str, int]) -> None:
        asks = datagram[:2] in ASKING
        self.budget[peer] += 3 if asks else 1
        if not asks:
            self.answered.add(peer)
        self.server.receive(exact(datagram), peer, self.now)

    def turn(self) -> None:
        """The honest client's next packet, timers, events, and what leaves."""
        if self.honest.answer:
            packet, self.honest.answer = self.honest.answer, b""
            self._say(packet, self.honest.peer)
        self.server.on_timer(self.now)
        self._take_events()
        for peer, datagram in self.server.drain(self.now):
            self._judge(peer, datagram)
        self._take_events()
        assert self.server.statistics()["running"] <= len(PEERS) + 2
        if self.honest.done and not self.honest.answer and self.roomy:
            assert self.honest.got == SMALL
            self.honest = Bystander(self.honest.peer[1] + 1)

    def _pass_time(self, until: float) -> None:
        """A moment is long enough for the honest client to have its whole file."""
        while self.honest.answer:
            self.turn()
            if self.honest.blocks == 0:  # it begins anew
                break
        self.now = max(self.now, until)

    def _judge(self, peer: tuple[str, int], datagram: bytes) -> None:
        self.budget[peer] -= 1
        assert peer in self.answered or self.budget[peer] >= 0, f"{peer} is flooded"
        if peer == self.honest.peer:
            self.honest.receive(datagram)
        elif not is_data(datagram):
            assert datagram[:2] in (b"\0\5", b"\0\6")
        elif peer[0] != HONEST:
            self.last[peer] = number(datagram)
            assert datagram[4:] in FILE

    def _take_events(self) -> None:
        for event in self.server.events():
            if not isinstance(event, Asked):
                self.open.remove(event.id)
            elif event.peer[0] == HONEST:
                self.open.add(event.id)
                self.server.send(event.id, SMALL_BLOB, self.now)
            else:
                self.open.add(event.id)
                self.waiting.append(event.id)

    def finish(self) -> None:
        """Answer what waits; then silence. Everything ends, once, and the honest client has its last file."""
        for id in self.waiting:
            self.server.refuse(id, 1, "no", self.now)
        self.roomy = False
        while self.honest.answer:
            self.turn()
        self.turn()
        for turns in itertools.count():
            at = self.server.next_timer()
            if at is None:
                break
            assert turns < 2000, "timers without an end"
            self.now = max(self.now, at)
            self.turn()
        assert not self.open and self.server.statistics()["running"] == 0
        assert self.honest.got == SMALL
