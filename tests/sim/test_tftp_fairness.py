"""A line that is too narrow for all, in virtual time: everybody gets the same share of it, window or not."""

import random
import statistics

import pytest

from pxed._ext.pacer import Pacer
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import Client, Ipxe, Simulation, Windowed

FILE = random.Random(9).randbytes(3_000_000)
RATE = 12_500_000  # bytes per second on the line
LINE = 66  # bytes of headers and gaps for each datagram


class Wide(Windowed):
    """The largest window."""

    options = {"blksize": 1432, "windowsize": 64}  # noqa: RUF012


def race(windowed: int, lock_step: int, seconds: float) -> tuple[Simulation, list[Client], list[Client]]:
    """Clients of both kinds on one line, as far as they get in so many seconds."""
    simulation = Simulation({"f": FILE}, server=VirtualTftp(seed=1, pacer=Pacer(RATE)))
    crowd = [
        simulation.add((Wide if i < windowed else Ipxe)("f", (f"10.0.0.{i}", 2070)))
        for i in range(windowed + lock_step)
    ]
    simulation.run(seconds)
    return simulation, crowd[:windowed], crowd[windowed:]


@pytest.mark.parametrize(("windowed", "lock_step"), [(1, 99), (10, 90), (50, 50)])
def test_no_window_starves_lock_step(windowed: int, lock_step: int) -> None:
    """Deficit round robin: a window may leave as one run, but not more often than all others have sent as much."""
    simulation, wide, narrow = race(windowed, lock_step, 2.0)
    share = RATE * 2.0 / 1502 * 1432 / 100
    lock_step_bytes = [len(client.received) for client in narrow]
    assert min(lock_step_bytes) > 0.8 * share
    assert max(lock_step_bytes) < 1.2 * statistics.mean(lock_step_bytes)
    assert all(0.5 * share < len(client.received) < 1.3 * share for client in wide)
    assert simulation.server.statistics()["retransmits"] == 0


def test_alone_a_window_has_the_whole_line() -> None:
    _, (client,), _ = race(1, 0, 0.2)
    assert len(client.received) > 0.9 * 0.2 * RATE / 1502 * 1432


def test_a_line_that_is_not_full_delays_nobody() -> None:
    """One lock-step client beside one with a window: each is as fast as its own manners allow."""
    _, _, (alone,) = race(0, 1, 0.5)
    _, _, (beside,) = race(1, 1, 0.5)
    assert len(beside.received) > 0.6 * len(alone.received)


class Meter:
    """What passes, and when."""

    def __init__(self) -> None:
        self.passed: list[tuple[float, int]] = []

    def __call__(self, datagram: bytes, at: float) -> list[float]:
        self.passed.append((at, len(datagram) + LINE))
        return [at]


def test_never_more_than_the_rate() -> None:
    """In no stretch of time does more leave than the rate and one burst."""
    meter = Meter()
    pacer = Pacer(RATE)
    simulation = Simulation({"f": FILE}, server=VirtualTftp(pacer=pacer), down=[meter])
    for i in range(50):
        simulation.add((Wide if i < 5 else Ipxe)("f", (f"10.0.0.{i}", 2070)))
    simulation.run(0.3)
    for first in range(0, len(meter.passed), 7):
        total = 0
        for at, size in meter.passed[first:]:
            total += size
            assert total <= RATE * (at - meter.passed[first][0]) + pacer.burst + 1
    assert sum(size for _, size in meter.passed) > 0.95 * RATE * 0.3
