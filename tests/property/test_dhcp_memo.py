"""Whatever is asked in whatever order: a remembered decision is the one that would be taken afresh."""

from itertools import product

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from pxed import boot
from pxed.boot import Decider, Received, Site
from pxed.boot._quirks import QUIRKS
from pxed.types import Check, Drop, Identity, Verdict
from pxed.wire import dhcp
from support import boot_clients as firmware
from support import dhcp_reference as reference
from support.decisions import CLIENT, SITE, US, mtftp_site

# A busy machine is no mistake of the code: no deadline, no complaint about slow drawing.
patient = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])

RELAY = "10.9.0.1"
LOCAL_SITE = Site(SITE.boot_programs, ("/a", "/b"), no_work="local", http_port=8080)
MARKED_SITE = mtftp_site("52:54:00:12:34:56", archs=(7,))
QUIRKY_SITE = Site(
    SITE.boot_programs,
    quirks=(boot.Quirk("one machine", boot.Vendor43.RASPBERRY_PI, "a test", ouis=("52:54:00:12:34:56",)),),
)

macs = st.sampled_from(
    [
        firmware.MAC,
        firmware.MAC[:5] + b"\x57",
        firmware.PI_MAC,
        firmware.PI_MAC[:4] + b"\0\7",
        bytes(6),
        b"\1" + bytes(5),
    ]
)
addresses = st.sampled_from(["0.0.0.0", RELAY, CLIENT, "10.9.77.1", "127.0.0.1", "230.1.1.1", "0.0.0.7"])
uuids = st.sampled_from(
    [None, firmware.GUID, firmware.GUID[:-1] + b"\7", bytes(17), b"\1" + bytes(range(16)), b"\0short", b""]
)
archs = st.sampled_from([0, 0, 7, 7, 2, 6, 9, 11, 15, 16, 41, 999])
extras = st.lists(
    st.sampled_from(
        [
            (82, b"\1\4eth1"), (82, b"\1\4eth2"), (82, b"\1\2ab\2\2cd"), (54, bytes((10, 78, 0, 1))),
            (54, bytes((10, 78, 0, 9))), (57, b"\2\x40"), (57, b"\5\xc0"), (57, b"\1\x40"), (12, b"one"),
            (12, b"other"),
            (61, b"\1abcdef"), (61, b"\1fedcba"), (50, bytes((10, 1, 2, 3))), (50, b"\1"), (77, b"iPXE"),
            (77, b"\4iPXE\2ab"), (175, firmware.IPXE_FEATURES), (175, b"\x13"), (43, b"\xff"), (43, b"junk"),
            firmware.boot_item(0x8058), firmware.boot_item(0), firmware.boot_item(7),
            firmware.boot_item(0x8058, 0x8000),
            (52, b"\1"), (67, b"mine"), (255, b""), (0, b""),
        ]
    ),
    max_size=4,
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request as firmware may send it, or nearly."""
    arch, kind = draw(archs), draw(st.sampled_from([1, 1, 1, 3, 3, 8, 4]))
    name = draw(st.sampled_from(["PXEClient"] * 5 + ["HTTPClient"] * 2 + ["Other"]))
    options = [(53, bytes((kind,))), *firmware.boot_options(arch, name, draw(uuids)), *draw(extras)]
    data = reference.message(
        op=draw(st.sampled_from([1] * 9 + [2])),
        xid=draw(st.integers(0, 2**32 - 1)),
        secs=draw(st.integers(0, 9)),
        flags=draw(st.sampled_from([0, 0x8000])),
        ciaddr=draw(addresses),
        giaddr=draw(addresses),
        chaddr=draw(macs),
        options=options,
    )
    return draw(st.one_of(st.just(data), st.just(data), mutations(data)))


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """The same with a byte or two changed, anywhere."""
    out = bytearray(data)
    for at in draw(st.lists(st.integers(0, len(data) - 1), max_size=2)):
        out[at] = draw(st.integers(0, 255))
    return bytes(out)


@st.composite
def other_machines(draw: st.DrawFn, data: bytes) -> bytes:
    """The same from another machine, or from this one at another time."""
    out = bytearray(data)
    out[4:10] = draw(st.binary(min_size=6, max_size=6))  # xid, secs
    out[31:34] = draw(st.sampled_from([firmware.MAC[3:], b"\1\2\3", b"\0\0\0"]))
    for at in (12, 24):  # ciaddr, giaddr
        out[at : at + 4] = dhcp.address_bytes(draw(addresses))
    return bytes(out)


@st.composite
def siblings(draw: st.DrawFn) -> list[bytes]:
    """Requests that are alike: what hides between them is what a memory could get wrong."""
    first = draw(requests())
    more = st.one_of(other_machines(first), other_machines(first), mutations(first))
    return [first, *draw(st.lists(more, min_size=1, max_size=3)), first]


# All ways to ask, and all answers of the check: what two of them differ in is what must not be forgotten.
WAYS = [
    Received(port, source, address, broadcast=broadcast)
    for port, source, address, broadcast in product(
        (67, 4011), (("0.0.0.0", 68), (CLIENT, 4011), (RELAY, 67)), (US, "10.79.0.1"), (True, False)
    )
]
CHECKS = [
    Check(Verdict.WORK, "job 1", 1, 1), Check(Verdict.WORK, "job 2", 2, 2), Check(Verdict.HOLD, "wait"),
    Check(Verdict.NO_WORK, "none", 1), Check(Verdict.NO_WORK, "the last one, job 5, failed", 2),
    Check(Verdict.IGNORE, "unknown"), Check(Verdict.IGNORE, "new"),
]  # fmt: skip


def afresh(data: bytes, received: Received, check: Check, site: Site, missing: frozenset[str]) -> tuple[object, ...]:
    """decode -> facts -> decide."""
    packet = dhcp.decode(data)
    if isinstance(packet, Drop):
        return packet, None
    found = boot.facts(packet, received)
    if isinstance(found, Drop):
        return found, None
    result = boot.decide(found, check, site, missing)
    if isinstance(result, Drop):
        return result, found.identity
    return (result.payload, result.destination, result.source_address, result.source_port, result.event), found.identity


def remembered(decider: Decider, data: bytes, received: Received, check: Check) -> tuple[object, ...]:
    """The same by a Decider, which may have seen anything before."""
    asked: list[Identity] = []

    def ask(identity: Identity) -> Check:
        asked.append(identity)
        return check

    outcome = decider.decide(data, received, ask)
    assert len(asked) <= 1
    identity = asked[0] if asked else None
    result = outcome.result
    if isinstance(result, Drop):
        return result, identity
    assert outcome.check == check
    return (result.payload, result.destination, result.source_address, result.source_port, result.event), identity


@given(
    siblings(),
    st.sampled_from([SITE, LOCAL_SITE, MARKED_SITE, QUIRKY_SITE]),
    st.sampled_from([frozenset[str](), frozenset({"undionly.kpxe"})]),
)
@patient
def test_a_remembered_decision_is_the_one_that_would_be_taken(
    alike: list[bytes], site: Site, missing: frozenset[str]
) -> None:
    decider = Decider(site, missing)
    for data, received, check in product(alike, WAYS, CHECKS):
        wanted = afresh(data, received, check, site, missing)
        assert remembered(decider, data, received, check) == wanted
    event(wanted[0].reason if isinstance(wanted[0], Drop) else "reply")


@given(siblings())
@patient
def test_only_what_a_template_fills_in_differs_within_a_kind(alike: list[bytes]) -> None:
    read = [request for request in map(dhcp.read, alike) if request is not None]
    for request in read:
        assert request.mac == request.data[28:34]
        assert request.identity.startswith(request.mac)
    event(f"{len({request.kind for request in read})} kinds of {len(read)}")


@given(st.binary(max_size=600), st.booleans())
@patient
def test_any_bytes_are_a_request_or_none(data: bytes, framed: bool) -> None:
    if framed:  # past the first checks
        data = data[:2] + b"\6" + data[3:236].ljust(233, b"\1") + bytes.fromhex("63825363") + data[236:]
    request = dhcp.read(data)
    if request is not None:
        assert not isinstance(dhcp.decode(data), Drop) or data[0] not in (1, 2)


def test_a_row_of_the_quirk_table_names_makers_not_machines() -> None:
    # A kind has the first half of the MAC in it.
    assert all(len(oui) <= len("52:54:00") for quirk in QUIRKS for oui in quirk.ouis or ())


OTHER_MAC = firmware.MAC[:5] + b"\x57"
ELSEWHERE = (54, bytes((10, 78, 0, 9)))


@pytest.mark.parametrize(
    ("site", "first", "second"),
    [
        (MARKED_SITE, firmware.pxe(chaddr=OTHER_MAC), firmware.pxe()),
        (MARKED_SITE, firmware.pxe(), firmware.pxe(chaddr=OTHER_MAC)),
        (QUIRKY_SITE, firmware.pxe(chaddr=OTHER_MAC), firmware.pxe()),
        (SITE, firmware.pxe(chaddr=firmware.PI_MAC), firmware.pxe()),
        (SITE, firmware.pxe(1, 7, (82, b"\1\1a")), firmware.pxe(1, 7, (82, b"\1\2ab"))),
        (SITE, firmware.pxe(1, 7, (57, b"\1\x40")), firmware.pxe(1, 7, (57, b"\5\xc0"))),
        (SITE, firmware.pxe(3, 7, ELSEWHERE, ciaddr=CLIENT), firmware.pxe(3, 7, ciaddr=CLIENT)),
        (SITE, firmware.pxe(8, 7), firmware.pxe(8, 7, ciaddr=CLIENT)),
        (SITE, firmware.pxe(1, 7, giaddr=RELAY), firmware.pxe(1, 7, giaddr="230.1.1.1")),
        (SITE, firmware.pxe(1, 7), firmware.ipxe(1, 7)),
    ],
)
def test_what_looks_alike_and_is_not(site: Site, first: bytes, second: bytes) -> None:
    decider = Decider(site)
    for received, check in product(WAYS, CHECKS):
        for data in (first, second, first):
            assert remembered(decider, data, received, check) == afresh(data, received, check, site, frozenset())
        # Somebody meant for another server is one of many only by broadcast.
        other = Received(received.port, received.source, received.server_address, broadcast=not received.broadcast)
        assert remembered(decider, first, other, check) == afresh(first, other, check, site, frozenset())
