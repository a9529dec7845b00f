"""TFTP codec: vectors both ways, and every packet cut at every byte."""

import pytest

from pxed._ext.tftp import Ack, Error, Request, build_data, build_error, build_oack, parse

# What clients send, as captured (names shortened).
VECTORS = [
    (b"\0\1a\0octet\0", Request(False, "a", "octet", {})),
    (
        b"\0\1undionly.kpxe\0octet\0tsize\x000\0",  # BIOS ROM, size probe
        Request(False, "undionly.kpxe", "octet", {"tsize": 0}),
    ),
    (
        b"\0\1x.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0",  # EDK2
        Request(False, "x.efi", "octet", {"blksize": 1468, "tsize": 0, "windowsize": 4}),
    ),
    (
        b"\0\1boot.ipxe\0octet\0blksize\x001432\0tsize\x000\0",  # iPXE
        Request(False, "boot.ipxe", "octet", {"blksize": 1432, "tsize": 0}),
    ),
    (
        b"\0\1\\boot\\bcd\0octet\0tsize\x000\0blksize\x001456\0windowsize\x0016\0",  # Windows boot manager
        Request(False, "\\boot\\bcd", "octet", {"blksize": 1456, "tsize": 0, "windowsize": 16}),
    ),
    (b"\0\1/g\0OCTET\0BLKSIZE\x001024\0TSize\x000\0", Request(False, "/g", "octet", {"blksize": 1024, "tsize": 0})),
    (b"\0\1a\0netascii\0timeout\x005\0", Request(False, "a", "netascii", {"timeout": 5})),
    (b"\0\1\0octet\0", Request(False, "", "octet", {})),  # the control plane says no
    (b"\0\2up\0octet\0", Request(True, "up", "octet", {})),
    (b"\0\1a\0mail\0", Request(False, "a", "mail", {})),
    (b"\0\1a\0image\0", Request(False, "a", "other", {})),
    (b"\0\1\xff\xe9\0octet\0", Request(False, "\udcff\udce9", "octet", {})),
    # Options out of range, unknown or repeated.
    (b"\0\1a\0octet\0blksize\x007\0windowsize\x000\0timeout\x00256\0", Request(False, "a", "octet", {})),
    (b"\0\1a\0octet\0blksize\x0099999\0", Request(False, "a", "octet", {"blksize": 65464})),
    (b"\0\1a\0octet\0blksize\x00-1\0tsize\0\0timeout\x001s\0", Request(False, "a", "octet", {})),
    (b"\0\1a\0octet\0blksize\x00" + b"9" * 19 + b"\0", Request(False, "a", "octet", {})),
    (b"\0\1a\0octet\0blksize\x001000\0blksize\x002000\0", Request(False, "a", "octet", {"blksize": 1000})),
    (b"\0\1a\0octet\0Multicast\0\0rollover\x000\0", Request(False, "a", "octet", {"multicast": 0})),  # RFC 2090
    (b"\0\1a\0octet\0multicast\x001\0blksize\0\0", Request(False, "a", "octet", {})),
    (b"\0\1a\0octet\0blksiz\x001000\0blksizes\x001000\0", Request(False, "a", "octet", {})),
    (b"\0\1a\0octet\0blksize\0", Request(False, "a", "octet", {})),  # a value is missing
    (b"\0\1a\0octet\0\0\0\0\0\0\0", Request(False, "a", "octet", {})),  # padding
    (b"\0\4\0\0", Ack(0)),
    (b"\0\4\xff\xfe", Ack(65534)),
    (b"\0\4\0\1padding", Ack(1)),
    (b"\0\5\0\x08User aborted the transfer\0", Error(8, "User aborted the transfer")),
    (b"\0\5\0\0", Error(0, "")),
    (b"\0\5\0\1no end", Error(1, "no end")),
    (b"\0\5\0\1\xff\0more", Error(1, "\ufffd")),
]


@pytest.mark.parametrize(("packet", "wanted"), VECTORS, ids=lambda value: repr(value)[:40])
def test_parse(packet: bytes, wanted: Request | Ack | Error) -> None:
    assert parse(packet) == wanted
    assert parse(bytearray(packet)) == wanted
    assert parse(memoryview(b"x" + packet + b"y")[1:-1]) == wanted


@pytest.mark.parametrize(("packet", "wanted"), VECTORS, ids=lambda value: repr(value)[:40])
def test_cut_at_every_byte(packet: bytes, wanted: Request | Ack | Error) -> None:
    """A cut packet is malformed, or means less; it never means something else. (ASan watches the reads.)"""
    for size in range(len(packet)):
        got = parse(packet[:size])
        if isinstance(wanted, Request) and got is not None:
            assert isinstance(got, Request)
            assert (got.name, got.mode) == (wanted.name, wanted.mode)
            assert got.options.items() <= wanted.options.items()
        elif isinstance(wanted, Error) and got is not None:
            assert isinstance(got, Error)
            assert got.code == wanted.code
        elif size < 4:
            assert got is None


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\3\0\1data",
        b"\0\6blksize\x00512\0",
        b"\0\7",
        b"\1\1a\0octet\0",
        b"\0\1",
    ],
)
def test_not_for_a_server(packet: bytes) -> None:
    assert parse(packet) is None


def test_build_data_wraps() -> None:
    assert build_data(1, b"x") == b"\0\3\0\1x"
    assert build_data(65535, b"") == b"\0\3\xff\xff"
    assert build_data(65536, b"x") == b"\0\3\0\0x"
    assert build_data(65537, b"x") == b"\0\3\0\1x"


def test_build_oack() -> None:
    assert build_oack() == b"\0\6"
    assert build_oack(tsize=0) == b"\0\6tsize\x000\0"
    whole = build_oack(blksize=65464, tsize=2**64 - 1, timeout=255, windowsize=65535)
    assert whole == b"\0\6blksize\x0065464\0tsize\x0018446744073709551615\0timeout\x00255\0windowsize\x0065535\0"


def test_build_oack_with_a_group() -> None:
    """RFC 2090: address, port, and whether this client acknowledges."""
    assert build_oack(multicast=("239.255.78.1", 1758, True)) == b"\0\6multicast\x00239.255.78.1,1758,1\0"
    options = {"blksize": 65464, "tsize": 2**64 - 1, "timeout": 255, "windowsize": 65535}
    longest = build_oack(**options, multicast=("255.255.255.255", 65535, False))
    assert longest == build_oack(**options) + b"multicast\x00255.255.255.255,65535,0\0"
    assert len(longest) == 106
    with pytest.raises(ValueError, match="ff02::1"):
        build_oack(multicast=("ff02::1", 1758, True))


def test_build_error_is_bounded() -> None:
    assert build_error(1, "no such file") == b"\0\5\0\1no such file\0"
    assert build_error(0, "x" * 1000) == b"\0\5\0\0" + b"x" * 400 + b"\0"
    assert build_error(2, "a\0b") == b"\0\5\0\2a\0"
    assert build_error(65535, "é") == b"\0\5\xff\xff\xc3\xa9\0"
