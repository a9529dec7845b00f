"""Many at once: the loop has turns for everything else, and garbage takes nothing from those who ask to boot."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from pxed import boot
from pxed._ext.dhcp_io import BATCH
from pxed._ext.dhcp_load import Load
from pxed.bench.pxe_clients import KINDS, steps
from pxed.boot import _memo
from pxed.config import Config, Server, Tftp, Transaction
from pxed.net.interfaces import Interfaces
from pxed.service.dhcp import DhcpService
from pxed.service.peers import Peers
from pxed.service.quiet import DropReport
from pxed.wire import dhcp
from pxed.wire.iana import OptionCode
from support import boot_clients as firmware
from support.loop import LoopThread
from support.machines import Machines
from support.netns import Net

pytestmark = pytest.mark.root

SERVER, CLIENTS = "10.1.0.1", "10.1.0.50"


class Site:
    """The service in one namespace, clients in another; nothing is read until it is started."""

    def __init__(self, net: Net) -> None:
        self.server, self.clients = net.namespace("server"), net.namespace("clients")
        net.link(self.server, "eth0", self.clients, "eth0")
        self.server.address("eth0", f"{SERVER}/24")
        self.clients.address("eth0", f"{CLIENTS}/24")
        config = Config(server=Server(SERVER), tftp=Tftp("/x"), transaction=Transaction())
        machines = cast(Any, Machines())
        self.service = DhcpService(
            Interfaces((SERVER,)), False, boot.Site.from_config(config), machines, Peers(), monotonic=lambda: 1000.0
        )
        with self.server:
            self.service.open()

    def send(self, packets: list[bytes], port: int) -> None:
        with self.clients, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for packet in packets:
                sock.sendto(packet, (SERVER, port))


@pytest.fixture
def site() -> Iterator[Site]:
    with Net() as net:
        made = Site(net)
        yield made
        made.service.close()


def test_a_storm_leaves_the_loop_turns_for_others(site: Site) -> None:
    packets = [firmware.pxe(giaddr=CLIENTS, chaddr=b"\2\0\0\0" + n.to_bytes(2, "big")) for n in range(1000)]
    site.send(packets, 67)
    site.send([firmware.pxe(3, 7, ciaddr=CLIENTS)] * 1000, 4011)
    turns: list[int] = []

    async def watch() -> None:
        site.service.start()
        while not turns or turns[-1] < 2000:
            turns.append(site.service.statistics["in"])
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(watch(), 60))
    answered = [later - before for before, later in pairwise(turns)]
    assert max(answered) <= 2 * BATCH  # of each port
    assert site.service.statistics["answered:offer"] == site.service.statistics["answered:ack"] == 1000


def garbage(count: int) -> list[bytes]:
    """Noise, torn requests, strangers' DHCP, and requests of firmware that does not exist."""
    chance = random.Random(7)
    good = firmware.pxe()
    packets = [chance.randbytes(chance.randrange(600)) for _ in range(count // 4)]
    packets += [good[: chance.randrange(len(good))] for _ in range(count // 4)]
    packets += [chance.choice([*firmware.FOREIGN.values()]) for _ in range(count // 4)]
    invented = [(60, b"PXEClient:" + chance.randbytes(8).hex().encode()) for _ in range(count // 4)]
    packets += [
        firmware.reference.message(options=[(53, b"\1"), own], chaddr=b"\2" + chance.randbytes(5)) for own in invented
    ]
    chance.shuffle(packets)
    return packets


def test_a_flood_of_garbage_takes_nothing_from_those_who_ask(site: Site) -> None:
    # As many as fit the receive buffers: what the kernel has no room for, no server can answer.
    flood = garbage(4000)
    with capture_logs() as lines, LoopThread() as loop:
        site.send(flood[:1000], 67)
        site.send(flood[1000:2000], 4011)
        clients = [steps(KINDS[name], number, CLIENTS) for number, name in enumerate([*KINDS] * 34)][:100]
        with site.clients:
            storm = Load(SERVER, clients, outstanding=100, patience=60.0)
        with closing(storm) as load:
            site.send(flood[2000:3000], 67)
            loop.call(site.service.start)
            site.send(flood[3000:], 4011)
            _seconds, times, _answered, unanswered, *_ = load.run()
        report = DropReport({"dhcp": lambda: site.service.statistics})
        loop.call(lambda: report.look(1.0))
        loop.call(lambda: report.look(30.0))
        loop.call(site.service.close)
    assert unanswered == 0
    assert len(times) == sum(map(len, clients))
    told = Counter((line["event"], line["reason"]) for line in lines if "reason" in line)
    assert {"bad-op", "truncated", "not-boot-client"} <= {reason for _event, reason in told}
    assert set(told.values()) == {1}  # a minute has not passed
    decider = site.service._decides
    assert len(decider._kinds) <= _memo.MAX_KINDS
    assert len(decider._identities) <= _memo.MAX_IDENTITIES


def test_kinds_that_somebody_invents_are_forgotten() -> None:
    received = boot.Received(67, ("0.0.0.0", 68), SERVER)
    decider = boot.Decider(boot.Site.from_config(Config(server=Server(SERVER), tftp=Tftp("/x"))))
    check = Machines().check(cast(Any, None), 0.0)
    for number in range(2 * _memo.MAX_KINDS):
        own = (OptionCode.CLASS_ID, b"PXEClient:%d" % number)
        data = firmware.reference.message(options=[(53, b"\1"), own], chaddr=firmware.MAC)
        assert isinstance(decider.decide(data, received, lambda _: check).result, boot.Answer)
        assert len(decider._kinds) <= _memo.MAX_KINDS
    assert isinstance(dhcp.decode(data), dhcp.Packet)
