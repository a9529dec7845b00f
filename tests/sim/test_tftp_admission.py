"""More clients than can be served at a time, in virtual time: who waits, how long, and who goes first."""

import itertools
import random

import pytest

from pxed._ext.blob import Blob
from pxed._ext.pacer import Pacer
from pxed._ext.tftp_events import Finished, Request
from pxed._ext.tftp_virtual import VirtualTftp
from support.tftp_sim import Client, Edk2, Edk2Probe, Grub, Ipxe, Loss, Plain, Simulation, ack, error, is_data, rrq

FILE = random.Random(3).randbytes(40_000)  # more than a file that needs no place
SMALL = FILE[:3_000]
# What tftp_admission.pyx allows, in seconds.
PATIENCE = {Edk2: 12.0, Ipxe: 8.0, Grub: 8.0, Plain: 3.0}
KEEP_ALIVE = 1.0


def peer(number: int) -> tuple[str, int]:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 2070


class Server:
    """A server whose every packet the test says; the control plane answers at once."""

    def __init__(self, places: int, *, limit: int = 20_000, data: bytes = FILE) -> None:
        self.server = VirtualTftp(seed=1, limit=limit, places=places)
        self.blob = Blob(data)
        self.ended: list[Finished] = []

    def say(self, datagram: bytes, number: int, now: float) -> list[int]:
        """A datagram from client `number`; the numbers of those that get something now."""
        self.server.receive(datagram, peer(number), now)
        return self.sent(now)

    def sent(self, now: float) -> list[int]:
        self.server.on_timer(now)
        for event in self.server.events():
            if isinstance(event, Request):
                self.server.send(event.id, self.blob, now)
            elif isinstance(event, Finished):
                self.ended.append(event)
        to = [address[0].split(".") for address, _ in self.server.drain(now)]
        return [int(a) << 16 | int(b) << 8 | int(c) for _, a, b, c in to]

    def until(self, now: float) -> dict[float, list[int]]:
        """Who gets what at which time, without another word from anybody."""
        found: dict[float, list[int]] = {}
        while (at := self.server.next_timer()) is not None and at <= now:
            if to := self.sent(at):
                found[round(at, 2)] = to
        return found

    def figures(self, *names: str) -> tuple[int, ...]:
        statistics = self.server.statistics()
        return tuple(statistics[name] for name in names)


def test_who_finds_no_place_waits_for_its_answer() -> None:
    server = Server(places=1)
    assert server.say(rrq("f"), 1, 0) == [1]
    assert server.say(rrq("f"), 2, 0.1) == []
    assert server.figures("served", "waiting", "admitted_at_once") == (1, 1, 1)
    assert server.say(error(0), 1, 0.2) == [2]  # the first one's end
    assert server.figures("served", "waiting", "admitted_later", "waited_ms") == (1, 0, 1, 100)


@pytest.mark.parametrize(
    ("options", "patience"),
    [
        ({}, 3.0),
        ({"blksize": 512}, 3.0),
        ({"blksize": 1432, "tsize": 0}, 8.0),
        ({"blksize": 1024, "tsize": 0}, 8.0),
        ({"blksize": 1468, "windowsize": 4}, 12.0),
    ],
)
def test_nobody_waits_longer_than_its_firmware_does(options: dict[str, int | str], patience: float) -> None:
    """The patience counts from the request on, and the answer is repeated like any other."""
    server = Server(places=1)
    server.say(rrq("f"), 1, 0)
    server.say(ack(1), 1, 0.001)
    server.say(rrq("f", **options), 2, 0.5)
    answers = [at for at, to in server.until(patience + 4).items() if 2 in to]
    assert answers == pytest.approx([0.5 + patience, 1.5 + patience, 3.5 + patience], abs=0.02)
    assert server.figures("answered_without_place", "kept_alive") == (1, 1)


def test_repeats_are_merged_and_those_who_had_to_repeat_go_first() -> None:
    server = Server(places=1)
    server.say(rrq("f"), 1, 0)
    server.say(ack(1), 1, 0.001)
    for number, now in ((2, 0.1), (3, 0.1), (4, 0.1), (4, 0.5), (3, 0.6), (4, 0.7)):
        assert number not in server.say(rrq("f"), number, now)
    assert server.figures("drop.merged", "waiting") == (3, 3)
    order = []
    for now in (1.0, 1.1, 1.2):
        order += server.say(error(0), (order or [1])[-1], now)
    assert order == [4, 3, 2]


def test_a_repeat_while_the_control_plane_thinks_counts_too() -> None:
    server = VirtualTftp(places=1)
    for number in (1, 2, 3):
        server.receive(rrq("f"), peer(number), 0)
    server.receive(rrq("f"), peer(3), 0.3)
    for request in server.events():
        assert isinstance(request, Request)
        server.send(request.id, Blob(FILE), 0.4)
    assert [to for to, _ in server.drain(0.4)] == [peer(1)]
    server.receive(error(0), peer(1), 0.5)
    assert [to for to, _ in server.drain(0.5)] == [peer(3)]


def test_who_was_answered_without_a_place_is_kept_alive() -> None:
    """A block a second, until there is a place; then all of it, before anybody who has not begun."""
    server = Server(places=1)
    server.say(rrq("f"), 1, 0)
    server.say(ack(1), 1, 0.001)
    server.say(rrq("f"), 2, 0)
    assert 2 in server.until(3.1)[3.0]
    blocks = 0
    now = 3.1
    for _ in range(5):
        blocks += 1
        assert server.say(ack(blocks), 2, now) == []
        (sent,) = [at for at, to in server.until(now + 1.05).items() if 2 in to]
        assert sent == pytest.approx(now + KEEP_ALIVE, abs=0.02)
        now += 1.1
    server.say(rrq("f"), 3, now)
    assert server.say(ack(blocks + 1), 2, now) == []
    assert server.say(error(0), 1, now + 0.1) == [2]
    assert server.say(ack(blocks + 2), 2, now + 0.2) == [2]
    assert server.figures("kept_alive", "served", "waiting") == (0, 1, 1)


def test_small_files_do_not_wait() -> None:
    server = Server(places=1)
    server.say(rrq("f"), 1, 0)
    server.blob = Blob(SMALL)
    assert server.say(rrq("menu"), 2, 0.1) == [2]
    assert server.say(ack(1), 2, 0.2) == [2]
    assert server.figures("served", "waiting", "kept_alive") == (1, 0, 0)


def test_a_place_is_lost_by_who_never_reacts_and_won_back() -> None:
    """A forged address, or a lost packet."""
    server = Server(places=1)
    server.say(rrq("f"), 1, 0)
    server.say(rrq("f"), 2, 0.1)
    assert server.until(0.49) == {}
    assert server.sent(0.51) == [2]
    assert server.say(ack(1), 1, 0.6) == []  # it was there after all
    assert server.say(error(0), 2, 0.7) == [1]
    assert server.figures("served", "kept_alive", "waiting") == (1, 0, 0)


def test_who_waits_may_change_its_mind() -> None:
    """The request for another file from the same port, or an ERROR, takes it out of the queue."""
    server = Server(places=1)
    server.say(rrq("f"), 1, 0)
    server.say(ack(1), 1, 0.001)
    server.say(rrq("f"), 2, 0.1)
    server.say(rrq("g"), 2, 0.2)
    assert server.figures("waiting", "running") == (1, 2)
    server.say(error(0), 2, 0.3)
    server.sent(0.4)
    assert server.figures("waiting", "running", "served") == (0, 1, 1)
    assert server.figures("outcome.no-answer", "outcome.closed") == (1, 1)


def test_places_are_checked() -> None:
    assert VirtualTftp(limit=7).statistics()["places"] == 7
    assert VirtualTftp(limit=7, places=3).statistics()["places"] == 3


# -- crowds ------------------------------------------------------------------------------------------------------------


class Watched:
    """When each client asked first, and when it was answered."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.asked: dict[tuple[str, int], float] = {}
        self.answered: dict[tuple[str, int], float] = {}
        for line in simulation.log:
            at, left, arrow, right = line.split()[:4]
            host, _, port = left.rpartition(":")
            who = (host, int(port))
            if arrow == "->" and right.startswith(r"b'\x00\x01"):
                self.asked.setdefault(who, float(at))
            elif arrow == "<-":
                self.answered.setdefault(who, float(at))

    def waits(self) -> list[float]:
        return [self.answered[who] - at for who, at in self.asked.items()]


def storm(
    kinds: tuple[type[Client], ...], clients: int, places: int, *, megabits: int, loss: float = 0.0
) -> tuple[Simulation, list[Client]]:
    """All at once, over a link that the server paces itself to; and the end of it."""
    server = VirtualTftp(seed=1, places=places, pacer=Pacer(megabits * 125_000))
    simulation = Simulation({"f": FILE}, server=server, up=[Loss(loss, 1)], down=[Loss(loss, 2)])
    crowd = [simulation.add(kinds[i % len(kinds)]("f", peer(i))) for i in range(clients)]
    simulation.run(120)
    return simulation, crowd


def assert_all_have_it(crowd: list[Client]) -> None:
    for client in crowd:
        assert client.done, (client.peer, client.failed)
        assert bytes(client.received) == FILE


def test_two_thousand_at_once_where_two_hundred_fill_the_line() -> None:
    """6.8 s of line time, and iPXE waits 16 s: all are answered in time, served at full speed, and the line is full."""
    simulation, crowd = storm((Ipxe,), 2000, 200, megabits=100)
    assert_all_have_it(crowd)
    figures = simulation.server.statistics()
    assert figures["admitted_at_once"] == 200
    assert figures["admitted_later"] == 1800
    assert figures["answered_without_place"] == 0
    assert max(Watched(simulation).waits()) < PATIENCE[Ipxe]
    assert max(client.finished_at for client in crowd) < 1.05 * 2000 * 28 * (1436 + 66) / 12_500_000
    assert figures["retransmits"] == 0


@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_nobody_is_lost_where_the_line_is_too_slow_for_all_to_wait(loss: float) -> None:
    """27 s of line time, longer than anybody waits: each is answered within its patience and kept alive."""
    kinds = (Ipxe, Edk2, Grub, Plain)
    simulation, crowd = storm(kinds, 400, 20, megabits=5, loss=loss)
    assert_all_have_it(crowd)
    figures = simulation.server.statistics()
    assert figures["answered_without_place"] > 100
    if not loss:
        watched = Watched(simulation)
        for kind in kinds:
            waits = [watched.answered[client.peer] for client in crowd if type(client) is kind]
            assert max(waits) <= PATIENCE[kind] + 0.3  # and its turn on the line


def test_size_probes_in_a_crowd() -> None:
    """EDK2 asks twice: both requests are answered in time."""
    server = VirtualTftp(seed=1, places=10, pacer=Pacer(1_250_000))
    simulation = Simulation({"f": FILE}, server=server)
    for i in range(60):
        simulation.add(Edk2Probe("f", peer(i)))
    simulation.run(60)
    crowd = [simulation.add(Edk2("f", (peer(i)[0], 2071))) for i in range(60)]
    simulation.run(120)
    assert_all_have_it(crowd)
    assert simulation.server.statistics()["outcome.probe"] == 60


def test_a_forged_flood_does_not_shut_real_clients_out() -> None:
    """5,000 requests a second that nobody stands behind, all places taken by them, and 50 clients in their midst."""
    server = VirtualTftp(seed=1, limit=6_000, places=100)
    simulation = Simulation({"f": FILE}, server=server)
    numbers = itertools.count(1 << 20)
    crowd = []
    for tick in range(300):
        for _ in range(50):
            simulation.to_server(peer(next(numbers)), [rrq("f")])
        if tick >= 100 and tick % 4 == 0:
            crowd.append(simulation.add((Ipxe, Plain)[tick % 8 // 4]("f", peer(tick))))
        simulation.run(simulation.now + 0.01)
    simulation.run(60)
    assert len(crowd) == 50
    assert_all_have_it(crowd)
    assert max(client.finished_at for client in crowd) < 20


def test_a_control_plane_that_cannot_keep_up_has_time_for_who_asks_again() -> None:
    """It answers nothing here; 10,000 forged requests a second, and clients that repeat theirs as iPXE does."""
    server = VirtualTftp(seed=1)
    numbers = itertools.count(1 << 20)
    asked: set[tuple[str, int]] = set()
    clients = {peer(number): 40 + number // 10 for number in range(100)}  # the tick of each one's first request
    for tick in range(230):
        now = tick / 100
        for _ in range(100):
            server.receive(rrq("f"), peer(next(numbers)), now)
        for who, first in clients.items():
            if tick - first in (0, 25, 75, 175):
                server.receive(rrq("f", tsize=0), who, now)
        asked |= {event.peer for event in server.events() if isinstance(event, Request)}
    assert set(clients) <= asked
    assert server.statistics()["drop.busy"] > 15_000


# -- to those who never asked -----------------------------------------------------------------------------------------


def test_one_address_gets_little_for_many_requests() -> None:
    """Forged requests for somebody who would get what we answer: 3 datagrams each at first, then 1, then nothing."""
    server = Server(places=20_000)
    sent = []
    for port in range(5_000):
        server.server.receive(rrq("f"), ("10.9.9.9", 1024 + port), 0.001 * port)
        sent += server.sent(0.001 * port)
    while (at := server.server.next_timer()) is not None and at < 15:
        sent += server.sent(at)
    assert 1024 <= len(sent) <= 1024 + 2 * 70
    assert server.figures("drop.stranger") == (5_000 - 1024,)


def test_a_crowd_behind_one_address_is_served() -> None:
    """Who reacts is no stranger: 3,000 machines behind one router, all at once."""
    simulation = Simulation({"f": SMALL})
    crowd = [simulation.add(Ipxe("f", ("10.9.9.9", 1024 + i))) for i in range(3_000)]
    simulation.run(60)
    assert all(bytes(client.received) == SMALL for client in crowd)


def test_requests_of_ports_that_never_answer_get_three_datagrams_each() -> None:
    """Bytes out for bytes in: bounded, and with back-off."""
    server = VirtualTftp(seed=1)
    request = rrq("f", tsize=0, blksize=1468)
    out = 0
    for i in range(50):
        server.receive(request, peer(i), 0)
    for event in server.events():
        assert isinstance(event, Request)
        server.send(event.id, Blob(FILE), 0)
    times = set()
    now: float | None = 0.0
    while now is not None and now < 100:
        server.on_timer(now)
        for _, datagram in server.drain(now):
            assert not is_data(datagram)
            out += len(datagram)
            times.add(round(now, 1))
        now = server.next_timer()
    assert times == {0.0, 1.0, 3.0}
    assert out <= 3 * 50 * len(request)
