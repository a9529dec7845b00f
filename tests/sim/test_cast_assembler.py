"""One receiver of a cast session, in virtual time: hand-made datagrams in, frames and reports out."""

import itertools
import queue
import struct
import threading

import pytest

from pxed._ext import cast
from pxed._ext.cast_assembler import CastAssembler
from pxed._ext.cast_frames import CastFrame, CastLayout
from support.cast_sim import KEY, Image, wants


def frame_of(assembler: CastAssembler, image: Image) -> int:
    """Take the next frame, see that its bytes are right, and report it written; its ordinal."""
    taken = assembler.take()
    assert taken is not None
    ordinal, frame = taken
    assert len(frame) == len(image.frames[ordinal])
    assert memoryview(frame) == image.frames[ordinal]
    assembler.done(ordinal, True)
    return ordinal


def feed(assembler: CastAssembler, datagrams: list[bytes], now: float = 1.0) -> None:
    for datagram in datagrams:
        assembler.receive(datagram, now)


def changes(assembler: CastAssembler, datagram: bytes) -> dict[str, int]:
    """What a datagram changes in the figures."""
    before = assembler.figures()
    assembler.receive(datagram, 1.0)
    after = assembler.figures()
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


# -- frames ------------------------------------------------------------------------------------------------------------


def test_symbols_of_several_frames_in_any_order_become_frames() -> None:
    image = Image([1, 64, 65, 5000, 20_000])
    assembler = image.assembler()
    datagrams = [datagram for ordinal in range(5) for datagram in image.whole(ordinal)]
    feed(assembler, datagrams[::2])
    feed(assembler, datagrams[::-2] + datagrams[1::2])
    assert sorted(frame_of(assembler, image) for _ in range(5)) == [0, 1, 2, 3, 4]
    assert assembler.take() is None
    assert assembler.left == 0
    assert assembler.have() == b"\x1f"


def test_a_frame_outlives_the_assembler_and_lives_as_long_as_a_view_of_it() -> None:
    image = Image([300])
    assembler = image.assembler()
    feed(assembler, image.whole(0))
    taken = assembler.take()
    assert taken is not None
    view = memoryview(taken[1])
    assembler.done(0, True)
    del assembler, taken
    assert view == image.frames[0]
    assert view.readonly
    assert memoryview(CastFrame()) == b""


def test_duplicates_change_nothing_but_their_counter() -> None:
    image = Image([640, 100])
    assembler = image.assembler()
    first = image.data(0, 3)
    assembler.receive(first, 1.0)
    assert changes(assembler, first) == {"duplicate": 1, "repeated": 1}
    assert changes(assembler, image.data(0, 3)) == {"duplicate": 1, "received": 1, "expected": 1, "highest": 1}
    feed(assembler, image.whole(1))
    assert changes(assembler, image.data(1, 0)) == {"unwanted": 1, "received": 1, "expected": 1, "highest": 1}
    frame_of(assembler, image)
    assert changes(assembler, image.data(1, 0)) == {"unwanted": 1, "received": 1, "expected": 1, "highest": 1}


def test_a_frame_with_wrong_bytes_is_wanted_again_whole() -> None:
    image = Image([640])
    assembler = image.assembler()
    right = image.frames[0]
    image.frames[0] = bytes(640)
    feed(assembler, image.whole(0))
    image.frames[0] = right
    taken = assembler.take()
    assert taken is not None
    assert memoryview(taken[1]) != right
    assert wants(image.reports(assembler, 2.0)[0]) == {}  # it may be right
    assembler.done(0, False)
    (report,) = image.reports(assembler, 4.0)
    assert wants(report) == {0: None}
    assert report.wrong == assembler.figures()["wrong"] == 1
    assert assembler.missing(0) == [(0, 640)]
    feed(assembler, image.whole(0))
    assert frame_of(assembler, image) == 0


def test_parity_repairs_as_soon_as_it_suffices() -> None:
    image = Image([64 * 400 - 10])  # 3 blocks
    symbols, blocks = image.symbols(0), image.blocks(0)
    assembler = image.assembler()
    lost = {0, 3, 6, 9, symbols - 1}  # four of block 0; the last one, which is short, of block 0 too
    feed(assembler, [image.data(0, number) for number in range(symbols) if number not in lost])
    assert blocks == 3
    assert wants(image.reports(assembler, 2.0)[0]) == {0: lost}
    for count, index in enumerate((63, 0, 17, 5)):
        assembler.receive(image.data(0, symbols + index * blocks), 2.0)
        assert wants(image.reports(assembler, 3.0 + count)[0]) == {0: set(sorted(lost)[: 4 - count])}
    assert assembler.take() is None
    assert changes(assembler, image.data(0, symbols + 17 * blocks))["duplicate"] == 1
    assert changes(assembler, image.data(0, symbols + 1))["duplicate"] == 1  # block 1 lacks nothing
    assembler.receive(image.data(0, symbols + 20 * blocks), 9.0)
    assert frame_of(assembler, image) == 0
    assert assembler.figures()["memory"] == 0


def test_a_source_symbol_makes_parity_suffice() -> None:
    image = Image([64 * 10])
    assembler = image.assembler()
    feed(assembler, [image.data(0, 10), image.data(0, 11)])
    feed(assembler, [image.data(0, number) for number in range(7)])
    assert assembler.take() is None
    assembler.receive(image.data(0, 8), 1.0)
    assert frame_of(assembler, image) == 0


def test_what_is_had_already_is_not_wanted() -> None:
    image = Image([100] * 11)
    assembler = image.assembler(have=b"\x05\x04")
    assert assembler.left == 8
    assert set(wants(image.reports(assembler, 2.0)[0])) == {1, 3, 4, 5, 6, 7, 8, 9}
    assert changes(assembler, image.data(2, 0))["unwanted"] == 1
    assert assembler.missing(2) == []
    assert assembler.have() == b"\x05\x04"


def test_what_was_said_to_be_had_and_is_not_is_wanted() -> None:
    image = Image([100] * 2)
    assembler = image.assembler(have=b"\x03")
    image.reports(assembler, 1.0)
    (report,) = image.reports(assembler, 2.0)
    assert (report.flags, report.written) == (1, 2)
    assembler.done(1, False)
    (report,) = image.reports(assembler, 4.0)
    assert (report.flags, report.written, wants(report)) == (0, 1, {1: None})
    feed(assembler, image.whole(1), 4.0)
    assert frame_of(assembler, image) == 1
    assert assembler.next_timer() == 0  # it says at once that all is done


# -- what is not begun -------------------------------------------------------------------------------------------------


def test_frames_are_left_out_whole_while_the_queue_is_full() -> None:
    image = Image([640] * 4)
    assembler = image.assembler(queue=1000)
    feed(assembler, [*image.whole(0), image.data(2, 0), *image.whole(1)])
    assert assembler.full
    assert changes(assembler, image.data(2, 1))["taken"] == 1  # begun before
    late = image.whole(3)
    feed(assembler, late[:4])
    assert assembler.figures()["refused"] == 4
    frame_of(assembler, image)
    assert not assembler.full
    feed(assembler, late[4:])  # the rest of a frame of which the beginning was left out
    assert assembler.figures()["refused"] == 10
    assert assembler.partials() == [2]
    feed(assembler, image.whole(3))
    assert assembler.figures()["refused"] == 10
    report = image.reports(assembler, 2.0)[0]
    assert report.refused == 10
    assert report.disk_queue == 1000  # 1,280 bytes of 1,000
    assert set(wants(report)) == {2}


def test_the_last_frame_is_begun_when_it_comes_again() -> None:
    image = Image([640] * 2)
    assembler = image.assembler(queue=1)
    feed(assembler, image.whole(0))
    for _ in range(2):
        feed(assembler, image.whole(1))
    assert assembler.figures()["refused"] == 20
    frame_of(assembler, image)
    feed(assembler, image.whole(1))
    assert frame_of(assembler, image) == 1


def test_frames_that_are_hardly_begun_make_room_and_others_do_not() -> None:
    image = Image([6400] * 6)
    assembler = image.assembler(memory=3 * 6400)
    feed(assembler, image.whole(0)[:60])
    feed(assembler, image.whole(1)[:6])
    feed(assembler, image.whole(2)[:5])
    feed(assembler, image.whole(3)[:70])  # in place of frame 2
    assert assembler.partials() == [0, 1, 3]
    feed(assembler, image.whole(4)[:90])  # in place of frame 1
    assert assembler.partials() == [0, 3, 4]
    feed(assembler, image.whole(5))
    assert assembler.partials() == [0, 3, 4]
    figures = assembler.figures()
    assert figures["evicted"] == 2
    assert figures["refused"] == 100
    assert figures["memory"] == 3 * 6400
    assembler.give(5, 0, image.frames[5][:640])  # who asks for it needs it: in place of the one with the least
    assert assembler.partials() == [3, 4, 5]
    assembler.hold([3, 4, 5])
    assembler.give(2, 0, image.frames[2][:640])  # nobody can go
    assert assembler.partials() == [2, 3, 4, 5]


def test_frames_that_there_is_no_room_for_are_not_asked_for() -> None:
    image = Image([6400] * 12)
    assembler = image.assembler(memory=6 * 6400)

    def asked(now: float) -> list[int]:
        return sorted(wants(image.reports(assembler, now)[0]))

    for begun in (3, 4, 5, 7, 8):
        assert asked(10.0 * begun) == list(range(12))
        feed(assembler, image.whole(begun)[:60])
    assert asked(100.0) == [0, 3, 4, 5, 7, 8]
    feed(assembler, image.whole(1)[:1])  # hardly begun, but begun
    assert asked(110.0) == [1, 3, 4, 5, 7, 8]
    assembler.hold([3])
    assert asked(120.0) == [1, 4, 5, 7, 8]
    feed(assembler, image.whole(4))
    assert frame_of(assembler, image) == 4
    assert asked(130.0) == [0, 1, 5, 7, 8]


# -- what is refused ---------------------------------------------------------------------------------------------------


def broken_datagrams(image: Image) -> list[tuple[str, bytes]]:
    good, other = image.data(0, 1), cast.Session(99, KEY, image.symbol)
    forged = cast.Session(image.session.id, bytes(16), image.symbol)
    data = cast.decode(good, image.session)
    assert isinstance(data, cast.Data)
    return [
        ("drop.magic", b""),
        ("drop.magic", b"\0" + good[1:]),
        ("drop.version", good[:1] + b"\2" + good[2:]),
        ("drop.type", good[:2] + b"\x07" + good[3:]),
        ("drop.length", good[:30]),
        ("drop.length", good[:-1]),
        ("drop.length", good + b"\0"),
        ("drop.session", cast.encode_data(data, other)),
        ("drop.mac", cast.encode_data(data, forged)),
        ("drop.mac", good[:20] + bytes([good[20] ^ 1]) + good[21:]),
        ("drop.fields", image.data(0, 1, symbols=11)),
        ("drop.layout", image.data(0, 1, chunk=2)),
        ("drop.layout", image.data(0, 1, chunk=0xFFFFFFFF)),
        ("drop.layout", image.data(0, 1, stored=639)),
        ("drop.mac", cast.encode_mark(cast.Mark(9, 1, 1000, 50, 2), forged)),
        ("drop.fields", image.mark(kind=9)),
        ("drop.fields", image.mark(period=0)),
        ("drop.mac", cast.encode_order(cast.Order(3, 1, 1, 1), forged)),
        ("drop.receiver", image.order(1, receiver=4)),
        ("drop.receiver", image.order(2)),  # a report that was not sent
        ("drop.type", image.reports(image.assembler(), 2.0) and image.assembler().reports(2.0)[0]),
    ]


@pytest.mark.parametrize("index", range(len(broken_datagrams(Image([640, 640])))))
def test_what_is_not_the_sessions_is_counted_and_changes_nothing(index: int) -> None:
    image = Image([640, 640])
    reason, datagram = broken_datagrams(image)[index]
    assembler = image.assembler()
    image.reports(assembler, 2.0)
    assert changes(assembler, datagram) == {reason: 1}
    assert assembler.partials() == []
    assert assembler.order() == (0, 0)
    assert assembler.next_timer() == pytest.approx(assembler.next_timer())


def test_nothing_is_heard_outside_of_a_session() -> None:
    image = Image([100])
    assembler = CastAssembler(image.layout, symbol=64, memory=1000)
    assert changes(assembler, image.data(0, 0)) == {"drop.idle": 1}
    assert assembler.next_timer() is None
    assert assembler.reports(1.0) == []


def test_values_that_cannot_be_are_refused() -> None:
    layout = Image([100, 64 * 8192]).layout
    for lengths in (b"", b"abc", bytes(4)):
        with pytest.raises(ValueError):
            CastLayout(lengths)
    for arguments in ({"have": b"\0\0"}, {"symbol": 0}, {"symbol": 63}, {"memory": 1000}, {"queue": 0}):
        with pytest.raises(ValueError):
            CastAssembler(layout, **arguments)  # type: ignore[arg-type]
    assembler = CastAssembler(layout)
    for key, symbol, period in ((b"short", 64, 1.0), (KEY, 63, 1.0), (KEY, 64, 0.0)):
        with pytest.raises(ValueError):
            assembler.begin(1, key, 1, 0.0, symbol=symbol, period=period)
    for call in (lambda: assembler.done(2, True), lambda: assembler.missing(2), lambda: assembler.hold([2])):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(ValueError):
        assembler.give(0, 1, bytes(100))
    with pytest.raises(IndexError):
        layout.length(2)
    assert (layout.frames, layout.size, layout.longest, layout.length(1)) == (2, 100 + 64 * 8192, 64 * 8192, 64 * 8192)


# -- other transports --------------------------------------------------------------------------------------------------


def test_ranges_from_elsewhere_complete_what_is_missing() -> None:
    image = Image([64 * 20 + 10])
    assembler = image.assembler()
    feed(assembler, [image.data(0, number) for number in range(21) if number not in (2, 3, 9, 20)])
    assert assembler.missing(0) == [(128, 256), (576, 640), (1280, 1290)]
    frame = image.frames[0]
    assert assembler.give(0, 128, frame[128:256]) == 128
    assert assembler.give(0, 576, frame[576:600]) == 0
    assert assembler.give(0, 600, frame[600:640]) == 64  # a symbol in two pieces
    assert assembler.give(0, 0, frame[:640]) == 0
    assert assembler.missing(0) == [(1280, 1290)]
    assert assembler.give(0, 1280, frame[1280:]) == 10
    assert frame_of(assembler, image) == 0
    assert assembler.give(0, 0, frame) == 0
    assert assembler.figures()["given"] == 128 + 64 + 10


def test_a_frame_may_come_from_elsewhere_alone_and_without_a_session() -> None:
    image = Image([1000, 700])
    assembler = CastAssembler(image.layout, symbol=64)
    for at in range(0, 1000, 7):
        assembler.give(0, at, image.frames[0][at : at + 7])
    assert frame_of(assembler, image) == 0
    assembler.give(1, 0, image.frames[1][:64])
    assembler.done(1, True)  # written by somebody who did not need us
    assert assembler.partials() == []
    assert assembler.left == 0


def test_small_gaps_are_fetched_rather_than_another_range() -> None:
    image = Image([16 * 50], symbol=16)
    assembler = image.assembler()
    feed(assembler, [image.data(0, number) for number in (10, 11, 12, 20, 21, 22, 23)])
    assert assembler.missing(0) == [(0, 320), (384, 800)]  # 48 bytes of gap, and 64


def test_what_parity_can_replace_is_not_fetched() -> None:
    image = Image([64 * 10])
    assembler = image.assembler()
    feed(assembler, [image.data(0, number) for number in (0, 1, 2, 3, 4, 10, 11)])
    assert assembler.missing(0) == [(64 * 5, 64 * 8)]
    assembler.give(0, 64 * 5, image.frames[0][64 * 5 : 64 * 8])
    assert frame_of(assembler, image) == 0


def test_frames_on_hold_are_not_asked_for_but_taken() -> None:
    image = Image([640] * 4)
    assembler = image.assembler()
    assembler.receive(image.data(1, 0), 0.5)
    assembler.hold([1, 2])
    assert set(wants(image.reports(assembler, 2.0)[0])) == {0, 3}
    assembler.release([1])
    assert set(wants(image.reports(assembler, 4.0)[0])) == {0, 1, 3}
    feed(assembler, image.whole(2))
    assert frame_of(assembler, image) == 2
    assembler.release([2])
    assert set(wants(image.reports(assembler, 6.0)[0])) == {0, 1, 3}


# -- reports -----------------------------------------------------------------------------------------------------------


def test_reports_come_every_period_in_a_phase_of_their_own() -> None:
    image = Image([640])
    phases = set()
    for seed in range(50):
        assembler = image.assembler(seed=seed)
        assembler.begin(1, KEY, 3, 100.0, symbol=64)
        image.session = image.session._replace(id=1)
        first = assembler.next_timer()
        assert first is not None
        assert 100 <= first <= 100.1  # what it wants, at once
        times = []
        for _ in range(6):
            at = assembler.next_timer()
            assert at is not None
            assert not image.reports(assembler, at - 0.001)
            assert len(image.reports(assembler, at)) == 1
            times.append(at)
        gaps = [after - before for before, after in itertools.pairwise(times[1:])]
        assert gaps == pytest.approx([1.0] * len(gaps), abs=1e-6)
        phases.add(int(times[2] * 10) % 10)
    assert len(phases) == 10


def test_a_mark_asks_for_a_report_within_its_spread_and_says_the_period() -> None:
    image = Image([640])
    assembler = image.assembler()
    image.reports(assembler, 5.0)
    spread = set()
    for turn in range(50):
        now = 10.0 + turn * 0.1
        image.reports(assembler, now)
        assembler.receive(image.mark(kind=2, spread=50, period=8000), now)
        at = assembler.next_timer()
        assert at is not None
        assembler.receive(image.mark(kind=2, spread=50, period=8000), now + 0.001)  # asked again: not later than before
        again = assembler.next_timer()
        assert again is not None and again <= at
        spread.add(int((at - now) * 100))
        assert 0 <= at - now <= 0.05
        assert len(image.reports(assembler, at)) == 1
    assert spread >= {0, 1, 2, 3, 4}
    assembler.receive(image.mark(kind=1, period=8000), 20.0)
    reported = [now / 10 for now in range(200, 600) if image.reports(assembler, now / 10)]
    assert [round(after - before) for before, after in itertools.pairwise(reported[1:])] == [8] * 4


def test_a_report_comes_right_after_the_last_frame_and_says_done() -> None:
    image = Image([640])
    assembler = image.assembler()
    image.reports(assembler, 5.0)
    feed(assembler, [image.mark(spread=20), *image.whole(0)], 5.0)
    frame_of(assembler, image)
    assert assembler.next_timer() == 0
    assert image.reports(assembler, 5.0) == []
    (report,) = image.reports(assembler, 5.021)
    assert (report.flags, report.written, report.wants) == (1, 1, ())
    assert (report.begin, report.stop) == (0, 1)


def test_flags_say_http_and_leaving() -> None:
    image = Image([640])
    assembler = image.assembler()
    assembler.http = True
    assert image.reports(assembler, 2.0)[0].flags == 4
    assembler.http = False
    assembler.depart(2.1)
    assert image.reports(assembler, 2.1)[0].flags == 2
    assert assembler.next_timer() is None
    assert image.reports(assembler, 99.0) == []
    assert changes(assembler, image.data(0, 0)) == {"drop.idle": 1}


def test_loss_is_counted_by_sequence() -> None:
    image = Image([640] * 3)
    assembler = image.assembler()
    image.sequence = 0xFFFFFFF9  # it wraps on the way
    datagrams = [*image.whole(0), *image.whole(1)]
    feed(assembler, [datagrams[i] for i in (1, 0, 4, 2, 6, 9, 7, 12)])
    report = image.reports(assembler, 2.0)[0]
    assert (report.highest, report.received, report.expected) == (6, 8, 13)
    feed(assembler, [datagrams[3], datagrams[3]])
    report = image.reports(assembler, 4.0)[0]
    assert (report.highest, report.received, report.expected) == (6, 9, 13)
    assembler.receive(image.mark(), 4.0)  # the last seven were lost
    report = image.reports(assembler, 6.0)[0]
    assert (report.highest, report.received, report.expected) == (13, 9, 20)
    image.sequence += 5000
    assembler.receive(image.data(2, 0), 6.0)
    report = image.reports(assembler, 8.0)[0]
    assert (report.highest, report.received, report.expected) == (5014, 10, 5021)


def test_before_any_data_a_mark_says_how_far_the_sender_is() -> None:
    image = Image([640])
    image.sequence = 70
    assembler = image.assembler()
    assembler.receive(image.mark(), 0.5)
    report = image.reports(assembler, 2.0)[0]
    assert (report.highest, report.received, report.expected) == (70, 0, 0)


def test_a_frame_that_is_hardly_begun_is_asked_for_whole() -> None:
    image = Image([6400] * 3)
    assembler = image.assembler()
    feed(assembler, [image.data(1, number) for number in range(6)])
    assert wants(image.reports(assembler, 2.0)[0]) == {0: None, 1: None, 2: None}
    assembler.receive(image.data(1, 6), 2.0)
    assert wants(image.reports(assembler, 4.0)[0]) == {0: None, 1: set(range(7, 100)), 2: None}


def test_what_does_not_fit_in_a_report_is_said_by_the_next() -> None:
    image = Image([1100 * 16] * 400, symbol=16)
    assembler = image.assembler(memory=64 << 20)
    for ordinal in range(400):
        feed(assembler, [image.data(ordinal, number) for number in range(0, 1100, 2)])
    first = image.reports(assembler, 2.0)
    assert len(first) == 32
    assert {(one.number, one.parts) for one in first} == {(1, 32)}
    assert [one.part for one in first] == list(range(32))
    second = image.reports(assembler, 4.0)
    assert second[0].begin == first[-1].stop
    covered = [ordinal for one in first + second for ordinal in wants(one)]
    assert set(covered) == set(range(400))
    for one in first + second:
        assert all(one.begin <= ordinal < one.stop for ordinal in wants(one))
        assert all(numbers == set(range(1, 1100, 2)) for numbers in wants(one).values())
    for before, after in itertools.pairwise(first + second):
        assert after.begin == before.stop or (before.stop, after.begin) == (400, 0)


def test_the_disks_rate_is_that_of_what_was_written() -> None:
    image = Image([10_240] * 3)
    assembler = image.assembler(queue=40_960)
    image.reports(assembler, 1.0)
    feed(assembler, [datagram for ordinal in range(3) for datagram in image.whole(ordinal)], 1.5)
    assert image.reports(assembler, 1.99)[0].disk_queue == 750
    frame_of(assembler, image)
    frame_of(assembler, image)
    rates = [one.disk_rate for now in (3, 4) for one in image.reports(assembler, now)]
    assert rates[0] == 19  # 20 KiB in 1.01 s
    assert assembler.figures()["disk_rate"] == rates[1] == 9  # half of the last, half of 0


# -- orders and sessions -----------------------------------------------------------------------------------------------


def test_an_order_holds_while_it_is_repeated() -> None:
    image = Image([640])
    assembler = image.assembler()
    number = image.reports(assembler, 2.0)[0].number
    assembler.receive(image.order(number, order=2, reason=3), 2.0)
    assert assembler.order() == (2, 3)
    for now in (4.0, 6.0, 8.0):
        number = image.reports(assembler, now)[0].number
        assert assembler.order() == (2, 3)
    assembler.receive(image.order(number, order=1, reason=4), 8.0)
    for now in (10.0, 12.0, 14.0):
        image.reports(assembler, now)
        assert assembler.order() == (1, 4)
    image.reports(assembler, 16.0)
    assert assembler.order() == (0, 0)


def test_a_new_session_goes_on_with_what_is_here() -> None:
    image = Image([640] * 3)
    assembler = image.assembler()
    feed(assembler, [*image.whole(0), *image.whole(1)[:5]])
    frame_of(assembler, image)
    image.reports(assembler, 1.0)
    assembler.receive(image.order(1), 1.0)
    assert assembler.order() == (2, 1)
    image.session = cast.Session(2, bytes(16), 64)
    image.sequence = 7
    assembler.begin(2, bytes(16), 4, 10.0, symbol=64)
    assert assembler.order() == (0, 0)
    report = image.reports(assembler, 12.0)[0]
    assert (report.receiver, report.number, report.highest, report.received, report.written) == (4, 2, 0, 0, 1)
    assert wants(report) == {1: set(range(5, 10)), 2: None}
    feed(assembler, image.whole(1)[5:])
    assert frame_of(assembler, image) == 1
    feed(assembler, image.whole(2)[:5])
    image.symbol, image.session = 32, cast.Session(3, bytes(16), 32)
    assembler.begin(3, bytes(16), 4, 20.0, symbol=32)  # symbols of another size are of no use together
    assert assembler.missing(2) == [(0, 640)]
    feed(assembler, image.whole(2))
    assert frame_of(assembler, image) == 2


# -- threads -----------------------------------------------------------------------------------------------------------


def test_take_waits_for_a_frame_and_close_ends_the_wait() -> None:
    image = Image([640] * 2)
    assembler = image.assembler()
    taken: queue.Queue[tuple[int, object] | None] = queue.Queue()
    threads = [threading.Thread(target=lambda: taken.put(assembler.take(60.0))) for _ in range(3)]
    for thread in threads:
        thread.start()
    feed(assembler, image.whole(1))
    assembler.give(0, 0, image.frames[0])
    frames = [taken.get(timeout=60.0) for _ in range(2)]
    assembler.close()
    assert sorted(one[0] for one in frames if one is not None) == [0, 1]
    assert taken.get(timeout=60.0) is None
    for thread in threads:
        thread.join(60.0)
    assert taken.empty()
    assert assembler.take(60.0) is None


def test_counted_symbols_without_their_bytes() -> None:
    image = Image([64 * 10] * 2)
    assembler = image.assembler(keep=False)
    feed(assembler, [image.data(0, number) for number in (0, 1, 2, 3, 4, 5, 6, 7, 10, 11)])
    taken = assembler.take()
    assert taken is not None
    assert (taken[0], len(taken[1])) == (0, 0)
    assert struct.pack("<I", len(image.frames[0])) == b"\x80\x02\0\0"
