"""A datagram on a DHCP port: the codec against a slow reference, PXE tags, and the offers that `pxed check` hears."""

from fuzz.source import exact
from pxed._ext import dhcp as compiled
from pxed.net.dhcp import ip_udp_packet, parse_ip_udp
from pxed.net.probe import Offer, discover, read_offer
from pxed.types import Drop
from pxed.wire import dhcp, pxe, summary
from pxed.wire.iana import PxeTag
from support import boot_clients as firmware
from support import dhcp_reference as reference

XID = 0x1A2B3C4D
WORDS = (b"\x63\x82\x53\x63", b"\x34\x01\x01", b"\x34\x01\x03", b"PXEClient", b"iPXE", b"\x47\x04")


def seeds() -> dict[str, bytes]:
    """Captured packets, requests as clients build them, and malformed ones."""
    found = {path.stem: firmware.captured(path.stem) for path in firmware.VECTORS.glob("*.hex")}
    found |= {f"malformed-{name}": data for name, (data, _) in firmware.MALFORMED.items()}
    found |= {f"foreign-{name}": data for name, data in firmware.FOREIGN.items()}
    options = [(53, b"\2"), (54, b"\x0a\0\0\1"), (60, b"PXEClient"), (66, b"boot"), (67, b"f\0"), (43, b"\6\1\x08\xff")]
    found["offer"] = reference.message(op=2, xid=XID, chaddr=b"\x02pxed?", yiaddr="10.0.0.9", options=options)
    long = [(43, b"\x08\x07\x80\x58\x01\x0a\0\0\1"), (43, b"\x09\x05\0\0\x02hi\x0a\x03\x05ok\xff"), (67, b"x" * 255)]
    found["split"] = reference.message(options=[(52, b"\3"), *long], file=b"\x43\2ab\xff", sname=b"\x0c\1z")
    return found


def one(data: bytes) -> None:
    """Any bytes decode as the reference says, and what decodes can be said, encoded, and decoded to itself."""
    packet = dhcp.decode(exact(data))
    found = packet.reason if isinstance(packet, Drop) else reference.fields(packet)
    assert found == reference.decode(data)
    assert parse_ip_udp(ip_udp_packet(data[:1400], ("10.0.0.1", 68), ("10.0.0.2", 67))) is not None
    headers = parse_ip_udp(data)
    assert headers is None or len(headers[2]) <= len(data) - 28
    if isinstance(packet, Drop):
        return
    encoded = compiled.encode(packet)
    assert compiled.decode(encoded) == packet
    assert summary(packet).isprintable()
    offer = read_offer(data, XID, "eth0", "10.0.0.1")
    assert offer is None or isinstance(offer, Offer)
    for value in packet.options.values():
        _value(value)


def _value(raw: bytes) -> None:
    """Whatever the bytes of an option are, each reading of them is a value or nothing."""
    tags = pxe.parse(raw)
    if tags is not None:
        assert pxe.parse(dhcp.encode_tlv(tags)) == tags
        pxe.parse_boot_item(tags.get(PxeTag.BOOT_ITEM, b""))
        servers = pxe.parse_boot_servers(tags.get(PxeTag.BOOT_SERVERS, b""))
        assert servers is None or pxe.boot_servers(servers)[PxeTag.BOOT_SERVERS] == tags.get(PxeTag.BOOT_SERVERS, b"")
        pxe.parse_menu(tags.get(PxeTag.MENU, b""))
        pxe.parse_prompt(tags.get(PxeTag.PROMPT, b""))
    classes = dhcp.user_classes(raw)
    assert classes == (raw,) or b"".join(bytes((len(name),)) + name for name in classes) == raw
    assert 2 * len(dhcp.u16_list(raw)) in (len(raw), len(raw) - 1)
    uuid = dhcp.uuid_text(raw)
    assert not uuid or dhcp.uuid_option(uuid) == raw
    dhcp.mac_text(raw)
    dhcp.address_text(raw)


assert discover(XID)  # the question that `read_offer` reads answers to
