"""IP and UDP headers of the same-host mode."""

import struct

import pytest

from pxed.net.dhcp import checksum, ip_udp_packet, parse_ip_udp

SOURCE, DESTINATION = ("10.1.0.1", 67), ("255.255.255.255", 68)


def test_checksum_of_rfc_1071() -> None:
    # RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 add up to ddf2.
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == ~0xDDF2 & 0xFFFF
    assert checksum(b"\x01") == checksum(b"\x01\x00")


@pytest.mark.parametrize("payload", [b"", b"x", b"xy", bytes(range(256)) * 5])
def test_a_packet_comes_back_as_it_was(payload: bytes) -> None:
    packet = ip_udp_packet(payload, SOURCE, DESTINATION)
    assert parse_ip_udp(packet) == (SOURCE, DESTINATION, payload)
    # A receiver sums pseudo header, UDP header with its checksum, and payload, to zero (RFC 768).
    pseudo = packet[12:20] + struct.pack("!BBH", 0, 17, 8 + len(payload))
    assert checksum(pseudo + packet[20:]) == 0


def test_a_checksum_of_zero_is_sent_as_all_ones() -> None:
    # 0 would mean "no checksum": look for a payload whose sum comes out as zero.
    base = ip_udp_packet(b"\0\0", SOURCE, DESTINATION)
    (plain,) = struct.unpack_from("!H", base, 26)
    assert struct.unpack_from("!H", ip_udp_packet(struct.pack("!H", plain), SOURCE, DESTINATION), 26) == (0xFFFF,)


def test_ip_options_are_skipped_and_padding_is_cut() -> None:
    packet = ip_udp_packet(b"hello", SOURCE, DESTINATION)
    with_options = bytes((0x46,)) + packet[1:20] + b"\x94\x04\0\0" + packet[20:]
    assert parse_ip_udp(with_options + b"\0" * 20) == (SOURCE, DESTINATION, b"hello")


@pytest.mark.parametrize("length", range(33))
def test_truncated_at_every_byte(length: int) -> None:
    assert parse_ip_udp(ip_udp_packet(b"hello", SOURCE, DESTINATION)[:length]) is None


def test_nonsense_in_headers() -> None:
    packet = bytearray(ip_udp_packet(b"hello", SOURCE, DESTINATION))
    for at, value in ((0, 0x65), (0, 0x44), (0, 0x4F), (24, 0xFF), (25, 7)):
        broken = bytearray(packet)
        broken[at] = value
        assert parse_ip_udp(bytes(broken)) is None, (at, value)
