"""Datagrams of cast: vectors, byte for byte, and the name of everything that is refused."""

import pytest
from blake3 import blake3

from pxed._ext.cast import (
    REASONS,
    Data,
    Mark,
    Order,
    Report,
    Session,
    decode,
    encode_data,
    encode_mark,
    encode_order,
    encode_report,
    mac,
)
from pxed.types import Drop
from pxed.wire.cast import decode as wire_decode
from pxed.wire.cast import session_id

SESSION = Session(0x0123456789ABCDEF, bytes(range(16)), 100)
DATA = Data(7, 3, 250, 2, 3, b"x" * 50)
MARK = Mark(9, 300, 1000, 200, 2)
ORDER = Order(5, 77, 2, 1)
REPORT = Report(5, 77, 0, 1, 4, 99, 90, 100, 8, 1, 2048, 500, 3, 10, 40, ((10, 5), (17, ((0, 1), (2, 1))), (20, 20)))


def signed(head: str | bytes) -> bytes:
    head = bytes.fromhex(head) if isinstance(head, str) else head
    return head + mac(head, SESSION)


def test_mac_is_siphash_2_4() -> None:
    """The vectors of its authors: key 00..0f, messages 00..n-1."""
    assert mac(b"", SESSION).hex() == "310e0edd47db6f72"
    assert mac(bytes(range(15)), SESSION).hex() == "e545be4961ca29a1"


@pytest.mark.parametrize(
    ("packet", "head", "rest"),
    [
        (encode_data(DATA, SESSION), "c5010100 0123456789abcdef 00000007 00000003 000000fa 0002 0003", b"x" * 50),
        (encode_mark(MARK, SESSION), "c5010200 0123456789abcdef 00000009 0000012c 03e8 00c8 02 000000", b""),
        (encode_order(ORDER, SESSION), "c5010400 0123456789abcdef 00000005 0000004d 02 01 000000000000", b""),
        (
            encode_report(REPORT, SESSION, symbols=100),
            "c5010300 0123456789abcdef 00000005 0000004d 00 01 0004 00000063 0000005a 00000064 00000008 00000001"
            "00000800 01f4 0000 00000003 0000000a 00000028"
            "01 0000000a 00000005  02 00000011 02 0000 0001 0002 0001  01 00000014 00000014",
            b"",
        ),
    ],
    ids=["data", "mark", "order", "report"],
)
def test_vectors(packet: bytes, head: str, rest: bytes) -> None:
    assert packet.hex() == (signed(head) + rest).hex()


def test_what_is_sent_is_understood() -> None:
    assert decode(encode_data(DATA, SESSION), SESSION) == DATA
    assert decode(encode_mark(MARK, SESSION), SESSION) == MARK
    assert decode(encode_order(ORDER, SESSION), SESSION) == ORDER
    assert decode(encode_report(REPORT, SESSION), SESSION) == REPORT


def test_symbols_are_told_in_the_shorter_way() -> None:
    scattered = tuple((i, 1) for i in range(0, 100, 2))
    report = REPORT._replace(wants=((17, scattered),))
    packet = encode_report(report, SESSION, symbols=100)
    assert len(packet) == 64 + 7 + 13 + 8  # a bitmap: kind, chunk, bits, 13 octets
    assert packet[64:71].hex() == "03000000110064"
    assert decode(packet, SESSION) == report


def test_whole_chunks_that_follow_each_other_are_one_entry() -> None:
    packet = encode_report(REPORT._replace(wants=((10, 1), (11, 1), (12, 3))), SESSION)
    assert decode(packet, SESSION) == REPORT._replace(wants=((10, 5),))


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(OverflowError):
        encode_report(REPORT._replace(stop=2000, wants=tuple((i, 1) for i in range(0, 400, 2))), SESSION)


data, mark, order, report = (
    encode_data(DATA, SESSION),
    encode_mark(MARK, SESSION),
    encode_order(ORDER, SESSION),
    encode_report(REPORT, SESSION),
)


def entries(text: str) -> bytes:
    return signed(report[:64] + bytes.fromhex(text))


def header(packet: bytes, at: int, octets: str) -> bytes:
    """A DATA, MARK or ORDER with other octets and a right MAC."""
    changed = bytes.fromhex(octets)
    return signed(packet[:at] + changed + packet[at + len(changed) : 28]) + packet[36:]


def report_header(at: int, octets: str) -> bytes:
    changed = bytes.fromhex(octets)
    return signed(report[:at] + changed + report[at + len(changed) : -8])


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "magic"),
        (b"\xc6" + data[1:], "magic"),
        (b"\xc5", "version"),
        (b"\xc5\x02" + data[2:], "version"),
        (data[:35], "length"),
        (data[:-1], "length"),
        (data + b"x", "length"),
        (mark + b"\0", "length"),
        (order[:-1], "length"),
        (report[:71], "length"),
        (signed(report[:64] + b"\0" * 1401), "length"),
        (b"\xc5\x01\x00" + data[3:], "type"),
        (b"\xc5\x01\x05" + data[3:], "type"),
        (data[:4] + bytes(8) + data[12:], "session"),
        (data[:28] + bytes(8) + data[36:], "mac"),
        (mark[:20] + b"\0\1" + mark[22:], "mac"),
        (order[:-1] + bytes([order[-1] ^ 1]), "mac"),
        (report[:64] + bytes([report[64] ^ 1]) + report[65:], "mac"),
        (header(data, 20, "00000000"), "fields"),  # no bytes
        (header(data, 20, "0000012d"), "fields"),  # four symbols' bytes, three symbols
        (header(data, 24, "0043"), "fields"),  # the 65th parity symbol
        (header(data, 24, "0003"), "length"),  # a parity symbol has 100 bytes
        (header(mark, 24, "00"), "fields"),
        (header(mark, 24, "03"), "fields"),
        (header(mark, 20, "0000"), "fields"),  # a period of nothing
        (header(order, 20, "00"), "fields"),
        (header(order, 20, "05"), "fields"),
        (report_header(20, "0101"), "fields"),  # part 1 of 1
        (report_header(20, "0021"), "fields"),  # 33 parts
        (report_header(48, "03e9"), "fields"),  # a queue of 1001 in 1000
        (report_header(56, "00000029"), "fields"),  # begins behind its end
        (entries("04 0000000a 00000001"), "entries"),
        (entries("01 0000000a 000000"), "entries"),
        (entries("01 0000000a 00000000"), "entries"),
        (entries("01 00000009 00000001"), "entries"),  # before the window
        (entries("01 00000027 00000002"), "entries"),  # beyond it
        (entries("01 0000000a ffffffff"), "entries"),
        (entries("01 0000000a 00000002 01 0000000b 00000001"), "entries"),  # twice
        (entries("02 0000000a 00"), "entries"),
        (entries("02 0000000a 01 0000"), "entries"),
        (entries("02 0000000a 01 0000 0000"), "entries"),
        (entries("02 0000000a 02 0000 0001 0001 0001"), "entries"),  # runs that touch
        (entries("02 0000000a 02 0004 0001 0001 0001"), "entries"),
        (entries("02 0000000a 01 1fff 0002"), "entries"),  # beyond all symbols
        (entries("03 0000000a 0000"), "entries"),
        (entries("03 0000000a 0009 ff"), "entries"),
        (entries("03 0000000a 0009 ff02"), "entries"),  # a bit beyond its size
        (entries("03 0000000a 0008 00"), "entries"),  # lacks nothing
        (entries("03 0000000a 2001" + "ff" * 1025), "entries"),
    ],
)
def test_what_is_refused_has_a_name(packet: bytes, reason: str) -> None:
    assert reason in REASONS
    assert decode(packet, SESSION) == reason


def test_parity_symbols_have_full_length() -> None:
    parity = Data(7, 3, 250, 3 + 63, 3, b"p" * 100)
    assert decode(encode_data(parity, SESSION), SESSION) == parity


def test_a_session_is_looked_at() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        decode(data, SESSION._replace(key=b"short"))
    with pytest.raises(ValueError, match="symbol"):
        decode(data, SESSION._replace(symbol=0))


def test_a_session_is_bound_to_its_image() -> None:
    """BLAKE3 of key, root and a text, as the specification has it; another root or key is another session."""
    key, root = bytes(range(16)), bytes(32)
    assert session_id(key, root) == blake3(key + root + b"pxed cast 1").digest()[:8]
    assert len({session_id(key, root), session_id(key, b"x" * 32), session_id(b"k" * 16, root)}) == 3


def test_the_public_face_drops_by_name() -> None:
    assert wire_decode(mark, SESSION) == MARK
    assert wire_decode(b"\xc5\x02", SESSION) == Drop("version")
