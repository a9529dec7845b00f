"""What a machine says about itself, brought to one form, and the values that say nothing removed.

Rules and their reasons:

- **MAC**: `aa:bb:cc:dd:ee:ff`. Groups, all zeros and addresses that are not 6 bytes name no machine. (UEFI may put
  the UUID in DHCP's chaddr with hlen 16, and InfiniBand has 20 bytes: neither is a MAC.)
- **UUID byte order.** SMBIOS 2.6 and later store the first three fields little-endian, and DHCP option 97 (RFC 4578
  2.4) carries those 16 bytes as they lie in the table: `uuid.UUID(bytes_le=…)` gives the text that dmidecode, the
  operating system and iPXE's `${uuid}` print. iPXE's own option 97 is turned back to little-endian before it is
  sent, so it agrees with the firmware's. SMBIOS before 2.6 named no byte order, so some old boards (and some tools)
  send the other one. Therefore machines are never compared by the text: `uuid_key` is the same for both orders. Two
  different random UUIDs collide under it with the same negligible chance as before.
- **Bogus values**: boards whose vendor never filled in SMBIOS share a placeholder. It would make a room of machines
  one machine (and image the wrong one), so such values are dropped before anything looks at them.

No I/O, clock or randomness.
"""

import re
import uuid as _uuid
from functools import lru_cache

from pxed.types import Identity

__all__ = ["clean", "is_bogus_serial", "is_bogus_uuid", "mac_text", "normalise", "plain_text", "uuid_key", "uuid_text"]

# Serial numbers, makers' and products' names longer than this are cut: SMBIOS strings may be 255 bytes, real ones
# have up to 64 characters, and these values come from anybody on the wire into listings and the database.
MAX_FACT = 64

# UUIDs shared by many boards, in either byte order (they are compared by `uuid_key`). The first is what American
# Megatrends' firmware says when a board maker left it alone; the Dell one is a board without its service tag.
_BOGUS_UUIDS = (
    "03000200-0400-0500-0006-000700080009",
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "12345678-1234-5678-1234-567812345678",
    "12345678-1234-1234-1234-123456789abc",
    "12345678-1234-1234-1234-123456789012",
    "01234567-89ab-cdef-0123-456789abcdef",
    "01234567-8910-1112-1314-151617181920",
    "00010203-0405-0607-0809-0a0b0c0d0e0f",
    "01020304-0506-0708-090a-0b0c0d0e0f10",
    "ffffff00-ffff-ffff-ffff-ffffffffffff",
    "00000000-0000-0000-0000-000000000001",
    "4c4c4544-0000-2010-8020-80c04f202020",
)

# Placeholders for a serial number, manufacturer or product, compared in lower case without punctuation at the ends.
_BOGUS_TEXTS = frozenset(
    {
        "to be filled by o.e.m",
        "to be filled by oem",
        "tobefilledbyo.e.m",
        "filled by o.e.m",
        "o.e.m",
        "oem",
        "default",
        "default string",
        "default_string",
        "system serial number",
        "system manufacturer",
        "system product name",
        "system name",
        "system version",
        "serial number",
        "serial",
        "chassis serial number",
        "base board serial number",
        "baseboard serial number",
        "type2 - board serial number",
        "mb-1234567890",
        "sys-1234567890",
        "sernum0",
        "not specified",
        "not applicable",
        "not available",
        "not present",
        "not settable",
        "not provided",
        "no serial number",
        "none",
        "null",
        "nil",
        "n/a",
        "na",
        "unknown",
        "undefined",
        "unspecified",
        "invalid",
        "empty",
        "standard",
        "sku",
        "asset",
        "bad index",
        "{}",
        "123456789abcdef",
        "0123456789abcdef",
    }
)

_HEX = re.compile(r"[0-9a-f]+\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")


def plain_text(value: str, limit: int) -> str:
    """`value` on one line: what is not printable (controls, direction marks, surrogates) becomes blanks.

    At most `limit` characters are left.
    """
    value = value[: limit * 4]
    if not value.isprintable():
        value = "".join(one if one.isprintable() else " " for one in value)
    return value.strip()[:limit].rstrip()


def mac_text(value: str | bytes) -> str:
    """A MAC as 'aa:bb:cc:dd:ee:ff' from any usual writing (or 6 bytes); '' when it is none or names no machine.

    The BOOTIF form of PXELINUX (`01-` and the address) is understood too.
    """
    if isinstance(value, str):
        digits = value.strip().lower().replace(":", "").replace("-", "").replace(".", "")
        if len(digits) == 14 and digits.startswith("01"):
            digits = digits[2:]
        if len(digits) != 12 or not _HEX.match(digits):
            return ""
        value = bytes.fromhex(digits)
    if len(value) != 6 or value[0] & 1 or not any(value):
        return ""
    return value.hex(":")


@lru_cache(maxsize=32768)
def uuid_key(text: str) -> str:
    """One key for a UUID and for the same bytes read in the other byte order. `text` is as from `uuid_text`."""
    parsed = _uuid.UUID(text)
    return min(text, str(_uuid.UUID(bytes_le=parsed.bytes)))


_BOGUS_KEYS = frozenset(uuid_key(text) for text in _BOGUS_UUIDS)


def is_bogus_uuid(text: str) -> bool:
    """True for a UUID that many machines share: one byte repeated (all 00, all FF …) or a known placeholder."""
    return len(set(_uuid.UUID(text).bytes)) == 1 or uuid_key(text) in _BOGUS_KEYS


def uuid_text(value: str | bytes) -> str:
    """A good UUID as 8-4-4-4-12 lower case; '' when it is none or bogus.

    `value` is text in the usual order, or bytes as SMBIOS and DHCP option 97 carry them (mixed-endian): 16 of
    them, or 17 with option 97's type byte, which must be 0.
    """
    if isinstance(value, bytes):
        if len(value) == 17 and value[0] == 0:
            value = value[1:]
        if len(value) != 16:
            return ""
        text = str(_uuid.UUID(bytes_le=value))
    else:
        text = value.strip().strip("{}").lower()
        if len(text) == 32 and _HEX.match(text):
            text = str(_uuid.UUID(text))
        if not _UUID.match(text):
            return ""
    return "" if is_bogus_uuid(text) else text


def is_bogus_serial(value: str) -> bool:
    """True for a serial number (or maker's or product's name) that is a placeholder and not this machine's own."""
    text = value.strip().lower().strip(" .!*_-#")
    if text in _BOGUS_TEXTS or len(set(text)) <= 1:  # '', '0', '00000000', 'xxxxxxx', '........'
        return True
    if text.isdigit():  # '123456789', '0123456789', '1234567890', '9876543210' and their beginnings
        return len(text) >= 4 and any(text in run for run in ("01234567890123456789", "98765432109876543210"))
    return False


def _fact(value: str) -> str:
    text = plain_text(value, MAX_FACT)
    return "" if is_bogus_serial(text) else text


def normalise(
    mac: str | bytes = "",
    uuid: str | bytes = "",
    serial: str = "",
    manufacturer: str = "",
    product: str = "",
) -> Identity:
    """What a machine says of itself as an Identity; a field is empty when it is missing, malformed or bogus."""
    return Identity(
        mac=mac_text(mac),
        uuid=uuid_text(uuid),
        serial=_fact(serial),
        manufacturer=_fact(manufacturer),
        product=_fact(product),
    )


@lru_cache(maxsize=16384)
def clean(identity: Identity) -> Identity:
    """`identity` normalised again: callers below `work` make Identities without knowing what is bogus."""
    return normalise(identity.mac, identity.uuid, identity.serial, identity.manufacturer, identity.product)
