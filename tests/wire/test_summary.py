"""One line per packet."""

import pytest

from pxed.wire import dhcp, summary
from support import boot_clients as firmware
from support import dhcp_reference as reference

LINES = {
    firmware.pxe(arch=7): "DISCOVER 52:54:00:12:34:56 xid 0x1a2b3c4d class PXEClient UEFI x64",
    firmware.ipxe(giaddr="10.1.0.1"): (
        "DISCOVER 52:54:00:12:34:56 xid 0x1a2b3c4d class PXEClient BIOS iPXE via 10.1.0.1"
    ),
    reference.message(
        op=2,
        yiaddr="10.0.0.9",
        siaddr="10.0.0.1",
        chaddr=firmware.MAC,
        file=b"a",
        options=[(53, b"\5"), (54, b"\x0a\0\0\1")],
    ): "ACK 52:54:00:12:34:56 xid 0x1a2b3c4d your 10.0.0.9 next 10.0.0.1 server 10.0.0.1 file a",
    reference.message(): "BOOTP request - xid 0x1a2b3c4d",
    reference.message(op=2): "BOOTP reply - xid 0x1a2b3c4d",
    reference.message(options=[(53, b"\x63")]): "BOOTP request - xid 0x1a2b3c4d",
    reference.message(chaddr=b"\1\2", options=[(53, b"\1")]): "DISCOVER 0102 xid 0x1a2b3c4d",
    reference.message(options=[(53, b"\1"), (97, firmware.GUID)]): f"DISCOVER {firmware.UUID} xid 0x1a2b3c4d",
    reference.message(chaddr=firmware.MAC, options=[(53, b"\1"), (60, b"a\nb\x1b\xff"), (67, b"f\0\0")]): (
        "DISCOVER 52:54:00:12:34:56 xid 0x1a2b3c4d class a\\nb\\x1b\\ufffd file f"
    ),
}


@pytest.mark.parametrize(("data", "line"), LINES.items(), ids=LINES.values())
def test_summary(data: bytes, line: str) -> None:
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert summary(packet) == line
