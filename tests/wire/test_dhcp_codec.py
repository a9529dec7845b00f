"""The DHCP codec, packet by packet, against bytes written by hand or by the reference in tests/support."""

import pytest

from pxed._ext import dhcp as compiled
from pxed.types import Drop
from pxed.wire import dhcp
from support import boot_clients as firmware
from support import dhcp_reference as reference

EXAMPLES = {
    **{path.stem: firmware.captured(path.stem) for path in sorted(firmware.VECTORS.glob("*.hex"))},
    "BIOS ROM": firmware.pxe(arch=0),
    "UEFI": firmware.pxe(arch=7),
    "UEFI HTTP": firmware.http(),
    "iPXE": firmware.ipxe(),
    "relayed": firmware.pxe(firmware.DISCOVER, 7, (82, b"\1\4eth1\2\2ab"), giaddr="10.1.0.1", hops=1),
    "boot item": firmware.pxe(firmware.REQUEST, 0, firmware.boot_item(0x8058), ciaddr="10.1.0.9"),
    **firmware.FOREIGN,
}


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
def test_decodes_like_the_reference(data: bytes) -> None:
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert reference.fields(packet) == reference.decode(data)


@pytest.mark.parametrize("data", EXAMPLES.values(), ids=EXAMPLES)
def test_truncated_at_every_byte(data: bytes) -> None:
    for size in range(len(data) + 1):
        packet = dhcp.decode(data[:size])
        wanted = reference.decode(data[:size])
        assert (packet.reason if isinstance(packet, Drop) else reference.fields(packet)) == wanted


@pytest.mark.parametrize(("data", "reason"), firmware.MALFORMED.values(), ids=firmware.MALFORMED)
def test_malformed_has_its_reason(data: bytes, reason: str) -> None:
    assert dhcp.decode(data) == Drop(reason)
    assert reference.decode(data) == reason


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_decodes(kind: type) -> None:
    data = firmware.pxe()
    assert dhcp.decode(kind(data)) == dhcp.decode(data)


def test_a_view_into_a_larger_buffer_is_not_left() -> None:
    data = firmware.pxe(size=0)
    buffer = memoryview(b"\xff" * 7 + data + b"\x35\x01\x09" * 50)[7 : 7 + len(data)]
    assert dhcp.decode(buffer) == dhcp.decode(data)


def test_a_buffer_that_is_not_contiguous_is_the_callers_fault() -> None:
    with pytest.raises(BufferError):
        dhcp.decode(memoryview(bytes(600))[::2])


def test_a_missing_end_is_tolerated() -> None:
    data = firmware.pxe(size=0)
    assert data[-1] == 255
    assert dhcp.decode(data[:-1]) == dhcp.decode(data)


def test_bytes_after_end_mean_nothing() -> None:
    data = firmware.pxe(size=0)
    assert dhcp.decode(data + b"\x3c\xff") == dhcp.decode(data)


def test_pads_between_options() -> None:
    packet = dhcp.decode(reference.message(options=[(0, b""), (53, b"\1"), (0, b""), (0, b""), (60, b"x")]))
    assert isinstance(packet, dhcp.Packet)
    assert list(packet.options.items()) == [(53, b"\1"), (60, b"x")]


def test_pieces_of_one_option_are_one_value() -> None:
    """RFC 3396 section 7; the order is that of first appearance."""
    packet = dhcp.decode(reference.message(options=[(43, b"ab"), (53, b"\1"), (43, b""), (43, b"cd")]))
    assert isinstance(packet, dhcp.Packet)
    assert list(packet.options.items()) == [(43, b"abcd"), (53, b"\1")]


def test_an_empty_option_is_there() -> None:
    packet = dhcp.decode(reference.message(options=[(80, b"")]))
    assert isinstance(packet, dhcp.Packet)
    assert packet.options == {80: b""}


@pytest.mark.parametrize(
    ("overload", "options", "file", "sname"),
    [
        (1, {53: b"\1", 67: b"from file"}, b"", b"\x42\x02hi"),
        (2, {53: b"\1", 66: b"hi"}, b"\x43\x09from file\xff", b""),
        (3, {53: b"\1", 67: b"from file", 66: b"hi"}, b"", b""),
    ],
)
def test_option_overload(overload: int, options: dict[int, bytes], file: bytes, sname: bytes) -> None:
    """RFC 2132 section 9.3; option 52 itself is used up."""
    data = reference.message(
        file=b"\x43\x09from file\xff", sname=b"\x42\x02hi", options=[(52, bytes((overload,))), (53, b"\1")]
    )
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert (packet.options, packet.file, packet.sname) == (options, file, sname)


def test_overload_joins_pieces_in_the_order_options_file_sname() -> None:
    """RFC 3396 section 5."""
    data = reference.message(sname=b"\x43\x01c\xff", file=b"\x43\x01b\xff", options=[(67, b"a"), (52, b"\3")])
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert packet.options == {67: b"abc"}


def test_overload_inside_an_overloaded_field_is_ignored() -> None:
    data = reference.message(file=b"\x34\x01\x03\x43\x01b\xff", sname=b"name", options=[(52, b"\1")])
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert (packet.options, packet.sname) == ({67: b"b"}, b"name")


def test_thousands_of_small_pieces() -> None:
    data = reference.message(options=[(43, bytes((i & 255,))) for i in range(20_000)])
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert packet.options == {43: bytes(i & 255 for i in range(20_000))}


def test_text_fields_end_at_nul_and_may_be_full() -> None:
    packet = dhcp.decode(reference.message(sname=b"s" * 64, file=b"a\0garbage"))
    assert isinstance(packet, dhcp.Packet)
    assert (packet.sname, packet.file) == (b"s" * 64, b"a")


@pytest.mark.parametrize("hlen", [0, 1, 6, 8, 16])
def test_chaddr_has_hlen_bytes(hlen: int) -> None:
    packet = dhcp.decode(reference.message(chaddr=bytes(range(1, hlen + 1))))
    assert isinstance(packet, dhcp.Packet)
    assert (packet.hlen, packet.chaddr) == (hlen, bytes(range(1, hlen + 1)))


def test_encoded_bytes() -> None:
    """The whole packet: 82 last, a PAD behind 67, END, zeros up to 300."""
    packet = dhcp.Packet(
        op=2,
        htype=6,
        hops=3,
        xid=0xDEADBEEF,
        secs=4,
        flags=0x8000,
        ciaddr="1.2.3.4",
        yiaddr="5.6.7.8",
        siaddr="9.10.11.12",
        giaddr="255.254.253.252",
        chaddr=b"\1\2\3\4\5\6",
        sname=b"server",
        file=b"file",
        options={82: b"relay", 53: b"\2", 67: b"file", 60: b"PXEClient"},
    )
    assert dhcp.encode(packet) == reference.message(
        op=2,
        htype=6,
        hops=3,
        xid=0xDEADBEEF,
        secs=4,
        flags=0x8000,
        ciaddr="1.2.3.4",
        yiaddr="5.6.7.8",
        siaddr="9.10.11.12",
        giaddr="255.254.253.252",
        chaddr=b"\1\2\3\4\5\6",
        sname=b"server",
        file=b"file",
        options=[(53, b"\2"), (67, b"file"), (0, b""), (60, b"PXEClient"), (82, b"relay")],
    )


def test_encoded_without_padding() -> None:
    assert dhcp.encode(dhcp.Packet(options={53: b"\1"}), 0) == reference.message(xid=0, options=[(53, b"\1")], size=0)


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 510, 511, 1000])
def test_long_options_are_split(size: int) -> None:
    """RFC 3396 section 6."""
    value = bytes(i & 255 for i in range(size))
    pieces = [(43, value[i : i + 255]) for i in range(0, size, 255)] or [(43, b"")]
    data = dhcp.encode(dhcp.Packet(options={43: value}))
    assert data == reference.message(xid=0, options=pieces)
    packet = dhcp.decode(data)
    assert isinstance(packet, dhcp.Packet)
    assert packet.options == {43: value}


@pytest.mark.parametrize("code", [-1, 0, 52, 255, 256, 1 << 40])
def test_codes_that_are_never_written(code: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        dhcp.encode(dhcp.Packet(options={code: b"\1"}))


def test_values_must_be_bytes() -> None:
    with pytest.raises(TypeError):
        dhcp.encode(dhcp.Packet(options={60: "PXEClient"}))  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        dhcp.encode(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [{"chaddr": bytes(17)}, {"sname": bytes(65)}, {"file": bytes(129)}])
def test_fields_that_do_not_fit(field: dict[str, bytes]) -> None:
    with pytest.raises(ValueError, match="longer than its field"):
        dhcp.Packet(**field)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1.2.3.-1", "a.b.c.d", "1.2.3.0004", "1.2.3.²"]
)
def test_addresses_that_are_none(text: str) -> None:
    for name in ("ciaddr", "yiaddr", "siaddr", "giaddr"):
        with pytest.raises(ValueError, match="not an IPv4 address"):
            dhcp.Packet(**{name: text})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not an IPv4 address"):
        dhcp.address_bytes(text)


def test_packets_compare_by_value_and_print_themselves() -> None:
    one, two = (dhcp.decode(firmware.pxe()) for _ in range(2))
    assert one == two
    assert one != dhcp.decode(firmware.pxe(xid=1))
    assert one != "a packet"
    assert eval(repr(one), {"Packet": dhcp.Packet}) == one
    with pytest.raises(TypeError):
        hash(one)
    with pytest.raises(AttributeError):
        one.op = 2  # type: ignore[union-attr]


def test_the_public_face_is_the_compiled_codec() -> None:
    assert dhcp.Packet is compiled.Packet
    assert dhcp.encode is compiled.encode
