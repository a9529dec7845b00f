"""How firmware gets an address, and learns from a proxy what to boot (RFC 2131, PXE 2.1). Sans-I/O."""

from collections.abc import Callable

from msgspec import Struct

from pxed.bench.firmware import DhcpHabits
from pxed.bench.fleet.machine import UNSPECIFIED, Datagram, Lost, Machine, NoWork, Program
from pxed.types import Drop
from pxed.wire import dhcp, pxe
from pxed.wire.iana import BROADCAST, ArchType, BootServerType, Discovery, MessageType, OptionCode, PxeTag

__all__ = ["Boot", "configure"]

_CLIENT, _SERVER, _PXE = 68, 67, 4011
_BROADCAST_FLAG = 0x8000
_PXE_CLIENT = b"PXEClient"


class Boot(Struct, frozen=True):
    """What to boot: a file's name or URL, and the server it comes from."""

    file: str
    server: str


class _Offers:
    """What DISCOVERs have brought so far."""

    def __init__(self) -> None:
        self.lease: dhcp.Packet | None = None
        self.proxy: dhcp.Packet | None = None
        self.fresh = False  # something came since the last DISCOVER

    def take(self, packet: dhcp.Packet) -> None:
        self.fresh = True
        if packet.yiaddr != UNSPECIFIED:
            self.lease = packet
        elif packet.options.get(OptionCode.CLASS_ID, b"").startswith(_PXE_CLIENT):
            self.proxy = self.proxy or packet


def configure(machine: Machine, habits: DhcpHabits, arch: int, name: str) -> Program[Boot]:
    """The whole of it; the machine has its address then. Raises Lost or NoWork."""
    machine.address = UNSPECIFIED
    machine.port = _CLIENT
    base = _request(machine, habits, arch)
    with machine.step(f"{name}DHCP"):
        offers = yield from _discover(machine, habits, base)
        yield from _lease(machine, habits, base, offers)
    if offers.proxy is None:
        raise Lost("an address, but no boot offer came in time")
    direct = _direct(offers.proxy, habits)
    if direct is not None:
        return direct
    with machine.step(f"{name}port 4011"):
        return (yield from _ask_proxy(machine, habits, base, offers.proxy))


def _request(machine: Machine, habits: DhcpHabits, arch: int) -> dhcp.Packet:
    """The DISCOVER, from which the other requests are made."""
    options = {
        OptionCode.MESSAGE_TYPE: bytes((MessageType.DISCOVER,)),
        OptionCode.MAX_SIZE: (1472).to_bytes(2, "big"),
        OptionCode.PARAMETER_LIST: habits.parameters,
        OptionCode.CLIENT_UUID: dhcp.uuid_option(machine.identity.uuid),
        OptionCode.CLIENT_NDI: habits.undi,
        OptionCode.CLIENT_ARCH: int(arch).to_bytes(2, "big"),
        OptionCode.CLASS_ID: habits.client_class.encode(),
    }
    if habits.user_class:
        options[OptionCode.USER_CLASS] = habits.user_class
        options[OptionCode.CLIENT_ID] = b"\1" + machine.mac
    if habits.features:
        options[OptionCode.IPXE] = habits.features
    return dhcp.Packet(
        xid=machine.random.randrange(1 << 32), flags=_BROADCAST_FLAG if habits.broadcast else 0, chaddr=machine.mac,
        options={int(code): value for code, value in options.items()},
    )  # fmt: skip


def _variant(base: dhcp.Packet, kind: MessageType, secs: float, ciaddr: str, more: dict[int, bytes]) -> bytes:
    options = base.options | {int(OptionCode.MESSAGE_TYPE): bytes((kind,))} | more
    flags = base.flags if ciaddr == UNSPECIFIED else 0
    packet = dhcp.Packet(
        xid=base.xid, secs=int(secs), flags=flags, ciaddr=ciaddr, chaddr=base.chaddr, options=options
    )  # fmt: skip
    return dhcp.encode(packet)


def _reply(event: object, base: dhcp.Packet, kinds: tuple[MessageType, ...]) -> dhcp.Packet | None:
    """The packet of an event if it answers us; replies of broadcasts are heard by every machine."""
    if not isinstance(event, Datagram):
        return None
    packet = dhcp.decode(event.payload)
    if isinstance(packet, Drop) or packet.xid != base.xid or packet.chaddr != base.chaddr:
        return None
    return packet if packet.options.get(OptionCode.MESSAGE_TYPE, b"\0")[0] in kinds else None


def _discover(machine: Machine, habits: DhcpHabits, base: dhcp.Packet) -> Program[_Offers]:
    began, offers = machine.now, _Offers()
    for number, wait in enumerate(habits.discover.tries()):
        if number:
            machine.repeated()
        offers.fresh = False
        elapsed = machine.now - began
        machine.send(_variant(base, MessageType.DISCOVER, elapsed, UNSPECIFIED, {}), (BROADCAST, _SERVER))
        end = machine.now + wait
        while (event := (yield end)) is not None:
            packet = _reply(event, base, (MessageType.OFFER,))
            if packet is not None:
                offers.take(packet)
            if offers.lease and offers.proxy and not habits.window:
                return offers
        if not offers.lease or (habits.window and not offers.fresh):  # who collects chooses only when something came
            continue
        if offers.proxy or machine.now - began > habits.lease_alone:
            return offers
    raise Lost("no boot offer came" if offers.lease else "no DHCP server answered")


def _ask(
    machine: Machine, waits: tuple[float, ...], patience: float, send: Callable[[float], None], base: dhcp.Packet,
    kinds: tuple[MessageType, ...], good: Callable[[dhcp.Packet, tuple[str, int]], bool],
) -> Program[dhcp.Packet | None]:  # fmt: skip
    """Send until a good answer comes; None when none does. `send` gets the seconds since the beginning."""
    began = machine.now
    for number, wait in enumerate(waits):
        if number:
            if machine.now - began > patience:
                return None
            machine.repeated()
        send(machine.now - began)
        end = machine.now + wait
        while (event := (yield end)) is not None:
            packet = _reply(event, base, kinds)
            if packet is not None and isinstance(event, Datagram) and good(packet, event.source):
                return packet
    return None


def _lease(machine: Machine, habits: DhcpHabits, base: dhcp.Packet, offers: _Offers) -> Program[None]:
    assert offers.lease is not None
    lease = offers.lease
    more = {
        int(OptionCode.SERVER_ID): lease.options[OptionCode.SERVER_ID],
        int(OptionCode.REQUESTED_ADDRESS): dhcp.address_bytes(lease.yiaddr),
    }

    def send(seconds: float) -> None:
        payload = _variant(base, MessageType.REQUEST, seconds, UNSPECIFIED, more)
        machine.send(payload, (BROADCAST, _SERVER))

    def good(packet: dhcp.Packet, source: tuple[str, int]) -> bool:
        return packet.yiaddr == lease.yiaddr

    ack = yield from _ask(
        machine, habits.request.tries(), float("inf"), send, base, (MessageType.ACK,), good
    )  # fmt: skip
    if ack is None:
        raise Lost("the DHCP server did not confirm the address")
    machine.address = lease.yiaddr


def _direct(offer: dhcp.Packet, habits: DhcpHabits) -> Boot | None:
    """What the offer says to load at once; None: ask on port 4011. Raises NoWork for a menu of the local disk."""
    tags = pxe.parse(offer.options.get(OptionCode.VENDOR, b"")) or {}
    entries = pxe.parse_menu(tags[PxeTag.MENU]) if PxeTag.MENU in tags else None
    if entries and entries[0].type == BootServerType.LOCAL:
        raise NoWork("the offer's menu says: boot the local disk")
    boot = _named(offer)
    if habits.user_class:  # dhcp_has_pxeopts: a server and a file are enough
        return boot
    control = tags.get(PxeTag.DISCOVERY, b"\0")
    return boot if control[:1] and control[0] & Discovery.USE_BOOT_FILE else None


def _named(packet: dhcp.Packet) -> Boot | None:
    """The file and its server, as a reply names them."""
    file = packet.options.get(OptionCode.BOOT_FILE, b"") or packet.file
    server = packet.siaddr
    if server == UNSPECIFIED:
        server = dhcp.address_text(packet.options.get(OptionCode.SERVER_ID, b""))
    name = file.split(b"\0")[0].decode(errors="replace")
    return Boot(name, server) if name and server else None


def _ask_proxy(machine: Machine, habits: DhcpHabits, base: dhcp.Packet, offer: dhcp.Packet) -> Program[Boot]:
    """The request to the boot server's own port (4011)."""
    server = dhcp.address_text(offer.options.get(OptionCode.SERVER_ID, b""))
    if not habits.user_class and offer.siaddr != UNSPECIFIED:  # EDK2 asks the server of the file
        server = offer.siaddr
    machine.port = habits.proxy_port
    more = {int(OptionCode.SERVER_ID): dhcp.address_bytes(server)} if habits.user_class else {}

    def send(seconds: float) -> None:
        machine.send(_variant(base, MessageType.REQUEST, seconds, machine.address, more), (server, _PXE))

    def good(packet: dhcp.Packet, source: tuple[str, int]) -> bool:
        return source[1] == _PXE and _named(packet) is not None

    kinds = (MessageType.OFFER, MessageType.ACK)
    reply = yield from _ask(machine, habits.proxy.tries(), habits.proxy_patience, send, base, kinds, good)
    boot = _named(reply) if reply is not None else None
    if boot is None:
        raise Lost("no answer on port 4011")
    return boot


def arch_of(row_arch: ArchType) -> ArchType:
    """The architecture that iPXE reports on such a machine."""
    return ArchType.BIOS if row_arch == ArchType.BIOS else ArchType.EFI_X64
