"""The timer wheel against what a sorted list says."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pxed._ext.timers import TimerWheel

TICK = 2**22 / 1e9

moves = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 20), st.floats(0, 60)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0.0)),
        st.tuples(st.just("advance"), st.just(0), st.sampled_from([0.001, 0.004, 0.1, 1.0, 17.2, 18.0, 40.0])),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(moves)
def test_fires_once_never_early_and_at_most_a_tick_late(steps: list[tuple[str, int, float]]) -> None:
    wheel, armed, now = TimerWheel(), {}, 0.0
    for what, key, value in [*steps, ("advance", 0, 100.0)]:
        if what == "arm":
            wheel.arm(key, now + value)
            armed[key] = now + value
        elif what == "cancel":
            wheel.cancel(key)
            armed.pop(key, None)
        else:
            now += value
            fired = wheel.expired(now)
            assert len(fired) == len(set(fired))
            assert all(armed[key] <= now + 1e-8 for key in fired)
            for key in fired:
                del armed[key]
            assert all(deadline > now - TICK - 1e-8 for deadline in armed.values())
        assert len(wheel) == len(armed)
        following = wheel.next_deadline()
        assert (following is None) == (not armed)
        if following is not None:
            assert following <= min(armed.values()) + TICK + 1e-8
    assert not armed


def test_wakes_for_each_deadline() -> None:
    """Driven by next_deadline alone, as an engine does."""
    wheel = TimerWheel()
    deadlines = {i: (i * 7919 % 1000) / 20 for i in range(1000)}  # up to 50 s: three turns of the wheel
    for key, deadline in deadlines.items():
        wheel.arm(key, deadline)
    wakes = 0
    while (now := wheel.next_deadline()) is not None:
        wakes += 1
        for key in wheel.expired(now):
            assert deadlines[key] <= now + 1e-8
            assert now - deadlines.pop(key) <= TICK + 1e-8
    assert not deadlines
    assert wakes < 1100
