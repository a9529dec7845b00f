"""Identities: one form for every writing, both UUID byte orders the same machine, bogus values dropped."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxed.work.identity import clean, is_bogus_serial, mac_text, normalise, plain_text, uuid_key, uuid_text

GOOD = "9c5b94b1-35ad-49bb-b118-8e8fc24abf80"


@pytest.mark.parametrize(
    "text",
    [
        "52:54:00:12:34:56",
        "52-54-00-12-34-56",
        "5254.0012.3456",
        "525400123456",
        "52:54:00:12:34:56 ",
        "01-52-54-00-12-34-56",  # BOOTIF
        bytes.fromhex("525400123456"),
    ],
)
def test_every_writing_of_a_mac(text):
    assert mac_text(text) == "52:54:00:12:34:56"
    assert mac_text(text.upper()) == "52:54:00:12:34:56" if isinstance(text, str) else True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",  # a group
        "52:54:00:12:34",
        "52:54:00:12:34:5g",
        "02-52-54-00-12-34-56",  # seven bytes, but no BOOTIF of Ethernet
        "lab1",
        b"",
        bytes(16),  # UEFI with SendGUID puts the UUID into chaddr
        bytes(range(2, 22)),  # InfiniBand
    ],
)
def test_what_is_no_mac(text):
    assert mac_text(text) == ""


def test_option_97_and_text_are_the_same_machine():
    """RFC 4578 2.4: the first three fields of the wire's form are little-endian; iPXE's ${uuid} is the text form."""
    wire = bytes.fromhex("b1945b9c ad35 bb49 b118 8e8fc24abf80".replace(" ", ""))
    assert uuid_text(wire) == uuid_text(b"\0" + wire) == uuid_text(GOOD.upper()) == GOOD
    assert uuid_text(GOOD.replace("-", "")) == uuid_text("{" + GOOD + "}") == GOOD


@given(st.uuids())
def test_both_byte_orders_have_one_key(value):
    text, swapped = str(value), str(uuid.UUID(bytes_le=value.bytes))
    assert uuid_key(text) == uuid_key(swapped) in (text, swapped)


@given(st.uuids(), st.uuids())
def test_different_machines_have_different_keys(one, other):
    same = other in (one, uuid.UUID(bytes_le=one.bytes))
    assert (uuid_key(str(one)) == uuid_key(str(other))) == same


BOGUS = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "11111111-1111-1111-1111-111111111111",
    "fefefefe-fefe-fefe-fefe-fefefefefefe",
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",  # the same in the other byte order
    "12345678-1234-5678-90ab-cddeefaabbcc",
    "78563412-3412-7856-90ab-cddeefaabbcc",
    "00010203-0405-0607-0809-0a0b0c0d0e0f",
    "01234567-89ab-cdef-0123-456789abcdef",
    "4c4c4544-0000-2010-8020-80c04f202020",
]


@pytest.mark.parametrize("text", BOGUS)
def test_bogus_uuids_in_both_forms(text):
    assert uuid_text(text) == ""
    assert uuid_text(b"\0" + uuid.UUID(text).bytes_le) == ""
    assert uuid_text(uuid.UUID(text).bytes) == ""


@pytest.mark.parametrize("value", ["", "Not Settable", GOOD[:-1], GOOD + "0", b"", bytes(15), b"\1" + bytes(16)])
def test_malformed_uuids(value):
    assert uuid_text(value) == ""


def test_supermicro_uuid_with_zeros_and_mac_is_good():
    assert uuid_text("00000000-0000-0000-0000-ac1f6b000001") != ""


@pytest.mark.parametrize(
    "text",
    [
        "To be filled by O.E.M.",
        "To Be Filled By O.E.M.",
        "System Serial Number",
        "Default string",
        "0",
        "00000000",
        "XXXXXXXX",
        "........",
        "None",
        "Not Specified",
        "not applicable",
        "N/A",
        "123456789",
        "0123456789",
        "1234567890",
        "12345678901234567890"[:12],
        "Chassis Serial Number",
        "  ",
        "",
        "INVALID",
    ],
)
def test_bogus_serials(text):
    assert is_bogus_serial(text)
    assert normalise(serial=text).serial == ""


@pytest.mark.parametrize("text", ["CZC1234ABC", "7XK2M12", "5CD1234567", "VMware-42 1a", "123", "PF0A1B2C", "1337"])
def test_real_serials(text):
    assert normalise(serial=f" {text} ").serial == text


def test_normalise_drops_placeholders_everywhere():
    made = normalise("5254.0012.3456", BOGUS[0], "Default string", "System manufacturer", "To be filled by O.E.M.")
    assert made == normalise("52:54:00:12:34:56")


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_anything_may_come_in(mac, uuid_, serial):
    made = normalise(mac, uuid_, serial, serial, serial)
    assert clean(made) == made
    assert len(made.serial) <= 64 and made.serial.isprintable()
    made.serial.encode()


@given(st.binary(max_size=40))
def test_any_bytes_may_come_in(data):
    assert len(mac_text(data)) in (0, 17) and len(uuid_text(data)) in (0, 36)


def test_text_is_one_printable_line():
    assert plain_text("a\nb\0c\x1b[31m\u2028d\ud800", 100) == "a b c [31m d"
    assert plain_text("x" * 1000, 10) == "x" * 10
