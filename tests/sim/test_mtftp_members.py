"""RFC 2090, who is a client and who hears: strangers' addresses may be forged, and some clients take no multicast."""

import random

import pytest

from pxed._ext.blob import Blob
from pxed._ext.mtftp_groups import GroupSender
from pxed._ext.tftp_events import Finished, Request
from pxed._ext.tftp_virtual import VirtualTftp
from support.mtftp_sim import Edk2, Group, Ipxe, Multicast
from support.tftp_sim import DropNth, Duplicate, Loss, Reorder, ack, is_data

FILE = random.Random(1).randbytes(200_000)
ONE, TWO = ("10.0.0.7", 2070), ("10.0.0.8", 2070)
Address = tuple[str, int]


class Forger:
    """Sends requests in others' names, and counts what they get."""

    def __init__(self, *, addresses: int = 4, limit: int = 20_000) -> None:
        self.server = VirtualTftp(sender=GroupSender("239.255.78.0", addresses, 1758, limit=limit))
        self.blob = Blob(FILE)
        self.sent: list[tuple[Address, bytes]] = []
        self.ends: list[tuple[Address, str]] = []

    def join(self, peer: Address, now: float = 0.0, **options: int) -> None:
        request = Request(0, peer, "10.0.0.1", "f", "octet", {"multicast": 0, **options})
        self.server.join(request, self.blob, now)
        self.look(now)

    def say(self, peer: Address, block: int, now: float) -> None:
        self.server.receive(ack(block), peer, now, "10.0.0.1")
        self.look(now)

    def look(self, now: float) -> None:
        self.server.on_timer(now)
        self.sent += self.server.drain(now)
        self.ends += [(end.peer, end.outcome) for end in self.server.events() if isinstance(end, Finished)]

    def wait(self, until: float) -> None:
        while (at := self.server.next_timer()) is not None and at <= until:
            self.look(at)

    def got(self, address: str) -> int:
        return sum(to[0] == address for to, _ in self.sent)


# -- strangers ---------------------------------------------------------------------------------------------------------


def test_a_request_that_nobody_answers_costs_three_datagrams() -> None:
    forger = Forger()
    forger.join(ONE)
    forger.wait(1000)
    assert forger.got(ONE[0]) == len(forger.sent) == 3
    assert forger.ends == [(ONE, "no-answer")]
    assert forger.server.statistics()["groups"] == forger.server.statistics()["unproven"] == 0


def test_each_repeat_costs_one_more() -> None:
    forger = Forger()
    for i in range(10):
        forger.join(ONE, 2.0 * i)
        forger.wait(2.0 * i + 1.9)
    forger.wait(1000)
    assert forger.got(ONE[0]) == 3 + 9


def test_a_group_that_lives_tells_strangers_nothing() -> None:
    """30 forged addresses while a real client is served for half a minute, and masters change."""
    forger = Forger()
    for peer in (ONE, TWO):
        forger.join(peer)
        forger.say(peer, 0, 0.001)
    for i in range(30):
        forger.join((f"10.0.1.{i}", 2000), 0.01)
    now = 0.02
    for turn in range(30):
        forger.say((ONE, TWO)[turn % 2], 1 + turn, now)
        now += 1.01
        forger.wait(now)
    assert max(forger.got(f"10.0.1.{i}") for i in range(30)) == 3
    assert len([end for end in forger.ends if end[1] == "no-answer"]) == 30


def test_nothing_is_sent_to_a_group_for_strangers() -> None:
    forger = Forger()
    forger.join(ONE)
    forger.join(TWO)
    forger.say(ONE, 0, 0.01)
    assert forger.got("239.255.78.0") == 1
    forger.say(ONE, 391, 0.02)
    sent = len(forger.sent)
    forger.wait(1000)
    assert {to for to, _ in forger.sent[sent:]} == {TWO}


def test_an_address_with_many_strangers_gets_less_and_then_nothing() -> None:
    """It is perhaps somebody else's."""
    forger = Forger()
    for port in range(1, 2001):
        forger.join((ONE[0], port), port / 10_000)
    forger.wait(5)
    assert forger.got(ONE[0]) < 1024 + 2 * 65
    assert forger.server.statistics()["drop.stranger"] == 2000 - 1024
    forger.wait(1000)
    forger.join(TWO, 1000)
    assert forger.got(TWO[0]) == 1


def test_strangers_make_room_for_newcomers() -> None:
    forger = Forger(limit=3)
    forger.join(ONE)
    forger.say(ONE, 0, 0.01)
    for i in range(5):
        forger.join((f"10.0.1.{i}", 2000), 0.1 + i / 100)
    assert forger.ends == [((f"10.0.1.{i}", 2000), "evicted") for i in range(3)]
    forger.say(("10.0.1.4", 2000), 0, 0.2)
    forger.say(("10.0.1.3", 2000), 0, 0.2)
    forger.join(TWO, 0.3)
    assert forger.ends[-1] == (TWO, "abandoned")
    assert forger.server.statistics()["drop.busy"] == 1


@pytest.mark.parametrize("options", [{}, {"blksize": 100}])
def test_without_a_group_a_stranger_gets_three_datagrams_too(options: dict[str, int]) -> None:
    """All addresses are in use: unicast, with DATA at once for who asked for no option."""
    forger = Forger(addresses=1)
    forger.join(ONE, blksize=1024)
    forger.say(ONE, 0, 0.01)
    forger.join(TWO, 0.02, **options)
    forger.wait(1000)
    mine = [datagram for to, datagram in forger.sent if to == TWO]
    assert len(mine) == 3
    assert all(is_data(datagram) == (not options) for datagram in mine)
    assert (TWO, "no-answer") in forger.ends


def test_an_address_that_sent_nothing_needs_no_rest() -> None:
    """Forged requests with ever new block sizes leave the groups to others."""
    forger = Forger(addresses=2)
    for i in range(10):
        forger.join(ONE, 20.0 * i, blksize=100 + i)
    forger.wait(1000)
    forger.join(TWO, 1000, blksize=512)
    assert b"multicast" in forger.sent[-1][1]


def test_an_answer_that_comes_late_is_welcome() -> None:
    forger = Forger()
    forger.join(ONE)
    forger.wait(6)
    forger.say(ONE, 0, 6)
    assert forger.sent[-1][0] == ("239.255.78.0", 1758)


# -- who hears ---------------------------------------------------------------------------------------------------------


def crowd(net: Group, kinds: list[type[Multicast]], **options: float) -> list[Multicast]:
    """Clients that begin half a millisecond after each other."""
    clients = []
    for i, kind in enumerate(kinds):
        clients.append(net.add(kind("f", (f"10.0.{i // 200 + 1}.{i % 200 + 1}", 2000 + i), **options)))  # type: ignore[arg-type]
        net.run(net.now + 0.0005)
    return clients


def longest_wait(clients: list[Multicast]) -> float:
    """Until the first block."""
    return max(client.first_data_at - client.started_at for client in clients)


def whole(clients: list[Multicast]) -> bool:
    return all(client.done and client.received == FILE for client in clients)


def test_many_that_take_no_multicast_wait_side_by_side() -> None:
    """The first, for whom the group is made, is known after three quarters of a second, and none waits for another."""
    net = Group({"f": FILE})
    clients = crowd(net, [Ipxe] * 30)
    net.run()
    assert whole(clients)
    assert longest_wait(clients) < 0.8
    assert net.groups.statistics()["deaf"] == 30


def test_nobody_waits_the_second_time() -> None:
    net = Group({"f": FILE})
    crowd(net, [Ipxe] * 30)
    net.run()
    again = [net.add(Ipxe("f", (f"10.0.1.{i + 1}", 5000))) for i in range(30)]
    net.run()
    assert whole(again)
    assert longest_wait(again) < 0.01


def test_among_others_they_wait_no_longer() -> None:
    """A long file, whose group is at work when they come."""
    net = Group({"f": FILE})
    first = crowd(net, [Multicast, Edk2], pause=0.002)
    net.run(0.3)
    clients = [net.add(Ipxe("f", (f"10.0.9.{i + 1}", 5000))) for i in range(20)]
    net.run()
    assert whole([*first, *clients])
    assert longest_wait(clients) < 0.8
    assert net.groups.statistics()["deaf"] == 20


def test_who_hears_is_not_taken_for_deaf() -> None:
    """Neither in a crowd with losses, nor behind slow masters, nor when it is slow itself."""
    for pause in (0.0, 0.03, 0.3):
        net = Group({"f": FILE[:50_000]}, down=[Loss(0.02, 1)], up=[Loss(0.02, 2), Duplicate(0.05, 3)])
        clients = crowd(net, [Multicast, Edk2, Multicast, Edk2] * 3, pause=pause)
        net.run()
        assert all(client.done for client in clients)
        assert net.groups.statistics()["deaf"] == 0, pause


def test_a_lost_first_answer_costs_milliseconds() -> None:
    net = Group({"f": FILE}, down=[DropNth([0, 1], lambda datagram: datagram[1] == 6)])
    clients = crowd(net, [Multicast] * 2)
    net.run()
    assert whole(clients)
    assert longest_wait(clients) < 0.05


def test_200_of_all_kinds_on_a_bad_network() -> None:
    """Half of them take no multicast; some come late, some die, and one is slow."""
    net = Group({"f": FILE}, down=[Loss(0.005, 1)], up=[Loss(0.005, 3), Reorder(0.01, 4)], addresses=4)
    clients = crowd(net, [Multicast, Ipxe, Edk2, Ipxe] * 49)
    slow = net.add(Multicast("f", ("10.0.9.1", 2000), pause=0.05))
    for client in clients[::10]:
        net.fail(client)
    net.run(1.0)
    clients += [net.add(kind("f", (f"10.0.8.{i + 1}", 2000))) for i, kind in enumerate([Multicast, Edk2, Ipxe])]
    net.run()
    alive = [client for client in clients if not client.dead]
    assert whole([*alive, slow])
    assert longest_wait([client for client in alive if isinstance(client, Ipxe)]) < 2.5
    assert longest_wait(alive) < 7.0  # who lost its request asks again after 5 s
