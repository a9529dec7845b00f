"""Policy of multicast sessions against rooms made of figures, in virtual time."""

from dataclasses import dataclass, field
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed.cast.figures import Heard, Move, Note, State, Step
from pxed.cast.forecast import Forecast, forecast
from pxed.cast.member import Member
from pxed.cast.outliers import _median_beside
from pxed.cast.pace import Pace, percentile
from pxed.cast.session import SessionPolicy, reason
from pxed.cast.starting import Starting
from pxed.config import start_rule
from pxed.types import CastOrder as Order
from pxed.types import CastWhy as Why

SYMBOL = 1436
CAP = 170e6 / 8
FLOOR = 2e6
CHUNKS = 4000  # of about 1 MB


@dataclass
class Box:
    """A receiver: what its port and its disk carry, and what its cable loses."""

    port: float = 1e9
    disk: float = 1e9
    noise: float = 0.0
    received: float = 0.0
    expected: float = 0.0
    refused: float = 0.0
    written: float = 0.0
    silent_since: float | None = None
    reports_from: float = 0.0
    flags: dict[str, bool] = field(default_factory=dict)

    def take(self, rate: float, seconds: float) -> None:
        sent = rate * seconds / SYMBOL
        came = min(sent, self.port * seconds / SYMBOL) * (1 - self.noise)
        taken = min(came, self.disk * seconds / SYMBOL)
        self.expected += sent
        self.received += came
        self.refused += came - taken
        self.written = min(CHUNKS, self.written + taken * SYMBOL / 1e6)

    def heard(self, number: int, now: float) -> Heard:
        silence = None if now < self.reports_from else 0.0 if self.silent_since is None else now - self.silent_since
        return Heard(
            number, silence, int(self.received), int(self.expected), int(self.refused), int(self.written),
            disk_rate=min(self.disk, 1e8), **self.flags,
        )  # fmt: skip


class Room:
    """A session and its boxes; `uplink` is what all of them share."""

    def __init__(self, *boxes: Box, uplink: float = 1e12, cap: float = CAP, floor: float = FLOOR) -> None:
        self.policy = SessionPolicy(CHUNKS, floor, cap)
        self.boxes = dict(enumerate(boxes, 1))
        self.uplink = uplink
        self.now = 0.0
        self.rates: list[int] = []
        self.moves: list[Move] = []
        self.notes: list[Note] = []
        self.room: float | None = None
        for number in self.boxes:
            self.policy.join(number, self.now)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            rate = self.policy.pace.rate
            self.now += 1.0
            for box in self.boxes.values():
                if box.silent_since is None:
                    sent, through = rate, min(rate, self.uplink)
                    lost, box.noise = box.noise, 1 - (1 - box.noise) * through / sent
                    box.take(sent, 1.0)
                    box.noise = lost
            self.step()

    def step(self) -> Step:
        figures = [box.heard(number, self.now) for number, box in self.boxes.items()]
        step = self.policy.step(self.now, figures, self.room)
        self.rates.append(step.rate)
        self.moves += step.moves
        self.notes += step.notes
        return step

    def state(self, number: int) -> State:
        return self.policy.members[number].state


# -- the rate ----------------------------------------------------------------------------------------------------------


def test_a_clean_room_stays_at_the_cap() -> None:
    room = Room(*(Box() for _ in range(8)))
    room.run(20)
    assert set(room.rates) == {round(CAP)}
    assert room.moves == []


def test_loss_at_any_rate_is_noise_and_the_rate_comes_back() -> None:
    room = Room(*(Box(noise=0.05) for _ in range(8)))
    room.run(30)
    assert min(room.rates) == pytest.approx(0.85 * CAP, rel=0.01)
    assert room.rates[4:] == [round(CAP)] * 26
    assert room.policy.pace.noise == pytest.approx(0.05, abs=0.002)
    assert room.moves == []


@pytest.mark.parametrize("uplink", [100e6 / 8, 140e6 / 8, 165e6 / 8, 40e6 / 8])
def test_a_narrow_line_that_all_share_is_found_and_filled(uplink: float) -> None:
    room = Room(*(Box() for _ in range(8)), uplink=uplink)
    room.run(120)
    late = room.rates[20:]
    assert max(late) <= uplink + 0.06 * CAP
    assert min(late) >= 0.6 * uplink
    assert sum(late) / len(late) >= 0.85 * uplink
    assert room.moves == []


def test_a_narrow_line_behind_bad_cables() -> None:
    room = Room(*(Box(noise=0.03) for _ in range(8)), uplink=100e6 / 8)
    room.run(120)
    late = room.rates[40:]
    assert max(late) <= 1.3 * 100e6 / 8
    assert sum(late) / len(late) >= 0.8 * 100e6 / 8


def test_the_floor_holds() -> None:
    room = Room(*(Box() for _ in range(4)), uplink=FLOOR / 4)
    room.run(60)
    assert min(room.rates) == FLOOR


def test_one_in_ten_does_not_lower_the_rate() -> None:
    """They are no outliers by the median, only a little worse."""
    room = Room(*(Box(noise=0.0) for _ in range(19)), Box(noise=0.015))
    room.run(20)
    assert set(room.rates) == {round(CAP)}


def test_slow_disks_do_not_lower_the_rate_unless_no_disk_keeps_up() -> None:
    room = Room(*(Box() for _ in range(4)), *(Box(disk=CAP / 2) for _ in range(4)))
    room.run(30)
    assert set(room.rates) == {round(CAP)}
    room = Room(*(Box(disk=CAP / 2) for _ in range(8)))
    room.run(60)
    assert CAP / 2 * 0.8 <= sum(room.rates[20:]) / len(room.rates[20:]) <= CAP / 2 * 1.1


def test_a_reload_changes_the_bounds_at_once() -> None:
    pace = Pace(FLOOR, CAP)
    pace.limit(FLOOR, CAP / 2)
    assert pace.rate == round(CAP / 2)
    pace.limit(FLOOR, CAP)
    assert pace.rate == round(CAP)
    assert pace.look(0.3)
    slow = pace.rate
    pace.limit(FLOOR, 2 * CAP)
    assert pace.rate == slow


@given(st.lists(st.floats(0, 1), max_size=60), st.floats(1, 1e9), st.floats(1, 1e9))
def test_the_rate_is_always_within_its_bounds(losses: list[float], floor: float, cap: float) -> None:
    pace = Pace(floor, cap)
    for loss in losses:
        pace.look(loss)
        assert min(floor, cap) - 1 <= pace.rate <= cap + 1


@given(st.lists(st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


# -- who is moved ------------------------------------------------------------------------------------------------------


def test_a_slow_port_is_moved_at_its_first_report() -> None:
    room = Room(*(Box() for _ in range(7)), Box(port=40e6 / 8))
    room.run(1)
    assert room.moves == [Move(8, Order.LISTEN, Why.PORT)]
    assert [note.text for note in room.notes] == [
        "Moved out of the multicast session: its port takes 40 Mbit/s of 170 Mbit/s. "
        "It takes what passes, and the rest over HTTP."
    ]
    room.run(8)
    assert set(room.rates) == {round(CAP)}
    for number in range(1, 8):
        room.boxes[number].flags["done"] = True
    room.step()
    assert room.moves[1:] == [Move(8, Order.HTTP, Why.PORT)]
    assert room.state(8) is State.HTTP


def test_a_bad_cable_is_moved_after_two_reports_and_comes_back_once() -> None:
    room = Room(*(Box() for _ in range(7)), Box(noise=0.05))
    room.run(1)
    assert room.moves == []
    room.run(1)
    assert room.moves == [Move(8, Order.LISTEN, Why.LOSS)]
    assert set(room.rates) == {round(CAP)}
    room.boxes[8].noise = 0.0
    room.run(3)
    assert room.moves[1:] == [Move(8, Order.RECEIVE, Why.NONE)]
    room.boxes[8].noise = 0.05
    room.run(2)
    room.boxes[8].noise = 0.0
    room.run(10)
    assert room.moves[2:] == [Move(8, Order.LISTEN, Why.LOSS)]


def test_a_slow_disk_is_moved_with_its_speed() -> None:
    room = Room(*(Box() for _ in range(7)), Box(disk=5e6))
    room.run(3)
    assert room.moves == [Move(8, Order.LISTEN, Why.DISK)]
    assert "its disk takes 40 Mbit/s" in room.notes[0].text


def test_listeners_get_http_at_once_where_the_line_has_room() -> None:
    room = Room(*(Box() for _ in range(6)), Box(port=40e6 / 8), Box(port=40e6 / 8))
    room.room = 50e6 / 8  # for one of them
    room.run(3)
    assert room.moves == [Move(7, Order.HTTP, Why.PORT), Move(8, Order.LISTEN, Why.PORT)]


def test_who_is_alone_is_compared_with_nobody() -> None:
    room = Room(Box(port=40e6 / 8))
    room.run(30)
    assert room.moves == []
    assert room.rates[-1] < 60e6 / 8


def test_the_last_one_with_much_to_do_finishes_by_http() -> None:
    room = Room(*(Box() for _ in range(5)))
    room.run(3)
    for number in range(1, 5):
        room.boxes[number].flags["done"] = True
    room.run(1)
    assert room.moves == [Move(5, Order.HTTP, Why.FEW)]


def test_the_first_one_to_report_is_not_the_last_one_left() -> None:
    """The others have joined, and prepare their disks."""
    room = Room(Box(), *(Box(reports_from=6.0) for _ in range(3)))
    room.run(20)
    assert room.moves == []
    assert {room.state(number) for number in room.boxes} == {State.RECEIVING}


def test_the_last_one_with_little_to_do_or_much_loss_stays() -> None:
    for left, noise in ((50, 0.0), (CHUNKS, 0.05)):
        room = Room(*(Box(noise=noise) for _ in range(5)))
        room.run(3)
        for number in range(1, 5):
            room.boxes[number].flags["done"] = True
        room.boxes[5].written = CHUNKS - left
        room.run(1)
        assert room.moves == []


def test_who_lacks_only_what_the_sender_cannot_read_is_told_to_take_http() -> None:
    """Else they would hear that the session lives, and wait for ever."""
    room = Room(Box(written=CHUNKS - 2), Box(written=CHUNKS - 3))
    figures = [box.heard(number, 1.0) for number, box in room.boxes.items()]
    assert room.policy.step(1.0, figures, union=1, unreadable=2).moves == ()
    step = room.policy.step(1.1, figures, union=0, unreadable=2)
    assert step.moves == (Move(1, Order.HTTP, Why.STORE),)
    assert "the sender cannot read it" in step.notes[-1].text


def test_a_pair_stays_as_one_stream_serves_both() -> None:
    room = Room(*(Box() for _ in range(60)))
    room.run(3)
    for number in range(1, 59):
        room.boxes[number].flags["done"] = True
    room.run(3)
    assert room.moves == []


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5]), max_size=9), st.sampled_from([0.0, 0.1, 0.2, 0.3]))
def test_the_median_of_the_others(values: list[float], own: float) -> None:
    others = sorted(values)
    if own in others:
        others.remove(own)
    found = _median_beside(sorted(values), own)
    assert found == (pytest.approx(median(others)) if others else None)


# -- life and death ----------------------------------------------------------------------------------------------------


def test_dead_after_ten_seconds_and_back_again() -> None:
    room = Room(Box(), Box())
    room.run(2)
    room.boxes[2].silent_since = room.now
    room.run(9)
    assert room.state(2) is State.RECEIVING
    room.run(1)
    assert room.state(2) is State.DEAD
    room.run(5)
    room.boxes[2].silent_since = None
    room.run(1)
    assert room.state(2) is State.RECEIVING
    assert [note.what for note in room.notes] == ["dead", "back"]
    assert (room.policy.members[2].quiet(room.now), Member(9, 0.0, CHUNKS).quiet(room.now)) == (0.0, None)
    assert room.policy.members[2].quiet(room.now + 3) == 3.0
    assert room.notes[0].text.startswith("Fell silent at 1% of the image")


def test_who_never_reports_is_dead_and_who_is_not_in_the_figures_too() -> None:
    room = Room(Box())
    room.policy.join(2, room.now)
    room.run(10)
    assert room.state(2) is State.DEAD
    assert [note.text for note in room.notes] == ["Joined a multicast session and never reported."]
    assert not room.policy.idle


def test_a_machine_that_joins_again_has_no_former_self_that_is_late() -> None:
    room = Room(Box(), Box())
    room.run(2)
    room.boxes[2].silent_since = room.now
    room.boxes[3] = Box()
    room.policy.join(3, room.now)
    room.policy.replace(2, 3, room.now, proved=True)
    assert forecast(room.policy.members.values()).late == ()
    assert room.state(2) is State.DEAD
    room.run(5)
    assert [room.state(number) for number in (1, 2, 3)] == [State.RECEIVING, State.DEAD, State.RECEIVING]
    assert reason(room.policy.members[2]) == "it joined again, as receiver 3"
    assert room.notes == []
    room.boxes[2].silent_since = None  # it was another machine after all
    room.run(1)
    assert room.state(2) is State.RECEIVING
    assert [note.what for note in room.notes] == ["back"]


def test_two_receivers_of_one_address_may_both_live() -> None:
    """The former is given up when it misses three reports, and not before."""
    room = Room(Box(), Box(), Box())
    room.policy.replace(1, 3, room.now, proved=False)
    room.policy.replace(2, 3, room.now, proved=False)
    room.run(5)
    room.boxes[2].silent_since = room.now
    room.run(1)
    assert room.state(2) is State.RECEIVING
    room.run(1)
    assert [room.state(number) for number in (1, 2, 3)] == [State.RECEIVING, State.DEAD, State.RECEIVING]
    assert forecast(room.policy.members.values()).late == ()
    assert [(note.what, note.text) for note in room.notes] == [
        ("replaced", "Fell silent at 3% of the image, and joined again as receiver 3.")
    ]
    room.boxes[1].silent_since = room.now
    room.policy.join(1, room.now)  # under its own name: it is no former self
    room.run(9)
    assert room.state(1) is State.RECEIVING


def test_the_end_and_leaving() -> None:
    room = Room(Box(), Box(), Box())
    room.run(3)
    room.boxes[1].flags["done"] = True
    room.boxes[2].flags["leaving"] = True
    room.boxes[3].flags |= {"leaving": True, "http": True}
    room.run(1)
    assert [room.state(number) for number in (1, 2, 3)] == [State.DONE, State.LEFT, State.HTTP]
    assert [note.text for note in room.notes] == [
        "Has the whole image after 4.0 s; 0.00% of the datagrams were lost.",
        "Left the multicast session after 4.0 s, with 2% of it.",
        "Takes the image over HTTP: multicast does not bring it.",
    ]
    room.boxes[3].silent_since = room.now
    room.run(10)
    assert room.state(3) is State.LEFT
    assert room.policy.idle
    assert room.policy.join(2, room.now).state is State.JOINED


def test_http_by_itself_and_back() -> None:
    """A machine that multicast does not reach takes HTTP; when the group is heard it goes on with that."""
    room = Room(Box(), Box())
    room.boxes[1].flags["http"] = True
    room.run(2)
    assert room.state(1) is State.HTTP
    room.boxes[1].flags["http"] = False
    room.run(1)
    assert room.state(1) is State.RECEIVING
    assert [note.what for note in room.notes] == ["http", "back"]


def test_counters_that_begin_anew() -> None:
    """A receiver that lost the session for a while joins again under its number."""
    member = Member(1, 0.0, CHUNKS)
    member.look(Heard(1, 0.0, 9_000, 10_000), 1.0)
    member.look(Heard(1, 0.0, 500, 1_000), 2.0)
    assert member.window is not None
    assert (member.window.expected, member.window.loss) == (1_000, 0.5)


# -- forecasts ---------------------------------------------------------------------------------------------------------


def test_the_forecast_names_who_will_miss_it() -> None:
    room = Room(*(Box() for _ in range(7)), Box(port=40e6 / 8))
    room.run(10)
    told = forecast(room.policy.members.values())
    left = CHUNKS - 10 * CAP / 1e6
    assert told.seconds == pytest.approx(left / (CAP / 1e6), rel=0.05)
    assert told.late == (8,)
    room.boxes[1].silent_since = room.now
    room.run(10)
    assert forecast(room.policy.members.values()).late == (1, 8)


def test_nothing_is_foretold_too_early_and_nothing_is_left_at_the_end() -> None:
    room = Room(Box(disk=0.0))
    assert forecast(room.policy.members.values()) == Forecast(None, ()), "nobody has reported yet"
    room.run(1)
    assert forecast(room.policy.members.values()).seconds is None
    room.boxes[1].flags["done"] = True
    room.run(1)
    assert forecast(room.policy.members.values()) == (forecast([]))


@given(
    st.lists(
        st.tuples(st.floats(1e5, 1e9), st.floats(1e5, 1e9), st.floats(0, 0.9), st.booleans()), min_size=1, max_size=12
    ),
    st.floats(1e5, 1e9),
)
def test_nobody_is_lost_whatever_the_room(kinds: list[tuple[float, float, float, bool]], uplink: float) -> None:
    """Rates stay within bounds; each receiver is in one state, told at most twice of each move."""
    room = Room(*(Box(port, disk, noise) for port, disk, noise, _ in kinds), uplink=uplink)
    for number, kind in enumerate(kinds, 1):
        if kind[3]:
            room.boxes[number].silent_since = 5.0
    room.run(30)
    assert all(FLOOR <= rate <= round(CAP) for rate in room.rates)
    told = [(move.number, move.order) for move in room.moves]
    assert all(told.count(move) <= 2 for move in told)
    for member in room.policy.members.values():
        assert member.state in State
        assert 0.0 <= member.share <= 1.0


@given(st.lists(st.tuples(*(st.integers(0, 2**32 - 1),) * 5), max_size=20))
def test_any_counters_at_all(counters: list[tuple[int, int, int, int, int]]) -> None:
    """Reports are a peer's words: whatever they claim gives no nonsense."""
    member = Member(1, 0.0, CHUNKS)
    for number, (received, expected, refused, written, rate) in enumerate(counters, 1):
        member.look(Heard(1, 0.0, received, expected, refused, written, disk_rate=rate), float(number))
        assert 0.0 <= member.loss <= 1.0
        assert 0.0 <= member.share <= 1.0
        if member.window is not None:
            assert 0.0 <= member.window.loss <= 1.0
            assert 0.0 <= member.window.refused <= 1.0


# -- the start ---------------------------------------------------------------------------------------------------------


def starts(rule: str, *looks: tuple[float, int, int]) -> list[bool]:
    """Looks at (time, minute of day, machines), the first of whom joined at 0."""
    starting = Starting(start_rule(rule))
    return [starting.look(now, minute, machines, 0.0 if machines else None) for now, minute, machines in looks]


def test_start_rules() -> None:
    assert starts("first", (0, 0, 0), (1, 0, 1)) == [False, True]
    assert starts("3 machines", (0, 0, 2), (1, 0, 3), (2, 0, 1)) == [False, True, True]
    assert starts("60 seconds", (59, 0, 1), (60, 1, 1)) == [False, True]
    assert starts("60 seconds", (99, 0, 0)) == [False]
    assert starts("3 machines or 60 seconds", (59, 0, 2), (60, 0, 2)) == [False, True]
    assert starts("22:30", (0, 1349, 1), (1, 1350, 1)) == [False, True]
    assert starts("22:30", (0, 1348, 1), (1, 1352, 1)) == [False, True]
    assert starts("22:30", (0, 1351, 1), (1, 1352, 1)) == [False, False]
    assert starts("00:00", (0, 1439, 1), (1, 1, 1)) == [False, True]
    # A clock that is set back, by a minute or an hour, has passed nothing.
    assert starts("22:30", (0, 600, 1), (1, 599, 1), (2, 600, 1)) == [False, False, False]
    assert starts("02:30", (0, 179, 1), (1, 120, 1), (2, 149, 1), (3, 150, 1)) == [False, False, False, True]
    assert starts("manual", (9999, 0, 50)) == [False]


def test_a_start_by_hand_and_what_is_waited_for() -> None:
    starting = Starting(start_rule("20 machines or 300 seconds"))
    assert starting.words(3, 100.0, 50.0) == "3 of 20 machines are there, or begins in 250 s"
    assert Starting(start_rule("22:30")).words(3, 0.0, 0.0) == "begins at 22:30"
    assert Starting(start_rule("manual")).words(3, 0.0, 0.0) == "waits for `pxed session start`"
    starting.begin(5.0)
    starting.begin(6.0)
    assert starting.begun == 5.0
