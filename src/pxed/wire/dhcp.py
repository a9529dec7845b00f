"""DHCP messages and the values of their options: the public face of the compiled codec.

RFC 2131, RFC 2132, RFC 3004 (user class), RFC 3046 (relay agent), RFC 4578 (PXE). No policy, no I/O.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from pxed._ext.dhcp import Packet, encode
from pxed._ext.dhcp import decode as _decode
from pxed._ext.dhcp_kind import Request, Template, read
from pxed.types import Drop

__all__ = [
    "UNSPECIFIED",
    "Packet",
    "Request",
    "Template",
    "address_bytes",
    "address_text",
    "decode",
    "encode",
    "encode_tlv",
    "mac_text",
    "parse_tlv",
    "read",
    "u16_list",
    "user_classes",
    "uuid_option",
    "uuid_text",
]

UNSPECIFIED = "0.0.0.0"  # noqa: S104 (no listener: the protocol's word for "no address")


def decode(data: bytes | bytearray | memoryview) -> Packet | Drop:
    """The packet in `data`, or a Drop whose reason is one of the codec's words; nothing is raised."""
    packet = _decode(data)
    return Drop(packet) if isinstance(packet, str) else packet


@lru_cache(maxsize=64)  # nearly always one of our own few
def address_bytes(address: str) -> bytes:
    """'10.0.0.1' as four bytes; ValueError when it is no IPv4 address."""
    parts = address.split(".")
    if len(parts) != 4 or not all(p.isascii() and p.isdecimal() and len(p) <= 3 and int(p) <= 255 for p in parts):
        raise ValueError(f"not an IPv4 address: {address!r}")
    return bytes(map(int, parts))


def address_text(raw: bytes) -> str:
    """Four bytes as '10.0.0.1'; '' when there are not exactly four."""
    return ".".join(map(str, raw)) if len(raw) == 4 else ""


def mac_text(chaddr: bytes) -> str:
    """Six bytes as 'aa:bb:cc:dd:ee:ff'; '' when there are not exactly six, or all are zero."""
    return chaddr.hex(":") if len(chaddr) == 6 and any(chaddr) else ""


def uuid_text(option: bytes) -> str:
    """Option 97 as 8-4-4-4-12 lower case, '' when it has no usable GUID (RFC 4578 section 2.3: type 0, 16 bytes).

    The first three fields are little-endian, as SMBIOS 2.6 and EFI have them, so that the text equals
    what dmidecode and iPXE's ${uuid} show.
    """
    if len(option) != 17 or option[0] != 0 or not any(option[1:]):
        return ""
    raw = option[1:]
    fields = (raw[3::-1], raw[5:3:-1], raw[7:5:-1], raw[8:10], raw[10:16])
    return "-".join(field.hex() for field in fields)


def uuid_option(text: str) -> bytes:
    """The inverse of `uuid_text`; ValueError when `text` is no UUID."""
    raw = bytes.fromhex(text.replace("-", ""))
    if len(raw) != 16:
        raise ValueError(f"not a UUID: {text!r}")
    return b"\0" + raw[3::-1] + raw[5:3:-1] + raw[7:5:-1] + raw[8:]


def u16_list(raw: bytes) -> tuple[int, ...]:
    """Big-endian 16-bit numbers (option 93); an odd last byte is left out."""
    return tuple(raw[i] << 8 | raw[i + 1] for i in range(0, len(raw) - 1, 2))


def user_classes(raw: bytes) -> tuple[bytes, ...]:
    """Option 77, in both forms: RFC 3004's length-prefixed list, and the bare text that iPXE sends.

    The list form is taken when the lengths fit exactly; b'iPXE' cannot be one, as it would begin with length 105.
    """
    classes = []
    at = 0
    while at < len(raw):
        end = at + 1 + raw[at]
        if end == at + 1 or end > len(raw):
            return (raw,)
        classes.append(raw[at + 1 : end])
        at = end
    return tuple(classes)


def parse_tlv(raw: bytes) -> dict[int, bytes] | None:
    """Encapsulated options (43's PXE tags, 175): tag, length, value; PAD and END as in DHCP.

    None when they do not fit their lengths: then the bytes are another vendor's, and mean nothing to us.
    A tag that comes again replaces nothing: the first one counts.
    """
    found: dict[int, bytes] = {}
    at = 0
    while at < len(raw):
        tag = raw[at]
        at += 1
        if tag == 0:
            continue
        if tag == 255:
            return found
        if at == len(raw) or at + 1 + raw[at] > len(raw):
            return None
        size = raw[at]
        found.setdefault(tag, raw[at + 1 : at + 1 + size])
        at += 1 + size
    return found


def encode_tlv(tags: Mapping[int, bytes] | Iterable[tuple[int, bytes]]) -> bytes:
    """The inverse of `parse_tlv`, with END; ValueError for a tag outside 1-254 or a value over 255 bytes."""
    out = bytearray()
    for tag, value in tags.items() if isinstance(tags, Mapping) else tags:
        if not 1 <= tag <= 254 or len(value) > 255:
            raise ValueError(f"tag {tag} with {len(value)} bytes cannot be written")
        out += bytes((tag, len(value))) + value
    return bytes(out) + b"\xff"
