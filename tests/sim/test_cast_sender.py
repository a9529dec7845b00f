"""The cast sender in virtual time: each rule of cast_sender.pyx and of the modules under it, by hand-made reports."""

import pytest

from pxed._ext import cast
from pxed._ext.cast_events import CastClosed, CastRefused, close_session, direct, hold, open_session, set_rate
from pxed._ext.pacer import Pacer
from support.cast_room import ALIVE, DONE, GROUP, KEY, REPORT_NOW, TAKES_HTTP, Room, Talk, source

EVERYTHING = ((0, 4),)


# -- the walk ----------------------------------------------------------------------------------------------------------


def test_what_is_wanted_whole_is_sent_once_for_all() -> None:
    talk = Talk()
    talk.admit(1, 2)
    talk.say(1, EVERYTHING)
    talk.say(2, ((1, 2),))
    assert talk.sent() == talk.whole(0, 1, 2, 3)
    assert talk.listing().needed == talk.listing().sent == 32


def test_nothing_is_sent_when_nobody_wants() -> None:
    talk = Talk()
    talk.admit(1)
    assert talk.told() == [cast.Mark(0, 0, 1000, 20, ALIVE)]
    talk.say(1, (), flags=DONE)
    assert [len(talk.drain(at / 100)) for at in range(1, 101)] == [at % 25 == 0 for at in range(1, 101)]
    assert talk.sequence == 0


def test_the_walk_goes_on_where_it_is_and_begins_anew_for_who_came_late() -> None:
    talk = Talk(rate=1000)  # 10 symbols a second, and the first 327
    talk.admit(1, 2)
    talk.post(set_rate(77, 0))
    talk.say(1, ((2, 2),))
    assert talk.sent() == talk.whole(2, 3)
    talk.say(2, EVERYTHING)
    talk.say(1, ())
    assert talk.sent() == talk.whole(0, 1, 2, 3)
    assert talk.listing().passes == 1


def test_a_part_of_a_report_speaks_of_its_window_only() -> None:
    talk = Talk(held=True)
    talk.admit(1)
    talk.say(1, ((0, 2),), parts=2, stop=2)
    talk.say(1, ((3, 1),), parts=2, begin=2, part=1, number=1)
    talk.say(1, (), begin=0, stop=1, number=2)  # no longer the first; of the others nothing is said
    talk.post(hold(77, False))
    assert talk.sent() == talk.whole(1, 3)
    assert talk.listing().receivers[0].wanted == 0


def test_who_hears_nothing_costs_one_pass() -> None:
    talk = Talk(symbols=40)
    talk.admit(1, 2)
    for _ in range(3):
        talk.say(1, EVERYTHING, highest=0, received=0, expected=0)
        talk.sent()
    assert talk.sequence == 160
    talk.say(2, ((3, 1),))  # nobody waits for the deaf one
    assert talk.sent() == talk.whole(3)
    talk.say(2, ())
    assert talk.told(0.05) == []


# -- repair ------------------------------------------------------------------------------------------------------------


def test_missing_symbols_are_sent_again_when_all_have_spoken() -> None:
    talk = Talk()
    talk.admit(1, 2)
    talk.say(1, EVERYTHING)
    talk.say(2, EVERYTHING)
    talk.drain()
    talk.say(1, ((1, ((2, 2),)), (3, ((7, 1),))))
    assert talk.sent(0.01) == []
    talk.say(2, ((1, ((3, 1),)),), now=0.02)
    assert talk.sent(0.02) == [(1, 2), (1, 3), (3, 7)]
    assert talk.listing().repaired == 3


def test_repair_does_not_wait_for_who_is_silent() -> None:
    """The group is asked, and a little after its answers are due repair goes on."""
    talk = Talk()
    talk.admit(1, 2)
    talk.say(1, EVERYTHING)
    talk.say(2, EVERYTHING)
    talk.drain()
    talk.say(1, ((1, ((2, 2),)),), now=0.01)
    assert talk.sent(0.069) == []
    assert talk.sent(0.071) == [(1, 2), (1, 3)]


def test_while_there_is_more_to_send_repair_waits_for_one_and_a_half_periods() -> None:
    talk = Talk(frames=400, rate=100_000)  # 8 ms a chunk, the first 41 at once
    talk.admit(1, 2)
    for receiver in (1, 2):
        talk.say(receiver, ((0, 400),), now=10.0)
    sent = talk.sent(10.0)
    talk.say(1, ((0, ((5, 1),)), (100, 300)), now=10.0)
    now = 10.0
    while (0, 5) not in sent[8:]:
        now = talk.next(now)
        sent += talk.sent(now)
    assert 11.5 <= now < 11.8


def test_repair_takes_at_most_half_while_whole_chunks_are_wanted() -> None:
    talk = Talk(frames=100, symbols=40)
    talk.admit(1)
    talk.say(1, ((0, 50),))
    talk.sent()
    talk.say(1, (*((chunk, ((0, 20),)) for chunk in range(50)), (50, 50)))
    sent = talk.sent()
    walk = [at for at, (chunk, _) in enumerate(sent) if chunk >= 50]
    repair = [at for at, (chunk, _) in enumerate(sent) if chunk < 50]
    assert len(repair) == 1000 and len(walk) == 2000
    assert repair[-1] < walk[-1]  # first, but not alone
    for at in range(100, repair[-1], 100):
        assert sum(one < at for one in repair) <= at * 0.55


def test_more_than_half_of_a_chunk_is_a_matter_of_the_walk() -> None:
    talk = Talk()
    talk.admit(1)
    talk.say(1, EVERYTHING)
    talk.sent()
    talk.say(1, ((0, ((0, 5),)), (2, ((0, 3),))))
    assert talk.listing().wanted == 1
    assert talk.sent() == [(2, 0), (0, 0), (2, 1), (0, 1), (2, 2), (0, 2), (0, 3), (0, 4)]
    assert talk.listing().repaired == 3


def test_wants_older_than_what_they_speak_of_schedule_nothing() -> None:
    talk = Talk()
    talk.admit(1)
    talk.say(1, EVERYTHING)
    talk.sent()
    # It has heard 16: the last of chunk 1 had gone by, those of chunks 2 and 3 had not.
    talk.say(1, ((1, ((3, 1),)), (2, 1), (3, ((2, 1),))), highest=16)
    assert talk.listing().stale_wants == 2
    assert talk.sent() == [(1, 3)]
    talk.say(1, ((0, 1),), highest=7)
    assert talk.sent() == []


def test_repair_is_made_of_parity_where_receivers_lost_different_symbols() -> None:
    talk = Talk(frames=1, symbols=300)  # two blocks of 150
    talk.admit(1, 2, 3)
    for receiver in (1, 2, 3):
        talk.say(receiver, ((0, 1),))
    talk.sent()
    talk.say(1, ((0, ((0, 4),)),))  # two of each block
    talk.say(2, ((0, ((10, 4),)),))
    talk.say(3, ((0, ((20, 4), (31, 1))),))  # and three of the second
    sent = [number for _, number in talk.sent()]
    assert sent == [300, 301, 302, 303, 305]  # parity p of block b: 300 + 2 p + b
    assert (talk.listing().parity, talk.listing().repaired) == (5, 0)
    talk.say(1, ())
    talk.say(2, ((0, ((10, 1),)),))  # it lost one of them: two more make no sense
    talk.say(3, ())
    assert talk.sent() == [(0, 10)]


def test_parity_symbols_are_right_and_never_the_same_twice() -> None:
    from pxed._ext import parity

    talk = Talk(frames=1, symbols=100)
    talk.admit(1, 2, 3, 4)
    everybody = (1, 2, 3, 4)
    for receiver in everybody:
        talk.say(receiver, ((0, 1),))
    talk.sent()
    numbers = []
    for _ in range(3):
        for receiver in everybody:
            talk.say(receiver, ((0, ((10 * receiver, 2),)),))
        for one in talk.drain():
            if isinstance(one, cast.Data):
                numbers.append(one.number)
                assert one.payload == parity.encode(talk.source.frame(0), 100, 0, [one.number - 100])[0]
    assert numbers == [100, 101, 102, 103, 104, 105]


def test_a_burst_that_all_lost_is_repaired_by_symbols() -> None:
    talk = Talk(frames=1, symbols=300)
    talk.admit(1, 2, 3)
    for receiver in (1, 2, 3):
        talk.say(receiver, ((0, 1),))
    talk.sent()
    for receiver in (1, 2, 3):
        talk.say(receiver, ((0, ((50, 20),)),))
    assert talk.sent() == [(0, number) for number in range(50, 70)]


# -- asking ------------------------------------------------------------------------------------------------------------


def test_at_the_end_of_a_pass_the_group_is_asked_at_once_twice_in_a_row() -> None:
    talk = Talk()
    talk.admit(1, 2)
    talk.say(1, EVERYTHING)
    talk.say(2, EVERYTHING)
    said = talk.drain()
    assert said[-2:] == [cast.Mark(32, 2, 1000, 20, REPORT_NOW)] * 2
    assert [one.kind for one in said if isinstance(one, cast.Mark)] == [ALIVE, REPORT_NOW, REPORT_NOW]


def test_who_does_not_answer_twice_is_not_asked_again() -> None:
    talk = Talk()
    talk.admit(1)
    talk.say(1, EVERYTHING)
    talk.drain()
    asked = []
    for ms in range(1, 1000):
        if any(isinstance(one, cast.Mark) and one.kind == REPORT_NOW for one in talk.drain(ms / 1000)):
            asked.append(ms)
    assert asked == [70]


def test_nobody_is_asked_when_all_have_spoken() -> None:
    talk = Talk()
    talk.admit(1)
    talk.say(1, EVERYTHING)
    talk.drain()
    talk.say(1, (), now=0.01)
    kinds = [one.kind for at in range(1, 100) for one in talk.told(at / 100) if isinstance(one, cast.Mark)]
    assert kinds == [ALIVE] * 3


def test_answers_of_many_are_spread() -> None:
    talk = Talk()
    talk.admit(*range(1, 201))
    for receiver in range(1, 201):
        talk.say(receiver, EVERYTHING)
    assert talk.told()[-1] == cast.Mark(32, 200, 1000, 40, REPORT_NOW)


# -- who counts --------------------------------------------------------------------------------------------------------


def test_wants_of_the_dead_vanish_until_they_are_heard_again() -> None:
    talk = Talk(held=True)
    talk.admit(1)
    talk.say(1, EVERYTHING)
    assert talk.listing(9.0).wanted == 4
    for second in range(1, 12):
        talk.drain(second)
    listing = talk.listing(11.0)
    assert (listing.wanted, listing.live, listing.receivers[0].state) == (0, 0, "silent")
    talk.say(1, ((3, 1),), now=12.0)
    talk.post(hold(77, False), 12.0)
    assert talk.sent(12.0) == talk.whole(3)


def test_a_listener_is_heard_but_schedules_nothing() -> None:
    talk = Talk()
    talk.admit(1, 2)
    talk.post(direct(77, 1, "listen", "port"))
    talk.say(1, EVERYTHING)
    said = talk.drain()
    assert [one for one in said if isinstance(one, cast.Order)] == [cast.Order(1, 1, 2, 2)]
    assert talk.sequence == 0
    talk.say(2, ((0, 1),))
    assert talk.sent() == talk.whole(0)
    talk.say(2, ())
    talk.say(1, ((1, 3),))
    assert talk.sent() == []
    one = talk.listing().receivers[0]
    assert (one.state, one.order, one.reason, one.wanted) == ("listening", "listen", "port", 3)
    talk.post(direct(77, 1, "back"))
    talk.say(1, ((1, 3),))
    assert talk.sent() == talk.whole(1, 2, 3)


def test_who_is_to_take_http_is_told_until_it_does() -> None:
    talk = Talk()
    talk.admit(1)
    talk.post(direct(77, 1, "http", "few"))
    for number in (1, 2):
        talk.say(1, EVERYTHING)
        assert talk.told()[0] == cast.Order(1, number, 1, 4)
    talk.say(1, EVERYTHING, flags=TAKES_HTTP)
    assert talk.told() == []
    assert talk.listing().receivers[0].state == "http"
    assert talk.sequence == 0


def test_a_closed_session_says_so_and_goes() -> None:
    talk = Talk()
    talk.admit(1)
    talk.say(1, EVERYTHING)
    talk.drain()
    talk.post(close_session(77), 1.0)
    talk.say(1, EVERYTHING, now=2.0)
    assert talk.drain(2.0) == [cast.Order(1, 2, 3, 5)]
    assert [talk.drain(at / 4) for at in range(9, 50)] == [[]] * 41
    assert talk.server.events() == [CastClosed(77)]
    talk.say(1, EVERYTHING, now=13.0)
    assert talk.drops() == {"no-session": 1}
    assert talk.server.statistics()["sessions"] == talk.server.statistics()["receivers"] == 0
    assert talk.server.next_timer() is None


def test_a_held_session_hears_and_is_heard() -> None:
    talk = Talk(held=True)
    talk.admit(1)
    talk.say(1, EVERYTHING)
    assert talk.told(0.25) and talk.sequence == 0
    talk.post(hold(77, False), 0.5)
    assert talk.sent(0.5) == talk.whole(0, 1, 2, 3)


def test_figures_of_a_receiver() -> None:
    talk = Talk(held=True)
    talk.admit(1)
    talk.say(1, EVERYTHING)
    counted = {"received": 90, "expected": 100, "written": 1, "wrong": 2, "refused": 7}
    talk.say(1, ((1, 2), (3, ((0, 1),))), now=1.0, highest=0, disk_rate=3, disk_queue=500, **counted)
    (one,) = talk.listing(1.5).receivers
    assert one == (1, "10.0.0.1", "live", "back", "", 0.5, 1, 3, 2, 90, 100, pytest.approx(0.1), 7, 7, 3072, 0.5, 0)


# -- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [100_000, 21_250_000])
def test_a_session_keeps_its_rate_exactly(rate: int) -> None:
    talk = Talk(frames=40 + rate // 40_000, symbols=1000, rate=rate)
    talk.admit(1)
    talk.say(1, ((0, talk.frames),), now=10.0)
    sent, now = 0, 10.0
    while now < 12.0:
        now = min(12.0, talk.next(now))
        talk.server.on_timer(now)
        sent += sum(datagram[2] == 1 for _, datagram in talk.server.drain(now))
    burst = max(32768, min(0.025 * rate, 256 << 10))
    assert 2 * rate <= sent * 100 + burst / 2 and sent * 100 <= 2 * rate + burst


def test_sessions_share_an_interface_fairly() -> None:
    talk = Talk(frames=50, symbols=100, pacer=Pacer(1_000_000))
    other = Talk(frames=50, symbols=100, session=78, server=talk)
    for one in (talk, other):
        one.admit(1)
        one.say(1, ((0, 50),))
    assert talk.wire.id != other.wire.id
    now, ids = 0.0, []
    while now < 0.5:
        talk.server.on_timer(now)
        ids += [datagram[11] for _, datagram in talk.server.drain(now) if datagram[2] == 1]
        now = min(0.5, talk.next(now))
    assert len(ids) * (100 + 36 + 66) <= 500_000 + 40_000
    assert abs(ids.count(77) - ids.count(78)) <= 88  # two runs
    assert len(ids) > 2000


def test_rates_of_sessions_are_their_own() -> None:
    talk = Talk(frames=50, symbols=100, rate=100_000)
    other = Talk(frames=50, symbols=100, rate=300_000, session=78, server=talk)
    for one in (talk, other):
        one.admit(1)
        one.say(1, ((0, 50),), now=10.0)
    now = 10.0
    while now < 11.0:
        talk.server.on_timer(now)
        talk.server.drain(now)
        now = min(11.0, talk.next(now))
    slow, fast = talk.listing().bytes, other.listing().bytes
    assert slow == pytest.approx(116_000, abs=16_500) and fast == pytest.approx(316_000, abs=16_500)


# -- bad input, by name ------------------------------------------------------------------------------------------------


def bad(talk: Talk, name: str) -> tuple[bytes, str]:
    """A datagram that is wrong in one way, and where it comes from."""
    match name:
        case "chunks":
            return talk.report(1, ((0, 5),), stop=5), "10.0.0.1"
        case "symbols":
            return talk.report(1, ((0, ((8, 1),)),)), "10.0.0.1"
        case "window":
            return talk.report(1, ((0, 1),), stop=0xFFFFFFFF), "10.0.0.1"
        case "address":
            return talk.report(1, EVERYTHING), "10.0.0.2"
        case "mac":
            return talk.report(1, EVERYTHING)[:-1] + b"?", "10.0.0.1"
        case "stale":
            return talk.report(1, EVERYTHING, number=4), "10.0.0.1"
        case "repeated":
            return talk.report(1, EVERYTHING, number=5), "10.0.0.1"
        case "future":
            return talk.report(1, EVERYTHING, number=6, highest=1), "10.0.0.1"
        case "no-session":
            return cast.encode_report(cast.Report(1, 6, *[0] * 13, ()), talk.wire._replace(id=1)), "10.0.0.1"  # type: ignore[arg-type]
        case "not-a-report":
            return cast.encode_mark(cast.Mark(0, 0, 0, 0, 1), talk.wire), "10.0.0.1"
        case "version":
            return b"\xc5\x02" + talk.report(1, EVERYTHING)[2:], "10.0.0.1"
        case "length":
            return talk.report(1, EVERYTHING)[:40], "10.0.0.1"
        case "v6":
            return talk.report(1, EVERYTHING, number=6), "fd00::1"
    raise AssertionError(name)


COUNTED = {"symbols": "chunks", "window": "chunks", "v6": "address"}


@pytest.mark.parametrize(
    "name",
    ["chunks", "symbols", "window", "address", "mac", "stale", "repeated", "future", "no-session", "not-a-report",
     "version", "length", "v6"],
)  # fmt: skip
def test_bad_datagrams_are_counted_by_name_and_change_nothing(name: str) -> None:
    talk = Talk(held=True)
    talk.admit(1, 2)
    talk.numbers[1] = 4
    talk.say(1, ((1, 1),))
    talk.drain()
    before = talk.listing()
    talk.send(*bad(talk, name))
    assert talk.drops() == {COUNTED.get(name, name): 1}
    assert talk.listing() == before
    assert talk.drain() == []
    assert talk.sender.audit() == 0


def test_who_was_not_admitted_is_told_to_join_but_no_stranger_is() -> None:
    talk = Talk()
    talk.drain()
    talk.say(9, EVERYTHING)
    assert talk.drain() == [cast.Order(9, 1, 4, 6)]
    assert talk.drops() == {"receiver": 1}
    talk.send(talk.report(9, EVERYTHING)[:-1] + b"?", "10.0.0.9")
    assert talk.drain() == []


def test_who_is_admitted_again_may_number_its_reports_from_the_beginning() -> None:
    talk = Talk()
    talk.admit(1)
    talk.numbers[1] = 50
    talk.say(1, ((0, 1),))
    assert talk.sent() == talk.whole(0)
    talk.numbers[1] = 0
    talk.say(1, ((1, 1),))
    assert (talk.sent(), talk.drops()) == ([], {"stale": 1})
    talk.admit(1)
    talk.say(1, ((1, 1),))
    assert talk.sent() == talk.whole(1)
    talk.numbers[1] = 0
    talk.say(1, ((2, 1),))
    assert (talk.sent(), talk.drops()) == ([], {"stale": 2})


def test_an_order_is_no_longer_than_what_it_answers_and_answers_one_part() -> None:
    talk = Talk()
    talk.drain()
    talk.say(9, (), parts=2, stop=0)
    talk.say(9, (), parts=2, part=1, number=1, stop=0)
    assert len(talk.drain()) == 1
    assert len(talk.report(9, ())) >= 36


def test_two_sessions_of_one_image_are_two() -> None:
    talk = Talk()
    other = Talk(session=78, server=talk)
    talk.admit(1)
    talk.say(1, ((0, 1),))
    assert talk.sent() == talk.whole(0)
    assert (talk.listing().sent, other.listing().sent) == (8, 0)
    talk.post(open_session(78, KEY, GROUP, talk.source, symbol=100))
    assert [event for event in talk.server.events() if isinstance(event, CastRefused)] == [CastRefused(78, 17)]


def test_what_cannot_be_a_session_is_refused() -> None:
    frames = source([100])
    with pytest.raises(ValueError, match="16 bytes"):
        open_session(1, b"short", GROUP, frames)
    with pytest.raises(ValueError, match="no IPv4 address"):
        open_session(1, KEY, ("ff02::1", 1), frames)
    with pytest.raises(ValueError, match="has frames"):
        open_session(1, KEY, GROUP, source([8193]), symbol=1)
    order = open_session(1, KEY, GROUP, frames)
    talk = Talk()
    talk.post(order)
    with pytest.raises(ValueError, match="once"):
        talk.post(order)
    with pytest.raises(RuntimeError, match="has it already"):
        frames.add(0, 0, 1)


# -- rooms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "most", "waste"), [(0.0, 0.05, 1.0), (0.01, 0.4, 1.05), (0.05, 1.1, 1.12)])
def test_a_room_ends_soon_after_the_last_chunk(loss: float, most: float, waste: float) -> None:
    room = Room(60_000_000, loss=loss)
    room.add(8)
    room.run()
    assert max(one.seconds for one in room.machines) <= room.ideal + most
    figures = room.figures()
    assert figures.sent <= waste * figures.needed
    assert room.sender.audit() == 0


def test_who_comes_late_needs_one_pass_of_its_own_and_costs_the_others_nothing() -> None:
    room = Room(40_000_000, loss=0.01)
    early = room.add(4)
    room.run(1.0)
    late = room.add(2)
    room.run()
    assert max(one.seconds for one in early) <= room.ideal + 0.6
    assert max(one.seconds for one in late) <= room.ideal + 0.6


def test_a_dead_machine_costs_the_others_nothing() -> None:
    room = Room(40_000_000, loss=0.01)
    machines = room.add(4)
    room.run(1.0)
    machines[0].dead = True
    room.run()
    assert max(one.seconds for one in machines[1:]) <= room.ideal + 0.6
