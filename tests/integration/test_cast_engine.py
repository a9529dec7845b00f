"""The cast sender in its engine, on a cable: what leaves, what is believed, and a pack that is cut off meanwhile."""

import errno
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pxed._ext import cast
from pxed._ext.cast_events import CastListing, CastUnreadable, admit, ask_session, open_session, set_rate
from pxed._ext.cast_sender import CastSender
from pxed._ext.cast_source import CastSource
from pxed._ext.engine import Engine
from support.netns import Namespace, Net

pytestmark = pytest.mark.root

GROUP, PORT, SERVER, RECEIVER = "239.255.79.7", 1759, "10.9.0.1", "10.9.0.2"
SESSION = cast.Session(0xFEED, bytes(range(16)), 1436)
CHUNK = 100_000
SYMBOLS = 70
PATIENCE = 60.0


class Bench:
    """An engine with a session of three chunks, and a socket of one receiver in the group."""

    def __init__(self, stack: ExitStack) -> None:
        net = stack.enter_context(Net())
        self.server, self.host = net.namespace("server"), net.namespace("receiver")
        net.link(self.server, "eth0", self.host, "eth0")
        self.server.address("eth0", f"{SERVER}/24")
        self.host.address("eth0", f"{RECEIVER}/24")
        self.host.run("ip", "address", "add", "10.9.0.3/24", "dev", "eth0")
        self.content = os.urandom(3 * CHUNK)
        pack = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.pack = stack.enter_context(pack)
        self.pack.write(self.content)
        self.source = CastSource()
        for at in range(0, 3 * CHUNK, CHUNK):
            self.source.add(self.pack.fileno(), at, CHUNK)
        self.engine = Engine(sender=CastSender())
        stack.callback(self.engine.stop)
        with self.server:
            self.engine.bind([(SERVER, PORT)], multicast_ttl=1, bulk=True)
        self.engine.start()
        self.group = stack.enter_context(self._socket(self.host, GROUP, PORT))
        self.group.setsockopt(
            socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4s", *map(socket.inet_aton, (GROUP, RECEIVER)))
        )
        self.own = stack.enter_context(self._socket(self.host, RECEIVER, 0))
        self.other = stack.enter_context(self._socket(self.host, "10.9.0.3", 0))
        self.number = self.heard = 0
        self.events: list[Any] = []

    @staticmethod
    def _socket(namespace: Namespace, address: str, port: int) -> socket.socket:
        with namespace:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind((address, port))
        return made

    def open(self, rate: int = 20_000_000) -> None:
        self.engine.post(open_session(SESSION.id, SESSION.key, (GROUP, PORT), self.source, rate=rate))
        self.engine.post(admit(SESSION.id, 1, RECEIVER))

    def report(self, source: socket.socket, *wants: tuple[int, int], receiver: int = 1) -> None:
        self.number += 1
        heard = self.heard
        report = cast.Report(receiver, self.number, 0, 1, 0, heard, heard, heard, 0, 0, 0, 0, 0, 0, 3, wants)
        source.sendto(cast.encode_report(report, SESSION), (SERVER, PORT))

    def hear(self, sock: socket.socket) -> cast.Data | cast.Mark | cast.Order:
        """What comes next to a socket."""
        assert select.select([sock], [], [], PATIENCE)[0], self.engine.statistics()
        datagram, (address, port) = sock.recvfrom(2000)
        assert (address, port) == (SERVER, PORT) and len(datagram) <= 1472
        one = cast.decode(datagram, SESSION)
        assert not isinstance(one, str | cast.Report), one
        return one

    def data(self, count: int) -> dict[tuple[int, int], bytes]:
        """So many symbols."""
        found: dict[tuple[int, int], bytes] = {}
        deadline = time.monotonic() + PATIENCE
        while len(found) < count:
            assert time.monotonic() < deadline, found.keys()
            one = self.hear(self.group)
            if isinstance(one, cast.Data):
                self.heard = one.sequence
                found[one.chunk, one.number] = one.payload
        return found

    def event(self, kind: type[Any]) -> Any:
        """The next event of a kind."""
        deadline = time.monotonic() + PATIENCE
        while not (found := [event for event in self.events if isinstance(event, kind)]):
            assert select.select([self.engine.event_fd], [], [], max(0.0, deadline - time.monotonic()))[0], self.events
            self.events += self.engine.drain()
        self.events.remove(found[0])
        return found[0]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def test_frames_leave_the_mapping_as_they_are(bench: Bench) -> None:
    bench.open()
    bench.report(bench.own, (0, 3))
    found = bench.data(3 * SYMBOLS)
    assert b"".join(found[symbol] for symbol in sorted(found)) == bench.content
    bench.engine.post(ask_session(SESSION.id))
    listing = bench.event(CastListing)
    assert (listing.sent, listing.bytes, listing.receivers[0].address) == (3 * SYMBOLS, 3 * CHUNK, RECEIVER)
    assert bench.engine.statistics()["send_errors"] == 0


@pytest.mark.parametrize("end", [CHUNK + 5, 2 * CHUNK - 5])  # the latter in the page that chunk 1 ends in
def test_a_pack_that_is_cut_off_costs_its_chunks_and_nothing_else(bench: Bench, end: int) -> None:
    """Reading the mapping behind the end of its file would be the end of the process."""
    os.ftruncate(bench.pack.fileno(), end)
    bench.open()
    bench.report(bench.own, (0, 3))
    assert sorted(bench.data(SYMBOLS)) == [(0, number) for number in range(SYMBOLS)]
    lost = {bench.event(CastUnreadable), bench.event(CastUnreadable)}
    assert lost == {CastUnreadable(SESSION.id, chunk, errno.ENODATA) for chunk in (1, 2)}
    bench.report(bench.own, (0, 3))
    assert sorted(bench.data(SYMBOLS))[0] == (0, 0)
    assert bench.engine.statistics()["unreadable"] == 2


def test_a_pack_that_is_cut_off_while_a_frame_is_sent_costs_that_too(bench: Bench) -> None:
    """The kernel cannot read then what was in memory: that is known at once, and nothing of it counts as sent."""
    bench.open(rate=20_000)  # the first frame takes four seconds, a burst of 32 KiB aside
    bench.report(bench.own, (0, 3))
    first = bench.data(1)
    os.ftruncate(bench.pack.fileno(), 4096)
    assert bench.event(CastUnreadable) == CastUnreadable(SESSION.id, 0, errno.ENODATA)
    bench.engine.post(set_rate(SESSION.id, 20_000_000))
    assert {bench.event(CastUnreadable).chunk, bench.event(CastUnreadable).chunk} == {1, 2}
    bench.engine.post(ask_session(SESSION.id))
    listing, statistics = bench.event(CastListing), bench.engine.statistics()
    assert (listing.unreadable, statistics["unreadable"], statistics["send_errors"]) == (3, 3, 0)
    assert (statistics["datagrams"], statistics["bytes"]) == (listing.sent, listing.bytes)
    heard = len(first)
    while isinstance(one := bench.hear(bench.group), cast.Data):
        heard += 1
    assert heard == listing.sent < SYMBOLS and one.sequence >= heard


def test_reports_of_strangers_change_nothing(bench: Bench) -> None:
    bench.open()
    bench.report(bench.other, (0, 3))
    bench.report(bench.other, (0, 3), receiver=2)
    order = bench.hear(bench.other)
    assert order == cast.Order(2, 2, 4, 6)
    assert isinstance(bench.hear(bench.group), cast.Mark)
    statistics = bench.engine.statistics()
    assert (statistics["drop.address"], statistics["drop.receiver"], statistics["datagrams"]) == (1, 1, 0)
