"""Any reports at a cast sender, in virtual time: its books stay right, and who is honest gets the image."""

import os

from fuzz.source import Source, exact
from fuzz.targets.cast import FRAMES, LAYOUT, SESSION, SYMBOL, payload, signed, symbols
from fuzz.targets.cast import WORDS as CAST_WORDS
from pxed._ext.cast import Data, Mark, Order, Report, decode, encode_data, encode_mark, encode_order, encode_report
from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_events import (
    CastClosed,
    CastListing,
    CastRefused,
    CastUnreadable,
    admit,
    ask_session,
    close_session,
    direct,
    hold,
    open_session,
    set_rate,
)
from pxed._ext.cast_sender import CastSender
from pxed._ext.cast_source import CastSource
from pxed._ext.tftp_virtual import VirtualTftp

WORDS = CAST_WORDS
GROUP = ("239.255.79.1", 1759)
HOSTILE = 3  # receivers 0 to 2, each at an address of its own; there is room for one that was not admitted
HONEST, HONEST_PEER = 9, ("10.0.0.9", 1759)
PEERS = tuple((f"10.0.0.{i + 1}", 1759) for i in range(HOSTILE + 1))
RATES = (20_000, 1_000, 0)  # bytes of symbols in a second; 0: no limit
RAW, SIGNED, REPORT, WAIT, HEAR, DIRECT, RATE, HOLD, ADMIT, ASK = range(10)


def seeds() -> dict[str, bytes]:
    """Reports raw and signed, of wants that change, from receivers that are moved, held, unknown."""
    report = Report(1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 5, ((0, 5),))
    packets = {
        "whole": encode_report(report, SESSION),
        "parts": encode_report(report._replace(wants=((2, ((0, 2), (5, 1))), (3, ((0, 100),)))), SESSION),
        "beyond": encode_report(report._replace(stop=9, wants=((7, 2),)), SESSION),
        "data": encode_data(Data(1, 2, 61, 0, 8, b"x" * 8), SESSION),
        "mark": encode_mark(Mark(9, 2, 1000, 100, 2), SESSION),
        "order": encode_order(Order(1, 1, 1, 1), SESSION),
    }
    found = {f"say-{name}": bytes((0, RAW, 1, len(data))) + data for name, data in packets.items()}
    hear = bytes((HEAR, 0, WAIT, 30))
    for shape in range(len(RATES)):
        start = bytes((shape,))
        wants = b"".join(bytes((REPORT, i % 3, i, 0, i, 31, i)) + hear for i in range(12))
        found[f"wants-{shape}"] = start + wants
        found[f"lossy-{shape}"] = start + wants.replace(hear, bytes((HEAR, 85, WAIT, 60)))
        found[f"moved-{shape}"] = (
            start + wants[:40] + bytes((DIRECT, 0, 1, DIRECT, 1, 2, HOLD, 1, ASK, 0, RATE, 1)) + wants
        )
        found[f"stranger-{shape}"] = (
            start + bytes((REPORT, 3, 1, 0, 0, 3, 9, ADMIT, 3, REPORT, 3, 2, 0, 0, 3, 9)) + hear
        )
    return found


def one(data: bytes) -> None:
    """Play a conversation, then let the honest receiver finish, and close the session."""
    source = Source(data)
    room = Room(source.pick(RATES))
    for _ in range(300):
        if not source:
            break
        room.step(source)
        room.check()
    room.finish()


class Room:
    """A sender with one session, hostile holders of its key, and an honest receiver."""

    def __init__(self, rate: int) -> None:
        self.now = 1.0
        self.orders = 0  # that the sender may still send
        self.sender = CastSender()
        self.server = VirtualTftp(sender=self.sender)
        fd = os.memfd_create("frames")
        try:
            os.write(fd, b"".join(FRAMES))
            pack = CastSource(read_ahead=False)
            at = 0
            for frame in FRAMES:
                pack.add(fd, at, len(frame))
                at += len(frame)
        finally:
            os.close(fd)
        self.post(open_session(SESSION.id, SESSION.key, GROUP, pack, rate=rate, symbol=SYMBOL))
        for number in range(HOSTILE):
            self.post(admit(SESSION.id, number, PEERS[number][0]))
        self.post(admit(SESSION.id, HONEST, HONEST_PEER[0]))
        self.honest = CastAssembler(LAYOUT, symbol=SYMBOL, seed=5)
        self.honest.begin(SESSION.id, SESSION.key, HONEST, self.now, symbol=SYMBOL)

    def post(self, order: object) -> None:
        self.server.post(order, self.now)  # type: ignore[arg-type]

    def step(self, source: Source) -> None:
        """One move of a hostile receiver, of time, of the network, or of the control plane."""
        kind = source.number(1) % 10
        if kind in (RAW, SIGNED):
            peer = PEERS[source.number(1) % len(PEERS)]
            data = source.piece()
            self._say(signed(data) if kind == SIGNED else data, peer)
        elif kind == REPORT:
            self._report(source)
        elif kind == WAIT:
            self._pass_time(source.number(1) / 100)
        elif kind == HEAR:
            self._pass_time(0.02, source.number(1))
        elif kind == DIRECT:
            number, word = source.number(1) % (HOSTILE + 2), source.pick(("http", "listen", "back"))
            self.post(direct(SESSION.id, number, word, "loss"))
        elif kind == RATE:
            self.post(set_rate(SESSION.id, source.pick(RATES)))
        elif kind == HOLD:
            self.post(hold(SESSION.id, bool(source.number(1) & 1)))
        elif kind == ADMIT:
            number = source.number(1) % len(PEERS)
            self.post(admit(SESSION.id, number, PEERS[number][0]))
        else:
            self.post(ask_session(SESSION.id, source.number(1)))

    def _say(self, data: bytes, peer: tuple[str, int]) -> None:
        self.orders += isinstance(decode(data, SESSION), Report)
        self.server.receive(exact(data), peer, self.now)

    def _report(self, source: Source) -> None:
        """A well-formed report: who, its number, its flags, the sequence that it has seen, what it wants."""
        who, number, flags = source.number(1) % len(PEERS), source.number(1), source.number(1) & 7
        highest, wanted, lacking = source.number(1), source.number(1), source.number(1)
        wants = tuple(
            (frame, 1 if lacking >> frame & 1 else ((number % symbols(frame), 1),))
            for frame in range(len(FRAMES))
            if wanted >> frame & 1
        )
        report = Report(who, number, 0, 1, flags, highest, highest, highest, 0, 0, 9, 0, 0, 0, len(FRAMES), wants)
        self._say(encode_report(report, SESSION), PEERS[who])

    def _pass_time(self, seconds: float, lost: int = 0) -> None:
        """Everything that is due happens at its time. Bit n of `lost`: datagrams n, n + 8, ... do not arrive."""
        until = self.now + seconds
        for _ in range(5000):
            self._exchange(lost)
            due = [at for at in (self.server.next_timer(), self.honest.next_timer()) if at is not None]
            if not due or min(due) > until:
                break
            self.now = max(self.now + 0.0001, min(due))
            self.server.on_timer(self.now)
        self.now = max(self.now, until)

    def _exchange(self, lost: int) -> None:
        for report in self.honest.reports(self.now):
            self.orders += 1
            self.server.receive(report, HONEST_PEER, self.now)
        for i, (peer, data) in enumerate(self.server.drain(self.now)):
            packet = decode(data, SESSION)
            if isinstance(packet, Order):
                self.orders -= 1
                assert self.orders >= 0, "an order that nobody's report is answered with"
                assert peer in PEERS or peer == HONEST_PEER
            else:
                assert peer == GROUP
                assert isinstance(packet, Data | Mark), packet
                assert not isinstance(packet, Data) or packet.payload == payload(packet.chunk, packet.number)
            if peer in (GROUP, HONEST_PEER) and not lost >> i % 8 & 1:
                self.honest.receive(data, self.now)
        while (taken := self.honest.take()) is not None:
            assert bytes(taken[1]) == FRAMES[taken[0]]
            self.honest.done(taken[0], True)

    def check(self) -> None:
        assert self.sender.audit() == 0
        for event in self.server.events():
            assert isinstance(event, CastListing | CastRefused), event

    def finish(self) -> None:
        """The hostile ones fall silent: a minute later the honest one has all, and the session can be closed."""
        self.post(hold(SESSION.id, False))
        self.post(set_rate(SESSION.id, RATES[0]))
        self.post(direct(SESSION.id, HONEST, "back"))
        for _ in range(60):
            if not self.honest.left:
                break
            self._pass_time(1.0)
            self.check()
        assert self.honest.left == 0
        self.honest.depart(self.now)
        self.post(close_session(SESSION.id))
        self._pass_time(11.0)
        events = self.server.events()
        assert CastClosed(SESSION.id) in events
        assert not any(isinstance(event, CastUnreadable) for event in events)
