"""One request, one answer of the transaction check, one site: what to send, or why nothing.

The rows of the rule table (which packet gets which answer) are the functions `_route` and `_select`; everything that
a client's firmware needs beyond the RFCs is in `_quirks`. Pure: the same three inputs give the same bytes, so two
servers with the same configuration give a client identical answers.
"""

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from pxed.types import Check, Drop, Verdict
from pxed.wire import iana, pxe, summary
from pxed.wire.dhcp import UNSPECIFIED, Packet, address_bytes, encode
from pxed.wire.iana import ArchType, BootServerType, Discovery, MessageType, OptionCode

from ._facts import HTTP_CLIENT, PXE_CLIENT, Facts
from ._quirks import Quirk, Vendor43, quirk_for
from ._site import FIRST_SCRIPT, Site

_FILE_SIZE = 127  # of the header field, with its NUL: shim and ROMs read it as a C string
# What goes first when a reply would be longer than the client takes; `file` in the header says the same as 67.
_DISPENSABLE = (OptionCode.BOOT_FILE, OptionCode.CLIENT_UUID)
_SERVED_ITEMS = (BootServerType.PXED, BootServerType.LOCAL)

_DIRECT = pxe.build(pxe.discovery(Discovery.USE_BOOT_FILE))
_RASPBERRY_PI = pxe.build(
    pxe.discovery(Discovery.USE_BOOT_FILE)
    | pxe.menu([pxe.MenuEntry(BootServerType.LOCAL, "Raspberry Pi Boot")])
    | pxe.prompt(0, "PXE")
)
# A menu of one entry of type 0, taken at once: the client gives up and the firmware boots its next device. EDK2 does
# so since 2017 (PXE-E21); before, it ignored every offer with a menu, which is as good as silence.
_LOCAL_MENU = pxe.build(
    pxe.discovery(Discovery.NO_BROADCAST | Discovery.NO_MULTICAST)
    | pxe.menu([pxe.MenuEntry(BootServerType.LOCAL, "Boot from local disk")])
    | pxe.prompt(0, "Boot from local disk")
)
_MENU_ARCHS = {
    ArchType.BIOS,
    ArchType.EFI_IA32,
    ArchType.EFI_X64,
    ArchType.EFI_BC,
    ArchType.EFI_ARM32,
    ArchType.EFI_ARM64,
    ArchType.EFI_RISCV64,
}
# HTTP boot has no menu and no word for "boot something else": what comes nearest is a URI that the firmware refuses.
# EDK2 takes the offer, loads "http" and "https" only, and boots its next device ("Invalid URI address").
# An older one that did not look at the scheme would ask our own port, which has nothing there, and fail as quickly.
_LOCAL_SCHEME = "local"
_REFUSING_ARCHS = {
    ArchType.HTTP_IA32,
    ArchType.HTTP_X64,
    ArchType.HTTP_BC,
    ArchType.HTTP_ARM32,
    ArchType.HTTP_ARM64,
    ArchType.HTTP_RISCV64,
}
_VENDOR = {Vendor43.NONE: b"", Vendor43.DIRECT: _DIRECT, Vendor43.RASPBERRY_PI: _RASPBERRY_PI}


class Way(Enum):
    """Where a reply goes."""

    RELAY = "relay"
    CLIENTS = "clients"  # everybody on the wire, at the port of clients: nobody has an address yet
    EVERYBODY = "everybody"  # on the wire, at the port that asked
    CLIENT = "client"  # the address that the client says it has
    ASKER = "asker"  # whence it came


class Reply(Struct, frozen=True):
    """One datagram to send, and what to say about it."""

    payload: bytes
    destination: tuple[str, int]
    """("255.255.255.255", 68) = broadcast on the interface that the request came in on."""
    source_address: str
    source_port: int
    """67 or 4011."""
    summary: str
    """One line about the packet, for logs."""
    event: tuple[str, str]
    """Kind and text for the machine's timeline."""
    way: Way
    """Why it goes where it goes."""
    message: MessageType
    """OFFER or ACK."""
    again: float = 0.0
    """Seconds after which it is sent once more; 0: only once."""


class _Boot(Struct, frozen=True):
    """What the machine is told to boot."""

    text: str  # for the timeline
    file: str = ""  # file name or URL; '' = nothing to load
    vendor: bytes = b""  # option 43; b'' = left out
    kind: str = "offer"  # of the timeline event
    next_server: bool = True  # siaddr is ours


def decide(
    facts: Facts,
    check: Check,
    site: Site,
    missing: frozenset[str] = frozenset(),
    large: frozenset[str] = frozenset(),
) -> Reply | Drop:
    """The reply to one request, or a Drop with its reason.

    `missing`: names of boot programs whose file is not there. Silence lets firmware go on at once, where an offer of
    them would be followed by a failing download and its retries. `large`: those that MTFTP cannot carry.

    Reasons: "wrong-port", "lease-request", "other-server", "credentials", "other-boot-item" (what was asked is not
    ours to answer), "ignored", "no-work" (the check says so), "no-boot-program" (none is
    configured for this architecture, or its file is missing),
    "too-long" (with the relay's option 82 the reply would exceed what the client takes).
    """
    message = _route(facts)
    if isinstance(message, Drop):
        return message
    boot = _select(facts, check, site, missing, large)
    if isinstance(boot, Drop):
        return boot
    if facts.boot_item is not None:  # the client believes an ACK only with the type that it asked for
        boot = _Boot(boot.text, boot.file, pxe.build(pxe.boot_item(facts.boot_item)), boot.kind, boot.next_server)
    packet = _packet(facts, message, boot)
    payload = _fit(packet, facts.max_size)
    if payload is None:
        return Drop("too-long", f"no reply fits the {facts.max_size} bytes that the client takes")
    way = _way(facts)
    return Reply(
        payload=payload,
        destination=destination(way, facts.received.source, facts.packet.ciaddr, facts.packet.giaddr),
        source_address=facts.received.server_address,
        source_port=facts.received.port,
        summary=summary(packet),
        event=(boot.kind, boot.text),
        way=way,
        message=message,
        again=quirk_for(facts, site.quirks).again if message is MessageType.OFFER else 0.0,
    )


def _route(facts: Facts) -> MessageType | Drop:
    """Is this ours to answer, and with which message?"""
    received, item = facts.received, facts.boot_item
    if facts.message == MessageType.DISCOVER:
        if received.port != iana.SERVER_PORT:
            return Drop("wrong-port", f"a DISCOVER on port {received.port}")
        return MessageType.OFFER
    if item is None and facts.message == MessageType.REQUEST and received.port == iana.SERVER_PORT:
        return Drop("lease-request", "leases are the DHCP server's to give")
    # Unicast reached us, whatever option 54 says: some firmware names the DHCP server there.
    if received.broadcast and facts.server_id not in ("", received.server_address):
        return Drop("other-server", f"meant for {facts.server_id}")
    if item is not None and item.wants_credentials:
        return Drop("credentials", "the client asks for BIS credentials, which pxed does not have")
    if item is not None and item.type not in _SERVED_ITEMS:
        return Drop("other-boot-item", f"boot server type {item.type} is not ours")
    return MessageType.ACK


def _select(facts: Facts, check: Check, site: Site, missing: frozenset[str], large: frozenset[str]) -> _Boot | Drop:
    """What the machine boots, from the check's verdict and what the client is."""
    quirk = quirk_for(facts, site.quirks)
    if check.verdict == Verdict.IGNORE:
        return Drop("ignored", check.reason)
    if check.verdict == Verdict.NO_WORK:
        return _no_work(facts, check, site, quirk)
    if facts.is_ipxe:
        return _script(facts, site, quirk)
    archs = facts.archs if quirk.arch_is is None else (quirk.arch_is,)
    boot = _program(facts, site, quirk, archs, missing)
    if isinstance(boot, Drop) or boot.file in large:
        return boot
    return _by_multicast(facts, site, boot)


def _no_work(facts: Facts, check: Check, site: Site, quirk: Quirk) -> _Boot | Drop:
    """Nothing to do: silence, or the quickest way to the local disk that this client understands.

    iPXE asks the check itself, whose answer then says "local disk". Firmware needs no second packet: whoever asks on
    4011 after our answer to its DISCOVER did not understand it, and gets silence.
    """
    if site.no_work == "silent":
        return Drop("no-work", check.reason)
    if facts.is_ipxe:
        return _script(facts, site, quirk)
    if facts.message != MessageType.DISCOVER or not quirk.local_boot:
        return Drop("no-work", check.reason)
    text = f"{facts.kind}: told to boot its local disk ({check.reason})"
    if facts.is_http_client and facts.arch in _REFUSING_ARCHS:
        _, _, rest = site.http_url(facts.received.server_address, "").partition(":")
        return _Boot(text, f"{_LOCAL_SCHEME}:{rest}", kind="no-work", next_server=False)
    if not facts.is_http_client and facts.arch in _MENU_ARCHS:
        return _Boot(text, vendor=_LOCAL_MENU, kind="no-work", next_server=False)
    return Drop("no-work", check.reason)


def _script(facts: Facts, site: Site, quirk: Quirk) -> _Boot:
    """iPXE gets the script, not itself again."""
    address = facts.received.server_address
    file = site.http_url(address, FIRST_SCRIPT) if facts.speaks_http else FIRST_SCRIPT
    how = "HTTP" if facts.speaks_http else "TFTP"
    return _Boot(f"{facts.kind}: {_verb(facts)} the boot script by {how}", file, _vendor(facts, quirk))


def _program(facts: Facts, site: Site, quirk: Quirk, archs: tuple[int, ...], missing: frozenset[str]) -> _Boot | Drop:
    """Firmware gets the boot program of its architecture."""
    address = facts.received.server_address
    vendor = _vendor(facts, quirk)
    who = facts.kind if quirk.arch_is is None else iana.arch_name(quirk.arch_is)
    found = site.program(archs, missing)
    if found is None:
        if quirk.vendor43 == Vendor43.RASPBERRY_PI:
            # The Pi's ROM asks TFTP for fixed names by itself (bootcode.bin, start4.elf): the server is all it needs.
            return _Boot(f"{who}: {_verb(facts)} TFTP from {address}", vendor=vendor)
        return Drop("no-boot-program", _without_program(site, archs))
    name = found[1]
    file, how = (site.http_url(address, name), "HTTP") if facts.is_http_client else (name, "TFTP")
    if len(file.encode()) > _FILE_SIZE:
        return Drop("no-boot-program", f"the boot program's name is longer than {_FILE_SIZE} bytes: {file}")
    return _Boot(f"{who}: {_verb(facts)} {name} by {how} from {address}", file, vendor)


def _without_program(site: Site, archs: tuple[int, ...]) -> str:
    """Why there is no boot program for these architectures."""
    named = site.program(archs)
    if named is None:
        return f"no boot program is configured for {', '.join(map(iana.arch_name, archs))}"
    where = " nor in ".join(site.program_folders)
    return f"the boot program {named[1]} for {iana.arch_name(named[0])} is neither in {where}"


def _verb(facts: Facts) -> str:
    return "offered" if facts.message == MessageType.DISCOVER else f"answered on port {facts.received.port} with"


def _vendor(facts: Facts, quirk: Quirk) -> bytes:
    """Option 43 of an offer."""
    return b"" if facts.is_http_client else _VENDOR[quirk.vendor43]


def _by_multicast(facts: Facts, site: Site, boot: _Boot) -> _Boot:
    """With the tags of MTFTP for who the operator marked, and never without tag 6: EDK2 throws an offer with 1-5 alone
    away, and other ROMs wait for minutes for a multicast that never comes."""
    if facts.is_http_client or site.mtftp is None or not site.mtftp.told(facts.mac, facts.arch):
        return boot
    group = site.mtftp.groups.get(boot.file)
    if group is None:
        return boot
    vendor = pxe.build(pxe.mtftp(group) | pxe.discovery(Discovery.USE_BOOT_FILE))
    return replace(boot, text=f"{boot.text}, or by MTFTP from {group.address}", vendor=vendor)


def _packet(facts: Facts, message: MessageType, boot: _Boot) -> Packet:
    """The reply (RFC 2131 table 3)."""
    request = facts.packet
    server = facts.received.server_address
    options: dict[int, bytes] = {
        OptionCode.MESSAGE_TYPE: bytes((message,)),
        OptionCode.SERVER_ID: address_bytes(server),
        OptionCode.CLASS_ID: HTTP_CLIENT if facts.is_http_client else PXE_CLIENT,
    }
    if OptionCode.CLIENT_UUID in request.options:  # byte for byte, whatever its form
        options[OptionCode.CLIENT_UUID] = request.options[OptionCode.CLIENT_UUID]
    if boot.vendor:
        options[OptionCode.VENDOR] = boot.vendor
    file = boot.file.encode()
    if file:
        options[OptionCode.BOOT_FILE] = file
    if facts.relayed and OptionCode.RELAY_INFO in request.options:
        options[OptionCode.RELAY_INFO] = request.options[OptionCode.RELAY_INFO]
    return Packet(
        op=iana.Op.REPLY,
        htype=request.htype,
        xid=request.xid,
        flags=request.flags,
        ciaddr=request.ciaddr if message == MessageType.ACK else UNSPECIFIED,
        siaddr=server if boot.next_server else UNSPECIFIED,
        giaddr=request.giaddr,
        chaddr=request.chaddr,
        file=file,
        options=options,
    )


def _fit(packet: Packet, max_size: int) -> bytes | None:
    """The bytes, without dispensable options as far as the client's limit needs it; None when that is not enough."""
    payload = encode(packet)
    for code in _DISPENSABLE:
        if len(payload) > max_size and packet.options.pop(code, None) is not None:
            payload = encode(packet)
    return payload if len(payload) <= max_size else None


def _way(facts: Facts) -> Way:
    """The relay, the asker, or everybody on the wire when the asker has no address."""
    if facts.relayed:
        return Way.RELAY
    if facts.message == MessageType.DISCOVER:
        return Way.CLIENTS
    if facts.message == MessageType.INFORM and facts.packet.ciaddr != UNSPECIFIED:
        return Way.CLIENT
    return Way.EVERYBODY if facts.received.source[0] == UNSPECIFIED else Way.ASKER


def destination(way: Way, source: tuple[str, int], ciaddr: str, giaddr: str) -> tuple[str, int]:
    """Address and port of a reply to a request from `source`, with these addresses in its header."""
    if way is Way.RELAY:
        return (giaddr, iana.SERVER_PORT)
    if way is Way.CLIENTS:
        return (iana.BROADCAST, iana.CLIENT_PORT)
    if way is Way.CLIENT:
        return (ciaddr, source[1])
    return (iana.BROADCAST, source[1]) if way is Way.EVERYBODY else source
