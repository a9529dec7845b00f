"""Would the clients take our replies? The rules by which EDK2, iPXE and shim read an offer, applied to all we send."""

from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace

from pxed.boot import Quirk, Site, Vendor43
from pxed.types import Check
from pxed.wire import dhcp, pxe
from support import boot_clients as firmware
from support.boot_clients import REQUEST
from support.decisions import CLIENT, HOLD, NO_WORK, SITE, US, WORK, direct, mtftp_site, reply

UEFI = (6, 7, 9, 10, 11)
HTTP = (15, 16, 18, 19)
QUIRK_B = replace(SITE, quirks=(Quirk("all", Vendor43.DIRECT, "direct for everybody"),))
MARKED = mtftp_site("52:54:00:12:34:56")
LOCAL = replace(SITE, no_work="local")
SITES = {"default": SITE, "direct": QUIRK_B, "MTFTP": MARKED}


def decoded(payload: bytes) -> dhcp.Packet:
    packet = dhcp.decode(payload)
    assert isinstance(packet, dhcp.Packet)
    return packet


def edk2_kind(packet: dhcp.Packet) -> str:
    """How EDK2 files an offer."""
    if packet.options.get(60) == b"HTTPClient":
        return "http"
    if packet.options.get(60) != b"PXEClient":
        return "dhcp"
    tags = set(pxe.parse(packet.options.get(43, b"")) or {})
    if tags & {6, 7, 8, 9, 10}:
        return "pxe10"
    return "wfm11a, thrown away" if {1, 2, 3, 4, 5} <= tags else "binl"


def loads_at_once(packet: dhcp.Packet) -> bool:
    """Discovery control bit 3 and a boot file: EDK2, iPXE and ROMs load it without another packet."""
    tags = pxe.parse(packet.options.get(43, b"")) or {}
    return bool(tags.get(6, b"\0")[0] & 8) and bool(packet.options.get(67) or packet.file)


@pytest.mark.parametrize("check", [WORK, HOLD])
@pytest.mark.parametrize("arch", UEFI)
def test_edk2_files_the_default_offer_as_binl(arch: int, check: Check) -> None:
    assert edk2_kind(decoded(reply(firmware.pxe(arch=arch), check=check).payload)) == "binl"


@pytest.mark.parametrize("site", [QUIRK_B, MARKED], ids=["direct", "MTFTP"])
@pytest.mark.parametrize("arch", UEFI)
def test_edk2_files_the_other_offers_as_pxe10_and_loads_at_once(arch: int, site: Site) -> None:
    packet = decoded(reply(firmware.pxe(arch=arch), site=site).payload)
    assert edk2_kind(packet) == "pxe10"
    assert loads_at_once(packet)


@pytest.mark.parametrize("arch", UEFI)
def test_edk2_takes_the_answer_on_4011(arch: int) -> None:
    """It must name a boot file, be an ACK, and come from the address asked."""
    sent = reply(firmware.pxe(REQUEST, arch, ciaddr=CLIENT), direct())
    packet = decoded(sent.payload)
    assert (packet.options[53], packet.options[67], sent.source_address) == (b"\5", packet.file, US)


@pytest.mark.parametrize("arch", UEFI)
def test_edk2_without_work_ends_pxe_at_once(arch: int) -> None:
    """A menu whose prompt does not wait and whose first entry is of type 0. Tag 6 bit 3 would make it load a file."""
    packet = decoded(reply(firmware.pxe(arch=arch), check=NO_WORK, site=LOCAL).payload)
    assert edk2_kind(packet) == "pxe10"
    tags = pxe.parse(packet.options[43]) or {}
    prompt, entries = pxe.parse_prompt(tags[10]), pxe.parse_menu(tags[9])
    assert prompt is not None and prompt[0] == 0
    assert entries is not None and entries[0].type == 0
    assert not loads_at_once(packet) and not tags[6][0] & 8 and not packet.file and 67 not in packet.options


@pytest.mark.parametrize("arch", HTTP)
def test_edk2_http_boot_without_work_takes_the_offer_and_refuses_its_uri(arch: int) -> None:
    packet = decoded(reply(firmware.http(arch=arch), check=NO_WORK, site=LOCAL).payload)
    assert edk2_kind(packet) == "http"
    uri = urlsplit(packet.options[67].decode())
    assert (uri.scheme, uri.hostname) == ("local", US)


@pytest.mark.parametrize("arch", HTTP)
def test_edk2_http_boot_takes_the_offer(arch: int) -> None:
    packet = decoded(reply(firmware.http(arch=arch)).payload)
    assert edk2_kind(packet) == "http"
    assert packet.options[67].startswith(b"http://10.78.0.1/")


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
@pytest.mark.parametrize("arch", [0, *UEFI])
def test_ipxe_uses_the_offer_as_it_is(arch: int, site: Site) -> None:
    """PXEClient makes it a proxy's offer; siaddr and file spare the request on 4011."""
    packet = decoded(reply(firmware.ipxe(arch=arch), site=site).payload)
    assert packet.options[60] == b"PXEClient"
    assert packet.siaddr == US
    assert packet.file
    assert loads_at_once(packet)


def test_roms_load_at_once() -> None:
    for site in SITES.values():
        assert loads_at_once(decoded(reply(firmware.pxe(arch=0), site=site).payload))


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_shim_finds_its_directory_in_either_packet(site: Site) -> None:
    """It reads `file` and siaddr of the header, raw: of the 4011 answer if there is one, else of the offer."""
    programs = replace(site, boot_programs={7: "debian/shimx64.efi"})
    offer = decoded(reply(firmware.pxe(arch=7), site=programs).payload)
    answer = decoded(reply(firmware.pxe(REQUEST, 7, ciaddr=CLIENT), direct(), site=programs).payload)
    for packet in (offer, answer):
        assert (packet.file, packet.siaddr) == (b"debian/shimx64.efi", US)


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_mtftp_tags_never_stand_alone(site: Site) -> None:
    for arch in (0, *UEFI):
        tags = pxe.parse(decoded(reply(firmware.pxe(arch=arch), site=site).payload).options.get(43, b"")) or {}
        assert not {1, 2, 3, 4, 5} & set(tags) or 6 in tags
