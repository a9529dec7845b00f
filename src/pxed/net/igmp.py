"""Is there an IGMP querier? Without one, switches with IGMP snooping forget who listens, and multicast ends there.

IGMP versions 1 to 3 (RFC 1112, 2236, 3376), and what RFC 4541 says of snooping switches. `parse` is without I/O; a
`QuerierWatch` listens for the queries that come every two minutes; `ask` makes a querier speak: it leaves a group, and
a querier then asks at once whether others are left. Needs CAP_NET_RAW.
"""

import asyncio
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

from msgspec import Struct

from pxed.errors import OperatorError
from pxed.net.dhcp import checksum
from pxed.net.diagnose import Finding
from pxed.net.interfaces import InterfaceAddress

__all__ = ["PATIENCE", "QuerierWatch", "Query", "ask", "missing", "parse", "shared_groups"]

# RFC 3376 section 8.4: how long listeners are remembered, two query intervals of 125 s and 10 s for the answer.
PATIENCE = 260.0
ASK_SECONDS = 2.0
# The question again, for a network that lost the first one.
_AGAIN_SECONDS = 0.7

# A group of nobody's (RFC 2365: administratively scoped), joined and left by `ask`.
_ASKED_GROUP = "239.255.84.77"
_ALL_ROUTERS = "224.0.0.2"
_QUERY, _REPORT_V2, _LEAVE_V2 = 0x11, 0x16, 0x17
_MASK_OF_MAC = 0x7FFFFF  # the bits of a group that are in its Ethernet address (RFC 1112 section 6.4)
_ROUTER_ALERT = bytes((0x94, 4, 0, 0))  # RFC 2113
_IP_PKTINFO = 8  # socket has no name for it
_PKTINFO = struct.Struct("=i4s4s")  # interface, local address, destination
_LARGEST = 2048


class Query(Struct, frozen=True):
    """A querier asks who listens: to `group`, or to any when that is 0.0.0.0."""

    version: int
    source: str  # 0.0.0.0: a switch that speaks where no router does
    group: str
    interval: float | None  # seconds between its queries; version 3 only


def parse(packet: bytes) -> Query | None:
    """The query in an IPv4 packet; None for everything else, damaged and cut ones among it."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_IGMP:
        return None
    body = packet[4 * (packet[0] & 0xF) : int.from_bytes(packet[2:4], "big")]
    # RFC 3376 section 7.1: a length between those of versions 2 and 3 is none of either.
    if packet[0] & 0xF < 5 or not (len(body) == 8 or len(body) >= 12) or body[0] != _QUERY or checksum(body):
        return None
    group = IPv4Address(body[4:8])
    if int(group) and not group.is_multicast:
        return None
    version = 3 if len(body) >= 12 else 2 if body[1] else 1
    return Query(version, str(IPv4Address(packet[12:16])), str(group), _seconds(body[9]) if version == 3 else None)


def _seconds(code: int) -> float:
    """RFC 3376 section 4.1.7: a number, or from 128 on a floating point number of 3 and 4 bits."""
    return float(code if code < 128 else (code & 0xF | 0x10) << ((code >> 4 & 0x7) + 3))


class QuerierWatch:
    """Listens on all interfaces: `open`, then `start` on the event loop, or `read` when it is readable; `close`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._socket: socket.socket | None = None
        self._opened = 0.0
        self._heard: dict[str, float] = {}

    def open(self) -> None:
        """Raises OperatorError: no CAP_NET_RAW."""
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_IGMP)
        except PermissionError as error:
            raise OperatorError("Listening for an IGMP querier needs root (CAP_NET_RAW).") from error
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._opened = self._clock()

    def start(self) -> None:
        """Listen; call it on the event loop. Does nothing when it is not open."""
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self.read)

    def close(self) -> None:
        """Safe after a failed `open`."""
        if self._socket is None:
            return
        with suppress(RuntimeError):  # used without a loop
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None

    def fileno(self) -> int:
        """To wait for what comes; -1 when it is not open."""
        return self._socket.fileno() if self._socket is not None else -1

    def read(self) -> None:
        """Take in what has come."""
        while self._socket is not None:
            try:
                packet, extra, _, _ = self._socket.recvmsg(_LARGEST, socket.CMSG_SPACE(_PKTINFO.size))
            except OSError:  # nothing more, or an interface went down
                return
            for level, kind, data in extra:
                if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and parse(packet) is not None:
                    self._hear(_PKTINFO.unpack(data[: _PKTINFO.size])[0])

    def _hear(self, index: int) -> None:
        try:
            self._heard[socket.if_indextoname(index)] = self._clock()
        except OSError:  # it is gone already
            return

    def heard(self, interface: str) -> float | None:
        """Seconds since a querier was heard there; None: not since `open`."""
        at = self._heard.get(interface)
        return None if at is None else self._clock() - at

    def misses(self, interface: str) -> bool:
        """Whether nobody was heard for as long as listeners are remembered without; False until it can be known."""
        if self._socket is None or self._clock() - self._opened < PATIENCE:
            return False
        heard = self.heard(interface)
        return heard is None or heard > PATIENCE

    def speak(self, message: bytes, destination: str, index: int) -> None:
        """Send an IGMP message through an interface. Raises OSError."""
        assert self._socket is not None
        way = struct.pack("=4s4si", b"", b"", index)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, way)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, _ROUTER_ALERT)
        self._socket.sendto(message, (destination, 0))

    def join(self, group: str, index: int) -> None:
        """Have what is sent to a group, too. Raises OSError."""
        assert self._socket is not None
        member = struct.pack("=4s4si", IPv4Address(group).packed, b"", index)
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)


def message(kind: int, group: str) -> bytes:
    """An IGMPv2 message (RFC 2236 section 2)."""
    body = bytes((kind, 0, 0, 0)) + IPv4Address(group).packed
    return body[:2] + checksum(body).to_bytes(2, "big") + body[4:]


def ask(interfaces: Iterable[InterfaceAddress], seconds: float = ASK_SECONDS) -> set[str]:
    """The interfaces on which a querier is heard within `seconds`; fewer when all are. Blocking.

    On each of them a group is joined and left, twice: two datagrams of 32 bytes each time. Raises OperatorError when it
    may not (no CAP_NET_RAW) or an interface cannot be used.
    """
    asked = {entry.name: entry.index for entry in interfaces}
    watch = QuerierWatch()
    watch.open()
    try:
        start = time.monotonic()
        end, times = start + seconds, [start, start + _AGAIN_SECONDS]
        for name, index in asked.items():
            _try(name, watch.join, _ASKED_GROUP, index)
        while (now := time.monotonic()) < end:
            if times and now >= times[0]:
                del times[0]
                for name, index in asked.items():
                    _try(name, watch.speak, message(_REPORT_V2, _ASKED_GROUP), _ASKED_GROUP, index)
                    _try(name, watch.speak, message(_LEAVE_V2, _ASKED_GROUP), _ALL_ROUTERS, index)
            select.select([watch], [], [], max(0.0, min((end, *times)) - now))
            watch.read()
            if all(watch.heard(name) is not None for name in asked):
                break
        return {name for name in asked if watch.heard(name) is not None}
    finally:
        watch.close()


def _try(interface: str, do: Callable[..., None], *arguments: object) -> None:
    try:
        do(*arguments)
    except OSError as error:
        raise OperatorError(f"IGMP cannot be used on {interface}: {error.strerror}.") from error


def missing(interface: str) -> str:
    """That no querier is there, as sentences for people."""
    return (
        f"No IGMP querier is heard on {interface}: switches with IGMP snooping forget after some minutes who listens, "
        "and multicast ends there. Let the router or one switch of that network query; or switch snooping off."
    )


def shared_groups(ranges: Iterable[tuple[str, IPv4Network]]) -> Iterator[Finding]:
    """Which ranges of groups, with what they are called, a switch cannot tell apart, or sends everywhere.

    32 groups share an Ethernet address, by which switches and network cards filter.
    """
    named = [(key, network, int(network[0]) & _MASK_OF_MAC) for key, network in ranges]
    for key, network, low in named:
        if low < 256:
            yield Finding(
                "warning", "groups",
                f"{_called(key, network)} has the Ethernet addresses of 224.0.0.0/24: switches send it everywhere.",
            )  # fmt: skip
    for (key, network, low), (other_key, other, other_low) in combinations(named, 2):
        if low < other_low + other.num_addresses and other_low < low + network.num_addresses and network != other:
            yield Finding(
                "warning", "groups",
                f"{_called(key, network)} has Ethernet addresses of {_called(other_key, other)}: machines that listen "
                "to one get the other, too. Take groups that differ in their last 23 bits.",
            )  # fmt: skip


def _called(key: str, network: IPv4Network) -> str:
    """A range with its name; a single group without the length of its prefix."""
    return f"{key} {network if network.num_addresses > 1 else network[0]}"
