"""What a packet or name costs in the codecs and in what decides: `pytest benchmarks/bench_codecs.py --benchmark-only`.

Do not trust figures across machines; compare two versions on one. Calls from Python, so that each includes some 50 ns
of calling.
"""

import pytest

from pxed import boot
from pxed._ext.tftp import parse
from pxed.boot import Facts, Reply, scripts
from pxed.net.message import BytesBody, Response, head_bytes, parse_range
from pxed.types import Drop, Identity
from pxed.wire import dhcp, pxe, summary
from pxed.work.identity import normalise
from support import boot_clients as firmware
from support.decisions import BROADCAST, NO_WORK, SITE, WORK
from support.tftp_sim import ack, rrq

PACKETS = {
    "BIOS": firmware.captured("ipxe-rom-discover"),
    "UEFI": firmware.captured("ovmf-discover"),
    "iPXE": firmware.ipxe(),
    "phone": firmware.FOREIGN["Cisco VoIP phone"],
}
packets = pytest.mark.parametrize("data", PACKETS.values(), ids=PACKETS)
boot_packets = pytest.mark.parametrize("name", ["BIOS", "UEFI", "iPXE"])


def facts_of(name: str) -> Facts:
    packet = dhcp.decode(PACKETS[name])
    assert isinstance(packet, dhcp.Packet)
    facts = boot.facts(packet, BROADCAST)
    assert isinstance(facts, Facts)
    return facts


@packets
def test_dhcp_decode(benchmark, data):
    assert isinstance(benchmark(dhcp.decode, data), dhcp.Packet)


@boot_packets
def test_dhcp_encode(benchmark, name):
    reply = boot.decide(facts_of(name), WORK, SITE)
    assert isinstance(reply, Reply)
    packet = dhcp.decode(reply.payload)
    assert benchmark(dhcp.encode, packet) == reply.payload


@boot_packets
def test_facts(benchmark, name):
    packet = dhcp.decode(PACKETS[name])
    assert isinstance(benchmark(boot.facts, packet, BROADCAST), Facts)


@boot_packets
def test_decide(benchmark, name):
    assert isinstance(benchmark(boot.decide, facts_of(name), WORK, SITE), Reply)


@pytest.mark.parametrize("check", [WORK, NO_WORK], ids=["work", "no-work"])
@packets
def test_datagram_to_decision(benchmark, data, check):
    """Everything between the two sockets but the check itself (bench_check.py)."""

    def answer():
        facts = boot.facts(dhcp.decode(data), BROADCAST)
        return facts if isinstance(facts, Drop) else boot.decide(facts, check, SITE)

    assert isinstance(benchmark(answer), Reply | Drop)


@packets
def test_dhcp_summary(benchmark, data):
    assert benchmark(summary, dhcp.decode(data))


def test_pxe_tags(benchmark):
    assert benchmark(pxe.parse, b"\x06\x01\x08\x47\x04\x80\x58\0\0\xff")


@pytest.mark.parametrize(
    "data",
    [rrq("undionly.kpxe", blksize=1432, tsize=0), rrq("bootx64.efi", tsize=0, blksize=1468, windowsize=4), ack(7)],
    ids=["iPXE", "EDK2", "ACK"],
)
def test_tftp_parse(benchmark, data):
    assert benchmark(parse, data)


def test_check_name(benchmark):
    identity = Identity("52:54:00:12:34:56", firmware.UUID, "SN 0815/1", "ACME", "Desk 3000")
    assert benchmark(scripts.parse_check_name, scripts.check_name(identity)) == identity


def test_identity(benchmark):
    assert benchmark(normalise, "52-54-00-12-34-56", firmware.UUID, "SN 0815/1", "ACME", "Desk 3000").serial


def test_http_range(benchmark):
    assert benchmark(parse_range, "bytes=1048576-2097151", 1 << 30) == (1 << 20, 1 << 21)


def test_http_head(benchmark):
    assert benchmark(head_bytes, Response(200, BytesBody(b"x"), ranges=True), 206, 1, "Date: x\r\n", True)
