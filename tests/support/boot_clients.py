"""Requests as real clients send them, byte for byte where it matters, and some of devices that are no boot clients."""

from pathlib import Path

from . import dhcp_reference as reference

VECTORS = Path(__file__).parent.parent / "vectors" / "dhcp"

MAC = bytes.fromhex("525400123456")
# 12345678-9abc-def0-1234-56789abcdef0 as SMBIOS has it: the first three fields little-endian.
GUID = b"\0" + bytes.fromhex("78563412bc9af0de123456789abcdef0")
UUID = "12345678-9abc-def0-1234-56789abcdef0"
PI_MAC = bytes.fromhex("dca632010203")

DISCOVER, OFFER, REQUEST, ACK, INFORM = 1, 2, 3, 5, 8

# iPXE 1.0.0+git-20190125: option 175 as its BIOS ROM sends it (bus id, version, one byte per feature).
IPXE_FEATURES = bytes.fromhex("b105018086100eeb03010000170101130101110101150101120101220101190101210101180101270101")
IPXE_WITHOUT_HTTP = bytes.fromhex("eb03010000150101180101")


def captured(name: str) -> bytes:
    """A packet of real firmware, from tests/vectors/dhcp/NAME.hex."""
    lines = (VECTORS / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))


def client_class(arch: int, name: str = "PXEClient") -> bytes:
    """Option 60 of a PXE or HTTP client."""
    return f"{name}:Arch:{arch:05}:UNDI:003001".encode()


def boot_options(arch: int, name: str = "PXEClient", guid: bytes | None = GUID) -> list[tuple[int, bytes]]:
    """The PXE options of a request (RFC 4578), in the order of EDK2."""
    options = [(55, bytes((1, 3, 6, 12, 43, 54, 60, 66, 67, 97))), (57, (1472).to_bytes(2, "big"))]
    if guid is not None:
        options.append((97, guid))
    return [*options, (94, b"\1\3\1"), (93, arch.to_bytes(2, "big")), (60, client_class(arch, name))]


def pxe(kind: int = DISCOVER, arch: int = 0, *extra: tuple[int, bytes], **header: object) -> bytes:
    """A PXE ROM's or UEFI firmware's request."""
    header.setdefault("chaddr", MAC)
    options = [(53, bytes((kind,))), *boot_options(arch), *extra]
    return reference.message(options=options, **header)  # type: ignore[arg-type]


def http(kind: int = DISCOVER, arch: int = 16, **header: object) -> bytes:
    """A UEFI HTTP boot client's request."""
    header.setdefault("chaddr", MAC)
    options = [(53, bytes((kind,))), *boot_options(arch, "HTTPClient")]
    return reference.message(options=options, **header)  # type: ignore[arg-type]


def ipxe(kind: int = DISCOVER, arch: int = 0, features: bytes | None = IPXE_FEATURES, **header: object) -> bytes:
    """iPXE's request: user class without a length byte, option 175."""
    header.setdefault("chaddr", MAC)
    options = [(53, bytes((kind,))), (57, b"\x05\xc0"), (93, arch.to_bytes(2, "big")), (94, b"\1\2\1")]
    options += [(60, client_class(arch)), (77, b"iPXE")]
    if features is not None:
        options.append((175, features))
    return reference.message(options=[*options, (97, GUID)], **header)  # type: ignore[arg-type]


def boot_item(type_: int, layer: int = 0) -> tuple[int, bytes]:
    """Option 43 with tag 71."""
    return (43, b"\x47\x04" + type_.to_bytes(2, "big") + layer.to_bytes(2, "big") + b"\xff")


# Devices on the same wire that are no boot clients, by name.
FOREIGN: dict[str, bytes] = {
    "Cisco VoIP phone": reference.message(
        chaddr=bytes.fromhex("001b54aabbcc"),
        options=[
            (53, b"\1"),
            (55, b"\x01\x42\x06\x03\x0f\x96\x23"),
            (60, b"Cisco Systems, Inc. IP Phone CP-7965G\0"),
            (12, b"SEP001B54AABBCC"),
        ],
    ),
    "Polycom phone with vendor classes in 124": reference.message(
        chaddr=bytes.fromhex("0004f2aabbcc"),
        options=[(53, b"\1"), (60, b"Polycom-VVX411"), (124, b"\0\0\x36\x6e\x05\x04\x02\x02\0\1")],
    ),
    "Cisco access point, option 43 with controllers": reference.message(
        chaddr=bytes.fromhex("00260bd7aabb"),
        options=[(53, b"\1"), (60, b"Cisco AP c1250"), (43, b"\xf1\x08\x0a\0\0\1\x0a\0\0\2")],
    ),
    "Aironet, option 43 that looks like MTFTP tags": reference.message(
        chaddr=bytes.fromhex("004096aabbcc"),
        options=[(53, b"\1"), (60, b"Cisco AP Aironet"), (43, b"\x01\x04\x0a\0\0\1\x02\x02\x07\x07")],
    ),
    "Windows": reference.message(
        chaddr=bytes.fromhex("525400aabbcc"),
        options=[(53, b"\3"), (61, b"\1RT\0\xaa\xbb\xcc"), (60, b"MSFT 5.0"), (55, b"\1\3\6\x0f\x1f!+,./w\xf9\xfc")],
    ),
    "Linux without a class": reference.message(
        chaddr=bytes.fromhex("525400aabbcd"), options=[(53, b"\1"), (12, b"box"), (55, b"\1\3\6\x0c\x0f\x1a")]
    ),
    "Android": reference.message(
        chaddr=bytes.fromhex("525400aabbce"),
        options=[(53, b"\1"), (57, b"\x05\xdc"), (60, b"android-dhcp-13"), (80, b"")],
    ),
    "printer with a class that only contains PXEClient": reference.message(
        chaddr=bytes.fromhex("525400aabbcf"), options=[(53, b"\1"), (60, b"Not a PXEClient")]
    ),
}

# Bytes that are no DHCP packet, with the codec's reason.
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated"),
    "one byte": (b"\1", "truncated"),
    "header without cookie": (reference.message(size=0)[:236], "truncated"),
    "BOOTP of RFC 951, no cookie": (reference.message()[:236].ljust(300, b"\0"), "bad-cookie"),
    "op 0": (b"\0" + reference.message()[1:], "bad-op"),
    "op 3": (b"\3" + reference.message()[1:], "bad-op"),
    "hlen 17": (reference.message()[:2] + b"\x11" + reference.message()[3:], "bad-hlen"),
    "hlen 255": (reference.message()[:2] + b"\xff" + reference.message()[3:], "bad-hlen"),
    "option code at the very end": (reference.message(size=0)[:240] + b"\x35", "bad-option"),
    "option longer than the packet": (reference.message(size=0)[:240] + b"\x3c\xff" + bytes(254), "bad-option"),
    "overload 0": (reference.message(options=[(52, b"\0")]), "bad-option"),
    "overload 4": (reference.message(options=[(52, b"\4")]), "bad-option"),
    "overload of two bytes": (reference.message(options=[(52, b"\1\1")]), "bad-option"),
    "empty overload": (reference.message(options=[(52, b"")]), "bad-option"),
    "overloaded file runs out": (reference.message(file=b"\x43\x7f", options=[(52, b"\1")]), "bad-option"),
    "overloaded sname runs out": (reference.message(sname=b"\0" * 63 + b"\x42", options=[(52, b"\2")]), "bad-option"),
    "TFTP read request": (b"\0\1undionly.kpxe\0octet\0" + bytes(240), "bad-op"),
}
