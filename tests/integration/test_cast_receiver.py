"""Receivers of a cast session on a network: a group, a server that answers, and others who speak there too."""

import gc
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pxed._ext import cast
from pxed._ext.cast_receiver import CastReceiver
from support.cast_sim import KEY, Image, wants
from support.netns import Namespace, Net

pytestmark = pytest.mark.root

GROUP, PORT = "239.255.77.1", 1759
SERVER = "10.9.0.1"
PATIENCE = 60.0
UDP_SEGMENT = 103
SIZES = [200_000, 1, 70_000, 1436, 300_000]


class Server:
    """A sender that does what reports ask for, as far as a test says."""

    def __init__(self, namespace: Namespace, image: Image) -> None:
        self.image = image
        with namespace:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((SERVER, PORT))
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(SERVER))

    def say(self, *datagrams: bytes) -> None:
        """To the group."""
        for datagram in datagrams:
            self.socket.sendto(datagram, (GROUP, PORT))

    def say_run(self, datagrams: list[bytes]) -> None:
        """To the group, in one run of datagrams of one length but for the last."""
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(datagrams[0])))]
        self.socket.sendmsg(datagrams, control, 0, (GROUP, PORT))

    def hear(self) -> tuple[cast.Report, tuple[str, int]]:
        """The next report."""
        assert select.select([self.socket], [], [], PATIENCE)[0], "no report"
        datagram, peer = self.socket.recvfrom(2000)
        report = cast.decode(datagram, self.image.session)
        assert isinstance(report, cast.Report), report
        return report, peer

    def hear_from(self, numbers: set[int]) -> dict[int, cast.Report]:
        """Ask for reports, and one of each receiver that came after that."""
        while select.select([self.socket], [], [], 0)[0]:
            self.socket.recv(2000)
        found: dict[int, cast.Report] = {}
        while set(found) != numbers:
            self.say(self.image.mark(kind=2, spread=20))
            report, _ = self.hear()
            if report.highest == self.image.sequence:
                found[report.receiver] = report
        return found


@pytest.fixture
def net() -> Iterator[tuple[Net, Namespace, list[Namespace]]]:
    """A switch, a server and two other hosts on it."""
    with Net() as net:
        switch, server = net.namespace("switch"), net.namespace("server")
        others = [net.namespace(name) for name in ("one", "two")]
        for index, host in enumerate([server, *others]):
            net.link(switch, f"port{index}", host, "eth0")
            host.address("eth0", f"10.9.0.{index + 1}/24")
            host.run("ip", "route", "add", "default", "dev", "eth0")
        net.bridge(switch, "br0", "port0", "port1", "port2")
        yield net, server, others


@pytest.fixture
def image() -> Image:
    return Image(SIZES, symbol=1436)


def join(namespace: Namespace, receiver: CastReceiver, image: Image, number: int, **other: str) -> None:
    where = {"group": GROUP, "server": SERVER} | other
    with namespace:
        receiver.join(image.session.id, image.session.key, number, port=PORT, symbol=1436, period=0.2, **where)


def take_all(receiver: CastReceiver, image: Image) -> None:
    """All frames that are left, each right."""
    while receiver.left:
        taken = receiver.take(PATIENCE)
        assert taken is not None, receiver.figures()
        assert memoryview(taken[1]) == image.frames[taken[0]]
        receiver.done(taken[0], True)


def wait_for(receiver: CastReceiver, name: str, least: int) -> dict[str, int]:
    """The figures, once one has come to so much."""
    until = time.monotonic() + PATIENCE
    while (figures := receiver.figures())[name] < least:
        assert time.monotonic() < until, figures
        select.select([], [], [], 0.005)
    return figures


def test_two_receivers_get_an_image_and_say_what_they_lack(
    net: tuple[Net, Namespace, list[Namespace]], image: Image
) -> None:
    _, host, hosts = net
    with ExitStack() as stack:
        server = Server(host, image)
        stack.callback(server.socket.close)
        receivers = [CastReceiver(image.layout) for _ in hosts]
        for number, (namespace, receiver) in enumerate(zip(hosts, receivers, strict=True), 1):
            stack.callback(receiver.close)
            join(namespace, receiver, image, number)
        whole = [image.whole(ordinal) for ordinal in range(len(SIZES))]
        server.say_run(whole[0][:40])
        server.say(*whole[0][40:-1], *whole[2][3:], *whole[1], *whole[3])
        server.say_run(whole[4][:40])
        for report in server.hear_from({1, 2}).values():
            last = image.symbols(0) - 1
            assert wants(report) == {0: {last}, 2: {0, 1, 2}, 4: set(range(40, image.symbols(4)))}
            assert (report.written, report.begin, report.stop) == (0, 0, 5)
            assert report.received < report.expected or report.received == image.sequence
        server.say(whole[0][-1], *whole[2][:3])
        server.say_run(whole[4][40:84])
        server.say(*whole[4][84:])
        for receiver in receivers:
            take_all(receiver, image)
            assert receiver.heard() < PATIENCE
            assert receiver.figures()["kernel_drops"] == 0
        for report in server.hear_from({1, 2}).values():
            assert (report.flags, report.written) == (1, 5)


def test_what_is_not_the_sessions_changes_nothing(net: tuple[Net, Namespace, list[Namespace]], image: Image) -> None:
    _, host, hosts = net
    with ExitStack() as stack:
        server = Server(host, image)
        stack.callback(server.socket.close)
        receiver = CastReceiver(image.layout)
        stack.callback(receiver.close)
        join(hosts[0], receiver, image, 1, interface="10.9.0.2")
        good = image.data(0, 0)
        other, forged = image.session._replace(id=5), image.session._replace(key=bytes(16))
        data = cast.decode(good, image.session)
        assert isinstance(data, cast.Data)
        server.say(
            cast.encode_data(data, other), cast.encode_data(data, forged), good[:1] + b"\2" + good[2:], good[:-1]
        )
        server.say(good[:20], b"", bytes(2000), image.data(0, 0, stored=5), image.order(1, receiver=1))
        report, peer = server.hear()
        assert wants(report) == dict.fromkeys(range(5))
        server.socket.sendto(image.order(report.number, receiver=1, order=1, reason=4), peer)
        figures = wait_for(receiver, "orders", 1)
        assert {name: figures[name] for name in figures if name.startswith("drop.") and figures[name]} == {
            "drop.session": 1, "drop.mac": 1, "drop.version": 1, "drop.length": 2, "drop.magic": 2, "drop.fields": 1,
            "drop.receiver": 1,
        }  # fmt: skip
        assert figures["partials"] == figures["received"] == 0
        assert receiver.order() == (1, 4)
        with hosts[1], socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(image.order(report.number, receiver=1, order=2, reason=1), peer)  # not the server's address
        server.socket.sendto(image.order(report.number, receiver=1, order=3, reason=5), peer)
        wait_for(receiver, "orders", 2)
        assert receiver.order() == (3, 5)


def test_leaving_and_joining_another_session_keeps_what_is_here(
    net: tuple[Net, Namespace, list[Namespace]], image: Image
) -> None:
    _, host, hosts = net
    with ExitStack() as stack:
        server = Server(host, image)
        stack.callback(server.socket.close)
        receiver = CastReceiver(image.layout)
        stack.callback(receiver.close)
        receiver.leave()  # nothing
        join(hosts[0], receiver, image, 1)
        server.say(*image.whole(3), *image.whole(2)[:9], *[image.data(0, number) for number in range(1, 100)])
        wait_for(receiver, "taken", 1 + 9 + 99)
        receiver.leave()
        report, _ = server.hear()
        while not report.flags & 2:
            report, _ = server.hear()
        receiver.give(0, 0, image.frames[0][:1436])
        server.say(*image.whole(4))
        image.session, image.sequence = cast.Session(77, KEY[::-1], 1436), 0
        join(hosts[0], receiver, image, 6)
        join(hosts[0], receiver, image, 7)
        (report,) = server.hear_from({7}).values()
        assert wants(report) == {
            0: set(range(100, image.symbols(0))), 1: None, 2: set(range(9, image.symbols(2))), 4: None,
        }  # fmt: skip
        for ordinal in (0, 1, 2, 4):
            server.say(*image.whole(ordinal))
        take_all(receiver, image)
        assert receiver.heard() < PATIENCE
        receiver.close()
        assert receiver.take(PATIENCE) is None


def test_joining_the_same_session_again_is_no_farewell(
    net: tuple[Net, Namespace, list[Namespace]], image: Image
) -> None:
    """The server has taken it in again by then, and would take the farewell for the newer news."""
    _, host, hosts = net
    with ExitStack() as stack:
        server = Server(host, image)
        stack.callback(server.socket.close)
        receiver = CastReceiver(image.layout)
        stack.callback(receiver.close)
        join(hosts[0], receiver, image, 1)
        _, first = server.hear()
        hosts[0].address("eth0", "10.9.0.7/24")
        join(hosts[0], receiver, image, 1, interface="10.9.0.7")
        peer = first
        while peer == first:
            report, peer = server.hear()
            assert not report.flags & 2
        assert peer[0] == "10.9.0.7"


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_receiver_that_ends_in_a_cycle_of_garbage_ends_quietly(
    net: tuple[Net, Namespace, list[Namespace]], image: Image
) -> None:
    """What Python had in it is gone by then; what it says about that would be an error of this test."""
    _, _, hosts = net
    gc.collect()
    before = descriptors()
    receiver = CastReceiver(image.layout)
    join(hosts[0], receiver, image, 1)
    receiver.close()
    cycle: list[object] = [receiver]
    cycle.append(cycle)
    del cycle, receiver
    gc.collect()
    assert descriptors() <= before


def test_a_network_that_is_not_there_is_an_error_and_leaves_nothing(
    net: tuple[Net, Namespace, list[Namespace]], image: Image
) -> None:
    _, _, hosts = net
    receiver = CastReceiver(image.layout)
    with pytest.raises(OSError):
        join(hosts[0], receiver, image, 1, interface="192.0.2.9")
    with pytest.raises(OSError):
        join(hosts[0], receiver, image, 1, group="10.9.0.2")
    with hosts[0], pytest.raises(ValueError):
        receiver.join(1, b"short", 1, group=GROUP, port=PORT, server=SERVER)
    assert receiver.heard() == float("inf")
    receiver.close()
