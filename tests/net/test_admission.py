"""Whose place a newcomer gets, in virtual time."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pxed.net.admission import GRACE, Admission, Rank, Refused, Waits

A, B = "10.0.0.1", "10.0.0.2"
LATER = GRACE + 1


def full(*ranks: Rank, per_address: int = 100) -> Admission[str]:
    """As many connections as there may be, "0" to "n", of one address, a second after each other."""
    admission: Admission[str] = Admission(len(ranks), per_address)
    for number, rank in enumerate(ranks):
        admission.enter(str(number), A, float(number))
        admission.move(str(number), rank, float(number))
    return admission


def test_there_is_room_until_there_is_none() -> None:
    admission: Admission[str] = Admission(2, 2)
    assert admission.make_room(A, 0.0) is None
    admission.enter("a", A, 0.0)
    assert admission.make_room(B, 0.0) is None
    admission.enter("b", B, 0.0)
    assert not admission.has_room(0.0)
    with pytest.raises(Waits):
        admission.make_room(B, 0.0)
    admission.leave("a")
    assert admission.make_room(B, 0.0) is None
    assert (len(admission), admission.of(A), admission.of(B)) == (1, 0, 1)


@pytest.mark.parametrize(
    ("ranks", "victim"),
    [
        ((Rank.BUSY, Rank.STALLED, Rank.KEPT, Rank.ASKING, Rank.ENDING), "4"),
        ((Rank.BUSY, Rank.STALLED, Rank.KEPT, Rank.ASKING), "3"),
        ((Rank.BUSY, Rank.STALLED, Rank.KEPT), "2"),
        ((Rank.BUSY, Rank.STALLED), "1"),
        ((Rank.KEPT, Rank.KEPT, Rank.KEPT), "0"),
    ],
)
def test_the_least_is_lost(ranks: tuple[Rank, ...], victim: str) -> None:
    assert full(*ranks).make_room(B, 100.0) == victim


def test_busy_ones_are_never_closed_for_others() -> None:
    admission = full(Rank.BUSY, Rank.BUSY, Rank.BUSY, per_address=3)
    assert not admission.has_room(1e9)
    with pytest.raises(Waits):
        admission.make_room(B, 1e9)
    with pytest.raises(Refused):
        admission.make_room(A, 1e9)


def test_a_client_has_time_to_say_what_it_wants() -> None:
    admission = full(Rank.ASKING, Rank.KEPT)
    assert admission.make_room(B, GRACE / 2) == "1"
    assert admission.make_room(B, LATER) == "0"


def test_a_newcomer_of_an_address_with_many_takes_the_place_of_its_own() -> None:
    admission: Admission[str] = Admission(10, 2)
    admission.enter("other", B, 0.0)
    admission.enter("first", A, 1.0)
    admission.enter("second", A, 2.0)
    assert admission.make_room(B, LATER + 2) is None
    assert admission.make_room(A, LATER + 2) == "first"
    admission.move("first", Rank.BUSY, 3.0)
    assert admission.make_room(A, LATER + 2) == "second"
    admission.move("second", Rank.BUSY, 3.0)
    with pytest.raises(Refused):
        admission.make_room(A, LATER + 2)
    admission.move("first", Rank.STALLED, 4.0)
    assert admission.make_room(A, LATER + 2) == "first"


def test_the_longest_in_a_rank_goes_first_and_the_same_rank_again_is_no_change() -> None:
    admission = full(Rank.KEPT, Rank.KEPT)
    admission.move("0", Rank.KEPT, 50.0)
    assert admission.make_room(B, 100.0) == "0"
    admission.move("0", Rank.BUSY, 60.0)
    admission.move("0", Rank.KEPT, 70.0)
    assert admission.make_room(B, 100.0) == "1"
    assert list(admission.members(Rank.KEPT)) == ["1", "0"]


class Model(RuleBasedStateMachine):
    """Against lists that are sorted anew at each question."""

    LIMIT, OF_ONE = 6, 3

    def __init__(self) -> None:
        super().__init__()
        self.admission: Admission[int] = Admission(self.LIMIT, self.OF_ONE)
        self.now = 0.0
        self.known: dict[int, tuple[str, Rank, float, int]] = {}
        self.order = 0

    def _first(self, wanted: Callable[[str], bool]) -> int | None:
        candidates = [
            (rank, order, member)
            for member, (address, rank, since, order) in self.known.items()
            if wanted(address) and rank is not Rank.BUSY and (rank is not Rank.ASKING or self.now - since >= GRACE)
        ]
        return min(candidates)[2] if candidates else None

    def _place(self, member: int, address: str, rank: Rank) -> None:
        self.order += 1
        self.known[member] = (address, rank, self.now, self.order)

    @rule(address=st.sampled_from("abc"))
    def come(self, address: str) -> None:
        own = sum(known[0] == address for known in self.known.values())
        expected = None
        if own >= self.OF_ONE:
            expected = self._first(lambda other: other == address)
            if expected is None:
                with pytest.raises(Refused):
                    self.admission.make_room(address, self.now)
                return
        elif len(self.known) >= self.LIMIT:
            expected = self._first(lambda other: True)
            if expected is None:
                with pytest.raises(Waits):
                    self.admission.make_room(address, self.now)
                return
        victim = self.admission.make_room(address, self.now)
        assert victim == expected
        if victim is not None:
            self.admission.leave(victim)
            del self.known[victim]
        self.order += 1
        member = self.order
        self.admission.enter(member, address, self.now)
        self._place(member, address, Rank.ASKING)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), rank=st.sampled_from(Rank))
    def change(self, data: st.DataObject, rank: Rank) -> None:
        member = data.draw(st.sampled_from(sorted(self.known)))
        self.admission.move(member, rank, self.now)
        if self.known[member][1] is not rank:
            self._place(member, self.known[member][0], rank)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(sorted(self.known)))
        self.admission.leave(member)
        del self.known[member]

    @rule(seconds=st.sampled_from([0.1, GRACE, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts(self) -> None:
        assert len(self.admission) == len(self.known) <= self.LIMIT
        assert sorted(self.admission) == sorted(self.known)
        for address in "abc":
            assert self.admission.of(address) == sum(known[0] == address for known in self.known.values())
        for rank in Rank:
            assert self.admission.count(rank) == sum(known[1] is rank for known in self.known.values())
        assert self.admission.has_room(self.now) == (
            len(self.known) < self.LIMIT or self._first(lambda other: True) is not None
        )


TestModel = Model.TestCase


@given(ranks=st.lists(st.sampled_from(Rank), min_size=1, max_size=8))
def test_nothing_stays_of_those_who_left(ranks: list[Rank]) -> None:
    admission = full(*ranks)
    for number in range(len(ranks)):
        admission.leave(str(number))
    assert (len(admission), admission.of(A), admission._lines, admission._places) == (0, 0, {}, {})
