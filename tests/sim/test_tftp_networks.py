"""Clients with firmware's manners over bad networks, in virtual time and with fixed seeds."""

import random
import statistics

import pytest

from support.tftp_sim import (
    Client,
    DropNth,
    Duplicate,
    Edk2,
    Edk2Probe,
    Grub,
    Ipxe,
    Loss,
    Plain,
    Reorder,
    Simulation,
    Windowed,
    is_data,
    number,
)

PEER = ("10.0.0.7", 2070)
FILE = random.Random(7).randbytes(200_000)


def test_edk2_probes_then_loads() -> None:
    simulation = Simulation({"f": FILE})
    probe = simulation.add(Edk2Probe("f", PEER))
    simulation.run()
    assert isinstance(probe, Edk2Probe)
    assert probe.size == len(FILE)
    client = simulation.add(Edk2("f", ("10.0.0.7", 2071)))
    simulation.run()
    assert bytes(client.received) == FILE
    assert [end.outcome for end in simulation.finished] == ["probe", "ok"]


CLIENTS = [Ipxe, Plain, Grub, Windowed, Edk2]


# Bounds for the mean virtual seconds at 0, 1 and 5 % loss each way, twice what was seen. Plain and Edk2 are slow by
# their own clocks: they do not tell us at once what they miss.
MEANS = {
    Ipxe: (0.1, 0.3, 1.2),
    Grub: (0.1, 0.4, 1.3),
    Windowed: (0.1, 0.1, 0.7),
    Plain: (0.1, 3, 13),
    Edk2: (0.1, 0.3, 2),
}


def crowd(kind: type[Client], loss: float) -> tuple[Simulation, list[Client]]:
    """100 clients at once, and the end of it."""
    simulation = Simulation({"f": FILE[:60_000]}, up=[Loss(loss, 1)], down=[Loss(loss, 2)])
    clients = [simulation.add(kind("f", (f"10.0.0.{i}", 2070))) for i in range(100)]
    simulation.run(600)
    assert simulation.server.statistics()["running"] == 0
    return simulation, clients


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(("step", "loss"), [(0, 0.0), (1, 0.01), (2, 0.05)])
def test_every_client_gets_its_file_over_a_lossy_network(kind: type[Client], step: int, loss: float) -> None:
    simulation, clients = crowd(kind, loss)
    for client in clients:
        assert client.done, (client.failed, *[line for line in simulation.log if f"{client.peer[0]}:" in line][-40:])
        assert bytes(client.received) == FILE[:60_000]
    outcomes = [end.outcome for end in simulation.finished]
    assert outcomes.count("ok") == 100
    assert set(outcomes) <= {"ok", "no-answer"}  # where the first packet is lost three times, it begins again
    assert statistics.mean(client.finished_at for client in clients) < MEANS[kind][step]


@pytest.mark.parametrize("kind", CLIENTS)
def test_awful_network(kind: type[Client]) -> None:
    """20 % loss each way: a few clients run out of their own patience, nobody gets wrong bytes."""
    _, clients = crowd(kind, 0.2)
    assert sum(client.done for client in clients) >= 98
    assert all(bytes(client.received) == FILE[:60_000] for client in clients if client.done)
    assert {client.failed for client in clients} <= {"", "timed out"}


@pytest.mark.parametrize("kind", CLIENTS)
def test_duplicates_and_reordering_do_no_harm(kind: type[Client]) -> None:
    """5 % of all packets twice, 5 % late: right bytes, and no storm of copies."""
    faults = [Duplicate(0.05, 3), Reorder(0.05, 4)]
    simulation = Simulation({"f": FILE}, up=faults, down=[Duplicate(0.05, 5), Reorder(0.05, 6)])
    client = simulation.add(kind("f", PEER))
    simulation.run(600)
    assert bytes(client.received) == FILE
    blocks = len(FILE) // client.blksize + 1
    assert sum(map(is_data, simulation.sent_to[PEER])) < 2 * blocks


@pytest.mark.parametrize("kind", CLIENTS)
def test_lost_last_ack_costs_nobody_anything(kind: type[Client]) -> None:
    last = DropNth(range(100), lambda datagram: datagram[:2] in (b"\0\4", b"\0\5") and number(datagram) == 0xFFFF)
    simulation = Simulation({"f": FILE[:3000]}, up=[last])
    client = simulation.add(kind("f", PEER))
    simulation.run(100)
    assert bytes(client.received) == FILE[:3000]
    assert simulation.finished[0].outcome == "ok"


def test_clients_come_and_go_by_the_thousand() -> None:
    """The table grows and shrinks; identities are not mixed up."""
    files = {f"f{i}": random.Random(i).randbytes(1500 + i) for i in range(50)}
    simulation = Simulation(files)
    clients = [simulation.add(Ipxe(f"f{i % 50}", (f"10.1.{i // 200}.{i % 200}", 2070))) for i in range(3000)]
    simulation.run(60)
    assert all(bytes(client.received) == files[client.name] for client in clients)
    assert simulation.server.statistics()["outcome.ok"] == 3000
    assert simulation.server.next_timer() is None
