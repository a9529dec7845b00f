"""Cast datagrams: what is sent is understood, and no bytes do more than to be refused by name."""

from hypothesis import given
from hypothesis import strategies as st

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

u8, u16, u32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
sessions = st.builds(
    Session, st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=16), st.integers(1, 64) | st.just(1436)
)
marks = st.builds(Mark, u32, u32, st.integers(1, 0xFFFF), u16, st.integers(1, 2))
orders = st.builds(Order, u32, u32, st.integers(1, 4), u8)


@st.composite
def datas(draw: st.DrawFn, symbol: int) -> Data:
    symbols = draw(st.integers(1, 400))
    stored = (symbols - 1) * symbol + draw(st.integers(1, symbol))
    number = draw(st.integers(0, symbols + 64 * -(-symbols // 192) - 1))
    size = stored - number * symbol if number == symbols - 1 else symbol
    return Data(draw(u32), draw(u32), stored, number, symbols, draw(st.binary(min_size=1, max_size=1)) * size)


@st.composite
def runs(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    edges = sorted(draw(st.sets(st.integers(0, 300), min_size=2, max_size=24)))
    return tuple((a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=False))


@st.composite
def reports(draw: st.DrawFn) -> Report:
    begin = at = draw(st.integers(0, 1 << 31))
    wants: list[tuple[int, int | tuple[tuple[int, int], ...]]] = []
    for gap, want in draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5) | runs()), max_size=12)):
        at += gap  # never adjacent: those are merged
        wants.append((at, want))
        at += want if isinstance(want, int) else 1
    counters = draw(st.tuples(*[u32] * 6))
    parts = draw(st.integers(1, 32))
    return Report(
        draw(u32), draw(u32), draw(st.integers(0, parts - 1)), parts, draw(u16), *counters,
        draw(st.integers(0, 1000)), draw(u32), begin, at + draw(st.integers(0, 9)), tuple(wants),
    )  # fmt: skip


def encoded(packet: Data | Mark | Report | Order, session: Session, symbols: int) -> bytes:
    if isinstance(packet, Data):
        return encode_data(packet, session)
    if isinstance(packet, Mark):
        return encode_mark(packet, session)
    if isinstance(packet, Order):
        return encode_order(packet, session)
    return encode_report(packet, session, symbols)


packets = sessions.flatmap(lambda s: st.tuples(st.just(s), datas(s.symbol) | marks | orders | reports()))


@given(packets, st.integers(300, 400))
def test_what_is_sent_is_understood(case: tuple[Session, Data | Mark | Report | Order], symbols: int) -> None:
    session, packet = case
    assert decode(encoded(packet, session, symbols), session) == packet


@given(packets, st.integers(300, 400), u32, u8, st.booleans())
def test_a_changed_datagram_is_refused_or_says_the_same(
    case: tuple[Session, Data | Mark | Report | Order], symbols: int, at: int, value: int, cut: bool
) -> None:
    session, packet = case
    good = encoded(packet, session, symbols)
    at %= len(good)
    bad = good[:at] if cut else good[:at] + bytes([value]) + good[at + 1 :]
    got = decode(bad, session)
    if bad == good:
        assert got == packet
    elif isinstance(packet, Data) and at >= 36 and not cut:  # the chunk's hash proves the payload, not the MAC
        assert isinstance(got, Data)
        assert got[:5] == packet[:5]
    else:
        assert got in REASONS
        assert got != "ok"


@given(
    sessions, st.sampled_from([b"", b"\xc5", b"\xc5\x01", *(bytes((0xC5, 1, t, 0)) for t in range(1, 5))]), st.binary()
)
def test_any_bytes_get_a_name(session: Session, start: bytes, rest: bytes) -> None:
    assert decode(start + rest, session) in REASONS[1:]


@given(sessions, u32, u32, st.binary(max_size=200))
def test_entries_of_whoever_has_the_key_are_looked_at(session: Session, begin: int, stop: int, rest: bytes) -> None:
    """The MAC is right: nothing but the parser stands between these bytes and the sender."""
    head = b"\xc5\x01\x03\0" + session.id.to_bytes(8, "big") + bytes(8) + b"\0\1" + bytes(34)
    head += begin.to_bytes(4, "big") + stop.to_bytes(4, "big") + rest
    got = decode(head + mac(head, session), session)
    if isinstance(got, Report):
        at = begin
        for chunk, want in got.wants:
            assert chunk >= at
            at = chunk + (want if isinstance(want, int) else 1)
        assert at <= stop
    else:
        assert got in ("fields", "entries")
