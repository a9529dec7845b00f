"""An image's frames as the datagrams of a cast session, by the codec's Python face, for a receiver in virtual time."""

import random
import struct

from pxed._ext import cast, parity
from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_frames import CastLayout

KEY = bytes(range(16))
BLOCK = 192
PARITIES = 64


class Image:
    """Frames of random bytes, and the DATA of their symbols. `sequence` is that of the last one."""

    def __init__(self, sizes: list[int], symbol: int = 64, seed: int = 1) -> None:
        self.frames = [random.Random(seed + ordinal).randbytes(size) for ordinal, size in enumerate(sizes)]
        self.session = cast.Session(0x1122334455667788, KEY, symbol)
        self.symbol = symbol
        self.sequence = 0

    @property
    def layout(self) -> CastLayout:
        """As a receiver knows it."""
        return CastLayout(struct.pack(f"<{len(self.frames)}I", *map(len, self.frames)))

    def assembler(self, **options: object) -> CastAssembler:
        """A receiver (number 3) that has joined at 0 s."""
        assembler = CastAssembler(self.layout, **{"symbol": self.symbol, "memory": 1 << 20} | options)  # type: ignore[arg-type]
        assembler.begin(self.session.id, KEY, 3, 0.0, symbol=self.symbol)
        return assembler

    def symbols(self, ordinal: int) -> int:
        """Source symbols of a frame."""
        return -(-len(self.frames[ordinal]) // self.symbol)

    def blocks(self, ordinal: int) -> int:
        """Interleaved blocks of a frame."""
        return -(-self.symbols(ordinal) // BLOCK)

    def payload(self, ordinal: int, number: int) -> bytes:
        """A symbol of a frame: source, or parity."""
        symbols, blocks, frame = self.symbols(ordinal), self.blocks(ordinal), self.frames[ordinal]
        if number < symbols:
            return frame[number * self.symbol : (number + 1) * self.symbol]
        index, block = divmod(number - symbols, blocks)
        return parity.encode(frame, self.symbol, block, [index])[0]

    def data(self, ordinal: int, number: int, **other: int) -> bytes:
        """The next DATA, with this symbol; `other`: fields that are different from what they should be."""
        self.sequence = (self.sequence + 1) & 0xFFFFFFFF
        symbols = self.symbols(ordinal)
        right = cast.Data(
            self.sequence, ordinal, len(self.frames[ordinal]), number, symbols, self.payload(ordinal, number)
        )
        return cast.encode_data(right._replace(**other), self.session)

    def whole(self, ordinal: int) -> list[bytes]:
        """DATA for all source symbols of a frame, in order."""
        return [self.data(ordinal, number) for number in range(self.symbols(ordinal))]

    def mark(self, kind: int = 1, period: int = 1000, spread: int = 50, **other: int) -> bytes:
        """A MARK behind the last DATA: kind 2 asks for reports."""
        return cast.encode_mark(cast.Mark(self.sequence, 1, period, spread, kind)._replace(**other), self.session)

    def order(self, number: int, order: int = 2, reason: int = 1, receiver: int = 3) -> bytes:
        """An ORDER in answer to report `number`."""
        return cast.encode_order(cast.Order(receiver, number, order, reason), self.session)

    def reports(self, assembler: CastAssembler, now: float) -> list[cast.Report]:
        """What the receiver says at `now`."""
        found = [cast.decode(datagram, self.session) for datagram in assembler.reports(now)]
        assert all(isinstance(one, cast.Report) for one in found), found
        return found  # type: ignore[return-value]


def wants(report: cast.Report) -> dict[int, set[int] | None]:
    """By frame: the symbols that a report asks for, None for all of them."""
    found: dict[int, set[int] | None] = {}
    for first, what in report.wants:
        if isinstance(what, int):
            found |= dict.fromkeys(range(first, first + what))
        else:
            found[first] = {number for begin, count in what for number in range(begin, begin + count)}
    return found
