"""What the sender learns about a client: how much it takes at once, and how large a block reaches it."""

import itertools
import random

import pytest

from pxed._ext.tftp_events import Finished
from support.tftp_sim import Client, Edk2, Ipxe, LinkMtu, Loss, Simulation, SmallRing, Windowed, is_data, options_of

PEER = ("10.0.0.7", 2070)
FILE = random.Random(7).randbytes(1_000_000)


class Window64(Windowed):
    options = {"blksize": 1408, "windowsize": 64}  # noqa: RUF012


def fetch(simulation: Simulation, client: Client) -> Finished:
    """One transfer from request to end; counts from zero in `log`."""
    simulation.add(client)
    simulation.run()
    return simulation.finished[-1]


@pytest.mark.parametrize(("kind", "ring"), [(Windowed, 8), (Windowed, 5), (Window64, 8), (Edk2, 2)])
def test_window_larger_than_the_ring(kind: type[Client], ring: int) -> None:
    """After a few windows that lost their ends it gets as much at a time as it takes, and loses no more."""
    simulation = Simulation({"f": FILE * 5}, down=[SmallRing(ring)])
    client = simulation.add(kind("f", PEER))
    simulation.run()
    assert bytes(client.received) == FILE * 5
    figures = simulation.server.statistics()
    assert figures["bursts_shrunk"] >= 1
    assert figures["retransmits"] < 0.25 * figures["datagrams"]
    # Far more than a window per retransmit timeout, which is what it gets without.
    assert client.finished_at < 5


def test_burst_grows_back() -> None:
    """The ring was small while the firmware was busy; later bursts are whole windows again."""
    ring = SmallRing(4)
    simulation = Simulation({"f": FILE * 10}, down=[ring])
    client = simulation.add(Windowed("f", PEER))
    simulation.run(0.5)
    assert simulation.server.statistics()["bursts_shrunk"] >= 1
    ring.size = 1000
    simulation.run()
    assert bytes(client.received) == FILE * 10
    last = [float(line.split()[0]) for line in simulation.log if "<- b'\\x00\\x03" in line][-164:-4]
    pauses = sum(later - earlier > 0.003 for earlier, later in itertools.pairwise(last))
    assert pauses == 0  # 10 windows


def test_losses_here_and_there_do_not_shrink_bursts() -> None:
    simulation = Simulation({"f": FILE}, up=[Loss(0.01, 1)], down=[Loss(0.01, 2)])
    clients = [simulation.add(Windowed("f", (f"10.0.0.{i}", 2070))) for i in range(20)]
    simulation.run()
    assert all(bytes(client.received) == FILE for client in clients)
    assert simulation.server.statistics()["bursts_shrunk"] <= 2


# -- block sizes -------------------------------------------------------------------------------------------------------


def granted(simulation: Simulation, client: Client) -> int:
    """The block size in the last OACK to it."""
    oacks = [datagram for datagram in simulation.sent_to[client.peer] if datagram[:2] == b"\0\6"]
    return options_of(oacks[-1])["blksize"]


@pytest.mark.parametrize("kind", [Ipxe, Edk2])
@pytest.mark.parametrize(("mtu", "attempts"), [(1400, 2), (1000, 3)])
def test_blocks_that_never_arrive_get_smaller(kind: type[Client], mtu: int, attempts: int) -> None:
    """Each attempt is a new boot, from a new port; others, and blocks that are small anyway, are not concerned."""
    simulation = Simulation({"f": FILE}, down=[LinkMtu(mtu)])
    for attempt in range(attempts):
        client = simulation.add(kind("f", ("10.0.0.7", 2000 + attempt)))
        simulation.run()
        assert client.done == (attempt == attempts - 1)
    assert bytes(client.received) == FILE
    assert granted(simulation, client) == (1024 if attempts == 2 else 512)
    assert simulation.server.statistics()["blksize_lowered"] == attempts - 1
    other = simulation.add(Ipxe("f", ("10.0.0.8", 2000)))
    simulation.run(simulation.now + 1)
    assert granted(simulation, other) == 1432


def test_smaller_blocks_are_forgotten_in_time() -> None:
    link = LinkMtu(1400)
    simulation = Simulation({"f": FILE}, down=[link])
    simulation.add(Ipxe("f", PEER))
    simulation.run()
    link.size = 1500
    simulation.now += 3700
    client = simulation.add(Ipxe("f", ("10.0.0.7", 2071)))
    simulation.run(simulation.now + 100)
    assert client.done
    assert granted(simulation, client) == 1432


def test_slow_client_keeps_its_blocks() -> None:
    """It is busy for two seconds after its first ACK (memory, flash, a console), then goes on."""
    held: list[bytes] = []

    def busy(datagram: bytes, at: float) -> list[float]:
        if is_data(datagram) and len(held) < 5:
            held.append(datagram)
            return [2.0]
        return [at]

    simulation = Simulation({"f": FILE}, down=[busy])
    client = simulation.add(Ipxe("f", PEER))
    simulation.run()
    assert bytes(client.received) == FILE
    again = simulation.add(Ipxe("f", ("10.0.0.7", 2071)))
    simulation.run()
    assert granted(simulation, again) == 1432
