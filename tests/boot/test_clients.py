"""What each kind of client needs to see in an offer, one test per rule, with the whole packet."""

import pytest
from msgspec.structs import replace

from pxed.boot import Quirk, Received, Site, Vendor43
from pxed.wire import dhcp, pxe
from support import boot_clients as firmware
from support import dhcp_reference as reference
from support.boot_clients import ACK, OFFER, REQUEST
from support.decisions import (
    BROADCAST,
    CLIENT,
    DIRECT,
    EVERYBODY,
    HOLD,
    IGNORE,
    NO_WORK,
    SITE,
    US,
    answer,
    direct,
    dropped,
    mtftp_site,
    reply,
    wanted,
)

LOCAL = replace(SITE, no_work="local")
SCRIPT = b"http://10.78.0.1/pxed/boot.ipxe"


# -- real packets -----------------------------------------------------------------------------------------------------


def test_captured_discover_of_ovmf() -> None:
    sent = reply(firmware.captured("ovmf-discover"))
    assert sent.payload == wanted(OFFER, b"snponly.efi", xid=0x2A874A32, flags=0x8000)
    assert sent.event[1] == "UEFI x64 PXE: offered snponly.efi by TFTP from 10.78.0.1"


def test_captured_discover_of_an_ipxe_rom() -> None:
    sent = reply(firmware.captured("ipxe-rom-discover"))
    assert sent.payload == wanted(OFFER, SCRIPT, vendor=DIRECT, xid=0x1C4BF753)
    assert sent.event[1] == "iPXE on BIOS: offered the boot script by HTTP"


def test_captured_4011_request_of_ovmf() -> None:
    """It came from port 4011, and OVMF then asked TFTP for the file of this answer."""
    sent = reply(firmware.captured("ovmf-4011-request"), direct(4011, 4011, "10.78.0.111"))
    assert sent.payload == wanted(ACK, b"snponly.efi", xid=0x8FC68EF5, flags=0x0000, ciaddr="10.78.0.111")
    assert (sent.destination, sent.source_port) == (("10.78.0.111", 4011), 4011)


def test_captured_http_discover_of_ovmf() -> None:
    """OVMF took this offer and asked HTTP for its URI."""
    sent = reply(firmware.captured("ovmf-http-discover"))
    assert sent.payload == wanted(
        OFFER, b"http://10.78.0.1/snponly.efi", client_class=b"HTTPClient", xid=0xBC413047, flags=0x8000
    )


def test_captured_boot_item_request_of_an_ipxe_rom() -> None:
    """Its option 60 names no architecture, its xid is 0; it came from port 68."""
    sent = reply(firmware.captured("ipxe-boot-item-request"), direct(4011, 68, "10.78.0.111"))
    vendor = firmware.boot_item(0x8058)[1]
    assert sent.payload == wanted(ACK, SCRIPT, vendor=vendor, xid=0, flags=0x8000, ciaddr="10.78.0.111")
    assert (sent.destination, sent.source_port) == (("10.78.0.111", 68), 4011)


def test_captured_lease_request_of_an_ipxe_rom() -> None:
    assert dropped(firmware.captured("ipxe-rom-lease-request")) == "lease-request"


# -- iPXE --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [0, 6, 7, 11])
def test_ipxe_gets_the_script_by_http_and_not_itself_again(arch: int) -> None:
    """siaddr and file are filled, so iPXE uses the offer as it is and sends nothing to 4011."""
    sent = reply(firmware.ipxe(arch=arch))
    assert sent.payload == wanted(OFFER, SCRIPT, vendor=DIRECT)
    assert sent.destination == EVERYBODY
    assert sent.event[1].endswith("offered the boot script by HTTP")


def test_ipxe_without_http_gets_the_script_by_tftp() -> None:
    sent = reply(firmware.ipxe(features=firmware.IPXE_WITHOUT_HTTP))
    assert sent.payload == wanted(OFFER, b"pxed/boot.ipxe", vendor=DIRECT)
    assert sent.event == ("offer", "iPXE on BIOS: offered the boot script by TFTP")


def test_ipxe_that_hides_its_features_gets_the_script_by_tftp() -> None:
    assert reply(firmware.ipxe(features=None)).payload == wanted(OFFER, b"pxed/boot.ipxe", vendor=DIRECT)


def test_ipxe_with_a_length_prefixed_user_class() -> None:
    data = firmware.pxe(1, 0, (77, b"\4iPXE"))
    assert reply(data).payload == wanted(OFFER, b"pxed/boot.ipxe", vendor=DIRECT)


def test_ipxe_on_4011_is_answered_from_4011() -> None:
    """It believes an ACK only from there."""
    sent = reply(firmware.ipxe(REQUEST, ciaddr=CLIENT), direct(4011, 68))
    assert sent.payload == wanted(ACK, SCRIPT, vendor=DIRECT, ciaddr=CLIENT)
    assert (sent.destination, sent.source_port) == ((CLIENT, 68), 4011)


def test_ipxe_boot_item_is_repeated() -> None:
    options = [(53, b"\3"), (60, b"PXEClient:Arch:00000:UNDI:002001"), (77, b"iPXE"), (97, firmware.GUID)]
    data = reference.message(chaddr=firmware.MAC, ciaddr=CLIENT, options=[*options, firmware.boot_item(0x8058)])
    sent = reply(data, direct(4011, 68))
    vendor = firmware.boot_item(0x8058)[1]
    assert sent.payload == wanted(ACK, b"pxed/boot.ipxe", vendor=vendor, ciaddr=CLIENT)


def test_ipxe_needs_no_boot_program_of_its_architecture() -> None:
    assert reply(firmware.ipxe(arch=27)).payload == wanted(OFFER, SCRIPT, vendor=DIRECT)


def test_script_url_has_the_port_when_it_is_not_80() -> None:
    sent = reply(firmware.ipxe(), site=replace(SITE, http_port=8080))
    assert sent.payload == wanted(OFFER, b"http://10.78.0.1:8080/pxed/boot.ipxe", vendor=DIRECT)


# -- EDK2 --------------------------------------------------------------------------------------------------------------


def test_edk2_by_default_binl_then_4011() -> None:
    """No tag of option 43 in either packet; boot file and siaddr in both, as shim reads them from either."""
    assert reply(firmware.pxe(arch=7)).payload == wanted(OFFER, b"snponly.efi")
    sent = reply(firmware.pxe(REQUEST, 7, ciaddr=CLIENT), direct())
    assert sent.payload == wanted(ACK, b"snponly.efi", ciaddr=CLIENT)


def test_edk2_direct_by_a_quirk_and_4011_is_still_answered() -> None:
    row = Quirk("our laptops", Vendor43.DIRECT, "they time out on 4011", archs=(7,), ouis=("52:54:00",))
    site = replace(SITE, quirks=(row,))
    assert reply(firmware.pxe(arch=7), site=site).payload == wanted(OFFER, b"snponly.efi", vendor=DIRECT)
    sent = reply(firmware.pxe(REQUEST, 7, ciaddr=CLIENT), direct(), site=site)
    assert sent.payload == wanted(ACK, b"snponly.efi", vendor=DIRECT, ciaddr=CLIENT)


def test_edk2_with_its_uuid_in_chaddr_gets_it_back() -> None:
    data = firmware.pxe(1, 7, chaddr=firmware.GUID[1:], htype=255)
    assert reply(data).payload == wanted(OFFER, b"snponly.efi", chaddr=firmware.GUID[1:], htype=255)


def test_edk2_writes_a_nul_behind_option_67_so_a_pad_stands_there() -> None:
    payload = reply(firmware.pxe(arch=7)).payload
    end = payload.index(b"\x43\x0bsnponly.efi") + 13
    changed = payload[:end] + b"\0" + payload[end + 1 :]
    assert changed == payload


def test_http_client_gets_no_option_43_and_its_uri_is_quoted() -> None:
    site = replace(SITE, boot_programs={16: "efi dir/boot+1.efi"})
    assert reply(firmware.http(), site=site).payload == wanted(
        OFFER, b"http://10.78.0.1/efi%20dir/boot%2B1.efi", client_class=b"HTTPClient"
    )


LOCAL_MENU = (
    b"\6\1\3"  # no broadcast, no multicast discovery
    b"\x09\x17\0\0\x14Boot from local disk"  # one item of type 0
    b"\x0a\x15\0Boot from local disk"  # timeout 0: taken at once
    b"\xff"
)


@pytest.mark.parametrize(("arch", "name"), [(6, "IA32"), (7, "x64"), (9, "x64 (EBC)"), (11, "ARM64")])
def test_edk2_without_work_is_told_to_boot_its_disk_by_a_menu(arch: int, name: str) -> None:
    """EDK2: an offer with tags 6, 9 and 10; timeout 0 takes the first entry, type 0 ends PXE. No file: none loaded."""
    sent = reply(firmware.pxe(arch=arch), check=NO_WORK, site=LOCAL)
    assert sent.payload == wanted(OFFER, vendor=LOCAL_MENU, siaddr="0.0.0.0")
    assert (sent.destination, sent.source_port) == (EVERYBODY, 67)
    assert sent.event == ("no-work", f"UEFI {name} PXE: told to boot its local disk (no job for this machine)")


@pytest.mark.parametrize(("port", "uri"), [(80, b"local://10.78.0.1/"), (8080, b"local://10.78.0.1:8080/")])
def test_edk2_http_boot_without_work_gets_a_uri_that_it_refuses(port: int, uri: bytes) -> None:
    """EDK2 checks the scheme before it opens a connection; the host must be an address, or it asks DNS first."""
    sent = reply(firmware.http(), check=NO_WORK, site=replace(LOCAL, http_port=port))
    assert sent.payload == wanted(OFFER, uri, client_class=b"HTTPClient", siaddr="0.0.0.0")
    assert sent.event == ("no-work", "UEFI x64 HTTP: told to boot its local disk (no job for this machine)")


@pytest.mark.parametrize("arch", [1, 12, 14, 21, 22, 41, 99])
def test_no_work_is_silence_for_pxe_clients_whose_menu_is_unknown(arch: int) -> None:
    assert dropped(firmware.pxe(arch=arch), check=NO_WORK, site=LOCAL) == "no-work"


@pytest.mark.parametrize("arch", [7, 20, 23, 24, 99])
def test_no_work_is_silence_for_http_clients_that_are_no_edk2(arch: int) -> None:
    assert dropped(firmware.http(arch=arch), check=NO_WORK, site=LOCAL) == "no-work"


@pytest.mark.parametrize("data", [firmware.pxe(arch=7), firmware.http()], ids=["PXE", "HTTP"])
def test_no_work_is_silence_where_a_quirk_says_that_it_must_be(data: bytes) -> None:
    row = Quirk("our laptops", Vendor43.NONE, "their menu waits for a key", ouis=("52:54:00",), local_boot=False)
    assert dropped(data, check=NO_WORK, site=replace(LOCAL, quirks=(row,))) == "no-work"


# -- BIOS ROMs ---------------------------------------------------------------------------------------------------------


def test_bios_rom_is_told_to_load_the_file_at_once() -> None:
    """Discovery control bit 3 with file and siaddr: no boot server discovery, no 4011."""
    assert reply(firmware.pxe(arch=0)).payload == wanted(OFFER, b"undionly.kpxe", vendor=DIRECT)


def test_bios_rom_that_asks_on_4011_anyway() -> None:
    sent = reply(firmware.pxe(REQUEST, 0, ciaddr=CLIENT), direct(4011, 68))
    assert sent.payload == wanted(ACK, b"undionly.kpxe", vendor=DIRECT, ciaddr=CLIENT)


def test_old_rom_without_guid_and_architecture() -> None:
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), (60, b"PXEClient")])
    assert reply(data).payload == wanted(OFFER, b"undionly.kpxe", vendor=DIRECT, guid=None)


def test_guid_of_foreign_length_is_echoed_byte_for_byte() -> None:
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), (60, b"PXEClient"), (97, b"\0abc")])
    assert reply(data).payload == wanted(OFFER, b"undionly.kpxe", vendor=DIRECT, guid=b"\0abc")


def test_no_work_local_is_a_menu_that_boots_the_disk_at_once() -> None:
    sent = reply(firmware.pxe(arch=0), check=NO_WORK, site=LOCAL)
    assert sent.payload == wanted(OFFER, vendor=LOCAL_MENU, siaddr="0.0.0.0")
    assert sent.destination == EVERYBODY
    assert sent.event == ("no-work", "BIOS PXE: told to boot its local disk (no job for this machine)")


def test_no_work_local_lets_ipxe_ask_the_check() -> None:
    assert reply(firmware.ipxe(), check=NO_WORK, site=LOCAL).payload == wanted(OFFER, SCRIPT, vendor=DIRECT)


@pytest.mark.parametrize("arch", [0, 7])
def test_no_work_local_on_4011_is_silence(arch: int) -> None:
    data = firmware.pxe(REQUEST, arch, ciaddr=CLIENT)
    assert dropped(data, direct(), check=NO_WORK, site=LOCAL) == "no-work"


def test_ignored_is_silence_for_all_whatever_the_policy() -> None:
    for data in (firmware.pxe(arch=0), firmware.pxe(arch=7), firmware.ipxe(), firmware.http()):
        assert dropped(data, check=IGNORE, site=LOCAL) == "ignored"


def test_held_machines_get_the_script_too() -> None:
    assert reply(firmware.ipxe(), check=HOLD).payload == wanted(OFFER, SCRIPT, vendor=DIRECT)


# -- Raspberry Pi ------------------------------------------------------------------------------------------------------

PI_MENU = b"\6\1\x08\x09\x14\0\0\x11Raspberry Pi Boot\x0a\x04\0PXE\xff"


def test_raspberry_pi_rom_sees_its_words_in_the_menu() -> None:
    """It reports architecture 0 and would be given undionly.kpxe else; it asks TFTP for its files by itself."""
    sent = reply(firmware.pxe(arch=0, chaddr=firmware.PI_MAC))
    assert sent.payload == wanted(OFFER, vendor=PI_MENU, chaddr=firmware.PI_MAC)
    assert sent.event == ("offer", "Raspberry Pi: offered TFTP from 10.78.0.1")


def test_raspberry_pi_boot_program_of_the_config() -> None:
    site = replace(SITE, boot_programs={**SITE.boot_programs, 41: "bootcode.bin"})
    sent = reply(firmware.pxe(arch=0, chaddr=firmware.PI_MAC), site=site)
    assert sent.payload == wanted(OFFER, b"bootcode.bin", vendor=PI_MENU, chaddr=firmware.PI_MAC)


def test_raspberry_pi_with_uefi_firmware_is_like_any_uefi() -> None:
    sent = reply(firmware.pxe(arch=11, chaddr=firmware.PI_MAC))
    assert sent.payload == wanted(OFFER, b"snponly-arm64.efi", chaddr=firmware.PI_MAC)


def test_raspberry_pi_without_work_is_left_alone() -> None:
    assert dropped(firmware.pxe(arch=0, chaddr=firmware.PI_MAC), check=NO_WORK, site=LOCAL) == "no-work"


# -- MTFTP -------------------------------------------------------------------------------------------------------------

MTFTP = mtftp_site("52:54:00:12:34:56")


def test_mtftp_tags_go_to_marked_machines_with_tag_6() -> None:
    tags = b"\1\4\xef\xff\x4e\xfb\2\2\x08\x08\3\2\x07\x07\4\1\2\5\1\2\6\1\x08\xff"
    assert reply(firmware.pxe(arch=0), site=MTFTP).payload == wanted(OFFER, b"undionly.kpxe", vendor=tags)


def test_mtftp_tags_go_to_nobody_else() -> None:
    """EDK2 throws an offer with tags 1-5 away, ROMs may wait for minutes."""
    other = bytes.fromhex("525400123457")
    for arch in SITE.boot_programs:
        data = firmware.pxe(arch=arch, chaddr=other)
        packet = dhcp.decode(reply(data, site=MTFTP).payload)
        assert isinstance(packet, dhcp.Packet)
        assert not {1, 2, 3, 4, 5} & set(pxe.parse(packet.options.get(43, b"")) or {})


def test_mtftp_tags_mean_nothing_to_ipxe_and_http_clients() -> None:
    assert reply(firmware.ipxe(), site=MTFTP) == reply(firmware.ipxe(), site=SITE)
    assert reply(firmware.http(), site=MTFTP) == reply(firmware.http(), site=SITE)


def test_mtftp_tags_go_to_marked_architectures_but_for_single_machines() -> None:
    site = mtftp_site(archs=(0,), unmarked=("52:54:00:12:34:57",))
    other = bytes.fromhex("525400123457")
    for data, told in (
        (firmware.pxe(arch=0), True),
        (firmware.pxe(arch=7), False),
        (firmware.pxe(arch=0, chaddr=other), False),
    ):
        packet = dhcp.decode(reply(data, site=site).payload)
        assert isinstance(packet, dhcp.Packet)
        tags = pxe.parse(packet.options.get(43, b"")) or {}
        assert ({1, 2, 3, 4, 5, 6} <= set(tags)) is told


def test_mtftp_tags_are_left_out_for_files_that_mtftp_cannot_carry() -> None:
    ordinary = reply(firmware.pxe(arch=0), site=SITE).payload
    assert reply(firmware.pxe(arch=0), site=MTFTP, large=frozenset({"undionly.kpxe"})).payload == ordinary
    without_group = replace(MTFTP, mtftp=replace(MTFTP.mtftp, groups={}))
    assert reply(firmware.pxe(arch=0), site=without_group).payload == ordinary


# -- all: header, sizes, overload --------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", sorted(SITE.boot_programs))
@pytest.mark.parametrize("client", [firmware.pxe, firmware.ipxe, firmware.http])
def test_offers_never_overload_and_never_give_an_address(client: object, arch: int) -> None:
    payload = reply(client(arch=arch)).payload  # type: ignore[operator]
    found = reference.decode(payload)
    assert isinstance(found, dict)
    assert found["yiaddr"] == "0.0.0.0"
    assert found["siaddr"] == US
    assert found["file"] == found["options"][67]
    assert 300 <= len(payload) <= 548
    assert 52 not in found["options"]


def test_a_client_of_small_packets_gets_what_it_must_have() -> None:
    """With a large option 82 from the relay the dispensable options go: 67, then 97. `file` says the same."""
    relay_info = b"\1\xc8" + bytes(200)
    name = "b" * 100
    site = replace(SITE, boot_programs={7: name})
    relay = Received(67, ("10.99.0.1", 67), US)
    options = [(53, b"\1"), (60, b"PXEClient:Arch:00007"), (97, firmware.GUID), (82, relay_info)]
    data = reference.message(chaddr=firmware.MAC, giaddr="10.99.0.1", options=options)
    payload = reply(data, relay, site=site).payload
    assert len(payload) <= 548
    options = [(53, b"\2"), (54, b"\x0a\x4e\0\1"), (60, b"PXEClient"), (97, firmware.GUID), (82, relay_info)]
    assert payload == reference.message(
        op=2, chaddr=firmware.MAC, giaddr="10.99.0.1", siaddr=US, file=name.encode(), options=options
    )


def test_a_reply_that_cannot_fit_is_not_sent() -> None:
    options = [(53, b"\1"), (60, b"PXEClient:Arch:00007"), (82, bytes(255)), (82, bytes(255))]
    data = reference.message(chaddr=firmware.MAC, giaddr="10.99.0.1", options=options)
    decision = answer(data, Received(67, ("10.99.0.1", 67), US))
    assert decision.reason == "too-long"  # type: ignore[union-attr]


def test_option_82_of_a_client_that_no_relay_brought_is_not_echoed() -> None:
    assert reply(firmware.pxe(1, 7, (82, b"\1\1a")), BROADCAST).payload == wanted(OFFER, b"snponly.efi")


def test_names_that_header_and_shim_cannot_hold() -> None:
    for arch, size in ((7, 127), (16, 127 - len("http://10.78.0.1/"))):
        client = firmware.http if arch == 16 else firmware.pxe
        fits = Site(boot_programs={arch: "n" * size})
        assert reply(client(arch=arch), site=fits).payload  # type: ignore[operator]
        longer = Site(boot_programs={arch: "n" * (size + 1)})
        assert dropped(client(arch=arch), site=longer) == "no-boot-program"  # type: ignore[operator]


def test_first_of_several_architectures_that_has_a_boot_program() -> None:
    options = [(53, b"\1"), (60, b"PXEClient"), (93, b"\0\x1b\0\x07\0\0")]
    data = reference.message(chaddr=firmware.MAC, options=options)
    assert reply(data).payload == wanted(OFFER, b"snponly.efi", guid=None)


# -- relays and several interfaces -------------------------------------------------------------------------------------


def test_the_address_that_the_client_reaches_is_named_everywhere() -> None:
    """54, siaddr, URL and source address are those that the sockets layer found for this packet."""
    received = Received(67, ("10.5.0.1", 67), "10.5.0.254", "eth1", broadcast=False)
    sent = reply(firmware.ipxe(giaddr="10.5.0.1"), received)
    assert sent.payload == wanted(
        OFFER,
        b"http://10.5.0.254/pxed/boot.ipxe",
        vendor=DIRECT,
        siaddr="10.5.0.254",
        us=b"\x0a\5\0\xfe",
        giaddr="10.5.0.1",
    )
    assert sent.source_address == "10.5.0.254"


def test_option_82_is_the_last_one_in_a_relayed_reply() -> None:
    relay_info = b"\1\4eth1"
    data = firmware.pxe(1, 0, (82, relay_info), giaddr="10.5.0.1")
    payload = reply(data, Received(67, ("10.5.0.1", 67), US)).payload
    assert payload.rstrip(b"\0").endswith(b"\x52\x06" + relay_info + b"\xff")
