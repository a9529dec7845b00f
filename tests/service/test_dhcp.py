"""The DHCP service between a real socket and the machines' records: replies, silences, timelines, bad input."""

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from pxed import boot
from pxed.config import Config, Server, Tftp, Transaction
from pxed.net.interfaces import Interfaces
from pxed.service.dhcp import DhcpService
from pxed.service.peers import Peers
from pxed.types import Check, Event, Identity, Verdict
from pxed.wire import dhcp
from pxed.wire.iana import MessageType
from support.firmware import Firmware
from support.loop import LoopThread
from support.machines import Machines
from support.netns import Net

pytestmark = pytest.mark.root

CLIENT, SERVER = "10.1.0.50", "10.1.0.1"


class Wire:
    """The service in one namespace, a boot ROM in another."""

    def __init__(self, net: Net) -> None:
        self.server, self.client = net.namespace("server"), net.namespace("client")
        net.link(self.server, "eth0", self.client, "eth0")
        self.server.address("eth0", f"{SERVER}/24")
        self.client.address("eth0", f"{CLIENT}/24")
        self.machines = Machines()
        self.peers = Peers()
        self.missing: frozenset[str] = frozenset()  # boot programs
        self.changed = threading.Condition()
        self.machines.note = self._note  # type: ignore[method-assign]
        self.service = self._service("silent")
        self.mac = self.client.mac("eth0")
        with self.client:
            self.rom = Firmware("eth0", self.mac)

    def _service(self, no_work: Any) -> DhcpService:
        config = Config(server=Server(SERVER), tftp=Tftp("/x"), transaction=Transaction(no_work=no_work))
        site = boot.Site.from_config(config)
        interfaces = Interfaces((SERVER,))
        machines = cast(Any, self.machines)
        service = DhcpService(
            interfaces, False, site, machines, self.peers, lambda: 1000.0, missing=lambda: self.missing
        )
        with self.server:
            service.open()
        return service

    def _note(self, event: Event) -> None:
        with self.changed:
            self.machines.events.append(event)
            self.changed.notify_all()

    def event(self, wanted: Callable[[Event], bool]) -> Event:
        """Wait for a line of the timeline."""
        with self.changed:
            assert self.changed.wait_for(lambda: any(map(wanted, self.machines.events)), 60), self.machines.events
            return next(filter(wanted, self.machines.events))

    def sync(self) -> None:
        """Everything sent before has been handled when this is answered."""
        verdict, self.machines.verdict = self.machines.verdict, Verdict.WORK
        assert self.rom.discover(1)
        self.machines.verdict = verdict


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Net() as net, LoopThread() as loop:
        made = Wire(net)
        loop.call(made.service.start)
        yield made
        loop.call(made.service.close)
        made.rom.close()


def test_an_offer_is_in_the_timeline(wire: Wire) -> None:
    (offer,) = wire.rom.discover(1)
    assert offer.packet.siaddr == SERVER
    event = wire.event(lambda event: event.kind == "offer")
    assert (event.mac, event.machine_id, event.job_id, event.time) == (wire.mac, 1, 7, 1000.0)
    assert "undionly.kpxe" in event.text
    identity, _ = wire.machines.sightings[0]
    assert identity.mac == wire.mac
    assert identity.uuid
    assert wire.service.statistics["answered:offer"] >= 1
    assert wire.service.statistics["in"] >= 1


@pytest.mark.parametrize(
    ("verdict", "kind", "reason"), [(Verdict.IGNORE, "drop", "ignored"), (Verdict.NO_WORK, "no-work", "no-work")]
)
def test_a_silence_is_in_the_timeline_with_its_reason(wire: Wire, verdict: Verdict, kind: str, reason: str) -> None:
    wire.machines.verdict, wire.machines.reason = verdict, "No job waits for this machine."
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER))
    event = wire.event(lambda event: event.kind == kind)
    assert event.text == "BIOS PXE: no answer: No job waits for this machine."
    assert wire.service.drops[reason] == 1
    assert wire.service.statistics[f"drop:{reason}"] == 1


def test_an_architecture_without_a_boot_program_is_told(wire: Wire) -> None:
    wire.rom.arch = 39  # LoongArch
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER))
    event = wire.event(lambda event: event.kind == "drop")
    assert "no boot program is configured for" in event.text


def test_a_boot_program_without_a_file_is_told(wire: Wire) -> None:
    wire.missing = frozenset({"snponly-arm64.efi"})
    wire.rom.arch = 11
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER))
    event = wire.event(lambda event: event.kind == "drop")
    assert event.text == (
        "UEFI ARM64 PXE: no answer: the boot program snponly-arm64.efi for UEFI ARM64 is neither in /x nor in "
        "/usr/lib/ipxe"
    )
    wire.missing = frozenset()
    (offer,) = wire.rom.discover(1)
    assert offer.packet.file.rstrip(b"\0") == b"snponly-arm64.efi"
    assert wire.service.drops["no-boot-program"] == 1


def test_a_lease_request_teaches_the_address_and_is_left_alone(wire: Wire) -> None:
    wire.rom.send(wire.rom.packet(MessageType.REQUEST, REQUESTED_ADDRESS=bytes((10, 9, 0, 7))))
    wire.sync()
    assert wire.service.drops["lease-request"] == 1
    assert wire.peers.mac("10.9.0.7") == wire.mac
    assert all(event.kind == "offer" for event in wire.machines.events)


def test_foreign_and_malformed_packets_are_counted_and_harm_nobody(wire: Wire) -> None:
    chance = random.Random(7)
    wire.rom.xid ^= 1  # answers to broken, yet good enough packets are not waited for
    good = dhcp.encode(wire.rom.packet(MessageType.DISCOVER))
    packets = [good[:size] for size in (0, 1, 27, 28, 235, 236, 239, 240)]
    packets += [chance.randbytes(chance.randrange(1, 1400)) for _ in range(200)]
    packets += [good[:at] + bytes((good[at] ^ 0xFF,)) + good[at + 1 :] for at in range(240, 290)]
    phone = wire.rom.packet(MessageType.DISCOVER, CLASS_ID=b"Cisco Systems, Inc. IP Phone CP-7960")
    packets.append(dhcp.encode(phone))
    aironet = wire.rom.packet(MessageType.REQUEST, VENDOR=bytes.fromhex("f1040a00000a"))
    packets.append(dhcp.encode(aironet))
    wire.rom.xid ^= 1
    for port in (67, 4011):
        for packet in packets:
            wire.rom.sock.sendto(packet, ("255.255.255.255" if port == 67 else SERVER, port))
    wire.sync()
    assert wire.service.drops["not-boot-client"] >= 1
    wire.rom.send(wire.rom.packet(MessageType.REQUEST, ciaddr=CLIENT), (SERVER, 4011))
    wire.rom.wait(MessageType.ACK, 4011)
    assert sum(wire.service.drops.values()) > 2 * 200


def test_a_bug_for_one_machine_is_none_for_the_next(wire: Wire) -> None:
    def check(identity: Identity, now: float) -> Check:
        raise ZeroDivisionError

    good, wire.machines.check = wire.machines.check, check  # type: ignore[method-assign]
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER))
    wire.rom.send(wire.rom.packet(MessageType.REQUEST, ciaddr=CLIENT), (SERVER, 4011))
    while not wire.machines.sightings[1:]:
        wire.rom.answers(1, 0.05)
    wire.machines.check = good  # type: ignore[method-assign]
    assert wire.rom.discover(1)


def test_a_reply_that_cannot_be_sent_is_counted(wire: Wire) -> None:
    options = wire.rom.packet(MessageType.DISCOVER).options
    relayed = dhcp.Packet(op=1, xid=1, chaddr=wire.rom.mac, giaddr="172.31.9.9", options=options)  # no route
    wire.rom.sock.sendto(dhcp.encode(relayed), ("255.255.255.255", 67))
    wire.sync()
    assert wire.service.drops["send-error"] == 1
    assert wire.service.statistics["send_errors"] == 1


def test_ipxe_gets_its_offer_twice_and_firmware_once(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER, USER_CLASS=b"iPXE"))
    first, second = wire.rom.answers(2)
    assert first.packet == second.packet
    assert (first.message, first.source) == (MessageType.OFFER, (SERVER, 67))
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER))
    assert len(wire.rom.answers(2, 1.0)) == 1
    monkeypatch.setattr("pxed.service.dhcp._MOST_WAITING", 0)  # what a flood has used up
    wire.rom.send(wire.rom.packet(MessageType.DISCOVER, USER_CLASS=b"iPXE"))
    assert len(wire.rom.answers(2, 1.0)) == 1
