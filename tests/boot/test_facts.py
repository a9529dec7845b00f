"""Facts: what a request says, with the deviations of real clients."""

import pytest

from pxed import boot
from pxed.boot import Facts, Received
from pxed.types import Drop, Identity
from pxed.wire import dhcp, pxe
from support import boot_clients as firmware
from support import dhcp_reference as reference

RECEIVED = Received(67, ("0.0.0.0", 68), "10.78.0.1", "eth0")


def read(data: bytes, received: Received = RECEIVED) -> Facts | Drop:
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    return boot.facts(packet, received)


def facts(data: bytes, received: Received = RECEIVED) -> Facts:
    found = read(data, received)
    assert isinstance(found, Facts)
    return found


def test_uefi_firmware() -> None:
    packet = dhcp.decode(firmware.pxe(arch=7))
    assert isinstance(packet, dhcp.Packet)
    assert boot.facts(packet, RECEIVED) == Facts(
        packet=packet,
        received=RECEIVED,
        message=1,
        identity=Identity(mac="52:54:00:12:34:56", uuid=firmware.UUID),
        archs=(7,),
        client_class=b"PXEClient:Arch:00007:UNDI:003001",
        undi=(1, 3, 1),
        max_size=1472 - 28,
    )
    assert facts(firmware.pxe(arch=7)).kind == "UEFI x64 PXE"


def test_ipxe() -> None:
    found = facts(firmware.ipxe(arch=7))
    assert found.is_ipxe
    assert found.speaks_http
    assert found.user_classes == (b"iPXE",)
    assert {19, 21, 23, 24, 176, 177, 235} & found.ipxe_features == {19, 21, 23, 24, 177, 235}
    assert found.kind == "iPXE on UEFI x64"


def test_ipxe_by_option_175_alone() -> None:
    found = facts(firmware.pxe(1, 0, (175, firmware.IPXE_WITHOUT_HTTP)))
    assert found.is_ipxe
    assert not found.speaks_http


def test_ipxe_by_user_class_alone() -> None:
    for user_class in (b"iPXE", b"\4iPXE", b"\3foo\4iPXE"):
        found = facts(firmware.pxe(1, 0, (77, user_class)))
        assert found.is_ipxe
        assert found.ipxe_features == frozenset()


def test_a_broken_option_175_still_means_ipxe() -> None:
    found = facts(firmware.pxe(1, 0, (175, b"\x13\x09")))
    assert found.is_ipxe
    assert not found.speaks_http


@pytest.mark.parametrize("name", ["ovmf-discover", "ipxe-rom-discover"])
def test_captured_firmware_sends_the_uuid_that_dmidecode_shows(name: str) -> None:
    """Both were started with -uuid 12345678-9abc-def0-1234-56789abcdef0."""
    assert facts(firmware.captured(name)).identity == Identity(mac="52:54:00:12:34:56", uuid=firmware.UUID)


def test_http_client() -> None:
    found = facts(firmware.http(arch=16))
    assert found.is_http_client
    assert found.speaks_http
    assert found.kind == "UEFI x64 HTTP"


def test_several_architectures_first_known_counts() -> None:
    found = facts(firmware.pxe(1, 0, (93, b"\xff\xf0\0\7")).replace(b"\x5d\x02\0\0", b"\0\0\0\0"))
    assert found.archs == (0xFFF0, 7)
    assert found.arch == 7


def test_unknown_architecture() -> None:
    assert facts(firmware.pxe(arch=0xFFF0)).arch == 0xFFF0


@pytest.mark.parametrize(
    ("client_class", "arch"),
    [(b"PXEClient:Arch:00009:UNDI:003016", 9), (b"PXEClient", 0), (b"HTTPClient:Arch:00016", 16)],
)
def test_without_option_93(client_class: bytes, arch: int) -> None:
    """ROMs older than RFC 4578 say it in option 60 only, or are BIOS."""
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), (60, client_class)])
    assert facts(data).archs == (arch,)


def test_missing_guid_is_tolerated() -> None:
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), *firmware.boot_options(0, guid=None)])
    assert facts(data).identity == Identity(mac="52:54:00:12:34:56")


def test_guid_of_foreign_form_is_no_uuid() -> None:
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), *firmware.boot_options(0, guid=b"\0abc")])
    assert facts(data).identity == Identity(mac="52:54:00:12:34:56")


def test_guid_in_chaddr_is_no_mac() -> None:
    """EDK2's SendGUID: hlen 16."""
    data = firmware.pxe(1, 7, chaddr=firmware.GUID[1:], htype=255)
    assert facts(data).identity == Identity(uuid=firmware.UUID)
    data = reference.message(
        chaddr=firmware.GUID[1:], htype=255, options=[(53, b"\1"), *firmware.boot_options(7, guid=None)]
    )
    assert facts(data).identity == Identity(uuid=firmware.UUID)


def test_infiniband_without_hardware_address_is_known_by_uuid() -> None:
    """RFC 4390: htype 32, hlen 0."""
    assert facts(firmware.pxe(1, 7, chaddr=b"", htype=32)).identity == Identity(uuid=firmware.UUID)


def test_nothing_to_know_a_machine_by() -> None:
    for chaddr in (b"", bytes(6), b"\1\2\3\4\5\6\7\x08"):
        data = reference.message(chaddr=chaddr, options=[(53, b"\1"), *firmware.boot_options(0, guid=None)])
        drop = read(data)
        assert isinstance(drop, Drop)
        assert drop.reason == "no-identity"


def test_boot_item() -> None:
    assert facts(firmware.pxe(3, 0, firmware.boot_item(0x8058, 2))).boot_item == pxe.BootItem(0x8058, 2)


@pytest.mark.parametrize("vendor", [b"", b"\x47\x04\x80", b"\x01\x04\x0a\0\0\1\xff", b"\x47\x01\0\xff", b"cisco"])
def test_foreign_option_43_holds_no_boot_item(vendor: bytes) -> None:
    assert facts(firmware.pxe(3, 0, (43, vendor))).boot_item is None


def test_relayed_only_on_port_67() -> None:
    data = firmware.pxe(giaddr="10.1.0.1")
    assert facts(data).relayed
    assert not facts(data, Received(4011, ("10.1.0.9", 4011), "10.78.0.1")).relayed


@pytest.mark.parametrize("giaddr", ["255.255.255.255", "224.0.0.1", "239.1.2.3", "240.0.0.1", "127.0.0.1", "0.0.0.9"])
def test_a_relay_has_a_hosts_address(giaddr: str) -> None:
    """Else the reply would be a broadcast to other servers, or go to ourselves."""
    data = firmware.pxe(giaddr=giaddr)
    decision = read(data)
    assert isinstance(decision, Drop)
    assert decision.reason == "bad-relay"
    assert giaddr in decision.detail
    assert not facts(data, Received(4011, ("10.1.0.9", 4011), "10.78.0.1")).relayed


@pytest.mark.parametrize(
    ("raw", "size"),
    [(b"", 548), (b"\0", 548), (b"\0\x80", 548), (b"\2\x40", 548), (b"\5\xc0", 1444), (b"\xff\xff", 65507)],
)
def test_max_size(raw: bytes, size: int) -> None:
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), (60, b"PXEClient"), (57, raw)])
    assert facts(data).max_size == size


@pytest.mark.parametrize("raw", [b"", b"\1\2", b"\1\2\3\4"])
def test_undi_of_foreign_form(raw: bytes) -> None:
    data = reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), (60, b"PXEClient"), (94, raw)])
    assert facts(data).undi is None


@pytest.mark.parametrize("kind", [b"", b"\0", b"\2", b"\4", b"\5", b"\6", b"\7", b"\x09", b"\1\1"])
def test_message_types_that_get_no_answer(kind: bytes) -> None:
    drop = read(reference.message(chaddr=firmware.MAC, options=[(53, kind), *firmware.boot_options(0)]))
    assert isinstance(drop, Drop)
    assert drop.reason == "wrong-type"


def test_bootp_without_a_message_type() -> None:
    assert read(reference.message(chaddr=firmware.MAC)) == Drop("wrong-type", "option 53 is missing")


def test_replies_of_other_servers() -> None:
    drop = read(firmware.pxe(2, op=2))
    assert isinstance(drop, Drop)
    assert drop.reason == "not-request"


@pytest.mark.parametrize("data", firmware.FOREIGN.values(), ids=firmware.FOREIGN)
def test_foreign_devices(data: bytes) -> None:
    drop = read(data)
    assert isinstance(drop, Drop)
    assert drop.reason == "not-boot-client"
