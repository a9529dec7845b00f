"""Any bytes decode as the slow reference says, and what was encoded decodes to itself."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pxed import boot
from pxed.boot import Received, Reply, scripts
from pxed.types import Check, Drop, Identity, Verdict
from pxed.wire import dhcp, pxe, summary
from support import boot_clients as firmware
from support import dhcp_reference as reference
from support.decisions import SITE

# A busy machine is no mistake of the code: no deadline, no complaint about slow drawing.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

addresses = st.tuples(*[st.integers(0, 255)] * 4).map(lambda parts: ".".join(map(str, parts)))
text = st.binary(max_size=64).filter(lambda raw: b"\0" not in raw)
pieces = st.lists(st.tuples(st.integers(1, 254).filter(lambda code: code != 52), st.binary(max_size=255)), max_size=12)
overloads = st.lists(st.just((52, b"\1")) | st.just((52, b"\2")) | st.just((52, b"\3")), max_size=1)
areas = st.binary(max_size=64) | pieces.map(
    lambda items: b"".join(bytes((code, len(value[:20]))) + value[:20] for code, value in items)[:64]
)
headers = st.fixed_dictionaries(
    {
        "op": st.sampled_from((1, 2)),
        "htype": st.integers(0, 255),
        "hops": st.integers(0, 255),
        "xid": st.integers(0, 2**32 - 1),
        "secs": st.integers(0, 2**16 - 1),
        "flags": st.integers(0, 2**16 - 1),
        "ciaddr": addresses,
        "yiaddr": addresses,
        "siaddr": addresses,
        "giaddr": addresses,
        "chaddr": st.binary(max_size=16),
    }
)
messages = st.builds(
    lambda header, sname, file, first, overload, second: reference.message(
        **header, sname=sname, file=file, options=[*first, *overload, *second], size=0
    ),
    headers,
    areas,
    areas,
    pieces,
    overloads,
    pieces,
)
# A real request, changed in some places: nearer to what a parser meets than random bytes.
mutated = st.builds(
    lambda data, changes, cut: bytes(changes.get(i, byte) for i, byte in enumerate(data[: len(data) - cut])),
    st.sampled_from([firmware.pxe(size=0), firmware.ipxe(size=0), *firmware.FOREIGN.values()]),
    st.dictionaries(st.integers(0, 400), st.integers(0, 255), max_size=8),
    st.integers(0, 100),
)


def same(data: bytes) -> None:
    packet = dhcp.decode(data)
    found = packet.reason if isinstance(packet, Drop) else reference.fields(packet)
    assert found == reference.decode(data)


@patient
@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    same(data)


@patient
@given(st.binary(max_size=300), headers)
def test_any_option_bytes(data: bytes, header: dict[str, object]) -> None:
    same(reference.message(**header, size=0)[:240] + data)  # type: ignore[arg-type]


@patient
@given(messages)
def test_well_formed_and_overloaded_messages(data: bytes) -> None:
    same(data)


@patient
@given(messages, st.data())
def test_truncated_anywhere(data: bytes, draw: st.DataObject) -> None:
    same(data[: draw.draw(st.integers(0, len(data)))])


@patient
@given(mutated)
def test_mutated_requests(data: bytes) -> None:
    same(data)


@patient
@given(
    headers,
    text,
    text,
    st.dictionaries(st.integers(1, 254).filter(lambda code: code != 52), st.binary(max_size=600), max_size=20),
    st.integers(0, 600),
)
def test_encode_decode_round_trip(
    header: dict[str, object], sname: bytes, file: bytes, options: dict[int, bytes], minimum: int
) -> None:
    packet = dhcp.Packet(**header, sname=sname, file=file, options=options)  # type: ignore[arg-type]
    data = dhcp.encode(packet, minimum)
    assert len(data) >= minimum
    again = dhcp.decode(data)
    assert again == packet
    assert isinstance(again, dhcp.Packet)
    order = [code for code in options if code != 82] + [82] * (82 in options)
    assert list(again.options) == order
    assert dhcp.encode(again, minimum) == data


@patient
@given(messages | mutated)
def test_what_decodes_can_be_encoded(data: bytes) -> None:
    packet = dhcp.decode(data)
    if isinstance(packet, dhcp.Packet):
        assert dhcp.decode(dhcp.encode(packet)) == packet
        assert summary(packet).isprintable()


checks = st.builds(Check, st.sampled_from(Verdict), st.just("a reason"))
receptions = st.builds(
    Received,
    st.sampled_from((67, 4011)),
    st.tuples(addresses, st.integers(0, 65535)),
    st.just("10.78.0.1"),
    st.just("eth0"),
    st.booleans(),
)


@patient
@given(messages | mutated, receptions, checks)
def test_every_packet_has_a_decision(data: bytes, received: Received, check: Check) -> None:
    """Never an exception; a reply is well-formed, from us, without a lease and without overload."""
    packet = dhcp.decode(data)
    if isinstance(packet, Drop):
        return
    found = boot.facts(packet, received)
    decision = found if isinstance(found, Drop) else boot.decide(found, check, SITE)
    assert isinstance(decision, Drop | Reply)
    if isinstance(decision, Drop):
        assert decision.reason.isascii()
        return
    sent = reference.decode(decision.payload)
    assert isinstance(sent, dict)
    assert (sent["op"], sent["yiaddr"], sent["xid"]) == (2, "0.0.0.0", packet.xid)
    assert sent["options"][54] == b"\x0a\x4e\0\1"
    assert sent["options"][53] in (b"\2", b"\5")
    assert decision.source_port == received.port
    assert check.verdict not in (Verdict.IGNORE, Verdict.NO_WORK)


@patient
@given(st.binary(max_size=300))
def test_tlv_of_any_bytes(raw: bytes) -> None:
    tags = pxe.parse(raw)
    if tags is not None:
        assert pxe.parse(dhcp.encode_tlv(tags)) == tags


@patient
@given(st.dictionaries(st.integers(1, 254), st.binary(max_size=255), max_size=10))
def test_tlv_round_trip(tags: dict[int, bytes]) -> None:
    assert dhcp.parse_tlv(dhcp.encode_tlv(tags)) == tags


@patient
@given(st.binary(max_size=300))
def test_user_classes_of_any_bytes(raw: bytes) -> None:
    """Either the list form fits exactly, or the value is one text."""
    classes = dhcp.user_classes(raw)
    assert classes == (raw,) or b"".join(bytes((len(name),)) + name for name in classes) == raw


@patient
@given(st.uuids())
def test_uuid_round_trip(uuid: object) -> None:
    raw = dhcp.uuid_option(str(uuid))
    assert dhcp.uuid_text(raw) == (str(uuid) if any(raw) else "")


@patient
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_check_name_round_trip(serial: str, manufacturer: str, product: str) -> None:
    serial, manufacturer, product = (t.encode("utf-8", "replace").decode() for t in (serial, manufacturer, product))
    identity = Identity("52:54:00:12:34:56", firmware.UUID, serial, manufacturer, product)
    assert scripts.parse_check_name(scripts.check_name(identity)) == identity


@patient
@given(st.text(max_size=200))
def test_any_name_may_be_asked_for(name: str) -> None:
    assert isinstance(scripts.parse_check_name(scripts.CHECK_PREFIX + name), Identity | None)
