"""The token bucket: never more than its rate and burst, whoever takes and however often; and not much less."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed._ext.pacer import Pacer

SECOND = 10**9
RATES = st.integers(1_000, 12_500_000_000)
STEPS = st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 9_000)), max_size=200)


def test_no_rate_no_limit() -> None:
    pacer = Pacer()
    assert all(pacer.take(10**6, 5) for _ in range(1000))
    assert (pacer.rate, pacer.ready_at()) == (0, 0)


@given(RATES, st.integers(0, 2**62), STEPS)
def test_never_more_than_rate_and_burst_in_any_time(rate: int, start: int, steps: list[tuple[int, int]]) -> None:
    pacer = Pacer(rate)
    now, taken = start, []
    for pause, count in steps:
        now += pause
        if pacer.take(min(count, pacer.burst), now):
            taken.append((now, min(count, pacer.burst)))
    for first in range(len(taken)):
        total = 0
        for at, count in taken[first:]:
            total += count
            assert total <= rate * (at - taken[first][0]) / SECOND + pacer.burst + 1


@given(RATES, st.integers(1, 30))
def test_what_is_taken_as_soon_as_it_may_fills_the_rate(rate: int, rounds: int) -> None:
    """A sender that comes back at `ready_at` gets the whole rate."""
    pacer = Pacer(rate)
    begin = now = SECOND
    total, count = 0, max(1_000, pacer.burst // 100)
    for _ in range(rounds):
        while pacer.take(count, now):
            total += count
        now = max(now, pacer.ready_at())
    assert total >= rate * (now - begin) / SECOND - pacer.burst / 2 - count


def test_burst_is_two_milliseconds_but_some_datagrams_at_least() -> None:
    assert Pacer(125_000_000).burst == 250_000
    assert 32_768 <= Pacer(10_000).burst <= 32_769


def test_what_came_to_nothing_is_given_back() -> None:
    pacer = Pacer(1_000_000)
    while pacer.take(1_000, SECOND):
        pass
    pacer.give_back(1_000)
    assert pacer.take(1_000, SECOND)
    assert not pacer.take(1_000, SECOND)


def test_more_than_the_burst_costs_the_burst() -> None:
    """Better than never: a slow rate and a jumbo frame."""
    pacer = Pacer(10_000)
    assert pacer.take(10**6, 10 * SECOND)
    assert not pacer.take(1, 10 * SECOND)


def test_the_rate_may_change_at_any_time() -> None:
    pacer = Pacer(1_000_000)
    while pacer.take(1_000, SECOND):
        pass
    pacer.rate = 0
    assert pacer.take(10**9, SECOND)
    pacer.rate = 2_000_000
    assert pacer.rate == 2_000_000


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_share_one_bucket(threads: int) -> None:
    pacer = Pacer(50_000_000)
    taken = [0] * threads

    def run(index: int) -> None:
        for now in range(SECOND, SECOND + 10_000_000, 2_000):
            taken[index] += 1_000 * pacer.take(1_000, now)

    runners = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert sum(taken) <= 50_000_000 * 0.01 + pacer.burst
