"""Values inside options, and option 43."""

import pytest

from pxed.wire import dhcp, iana, pxe
from pxed.wire.iana import Discovery, PxeTag
from support import boot_clients as firmware


def test_uuid_is_what_dmidecode_shows() -> None:
    """RFC 4578 section 2.3 with SMBIOS 2.6's byte order."""
    assert dhcp.uuid_text(firmware.GUID) == firmware.UUID
    assert dhcp.uuid_option(firmware.UUID) == firmware.GUID


@pytest.mark.parametrize(
    "raw", [b"", b"\0", bytes(17), firmware.GUID[:-1], firmware.GUID + b"\0", b"\1" + firmware.GUID[1:]]
)
def test_unusable_guids_have_no_text(raw: bytes) -> None:
    assert dhcp.uuid_text(raw) == ""


@pytest.mark.parametrize("text", ["", "1234", firmware.UUID + "00", "x" * 32])
def test_no_uuid(text: str) -> None:
    with pytest.raises(ValueError):
        dhcp.uuid_option(text)


@pytest.mark.parametrize(
    ("raw", "text"),
    [(firmware.MAC, "52:54:00:12:34:56"), (b"", ""), (bytes(6), ""), (bytes(16), ""), (b"\1" * 8, "")],
)
def test_mac_text(raw: bytes, text: str) -> None:
    assert dhcp.mac_text(raw) == text


def test_addresses() -> None:
    assert dhcp.address_bytes("10.78.0.255") == b"\x0a\x4e\0\xff"
    assert dhcp.address_text(b"\x0a\x4e\0\xff") == "10.78.0.255"
    assert dhcp.address_text(b"\x0a\x4e\0") == ""


@pytest.mark.parametrize(
    ("raw", "numbers"), [(b"", ()), (b"\0", ()), (b"\0\7", (7,)), (b"\0\7\0\0", (7, 0)), (b"\x01\x02\x03", (258,))]
)
def test_u16_list(raw: bytes, numbers: tuple[int, ...]) -> None:
    assert dhcp.u16_list(raw) == numbers


@pytest.mark.parametrize(
    ("raw", "classes"),
    [
        (b"", ()),
        (b"iPXE", (b"iPXE",)),  # bare, as iPXE sends it
        (b"\4iPXE", (b"iPXE",)),  # RFC 3004
        (b"\4iPXE\3foo", (b"iPXE", b"foo")),
        (b"\4iPXE\4foo", (b"\4iPXE\4foo",)),  # lengths that do not fit: text after all
        (b"\0", (b"\0",)),
        (b"\1", (b"\1",)),
    ],
)
def test_user_class_in_both_forms(raw: bytes, classes: tuple[bytes, ...]) -> None:
    assert dhcp.user_classes(raw) == classes


@pytest.mark.parametrize(
    ("raw", "tags"),
    [
        (b"", {}),
        (b"\xff", {}),
        (b"\6\1\x08\xff", {6: b"\x08"}),
        (b"\6\1\x08", {6: b"\x08"}),  # END left out
        (b"\0\0\6\1\x08\xff\0junk", {6: b"\x08"}),
        (b"\6\1\x08\6\1\x03\xff", {6: b"\x08"}),
        (b"\x50\0\xff", {80: b""}),
        (b"\6", None),
        (b"\6\2\x08", None),
        (b"ciscoaccesspoint", None),
    ],
)
def test_encapsulated_options(raw: bytes, tags: dict[int, bytes] | None) -> None:
    assert dhcp.parse_tlv(raw) == tags
    assert pxe.parse(raw) == tags


@pytest.mark.parametrize("tags", [{0: b""}, {255: b""}, {6: bytes(256)}])
def test_tags_that_cannot_be_written(tags: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        dhcp.encode_tlv(tags)


def test_option_43_stays_short_enough_for_roms() -> None:
    assert len(pxe.build({1: bytes(250)})) == 253
    with pytest.raises(ValueError, match="at most 253"):
        pxe.build({1: bytes(251)})


def test_discovery_control() -> None:
    tags = pxe.discovery(Discovery.NO_BROADCAST | Discovery.NO_MULTICAST)
    assert pxe.build(tags) == b"\6\1\3\xff"


def test_boot_servers() -> None:
    servers = (pxe.BootServer(0x8058, ("10.0.0.1", "10.0.0.2")), pxe.BootServer(1))
    raw = pxe.boot_servers(servers)[PxeTag.BOOT_SERVERS]
    assert raw == b"\x80\x58\x02\x0a\0\0\x01\x0a\0\0\x02\0\1\0"
    assert pxe.parse_boot_servers(raw) == servers
    assert pxe.parse_boot_servers(raw[:-1]) is None
    assert pxe.parse_boot_servers(raw[:9]) is None


def test_menu() -> None:
    entries = (pxe.MenuEntry(0, "Local"), pxe.MenuEntry(0x8058, ""))
    raw = pxe.menu(entries)[PxeTag.MENU]
    assert raw == b"\0\0\5Local\x80\x58\0"
    assert pxe.parse_menu(raw) == entries
    assert pxe.parse_menu(raw[:-1]) is None
    assert pxe.parse_menu(raw[:6]) is None


def test_prompt() -> None:
    raw = pxe.prompt(10, "F8")[PxeTag.PROMPT]
    assert raw == b"\x0aF8"
    assert pxe.parse_prompt(raw) == (10, "F8")
    assert pxe.parse_prompt(b"") is None


@pytest.mark.parametrize(
    ("raw", "item"),
    [
        (b"\x80\x58\0\1", pxe.BootItem(0x8058, 1)),
        (b"\0\0", pxe.BootItem(0, 0)),  # without a layer
        (b"", None),
        (b"\0\0\0", None),
        (b"\0\0\0\0\0", None),
    ],
)
def test_boot_item(raw: bytes, item: pxe.BootItem | None) -> None:
    assert pxe.parse_boot_item(raw) == item


def test_boot_item_is_written_with_its_layer() -> None:
    assert pxe.build(pxe.boot_item(pxe.BootItem(0x8058, 0x8001))) == b"\x47\x04\x80\x58\x80\x01\xff"
    assert pxe.BootItem(1, 0x8001).wants_credentials
    assert not pxe.BootItem(1, 0x7FFF).wants_credentials


def test_mtftp_tags_read_the_same_in_both_byte_orders() -> None:
    raw = pxe.build(pxe.mtftp(pxe.Mtftp("239.255.78.1", 2056, 1799, 2, 5)))
    assert raw == b"\1\4\xef\xff\x4e\1\2\2\x08\x08\3\2\x07\x07\4\1\2\5\1\5\xff"


@pytest.mark.parametrize("port", [1758, 1759, 69, 4011])
def test_mtftp_ports_that_would_be_misread(port: int) -> None:
    assert not pxe.symmetric_port(port)
    with pytest.raises(ValueError, match="both bytes must be equal"):
        pxe.mtftp(pxe.Mtftp("239.255.78.1", client_port=port))
    with pytest.raises(ValueError, match="both bytes must be equal"):
        pxe.mtftp(pxe.Mtftp("239.255.78.1", server_port=port))


def test_symmetric_ports() -> None:
    assert [port for port in range(2000) if pxe.symmetric_port(port)] == [257, 514, 771, 1028, 1285, 1542, 1799]
    assert not pxe.symmetric_port(0)
    assert not pxe.symmetric_port(0x10101)


@pytest.mark.parametrize(
    ("arch", "name"),
    [(0, "BIOS"), (7, "UEFI x64"), (9, "UEFI x64 (EBC)"), (27, "EFI RISCV64"), (999, "architecture 999")],
)
def test_every_architecture_has_a_name(arch: int, name: str) -> None:
    assert iana.arch_name(arch) == name
