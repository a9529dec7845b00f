"""What is answered to a boot client: requests put together from option values that matter, up to the reply's bytes.

Random bytes seldom get past option 53 and 60; here they are the values themselves: relay (82), vendor tags (43), iPXE's
features (175), classes (60, 77), types (93, 94), identities (61, 97), sizes (57) and servers (54).
"""

from msgspec.structs import replace

from fuzz.source import Source
from pxed import boot
from pxed.boot import Received, Reply
from pxed.types import Check, Drop, Verdict
from pxed.wire import dhcp
from support import boot_clients as firmware
from support import dhcp_reference as reference
from support.decisions import SITE, US, US_RAW, mtftp_site

CODES = (43, 50, 52, 54, 55, 57, 60, 61, 66, 67, 77, 82, 93, 94, 97, 175, 12, 208)
CLASSES = (b"PXEClient", b"HTTPClient", b"PXEClient:Arch:00007:UNDI:003016", b"HTTPClient:Arch:00016", b"")
CHECKS = [Check(verdict, "Job 7 restores demo here.", machine_id=1, job_id=7) for verdict in Verdict]
SITES = (SITE, replace(mtftp_site("52:54:00:12:34:56", archs=(7,)), no_work="local", http_port=8080))
WORDS = (*CLASSES[:4], b"\x47\x04\x80\x58\0\0\xff", b"Raspberry Pi Boot", firmware.IPXE_FEATURES, firmware.GUID)


def seeds() -> dict[str, bytes]:
    """A request of every kind: header choices, then (code, length, value)."""
    relay = b"\x01\x06circui\x02\x04rmte"
    options = {
        "bios": [(93, b"\0\0"), (94, b"\1\2\1"), (97, firmware.GUID)],
        "uefi": [(93, b"\0\7"), (57, b"\x05\xc0"), (97, firmware.GUID), (82, relay)],
        "ipxe": [(77, b"iPXE"), (175, firmware.IPXE_FEATURES), (93, b"\0\0")],
        "item": [(43, b"\x47\x04\x80\x58\0\0\xff"), (54, US_RAW)],
        "pi": [(93, b"\0\0"), (97, b"\0" + b"RPi4" * 4)],
        "tight": [(57, b"\x02\x40"), (82, bytes(200))],
    }
    found = {}
    for name, values in options.items():
        body = b"".join(bytes((CODES.index(code), len(value))) + value for code, value in values)
        for number, verdict in enumerate(Verdict):
            for site in (0, 1):
                port, http = len(found) % 2, name == "uefi" and site
                header = bytes((site, number, port, port, http, 0, name == "tight", 0x80, 0, 0, 0, 0, 0)) + firmware.MAC
                found[f"{name}-{verdict.value}-{site}"] = header + body
    return found


def _request(source: Source) -> bytes:
    """A request from the source; the first header bytes are those that decide."""
    kind, client_class = source.pick((1, 3, 8, 2)), source.pick(CLASSES)
    size, relayed, flags = source.pick((6, 16, 0)), source.number(1) & 1, source.number(2)
    giaddr = ".".join(map(str, source.take(4).ljust(4, b"\0")))
    chaddr = source.take(6).ljust(6, b"\1") * 3
    options = [(53, bytes((kind,))), *([(60, client_class)] if client_class else [])]
    while source:
        options.append((source.pick(CODES), source.piece()))
    return reference.message(
        chaddr=chaddr[:size],
        flags=flags,
        giaddr="10.9.8.7" if relayed else giaddr,
        ciaddr="10.78.0.50" if kind != 1 else "0.0.0.0",
        options=options,
    )


def one(data: bytes) -> None:
    """Never an exception; silence has a word, and a reply is well-formed, ours, without a lease, and short enough."""
    source = Source(data)
    site, check = source.pick(SITES), source.pick(CHECKS)
    port = source.pick((67, 4011))
    received = Received(port, ("10.78.0.50", 68), US, "eth0", broadcast=port == 67)
    packet = dhcp.decode(_request(source))
    if isinstance(packet, Drop):
        return
    facts = boot.facts(packet, received)
    decision = facts if isinstance(facts, Drop) else boot.decide(facts, check, site)
    if isinstance(facts, Drop) or isinstance(decision, Drop):
        assert decision.reason.isascii() and decision.reason
        return
    assert facts.kind.isprintable()
    _judge(packet, decision, check, facts)


def _judge(packet: dhcp.Packet, reply: Reply, check: Check, facts: boot.Facts) -> None:
    sent = reference.decode(reply.payload)
    assert isinstance(sent, dict), sent
    assert (sent["op"], sent["yiaddr"], sent["xid"]) == (2, "0.0.0.0", packet.xid)
    options = sent["options"]
    assert options[53] in (b"\2", b"\5") and options[54] == US_RAW and 52 not in options
    # RFC 3046 2.2: what the relay said goes back unchanged.
    assert not facts.relayed or options.get(82) == packet.options.get(82)
    assert len(reply.payload) <= facts.max_size
    assert reply.source_address == US and reply.source_port == facts.received.port
    assert check.verdict is not Verdict.IGNORE
    assert reply.summary.isprintable() and reply.event[1].isprintable()
