"""Cast: any bytes at the codec; any conversation with a receiver, which has the right image in the end."""

import contextlib
from array import array

from fuzz.source import Source, exact
from pxed._ext.cast import (
    REASONS,
    Data,
    Mark,
    Order,
    Report,
    Session,
    decode,
    encode_data,
    encode_mark,
    encode_order,
    encode_report,
    mac,
)
from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_frames import CastLayout
from pxed._ext.parity import encode

SESSION = Session(0x5EED, b"k" * 16, 8)
SYMBOL = 8
# Frames of one symbol, of a short last one, of two blocks; all different.
FRAMES = tuple(
    bytes((i * 31 + at * 7 + (at >> 8)) & 0xFF for at in range(size)) for i, size in enumerate((5, 8, 61, 1553, 40))
)
LAYOUT = CastLayout(array("I", [len(frame) for frame in FRAMES]))
# (memory, queue): room for all; for the least of frames, of the queue, of both.
RECEIVERS = ((1 << 20, 1 << 20), (3200, 1 << 20), (1 << 20, 1), (3200, 1))
WORDS = (b"\xc5\1\1\0", b"\xc5\1\2\0", b"\xc5\1\3\0", b"\xc5\1\4\0", b"\xff\xff\xff\xff", b"\0\0\0\1")
RAW, SYMBOLS, WRONG, MARK, ORDER, WAIT, TAKE, GIVE, HOLD, REJOIN = range(10)


def symbols(frame: int) -> int:
    return -(-len(FRAMES[frame]) // SYMBOL)


def payload(frame: int, number: int) -> bytes:
    """The right bytes of a symbol."""
    count = symbols(frame)
    if number < count:
        return FRAMES[frame][number * SYMBOL : (number + 1) * SYMBOL]
    blocks = -(-count // 192)
    parity, block = divmod(number - count, blocks)
    return encode(FRAMES[frame], SYMBOL, block, [parity])[0]


def datagram(sequence: int, frame: int, number: int, symbol: bytes) -> bytes:
    return encode_data(Data(sequence, frame, len(FRAMES[frame]), number, symbols(frame), symbol), SESSION)


def signed(data: bytes) -> bytes:
    """The bytes with what everything else depends on made right: magic, version, session, MAC."""
    head = bytearray(data.ljust(36, b"\0"))
    head[:2] = b"\xc5\1"
    head[4:12] = SESSION.id.to_bytes(8, "big")
    if head[2] == 3:
        return bytes(head) + mac(bytes(head), SESSION)
    head[28:36] = mac(bytes(head[:28]), SESSION)
    return bytes(head)


def seeds() -> dict[str, bytes]:
    """A datagram of each kind; a receiver that gets all, loses some, is lied to, and has no room."""
    report = Report(1, 2, 0, 1, 0, 9, 9, 9, 1, 0, 5, 0, 0, 0, 5, ((0, 1), (2, ((0, 1), (3, 2))), (4, 1)))
    found = {
        "data": datagram(1, 2, 0, payload(2, 0)),
        "parity": datagram(1, 3, 200, payload(3, 200)),
        "mark": encode_mark(Mark(9, 2, 1000, 100, 2), SESSION),
        "order": encode_order(Order(1, 1, 1, 1), SESSION),
        "report": encode_report(report, SESSION),
        "bitmap": encode_report(
            report._replace(wants=((2, tuple((i, 1) for i in range(0, 250, 2))),)), SESSION, symbols=256
        ),
    }
    talks = {f"raw-{name}": bytes((RAW, len(data))) + data for name, data in found.items() if len(data) < 256}
    every = b"".join(bytes((SYMBOLS, i, n >> 8, n & 255)) for i in range(len(FRAMES)) for n in range(symbols(i)))
    talks["whole"] = every + bytes((TAKE, 1)) * 5
    talks["lossy"] = b"".join(every[i : i + 4] for i in range(0, len(every), 12)) + bytes((WAIT, 200, MARK, 2))
    talks["parity"] = b"".join(bytes((SYMBOLS, 3, n >> 8, n & 255)) for n in range(100, 300))
    talks["lies"] = every[:40].replace(bytes((SYMBOLS,)), bytes((WRONG,))) + every + bytes((TAKE, 1)) * 6
    talks["given"] = bytes((GIVE, 3, 0, 0, 255, SYMBOLS, 3, 0, 60, GIVE, 3, 1, 0, 255, HOLD, 7, WAIT, 255, REJOIN))
    talks["ordered"] = bytes((ORDER, 1, 1, WAIT, 255, ORDER, 2, 3, REJOIN, MARK, 1))
    return found | {
        f"{name}-{shape}": bytes((shape,)) + data for name, data in talks.items() for shape in range(len(RECEIVERS))
    }


def one(data: bytes) -> None:
    """Read the bytes as a datagram, as they are and with the right MAC; then as a conversation with a receiver."""
    _check_codec(data)
    _check_codec(signed(data))
    source = Source(data)
    talk = Talk(*source.pick(RECEIVERS))
    for _ in range(2000):
        if not source:
            break
        talk.step(source)
    talk.finish()


def _check_codec(data: bytes) -> None:
    packet = decode(exact(data), SESSION)
    if isinstance(packet, str):
        assert packet in REASONS[1:]
    elif isinstance(packet, Data):
        assert encode_data(packet, SESSION) == data[:3] + b"\0" + data[4:] or data[3]
    elif isinstance(packet, Report):
        at = packet.begin
        for chunk, want in packet.wants:
            assert at <= chunk
            at = chunk + (want if isinstance(want, int) else 1)
        assert at <= packet.stop
        with contextlib.suppress(OverflowError):  # what came as a short bitmap may be longer here
            assert isinstance(decode(encode_report(packet, SESSION), SESSION), Report)


class Talk:
    """A receiver, a hostile holder of the key, and at the end an honest sender."""

    def __init__(self, memory: int, queue: int) -> None:
        self.receiver = CastAssembler(LAYOUT, symbol=SYMBOL, memory=memory, queue=queue, seed=3)
        self.now = 1.0
        self.sequence = 0
        self.poisoned: set[int] = set()  # frames of which wrong bytes were sent
        self.receiver.begin(SESSION.id, SESSION.key, 1, self.now, symbol=SYMBOL)

    def step(self, source: Source) -> None:
        """One move of the network, of time, or of the threads behind the receiver."""
        kind = source.number(1) % 10
        if kind == RAW:
            self._raw(source.piece())
        elif kind in (SYMBOLS, WRONG):
            self._symbol(source.number(1) % len(FRAMES), source.number(2), wrong=kind == WRONG)
        elif kind == MARK:
            self.hear(encode_mark(Mark(self.sequence, 1, 1000, 100, source.number(1)), SESSION))
        elif kind == ORDER:
            self.hear(encode_order(Order(1, source.number(1), source.number(1), 1), SESSION))
        elif kind == WAIT:
            self.now += source.number(1) / 100
            self.listen()
        elif kind == TAKE:
            self.take()
        elif kind == GIVE:
            frame, at, size = source.number(1) % len(FRAMES), source.number(2), source.number(1)
            at %= len(FRAMES[frame])
            self.receiver.give(frame, at, FRAMES[frame][at : at + size])
        elif kind == HOLD:
            chosen = source.number(1)
            self.receiver.hold([i for i in range(len(FRAMES)) if chosen >> i & 1])
        else:
            self.receiver.depart(self.now)
            self.listen()
            self.receiver.begin(SESSION.id, SESSION.key, 1, self.now, symbol=SYMBOL)

    def hear(self, packet: bytes) -> None:
        self.receiver.receive(exact(packet), self.now)

    def _raw(self, data: bytes) -> None:
        self.hear(data)
        data = signed(data)
        packet = decode(data, SESSION)
        if isinstance(packet, Data) and packet.chunk < len(FRAMES):
            self.poisoned.add(packet.chunk)
        self.hear(data)

    def _symbol(self, frame: int, number: int, wrong: bool) -> None:
        number %= symbols(frame) + 64 * -(-symbols(frame) // 192)
        symbol = payload(frame, number)
        if wrong:
            symbol = bytes(0xFF - octet for octet in symbol)
            self.poisoned.add(frame)
        self.sequence += 1
        self.hear(datagram(self.sequence, frame, number, symbol))

    def take(self) -> None:
        """Prove and write a frame. One that is wrong has got wrong bytes since it was wanted last."""
        taken = self.receiver.take()
        if taken is None:
            return
        ordinal, frame = taken
        right = bytes(frame) == FRAMES[ordinal]
        assert right or ordinal in self.poisoned, ordinal
        self.receiver.done(ordinal, right)

    def listen(self) -> list[Report]:
        """The reports that are due: never malformed, and about this image."""
        found = []
        for data in self.receiver.reports(self.now):
            report = decode(data, SESSION)
            assert isinstance(report, Report), report
            assert report.stop <= len(FRAMES)
            found.append(report)
        assert len(found) <= 32
        return found

    def finish(self) -> None:
        """Nobody lies any more: what reports ask for is sent, what is complete is taken."""
        self.receiver.release(range(len(FRAMES)))
        self.receiver.depart(self.now)
        self.listen()
        self.receiver.begin(SESSION.id, SESSION.key, 1, self.now, symbol=SYMBOL)
        for _ in range(4 * len(FRAMES) + 4):
            if not self.receiver.left:
                break
            self.now += 1.0
            for report in self.listen():
                self._send(report)
            for _ in FRAMES:
                self.take()
        assert self.receiver.left == 0
        assert self.receiver.figures()["written"] >= len(FRAMES)

    def _send(self, report: Report) -> None:
        for chunk, want in report.wants:
            if isinstance(want, int):
                wanted = [(frame, n) for frame in range(chunk, chunk + want) for n in range(symbols(frame))]
            else:
                wanted = [(chunk, n) for first, count in want for n in range(first, first + count)]
            for frame, number in wanted:
                self._symbol(frame, number, wrong=False)
                if number == symbols(frame) - 1:
                    self.take()
