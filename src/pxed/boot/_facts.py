"""What a DHCP request says, as far as booting goes: pure reading, no policy.

Deviations of real firmware are handled here, each with a comment, so that `decide` sees clean facts.
"""

import re

from msgspec import Struct

from pxed.types import Drop, Identity
from pxed.wire import iana, pxe
from pxed.wire.dhcp import (
    UNSPECIFIED,
    Packet,
    address_text,
    mac_text,
    parse_tlv,
    u16_list,
    user_classes,
    uuid_text,
)
from pxed.wire.iana import ArchType, IpxeTag, MessageType, OptionCode, PxeTag

PXE_CLIENT = b"PXEClient"
HTTP_CLIENT = b"HTTPClient"

_ANSWERED = (MessageType.DISCOVER, MessageType.REQUEST, MessageType.INFORM)
_ARCH_IN_CLASS = re.compile(rb"Client:Arch:(\d{5})")
_KNOWN_ARCHS = frozenset(ArchType)
# Option 57 counts the IP datagram in most clients' reading, so IP and UDP headers come off; every client must
# take 576 bytes of datagram (RFC 2131 section 2), and values below that are nonsense.
_HEADERS = 28
_LEAST_DATAGRAM = 576


class Received(Struct, frozen=True):
    """What the sockets know about a packet, beside its bytes."""

    port: int
    """The local port it came in on: 67 or 4011."""
    source: tuple[str, int]
    """Address and port it came from, as in the IP and UDP headers: ("0.0.0.0", 68) for most broadcasts."""
    server_address: str
    """Our address that this client can reach, never a wildcard: for a direct packet one of the receiving interface
    (the destination address when that was unicast), for a relayed one that of the route toward giaddr."""
    interface: str = ""
    """The receiving interface's name, for logs; broadcasts must go out there again."""
    broadcast: bool = True
    """The packet was sent to a broadcast or multicast address, so it may be meant for another server."""


class Facts(Struct, frozen=True):
    """One request. Its identity is as the wire has it: bogus SMBIOS UUIDs are not removed here."""

    packet: Packet
    received: Received
    message: MessageType
    """DISCOVER, REQUEST or INFORM."""
    identity: Identity
    """MAC and UUID; only the UUID when chaddr is no Ethernet address."""
    archs: tuple[int, ...]
    """Architecture types in the client's order of preference; never empty."""
    client_class: bytes
    """Option 60 as sent, for quirks and logs."""
    is_http_client: bool = False
    is_ipxe: bool = False
    ipxe_features: frozenset[int] = frozenset()
    """Tags present in option 175: 19 = HTTP, 21 = TFTP, 36 = EFI …"""
    user_classes: tuple[bytes, ...] = ()
    undi: tuple[int, int, int] | None = None
    """Option 94: interface type, major and minor revision."""
    boot_item: pxe.BootItem | None = None
    """43.71: the boot server type that the client chose."""
    server_id: str = ""
    """Option 54: the server that this request is meant for."""
    relayed: bool = False
    """A relay agent (giaddr) brought it, so the reply goes there."""
    max_size: int = _LEAST_DATAGRAM - _HEADERS
    """The longest DHCP message that the client takes, bytes."""

    @property
    def arch(self) -> int:
        """The first architecture type that has a name; the first of all when none has."""
        return next((arch for arch in self.archs if arch in _KNOWN_ARCHS), self.archs[0])

    @property
    def mac(self) -> str:
        """The machine's MAC, '' when chaddr is none."""
        return self.identity.mac

    @property
    def speaks_http(self) -> bool:
        """Can it load over HTTP?"""
        return self.is_http_client or (self.is_ipxe and IpxeTag.FEATURE_HTTP in self.ipxe_features)

    @property
    def kind(self) -> str:
        """What is asking, in words: 'BIOS PXE', 'UEFI x64 PXE', 'UEFI x64 HTTP', 'iPXE on BIOS'."""
        name = iana.arch_name(self.arch)
        if self.is_ipxe:
            return f"iPXE on {name}"
        return name if self.is_http_client else f"{name} PXE"


def facts(packet: Packet, received: Received) -> Facts | Drop:
    """Read one packet. A Drop says why it is no request for us to boot a machine.

    Reasons: "not-request", "wrong-type", "not-boot-client", "no-identity", "bad-relay".
    """
    options = packet.options
    if packet.op != iana.Op.REQUEST:
        return Drop("not-request", "a server's reply")
    kind = options.get(OptionCode.MESSAGE_TYPE, b"")
    if len(kind) != 1 or kind[0] not in _ANSWERED:
        return Drop("wrong-type", f"option 53 is {kind.hex() or 'missing'}")
    client_class = options.get(OptionCode.CLASS_ID, b"")
    is_http = client_class.startswith(HTTP_CLIENT)
    if not is_http and not client_class.startswith(PXE_CLIENT):
        return Drop("not-boot-client", "option 60 is neither PXEClient nor HTTPClient")
    identity = _identity(packet)
    if not identity.mac and not identity.uuid:
        return Drop("no-identity", "no Ethernet address and no UUID")
    # On 4011 the client speaks to us directly; EDK2 copies header fields of the lease, giaddr included.
    relayed = packet.giaddr != UNSPECIFIED and received.port == iana.SERVER_PORT
    if relayed and not _is_host(packet.giaddr):
        return Drop("bad-relay", f"the relay's address {packet.giaddr} is no host's")
    ipxe = parse_tlv(options[OptionCode.IPXE]) if OptionCode.IPXE in options else None
    classes = user_classes(options.get(OptionCode.USER_CLASS, b""))
    ndi = options.get(OptionCode.CLIENT_NDI, b"")
    return Facts(
        packet=packet,
        received=received,
        message=MessageType(kind[0]),
        identity=identity,
        archs=_archs(options.get(OptionCode.CLIENT_ARCH, b""), client_class),
        client_class=client_class,
        is_http_client=is_http,
        is_ipxe=OptionCode.IPXE in options or b"iPXE" in classes,
        ipxe_features=frozenset(ipxe or ()),
        user_classes=classes,
        undi=(ndi[0], ndi[1], ndi[2]) if len(ndi) == 3 else None,
        boot_item=_boot_item(options.get(OptionCode.VENDOR, b"")),
        server_id=address_text(options.get(OptionCode.SERVER_ID, b"")),
        relayed=relayed,
        max_size=max(_LEAST_DATAGRAM, int.from_bytes(options.get(OptionCode.MAX_SIZE, b"")[:2], "big")) - _HEADERS,
    )


def _is_host(address: str) -> bool:
    """Can a machine on a network have it? Not 0/8, 127/8, multicast, the reserved addresses above, the broadcast."""
    first = int(address.partition(".")[0])
    return 0 < first < 224 and first != 127


def _identity(packet: Packet) -> Identity:
    """hlen 16 is firmware that puts its UUID in chaddr (EDK2's SendGUID): that is no MAC.

    Option 97 may be missing (some ROMs) or have a foreign form: then the MAC alone is known.
    """
    uuid = uuid_text(packet.options.get(OptionCode.CLIENT_UUID, b""))
    if len(packet.chaddr) == 16 and not uuid:
        uuid = uuid_text(b"\0" + packet.chaddr)
    return Identity(mac=mac_text(packet.chaddr), uuid=uuid)


def _archs(option: bytes, client_class: bytes) -> tuple[int, ...]:
    """Option 93, else the class id's text ("PXEClient:Arch:00007:…"), else BIOS, as ROMs older than RFC 4578 are."""
    if archs := u16_list(option):
        return archs
    found = _ARCH_IN_CLASS.search(client_class)
    return (int(found[1]),) if found else (ArchType.BIOS,)


def _boot_item(vendor: bytes) -> pxe.BootItem | None:
    """43.71; None too when option 43 is another vendor's and does not parse."""
    tags = pxe.parse(vendor)
    return pxe.parse_boot_item(tags[PxeTag.BOOT_ITEM]) if tags and PxeTag.BOOT_ITEM in tags else None
