"""Which packet gets which answer: one test per rule, each with the whole packet that is wanted."""

import pytest

from pxed import boot
from pxed.boot import Received, Reply
from pxed.boot._decide import Way
from pxed.types import Check, Drop
from pxed.wire import dhcp
from pxed.wire.iana import MessageType
from support import boot_clients as firmware
from support import dhcp_reference as reference
from support.boot_clients import ACK, DISCOVER, INFORM, OFFER, REQUEST
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
    WORK,
    answer,
    direct,
    dropped,
    reply,
    wanted,
)

OUR_ITEM = 0x8058
RELAY = "10.99.0.1"


# -- row 1: DISCOVER of a PXE client on 67 --------------------------------------------------------------------------


def test_row_1_bios_discover_gets_an_offer_by_broadcast() -> None:
    assert reply(firmware.pxe(arch=0, flags=0x8000, secs=4)) == Reply(
        payload=wanted(OFFER, b"undionly.kpxe", vendor=DIRECT, flags=0x8000),
        destination=EVERYBODY,
        source_address=US,
        source_port=67,
        summary="OFFER 52:54:00:12:34:56 xid 0x1a2b3c4d class PXEClient next 10.78.0.1 server 10.78.0.1 "
        "file undionly.kpxe",
        event=("offer", "BIOS PXE: offered undionly.kpxe by TFTP from 10.78.0.1"),
        way=Way.CLIENTS,
        message=MessageType.OFFER,
    )


def test_row_1_uefi_discover_gets_an_offer_without_option_43() -> None:
    sent = reply(firmware.pxe(arch=7))
    assert sent.payload == wanted(OFFER, b"snponly.efi")
    assert (sent.destination, sent.source_address, sent.source_port) == (EVERYBODY, US, 67)
    assert sent.event == ("offer", "UEFI x64 PXE: offered snponly.efi by TFTP from 10.78.0.1")


def test_row_1_relayed_discover_gets_its_offer_through_the_relay() -> None:
    relay_info = b"\1\4eth1\2\6\0\1\2\3\4\5"
    data = firmware.pxe(DISCOVER, 7, (82, relay_info), giaddr=RELAY, hops=1)
    sent = reply(data, Received(67, (RELAY, 67), US, "eth0", broadcast=False))
    assert sent.payload == wanted(OFFER, b"snponly.efi", giaddr=RELAY, extra=((82, relay_info),))
    assert (sent.destination, sent.source_address, sent.source_port) == ((RELAY, 67), US, 67)


@pytest.mark.parametrize(
    ("arch", "program", "vendor"),
    [
        (0, b"undionly.kpxe", DIRECT),
        (6, b"snponly-ia32.efi", b""),
        (7, b"snponly.efi", b""),
        (9, b"snponly.efi", b""),
        (10, b"snponly-arm32.efi", b""),
        (11, b"snponly-arm64.efi", b""),
    ],
)
def test_row_1_every_architecture_gets_its_boot_program(arch: int, program: bytes, vendor: bytes) -> None:
    assert reply(firmware.pxe(arch=arch)).payload == wanted(OFFER, program, vendor=vendor)


def test_row_1_hold_is_offered_as_work_is() -> None:
    assert reply(firmware.pxe(), check=HOLD) == reply(firmware.pxe(), check=WORK)


def test_row_1_discover_on_4011_is_none() -> None:
    assert dropped(firmware.pxe(), direct(4011)) == "wrong-port"


# -- row 2: DISCOVER of an HTTP client ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "program"),
    [(15, "snponly-ia32.efi"), (16, "snponly.efi"), (18, "snponly-arm32.efi"), (19, "snponly-arm64.efi")],
)
def test_row_2_http_client_gets_a_uri_and_its_own_class(arch: int, program: str) -> None:
    sent = reply(firmware.http(arch=arch))
    url = f"http://10.78.0.1/{program}".encode()
    assert sent.payload == wanted(OFFER, url, client_class=b"HTTPClient")
    assert (sent.destination, sent.source_port) == (EVERYBODY, 67)
    assert sent.event[1].endswith(f"offered {program} by HTTP from 10.78.0.1")


def test_row_2_relayed_http_client() -> None:
    sent = reply(firmware.http(giaddr=RELAY), Received(67, (RELAY, 67), US, "eth0", broadcast=False))
    assert sent.payload == wanted(OFFER, b"http://10.78.0.1/snponly.efi", client_class=b"HTTPClient", giaddr=RELAY)
    assert sent.destination == (RELAY, 67)


# -- row 3: DISCOVER of anything else ----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", firmware.FOREIGN.values(), ids=firmware.FOREIGN)
def test_row_3_other_devices_get_silence(data: bytes) -> None:
    assert dropped(data) == "not-boot-client"


def test_row_3_malformed_packets_get_silence() -> None:
    for data, reason in firmware.MALFORMED.values():
        assert dropped(data) == reason


# -- row 4: an ordinary lease request ----------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [0, 7])
@pytest.mark.parametrize("server", [b"\x0a\x4e\0\x02", b"\x0a\x4e\0\x01", None])
def test_row_4_lease_request_gets_silence(arch: int, server: bytes | None) -> None:
    """Even one that names us as its server: we never acknowledge a lease."""
    extra = ((50, b"\x0a\x4e\0\x32"), *([(54, server)] if server else []))
    assert dropped(firmware.pxe(REQUEST, arch, *extra)) == "lease-request"


def test_row_4_lease_request_of_an_http_client() -> None:
    assert dropped(firmware.http(REQUEST)) == "lease-request"


def test_row_4_lease_renewal_seen_beside_a_dhcp_server_on_this_host() -> None:
    data = firmware.pxe(REQUEST, 0, ciaddr=CLIENT)
    assert dropped(data, direct(67, 68)) == "lease-request"


# -- row 5: a request with a boot item ---------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [OUR_ITEM, 0])
def test_row_5_boot_item_on_67_is_acknowledged_to_the_asker(item: int) -> None:
    data = firmware.pxe(REQUEST, 0, firmware.boot_item(item, 1), ciaddr=CLIENT)
    sent = reply(data, Received(67, (CLIENT, 68), US, "eth0"))
    vendor = firmware.boot_item(item, 1)[1]
    assert sent.payload == wanted(ACK, b"undionly.kpxe", vendor=vendor, ciaddr=CLIENT)
    assert (sent.destination, sent.source_address, sent.source_port) == ((CLIENT, 68), US, 67)
    assert sent.event[1] == "BIOS PXE: answered on port 67 with undionly.kpxe by TFTP from 10.78.0.1"


def test_row_5_boot_item_on_4011() -> None:
    data = firmware.pxe(REQUEST, 7, firmware.boot_item(OUR_ITEM), ciaddr=CLIENT)
    sent = reply(data, direct(4011, 4011))
    assert sent.payload == wanted(ACK, b"snponly.efi", vendor=firmware.boot_item(OUR_ITEM)[1], ciaddr=CLIENT)
    assert (sent.destination, sent.source_port) == ((CLIENT, 4011), 4011)


def test_row_5_boot_item_on_the_discovery_group() -> None:
    """Multicast to 43.7 on port 4011: several servers hear it, 54 is left out."""
    data = firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM), ciaddr=CLIENT)
    sent = reply(data, Received(4011, (CLIENT, 4011), US, "eth0", broadcast=True))
    assert (sent.destination, sent.source_port) == ((CLIENT, 4011), 4011)


def test_row_5_asker_without_an_address_is_answered_by_broadcast() -> None:
    data = firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM))
    sent = reply(data, BROADCAST)
    assert sent.payload == wanted(ACK, b"undionly.kpxe", vendor=firmware.boot_item(OUR_ITEM)[1])
    assert sent.destination == EVERYBODY


def test_row_5_relayed_boot_item() -> None:
    data = firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM), (82, b"\1\1a"), giaddr=RELAY, ciaddr=CLIENT)
    sent = reply(data, Received(67, (RELAY, 67), US, "eth0", broadcast=False))
    vendor = firmware.boot_item(OUR_ITEM)[1]
    assert sent.payload == wanted(
        ACK, b"undionly.kpxe", vendor=vendor, giaddr=RELAY, ciaddr=CLIENT, extra=((82, b"\1\1a"),)
    )
    assert sent.destination == (RELAY, 67)


def test_row_5_type_of_another_server() -> None:
    assert dropped(firmware.pxe(REQUEST, 0, firmware.boot_item(1)), direct()) == "other-boot-item"


def test_row_5_credentials_are_refused() -> None:
    assert dropped(firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM, 0x8000)), direct()) == "credentials"


def test_row_5_broadcast_for_another_server() -> None:
    data = firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM), (54, b"\x0a\x4e\0\2"))
    assert dropped(data) == "other-server"


def test_row_5_broadcast_that_names_us() -> None:
    data = firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM), (54, b"\x0a\x4e\0\1"))
    assert reply(data).source_port == 67


# -- row 6: BINL style request on 4011 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source_port", [68, 4011, 50000])
@pytest.mark.parametrize(("arch", "program", "vendor"), [(0, b"undionly.kpxe", DIRECT), (7, b"snponly.efi", b"")])
def test_row_6_is_answered_from_4011_to_the_port_asked_from(
    arch: int, program: bytes, vendor: bytes, source_port: int
) -> None:
    data = firmware.pxe(REQUEST, arch, ciaddr=CLIENT)
    sent = reply(data, direct(4011, source_port))
    assert sent.payload == wanted(ACK, program, vendor=vendor, ciaddr=CLIENT)
    assert (sent.destination, sent.source_address, sent.source_port) == ((CLIENT, source_port), US, 4011)


def test_row_6_unicast_that_names_the_dhcp_server_is_ours() -> None:
    """Firmware may leave the lease's option 54 in; the packet was sent to our own address."""
    data = firmware.pxe(REQUEST, 7, (54, b"\x0a\x4e\0\2"), ciaddr=CLIENT)
    assert reply(data, direct()).payload == wanted(ACK, b"snponly.efi", ciaddr=CLIENT)


def test_row_6_giaddr_left_over_from_the_lease_is_no_relay() -> None:
    sent = reply(firmware.pxe(REQUEST, 7, ciaddr=CLIENT, giaddr=RELAY), direct())
    assert sent.destination == (CLIENT, 4011)
    assert sent.payload == wanted(ACK, b"snponly.efi", ciaddr=CLIENT, giaddr=RELAY)


def test_row_6_without_an_address() -> None:
    assert reply(firmware.pxe(REQUEST, 7), Received(4011, ("0.0.0.0", 4011), US)).destination == (
        "255.255.255.255",
        4011,
    )


# -- row 7: DHCPINFORM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", [67, 4011])
def test_row_7_inform_is_answered_to_ciaddr(port: int) -> None:
    data = firmware.pxe(INFORM, 7, ciaddr=CLIENT)
    sent = reply(data, Received(port, ("10.78.0.99", 68), US, "eth0"))
    assert sent.payload == wanted(ACK, b"snponly.efi", ciaddr=CLIENT)
    assert (sent.destination, sent.source_port) == ((CLIENT, 68), port)


def test_row_7_inform_with_a_boot_item() -> None:
    data = firmware.pxe(INFORM, 0, firmware.boot_item(OUR_ITEM), ciaddr=CLIENT)
    sent = reply(data, Received(67, (CLIENT, 68), US, "eth0"))
    vendor = firmware.boot_item(OUR_ITEM)[1]
    assert sent.payload == wanted(ACK, b"undionly.kpxe", vendor=vendor, ciaddr=CLIENT)


def test_row_7_inform_without_ciaddr_goes_to_its_source() -> None:
    assert reply(firmware.pxe(INFORM, 7), direct(67, 68)).destination == (CLIENT, 68)


def test_row_7_inform_for_another_server() -> None:
    assert dropped(firmware.pxe(INFORM, 7, (54, b"\x0a\x4e\0\2"), ciaddr=CLIENT)) == "other-server"


def test_row_7_inform_of_something_else() -> None:
    data = reference.message(chaddr=firmware.MAC, ciaddr=CLIENT, options=[(53, b"\x08"), (60, b"MSFT 5.0")])
    assert dropped(data) == "not-boot-client"


# -- row 8: no work ----------------------------------------------------------------------------------------------------

ASKERS = {
    "BIOS": (firmware.pxe(arch=0), BROADCAST),
    "UEFI": (firmware.pxe(arch=7), BROADCAST),
    "HTTP": (firmware.http(), BROADCAST),
    "iPXE": (firmware.ipxe(), BROADCAST),
    "BINL": (firmware.pxe(REQUEST, 7, ciaddr=CLIENT), direct()),
    "boot item": (firmware.pxe(REQUEST, 0, firmware.boot_item(OUR_ITEM), ciaddr=CLIENT), direct()),
    "inform": (firmware.pxe(INFORM, 0, ciaddr=CLIENT), direct()),
}


@pytest.mark.parametrize(("data", "received"), ASKERS.values(), ids=ASKERS)
@pytest.mark.parametrize(("check", "reason"), [(NO_WORK, "no-work"), (IGNORE, "ignored")])
def test_row_8_silence_lets_firmware_go_on(data: bytes, received: Received, check: Check, reason: str) -> None:
    decision = answer(data, received, check)
    assert (decision.reason, decision.detail) == (reason, check.reason)  # type: ignore[union-attr]


def test_row_8_no_boot_program_for_an_architecture() -> None:
    decision = answer(firmware.pxe(arch=27))
    assert decision.reason == "no-boot-program"  # type: ignore[union-attr]
    assert decision.detail == "no boot program is configured for EFI RISCV64"  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [firmware.pxe(arch=11), firmware.http(arch=19)], ids=["PXE", "HTTP"])
def test_row_8_the_boot_program_of_an_architecture_has_no_file(data: bytes) -> None:
    """Firmware goes on at once, rather than after retries of a download that cannot succeed."""
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    found = boot.facts(packet, BROADCAST)
    assert isinstance(found, boot.Facts)
    decision = boot.decide(found, WORK, SITE, frozenset({"snponly-arm64.efi"}))
    assert isinstance(decision, Drop)
    assert decision.reason == "no-boot-program"
    assert decision.detail.startswith("the boot program snponly-arm64.efi for UEFI ARM64")
    assert decision.detail.endswith(" is neither in /srv/tftp nor in /usr/lib/ipxe")
    assert isinstance(boot.decide(found, WORK, SITE, frozenset({"snponly.efi"})), boot.Reply)


def test_two_servers_of_one_configuration_answer_the_same() -> None:
    """EDK2 keeps the first offer it likes: pairs of servers must not differ, but for their address."""
    assert [reply(data, received, site=SITE) for data, received in ASKERS.values()] == [
        reply(data, received, site=SITE) for data, received in ASKERS.values()
    ]
