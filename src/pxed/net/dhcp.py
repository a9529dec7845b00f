"""The DHCP ports: 67 and 4011, with the interface of every datagram known both ways.

Two ways to have port 67:
- plain: a UDP socket, for a host where no other DHCP daemon runs;
- same host: the other daemon keeps the port. pxed sees the requests through a packet socket (AF_PACKET, with a
  filter for UDP to port 67 in the kernel) and sends from port 67 through a raw IP socket. The other daemon needs
  no change, and no option 60 in its configuration.
Port 4011 (PXE 2.1's boot server port) is always a UDP socket of ours.

No policy here: bytes and where they came from go out to `receive`, bytes and where they go come in by `send`.
"""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address

import structlog
from msgspec import Struct

from pxed._ext import dhcp_io
from pxed.net.holders import bind_error
from pxed.net.interfaces import Interfaces
from pxed.wire.dhcp import address_text
from pxed.wire.iana import BROADCAST, PXE_PORT, SERVER_PORT

__all__ = ["Datagram", "DhcpPorts"]

_ANY = "0.0.0.0"  # noqa: S104  (broadcasts reach only a socket bound to any address)

# Python 3.11's socket module lacks these (linux/in.h, asm-generic/socket.h).
_IP_PKTINFO = 8
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_ETH_P_IP = 0x0800
_PACKET_HOST, _PACKET_OTHERHOST = 0, 3

_IP_HEADER = struct.Struct("!BBHHHBBH4s4s")
_UDP_HEADER = struct.Struct("!HHHH")
_PSEUDO_HEADER = struct.Struct("!4s4sBBH")

# One wake-up takes at most this many datagrams from a socket, so that a flood on the DHCP ports leaves the loop
# turns for everything else.
_BATCH = dhcp_io.BATCH
# Larger than any Ethernet datagram. A fragmented request is not answered: the filter takes no fragments.
_MAX_DATAGRAM = 9216
# Bursts: a rack that powers on sends some 600-byte requests at once; the kernel's default buffer holds about 150.
_RECEIVE_BUFFER = 4 << 20
_GIADDR = slice(24, 28)

# What the interfaces and routes say about a sender holds for a moment: a storm costs no look-up for each packet.
_LOOK_AGAIN = 2.0
_MAX_PLACES = 16384


class Datagram(Struct, frozen=True):
    """One datagram that arrived on a DHCP port."""

    data: bytes
    port: int  # 67 or 4011
    source: tuple[str, int]
    server_address: str  # the address of ours that this client reaches
    interface: str
    index: int  # of that interface
    broadcast: bool  # it was sent to a broadcast address


# The filter in classic BPF, over an IPv4 packet (SOCK_DGRAM packet sockets show it from the IP header on):
# (code, jump if true, jump if false, k)
_FILTER = (
    (0x30, 0, 0, 9),  # A = protocol
    (0x15, 0, 6, 17),  # UDP, else reject
    (0x28, 0, 0, 6),  # A = flags and fragment offset
    (0x45, 4, 0, 0x3FFF),  # a fragment (more to come, or not the first): reject
    (0xB1, 0, 0, 0),  # X = length of the IP header
    (0x48, 0, 0, 2),  # A = destination port
    (0x15, 0, 1, SERVER_PORT),
    (0x06, 0, 0, 0x40000),  # accept
    (0x06, 0, 0, 0),  # reject
)


def _attach_filter(sock: socket.socket) -> None:
    """Attach `_FILTER`. The kernel copies it, so nothing needs to outlive the call."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *row) for row in _FILTER))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_FILTER), ctypes.addressof(program)))


def _enlarge_buffer(sock: socket.socket) -> None:
    """Room for a burst; past the host's net.core.rmem_max where we may (CAP_NET_ADMIN)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_udp_packet(payload: bytes, source: tuple[str, int], destination: tuple[str, int]) -> bytes:
    """An IPv4 + UDP packet for an IPPROTO_RAW socket. The kernel fills in the IP checksum and id (raw(7))."""
    source_ip, destination_ip = IPv4Address(source[0]).packed, IPv4Address(destination[0]).packed
    length = _UDP_HEADER.size + len(payload)
    pseudo = _PSEUDO_HEADER.pack(source_ip, destination_ip, 0, socket.IPPROTO_UDP, length)
    ports = (source[1], destination[1], length)
    # RFC 768: a checksum that comes out as 0 is sent as 0xffff, as 0 means "none".
    udp_sum = checksum(pseudo + _UDP_HEADER.pack(*ports, 0) + payload) or 0xFFFF
    header = _IP_HEADER.pack(
        0x45, 0, _IP_HEADER.size + length, 0, 0, 64, socket.IPPROTO_UDP, 0, source_ip, destination_ip
    )
    return header + _UDP_HEADER.pack(*ports, udp_sum) + payload


def parse_ip_udp(packet: bytes) -> tuple[tuple[str, int], tuple[str, int], bytes] | None:
    """(source, destination, payload) of an IPv4 + UDP packet; None when it is malformed."""
    if len(packet) < _IP_HEADER.size or packet[0] >> 4 != 4:
        return None
    header = (packet[0] & 0x0F) * 4
    if header < _IP_HEADER.size or len(packet) < header + _UDP_HEADER.size:
        return None
    source_port, destination_port, length, _sum = _UDP_HEADER.unpack_from(packet, header)
    if length < _UDP_HEADER.size or header + length > len(packet):
        return None
    return (
        (str(IPv4Address(packet[12:16])), source_port),
        (str(IPv4Address(packet[16:20])), destination_port),
        packet[header + _UDP_HEADER.size : header + length],
    )


class DhcpPorts:
    """Opens the ports, and hands every datagram to `receive` on the event loop; `receive` raises nothing.

    `statistics` counts datagrams in, out, and those dropped here by reason.
    """

    def __init__(self, interfaces: Interfaces, same_host: bool, receive: Callable[[Datagram], None]) -> None:
        self._interfaces = interfaces
        self._same_host = same_host
        self._receive = receive
        self._log = structlog.get_logger("pxed.net.dhcp")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers: list[socket.socket] = []
        self._boot: socket.socket | None = None  # 4011
        self._server: socket.socket | None = None  # 67: UDP, or raw IP in same-host mode
        self._inbox = dhcp_io.Inbox()
        self._places: dict[tuple[int, str, bytes, str], tuple[str, str, bool] | str] = {}
        self._look_again = 0.0
        self.statistics: dict[str, int] = {"in": 0, "out": 0, "send_errors": 0}

    def open(self) -> None:
        """Open the sockets; they hold what arrives until `start`.

        Raises OperatorError: an address is not this machine's, a port is taken (it says by whom), no permission.
        """
        self._interfaces.refresh()
        try:
            self._boot = self._open_udp(PXE_PORT, "")
            if self._same_host:
                self._readers = [self._open_packet(), self._boot]
                self._server = self._open_raw()
            else:
                hint = "If that is this host's DHCP server, set same_host_dhcp = true in [dhcp]: it keeps the port."
                self._server = self._open_udp(SERVER_PORT, hint)
                self._readers = [self._server, self._boot]
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Begin to hand datagrams to `receive`; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        for sock in self._readers:
            if sock.family == socket.AF_PACKET:
                self._loop.add_reader(sock, self._read_packets, sock)
            else:
                self._loop.add_reader(sock, self._read_udp, sock)

    def close(self) -> None:
        """Close the ports. Safe to call twice, and before `open`."""
        for sock in self._readers:
            if self._loop is not None:
                self._loop.remove_reader(sock)
            sock.close()
        for extra in (self._boot, self._server):
            if extra is not None:
                extra.close()
        self._readers, self._boot, self._server = [], None, None

    def send(self, payload: bytes, source: tuple[str, int], destination: tuple[str, int], index: int) -> str:
        """Send from one of our addresses and port 67 or 4011.

        A broadcast leaves by the interface `index`; everything else goes where the routes say. Returns "", or why the
        kernel refused it: DHCP is a datagram protocol, the client asks again.
        """
        out = index if destination[0] == BROADCAST else 0
        sock, port = self._boot, destination[1]
        if source[1] == SERVER_PORT:
            sock = self._server
            if self._same_host:
                payload, port = ip_udp_packet(payload, source, destination), 0
        if sock is None:
            return "the ports are closed"
        error = dhcp_io.send(sock.fileno(), payload, source[0], destination[0], port, out)
        self.statistics["send_errors" if error else "out"] += 1
        return os.strerror(error) if error else ""

    # -- sockets ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _open_udp(port: int, hint: str) -> socket.socket:
        """A UDP socket on any address. Without SO_REUSEADDR: sharing a port would split unicasts at random."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            _enlarge_buffer(sock)
            sock.bind((_ANY, port))
        except OSError as error:
            sock.close()
            raise bind_error("udp", "this machine", port, error, hint) from error
        return sock

    @staticmethod
    def _open_packet() -> socket.socket:
        """Sees UDP to port 67 on every interface: broadcasts on ours, and relayed packets by whatever way they
        come. ETH_P_IP (not ETH_P_ALL) shows each packet once, at the bridge rather than at its ports, and none
        that this host sends.
        """
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        try:
            sock = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IP))
        except OSError as error:
            raise bind_error("udp", "this machine (packet socket, needs CAP_NET_RAW)", SERVER_PORT, error) from error
        _attach_filter(sock)
        _enlarge_buffer(sock)
        # What came in before the filter was there is anybody's.
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.recv(1)
        return sock

    @staticmethod
    def _open_raw() -> socket.socket:
        """Sends whole IP packets. IPPROTO_RAW is send-only: an IPPROTO_UDP raw socket would be handed a copy of
        every UDP packet of this host, all of TFTP's acknowledgements among them.
        """
        sock = socket.socket(
            socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return sock

    # -- receiving -------------------------------------------------------------------------------------------------

    def _read_udp(self, sock: socket.socket) -> None:
        """Port 67 or 4011 is readable."""
        port = PXE_PORT if sock is self._boot else SERVER_PORT
        found = self._inbox.receive(sock.fileno())
        if isinstance(found, int):  # an ICMP error of an earlier reply: nothing of this socket is lost
            self._log.debug("DHCP socket error", port=port, error=os.strerror(found))
            return
        for data, source, source_port, local, destination, index in found:
            if index:  # `local` is our address even for a broadcast
                self._hand_on(data, port, (source, source_port), destination, index, local == destination)
            else:
                self._count("no-interface")

    def _read_packets(self, sock: socket.socket) -> None:
        """The packet socket is readable."""
        for _ in range(_BATCH):
            try:
                packet, origin = sock.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # ENETDOWN: an interface went down; the others go on
                self._log.debug("packet socket error", error=error.strerror)
                continue
            name, _protocol, kind = origin[0], origin[1], origin[2]
            if kind == _PACKET_OTHERHOST:  # promiscuous mode, for somebody's tcpdump
                continue
            parsed = parse_ip_udp(packet)
            if parsed is None:
                self._count("malformed-udp")
                continue
            source, destination, data = parsed
            try:
                index = socket.if_nametoindex(name)
            except OSError:  # gone since
                self._count("no-interface")
                continue
            self._hand_on(data, SERVER_PORT, source, destination[0], index, kind == _PACKET_HOST)

    def _hand_on(
        self, data: bytes, port: int, source: tuple[str, int], destination: str, index: int, unicast: bool
    ) -> None:
        """Find the address that the sender reaches, and pass the datagram on."""
        # Relays bring what comes to port 67. On 4011 the client itself speaks, and a giaddr is left over from its
        # lease: it must be answered from the address that it asked.
        giaddr = data[_GIADDR] if port == SERVER_PORT else b""
        key = (index, destination, giaddr, "" if unicast else source[0])
        now = time.monotonic()
        if now >= self._look_again or len(self._places) >= _MAX_PLACES:
            self._places = {}
            self._look_again = now + _LOOK_AGAIN
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = self._place(index, destination, giaddr, source[0], unicast)
        if isinstance(place, str):
            self._count(place)
            return
        self.statistics["in"] += 1
        datagram = Datagram(data, port, source, place[0], place[1], index, place[2])
        self._receive(datagram)

    def _place(
        self, index: int, destination: str, giaddr: bytes, source: str, unicast: bool
    ) -> tuple[str, str, bool] | str:
        """Our address for a sender, the interface's name, and whether it was a broadcast; or why it goes no further."""
        interfaces = self._interfaces
        if unicast and not interfaces.is_ours(destination):
            return "not-for-us"  # for an address of this host that is not configured, or to be routed
        relay = address_text(giaddr)
        server_address = interfaces.address_for(index, relay, destination, source)
        if server_address is None:
            return "not-our-interface"
        return server_address, interfaces.name(index), interfaces.is_broadcast(index, destination)

    def _count(self, reason: str) -> None:
        """Count a datagram that goes no further."""
        self.statistics[reason] = self.statistics.get(reason, 0) + 1
