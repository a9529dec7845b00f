"""PXE tags inside option 43 (PXE 2.1 section 2): build them, and read those that clients send.

Numbers of more than one byte are big-endian, except the MTFTP ports, on whose order clients disagree: Intel's and
EDK2 read them little-endian, some servers write big-endian. So only ports that read the same in both are written.
"""

from collections.abc import Iterable

from msgspec import Struct

from .dhcp import address_bytes, address_text, encode_tlv, parse_tlv
from .iana import Discovery, PxeTag

__all__ = [
    "BootItem",
    "BootServer",
    "MenuEntry",
    "Mtftp",
    "boot_item",
    "boot_servers",
    "build",
    "discovery",
    "menu",
    "mtftp",
    "parse",
    "parse_boot_item",
    "parse_boot_servers",
    "parse_menu",
    "parse_prompt",
    "prompt",
    "symmetric_port",
]

# dnsmasq stops at 253 and iPXE takes less than 256: a longer option 43 would have to be split, which ROMs do not read.
MAX_SIZE = 253


class BootItem(Struct, frozen=True):
    """Tag 71: the boot server type and layer that a client chose."""

    type: int
    layer: int = 0

    @property
    def wants_credentials(self) -> bool:
        """Bit 15 of the layer: the client asks for BIS credentials."""
        return bool(self.layer & 0x8000)


class BootServer(Struct, frozen=True):
    """One entry of tag 8; no addresses = any server of the type."""

    type: int
    addresses: tuple[str, ...] = ()


class MenuEntry(Struct, frozen=True):
    """One entry of tag 9; type 0 boots the local disk."""

    type: int
    text: str


class Mtftp(Struct, frozen=True):
    """Tags 1-5: where and when an MTFTP client listens. Times in seconds."""

    address: str
    client_port: int = 0x0808
    server_port: int = 0x0707
    listen: int = 2
    delay: int = 2


def build(tags: dict[int, bytes]) -> bytes:
    """The value of option 43. ValueError when it would be longer than clients read."""
    raw = encode_tlv(tags)
    if len(raw) > MAX_SIZE:
        raise ValueError(f"option 43 of {len(raw)} bytes: PXE clients read at most {MAX_SIZE}")
    return raw


def parse(raw: bytes) -> dict[int, bytes] | None:
    """The tags, or None when the bytes are not in that form (another vendor's option 43)."""
    return parse_tlv(raw)


def discovery(flags: Discovery) -> dict[int, bytes]:
    """Tag 6."""
    return {PxeTag.DISCOVERY: bytes((flags,))}


def boot_servers(servers: Iterable[BootServer]) -> dict[int, bytes]:
    """Tag 8."""
    out = bytearray()
    for server in servers:
        out += server.type.to_bytes(2, "big") + bytes((len(server.addresses),))
        out += b"".join(map(address_bytes, server.addresses))
    return {PxeTag.BOOT_SERVERS: bytes(out)}


def menu(entries: Iterable[MenuEntry]) -> dict[int, bytes]:
    """Tag 9."""
    out = bytearray()
    for entry in entries:
        text = entry.text.encode("ascii")
        out += entry.type.to_bytes(2, "big") + bytes((len(text),)) + text
    return {PxeTag.MENU: bytes(out)}


def prompt(timeout: int, text: str) -> dict[int, bytes]:
    """Tag 10: seconds until the first entry is taken; 0 = at once, 255 = wait for ever."""
    return {PxeTag.PROMPT: bytes((timeout,)) + text.encode("ascii")}


def boot_item(item: BootItem) -> dict[int, bytes]:
    """Tag 71."""
    return {PxeTag.BOOT_ITEM: item.type.to_bytes(2, "big") + item.layer.to_bytes(2, "big")}


def symmetric_port(port: int) -> bool:
    """Does this port number read the same in both byte orders?"""
    return 0 < port <= 0xFFFF and port >> 8 == port & 0xFF


def mtftp(group: Mtftp) -> dict[int, bytes]:
    """Tags 1-5. ValueError for a port that clients of the other byte order would misread."""
    for port in (group.client_port, group.server_port):
        if not symmetric_port(port):
            raise ValueError(f"MTFTP port {port}: both bytes must be equal, as in 1799 (0x0707)")
    return {
        PxeTag.MTFTP_ADDRESS: address_bytes(group.address),
        PxeTag.MTFTP_CLIENT_PORT: group.client_port.to_bytes(2, "little"),
        PxeTag.MTFTP_SERVER_PORT: group.server_port.to_bytes(2, "little"),
        PxeTag.MTFTP_LISTEN: bytes((group.listen,)),
        PxeTag.MTFTP_DELAY: bytes((group.delay,)),
    }


def parse_boot_item(raw: bytes) -> BootItem | None:
    """Tag 71's value. Some clients leave the layer out: it is 0 then. None when too short."""
    if len(raw) not in (2, 4):
        return None
    return BootItem(int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:4], "big"))


def parse_boot_servers(raw: bytes) -> tuple[BootServer, ...] | None:
    """Tag 8's value; None when malformed."""
    servers = []
    while raw:
        if len(raw) < 3 or len(raw) < 3 + 4 * raw[2]:
            return None
        end = 3 + 4 * raw[2]
        addresses = tuple(address_text(raw[i : i + 4]) for i in range(3, end, 4))
        servers.append(BootServer(int.from_bytes(raw[:2], "big"), addresses))
        raw = raw[end:]
    return tuple(servers)


def parse_menu(raw: bytes) -> tuple[MenuEntry, ...] | None:
    """Tag 9's value; None when malformed."""
    entries = []
    while raw:
        if len(raw) < 3 or len(raw) < 3 + raw[2]:
            return None
        end = 3 + raw[2]
        entries.append(MenuEntry(int.from_bytes(raw[:2], "big"), raw[3:end].decode("latin-1")))
        raw = raw[end:]
    return tuple(entries)


def parse_prompt(raw: bytes) -> tuple[int, str] | None:
    """Tag 10's value: seconds and text; None when empty."""
    return (raw[0], raw[1:].decode("latin-1")) if raw else None
