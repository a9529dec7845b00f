"""The virtual network: loss, queues, and downloads as a fluid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed.bench.fleet.network import Downloads, Faults, Port, Trouble


def test_loss_is_the_share_that_was_asked_for() -> None:
    faults = Faults(Trouble(loss=0.1), seed=1)
    arrived = sum(len(faults.arrivals(100, 0.0)) for _ in range(10_000))
    assert arrived == 10_000 - faults.lost
    assert 850 < faults.lost < 1150


def test_duplicates_reordering_and_the_mtu_hole() -> None:
    faults = Faults(Trouble(duplicate=0.5, reorder=0.5, held=0.01, mtu_hole=1400, delay=0.001), seed=1)
    assert faults.arrivals(1401, 1.0) == ()
    times = [faults.arrivals(1400, 1.0) for _ in range(200)]
    assert {len(one) for one in times} == {1, 2}
    assert {round(at, 6) for one in times for at in one} == {1.001, 1.011}


def test_a_lost_syn_costs_its_repetition() -> None:
    assert Faults(Trouble(delay=0.001), 1).connect_time(0.25, 10.0) == 0.002
    faults = Faults(Trouble(loss=0.5), 1)
    times = {faults.connect_time(0.25, 10.0) for _ in range(1000)}
    assert None in times
    assert {round(at, 4) for at in times if at is not None} >= {0.0004, 0.2504, 0.7504}


def test_a_port_sends_at_its_rate() -> None:
    port = Port(8e6, None)  # a byte per microsecond
    times = [port.leave(934, 0.0) for _ in range(3)]
    assert times == pytest.approx([0.001, 0.002, 0.003])
    assert Port(0, None).leave(934, 5.0) == 5.0


def test_the_servers_own_port_makes_the_engine_wait_and_a_switch_drops() -> None:
    own = Port(8e6, None)
    while own.opens(0.0) == 0.0:
        own.leave(934, 0.0)
    assert own.dropped == 0
    assert own.opens(0.0) == pytest.approx(Port.SOCKET / 2 / 1e6, abs=0.002)
    assert own.opens(own.opens(0.0)) == own.opens(0.0)
    switch = Port(8e6, 10_000)
    left = [switch.leave(934, 0.0) for _ in range(20)]
    assert switch.dropped == 10
    assert left.count(None) == 10
    assert switch.opens(0.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10_000_000)), min_size=1, max_size=20))
def test_downloads_share_the_port_and_none_is_forgotten(wanted: list[tuple[float, int]]) -> None:
    downloads: Downloads[int] = Downloads(1e8, Trouble())
    coming = sorted((at, size, number) for number, (at, size) in enumerate(wanted))
    ended: dict[int, float] = {}
    while coming or downloads.next_end() is not None:
        end = downloads.next_end()
        if coming and (end is None or coming[0][0] <= end):
            at, size, number = coming.pop(0)
            downloads.begin(size, number, at)
        else:
            assert end is not None
            found = downloads.ended(end)
            assert found
            ended |= dict.fromkeys(found, end)
    speed = 1e8 / 8 * 1448 / 1538
    assert set(ended) == set(range(len(wanted)))
    for number, (at, size) in enumerate(wanted):
        assert ended[number] - at >= size / speed - 1e-6
    assert max(ended.values()) >= sum(size for _, size in wanted) / speed - 1e-3


def test_what_datagrams_take_is_not_there_for_downloads_and_loss_is_a_ceiling() -> None:
    downloads: Downloads[str] = Downloads(1e9, Trouble())
    downloads.begin(1_000_000, "file", 0.0)
    alone = downloads.next_end()
    downloads.use(0.5, 0.0)
    assert alone is not None
    assert downloads.next_end() == pytest.approx(2 * alone)
    lossy: Downloads[str] = Downloads(1e12, Trouble(loss=0.01, delay=0.01))
    lossy.begin(1_000_000, "file", 0.0)
    assert lossy.next_end() == pytest.approx(1_000_000 / (1448 / 0.02 * 150**0.5))
