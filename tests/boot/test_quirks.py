"""The quirk table: every row has a client that it is for."""

import pytest
from msgspec.structs import replace

from pxed import boot
from pxed.boot import QUIRKS, Facts, Quirk, Received, Vendor43
from pxed.boot._quirks import quirk_for
from pxed.wire import dhcp
from support import boot_clients as firmware

FOR = {
    "iPXE": [firmware.ipxe(arch=0), firmware.ipxe(arch=7), firmware.ipxe(chaddr=firmware.PI_MAC)],
    "Raspberry Pi ROM": [firmware.pxe(arch=0, chaddr=firmware.PI_MAC), firmware.pxe(arch=41, chaddr=firmware.PI_MAC)],
    "BIOS PXE": [firmware.pxe(arch=0), firmware.pxe(arch=5)],
    "UEFI": [
        firmware.pxe(arch=7),
        firmware.pxe(arch=11, chaddr=firmware.PI_MAC),
        firmware.http(),
        firmware.pxe(arch=99),
    ],
}


def facts(data: bytes) -> Facts:
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    found = boot.facts(packet, Received(67, ("0.0.0.0", 68), "10.78.0.1"))
    assert isinstance(found, Facts)
    return found


def test_every_row_has_a_test_a_name_of_its_own_and_a_reason() -> None:
    assert [row.name for row in QUIRKS] == list(FOR)
    assert all(row.why for row in QUIRKS)


@pytest.mark.parametrize("name", FOR)
def test_row_is_chosen_for_its_clients(name: str) -> None:
    assert [quirk_for(facts(data)).name for data in FOR[name]] == [name] * len(FOR[name])


def test_last_row_matches_everything() -> None:
    assert all(QUIRKS[-1].matches(facts(data)) for datas in FOR.values() for data in datas)


def test_a_sites_rows_come_first() -> None:
    own = Quirk("ours", Vendor43.DIRECT, "tried here", class_prefix=b"PXEClient:Arch:00007:UNDI:003001")
    assert quirk_for(facts(firmware.pxe(arch=7)), (own,)) is own
    assert quirk_for(facts(firmware.pxe(arch=6)), (own,)).name == "UEFI"


@pytest.mark.parametrize(
    "condition", [{"archs": (6,)}, {"ouis": ("aa:bb:cc",)}, {"class_prefix": b"PXEClient:Arch:00006"}, {"ipxe": True}]
)
def test_every_condition_must_hold(condition: dict[str, object]) -> None:
    row = Quirk("row", Vendor43.DIRECT, "why", archs=(7,), ouis=("52:54:00",), class_prefix=b"PXEClient", ipxe=False)
    assert row.matches(facts(firmware.pxe(arch=7)))
    assert not replace(row, **condition).matches(facts(firmware.pxe(arch=7)))
