"""Rooms of machines that are imaged by multicast, in virtual time: what it costs, and what one can do to the others."""

from typing import Any

import pytest

from pxed._ext.cast_virtual import VirtualCast

SYMBOL, K = 32, 731  # frames have as many symbols as chunks of 1 MiB, in four blocks
RATE = 14_798 * SYMBOL  # 170 Mbit/s of usual symbols
PASS = 60 * K / 14_798  # seconds that the image of `room` takes at that rate


def room(machines: list[dict[str, Any]], frames: int = 60, **options: Any) -> VirtualCast:
    made = VirtualCast([K * SYMBOL - 5] * frames, SYMBOL, RATE, **options)
    for machine in machines:
        made.add(**machine)
    return made


def imaged(machines: list[dict[str, Any]], limit: float = 60, **options: Any) -> VirtualCast:
    """The room when all are done that live; every byte that was kept is right, and the sender's books are."""
    made = room(machines, **options)
    assert made.run(limit), (made.figures(), made.sender_statistics())
    for i in range(len(machines)):
        assert made.machine(i)["compared_wrong"] == 0
    statistics = made.sender_statistics()
    assert {name: n for name, n in statistics.items() if name.startswith(("drop", "audit")) and n} == {}
    return made


def cost(made: VirtualCast) -> float:
    """DATA sent for each that is needed."""
    figures = made.figures()
    return figures["sent"] / figures["needed"]


def times(made: VirtualCast, machines: range) -> list[float]:
    found = [made.machine(i)["done"] for i in machines]
    return [seconds for seconds in found if seconds is not None]


def test_without_loss_every_symbol_travels_once() -> None:
    made = imaged([{"keep": True}] * 20)
    assert cost(made) == 1
    assert made.figures()["parity"] == 0
    assert max(times(made, range(20))) < PASS + 0.2


@pytest.mark.parametrize(("receivers", "loss", "most"), [(300, 0.01, 1.06), (1000, 0.01, 1.07), (300, 0.05, 1.14)])
def test_independent_losses_are_repaired_by_parity(receivers: int, loss: float, most: float) -> None:
    """Sending again whatever anybody lost would cost 1.98, 2.10 and 2.57."""
    made = imaged([{"loss": loss, "keep": i < 3} for i in range(receivers)], frames=30)
    assert 1 < cost(made) < most
    assert made.figures()["parity"] > 0


def test_a_receiver_with_little_memory_behind_a_narrow_port_takes_the_time_of_its_port() -> None:
    """What it has no room for would take a share of its port from what it has begun."""
    port = RATE * 40 // 170
    slow = []
    for memory in (256 << 20, 12 * K * SYMBOL):
        made = imaged([{}, {}, {"port": port, "memory": memory, "keep": True}])
        slow.append(made.machine(2)["done"])
        assert max(times(made, range(2))) < PASS + 0.2
    assert slow[1] < 1.3 * slow[0]


@pytest.mark.parametrize(("loss", "most"), [(0.2, 1.7), (0.4, 3.2)])
def test_where_parity_runs_out_lost_symbols_are_sent_again(loss: float, most: float) -> None:
    """Of a block of 192 there are 64 parity symbols; who loses more of it is done all the same."""
    made = imaged([{"loss": loss, "keep": i < 2} for i in range(20)], frames=10)
    assert cost(made) < most
    statistics = made.sender_statistics()
    assert statistics["parity"] > 0
    assert statistics["repaired"] > 0


def test_what_all_have_lost_is_sent_again_as_it_was() -> None:
    for burst in (1, 30):
        made = imaged([{"keep": True}] * 30, common=0.02, common_burst=burst)
        assert cost(made) < 1.05
        assert made.figures()["parity"] == 0


def test_bursts_cost_what_they_take() -> None:
    """50 receivers lose 1 % each, 20 in a row: half of all symbols are lost by somebody."""
    assert cost(imaged([{"loss": 0.01, "burst": 20, "keep": i < 3} for i in range(50)])) < 1.2


def test_a_network_that_doubles_and_mixes_changes_no_byte() -> None:
    made = imaged([{"loss": 0.02, "duplicate": 0.05, "reorder": 0.1, "keep": True}] * 20)
    assert cost(made) < 1.08
    assert made.machine(0)["repeated"] > 0


def test_who_loses_most_is_repaired_too() -> None:
    made = imaged([{"loss": 0.3, "keep": True}] * 3 + [{"keep": True}] * 3)
    assert max(times(made, range(3, 6))) < 1.6 * PASS


def test_the_dead_hold_up_nobody() -> None:
    alone = imaged([{"loss": 0.01}] * 20)
    beside = imaged([{"loss": 0.01}] * 20 + [{"loss": 0.01, "dies": 1.0}] * 5)
    assert max(times(beside, range(20))) < max(times(alone, range(20))) + 0.2
    assert cost(beside) < cost(alone) + 0.02
    assert [beside.machine(i)["done"] for i in range(20, 25)] == [None] * 5


def test_who_comes_late_has_all_one_pass_after() -> None:
    joins = (0.4 * PASS, 0.9 * PASS)
    made = imaged([{"loss": 0.01}] * 20 + [{"loss": 0.01, "joins": at, "keep": True} for at in joins])
    assert max(times(made, range(20))) < 1.1 * PASS + 0.3
    assert max(times(made, range(20, 22))) < 1.15 * PASS + 0.3


@pytest.mark.parametrize(
    "slow", [{"disk": RATE / 5, "queue": 4 * K * SYMBOL}, {"port": RATE / 2}], ids=["disk", "port"]
)
def test_a_slow_one_does_not_slow_the_others(slow: dict[str, float]) -> None:
    """Nobody moves it here: all that it missed is sent to the group when the others have what they need."""
    made = imaged([{}] * 20 + [{**slow, "keep": True}], limit=200)
    assert max(times(made, range(20))) < 1.05 * PASS + 0.3


def test_wants_of_a_listener_schedule_nothing() -> None:
    made = room([{}] * 5 + [{"loss": 0.5}])
    made.run(0.2)
    made.direct(5, "listen", "loss")
    made.run(4 * PASS)
    assert cost(made) < 1.05
    assert None not in [made.machine(i)["done"] for i in range(5)]
    assert made.machine(5)["done"] is None
    assert made.machine(5)["orders"] > 0
    made.direct(5, "back", "")
    assert made.run(60)


def test_a_short_memory_is_enough() -> None:
    """Frames are given up and come again; in the end all are there."""
    imaged([{"loss": 0.01, "memory": 8 * K * SYMBOL, "keep": True}] * 10, frames=30, limit=200)


def test_frames_of_few_symbols() -> None:
    made = VirtualCast([1, SYMBOL, SYMBOL + 1, 5 * SYMBOL, 192 * SYMBOL, 193 * SYMBOL] * 40, SYMBOL, RATE)
    for _ in range(10):
        made.add(loss=0.05, keep=True)
    assert made.run(60)
    assert [made.machine(i)["compared_wrong"] for i in range(10)] == [0] * 10


def test_the_same_seed_is_the_same_room() -> None:
    def play(seed: int) -> tuple[dict[str, float], list[float]]:
        made = imaged([{"loss": 0.02, "burst": 3, "reorder": 0.01}] * 10, frames=10, seed=seed)
        return made.figures(), times(made, range(10))

    assert play(5) == play(5)
    assert play(5) != play(6)


def test_reports_of_a_large_room_fit_its_line() -> None:
    """300 receivers that all lose 1 %: below 4 Mbit/s."""
    figures = imaged([{"loss": 0.01}] * 300).figures()
    assert figures["report_bytes"] * 8 / figures["time"] < 4e6
