"""One line per packet, for logs and timelines."""

from .dhcp import UNSPECIFIED, Packet, address_text, mac_text, u16_list, user_classes, uuid_text
from .iana import MessageType, Op, OptionCode, arch_name

_KINDS = {bytes((kind,)): kind.name for kind in MessageType}


def _printable(raw: bytes) -> str:
    """Bytes from the wire as text that cannot break a log line."""
    return raw.decode("ascii", "replace").encode("unicode_escape").decode("ascii")


def _kind(packet: Packet) -> str:
    found = _KINDS.get(packet.options.get(OptionCode.MESSAGE_TYPE, b""))
    return found or ("BOOTP request" if packet.op == Op.REQUEST else "BOOTP reply")


def summary(packet: Packet) -> str:
    """For example 'DISCOVER 52:54:00:12:34:56 xid 0x1a2b3c4d class PXEClient UEFI x64 iPXE via 10.1.0.1'."""
    options = packet.options
    words = [
        _kind(packet),
        mac_text(packet.chaddr) or uuid_text(options.get(OptionCode.CLIENT_UUID, b"")) or packet.chaddr.hex() or "-",
        f"xid {packet.xid:#010x}",
    ]
    if vendor := options.get(OptionCode.CLASS_ID):
        words.append(f"class {_printable(vendor.split(b':')[0])}")
    words += [arch_name(arch) for arch in u16_list(options.get(OptionCode.CLIENT_ARCH, b""))]
    words += [_printable(name) for name in user_classes(options.get(OptionCode.USER_CLASS, b""))]
    named = (("your", packet.yiaddr), ("next", packet.siaddr), ("via", packet.giaddr))
    words += [f"{name} {address}" for name, address in named if address != UNSPECIFIED]
    if server := address_text(options.get(OptionCode.SERVER_ID, b"")):
        words.append(f"server {server}")
    if file := options.get(OptionCode.BOOT_FILE, b"").rstrip(b"\0") or packet.file:
        words.append(f"file {_printable(file)}")
    return " ".join(words)
