"""The addresses and interfaces of this machine, and which of our addresses a client reaches.

The list comes from the kernel by rtnetlink (RTM_GETADDR), the choice of an address toward a relay from its
routing table. Blocking calls, but only to the kernel: microseconds.
"""

import math
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from msgspec import Struct

from pxed.errors import OperatorError
from pxed.wire.dhcp import UNSPECIFIED
from pxed.wire.iana import BROADCAST

__all__ = ["InterfaceAddress", "Interfaces", "Neighbours", "list_addresses", "served", "speed"]

_NLMSG_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port id
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, interface index
_RTATTR = struct.Struct("=HH")  # length, type
_NLMSG_ERROR, _NLMSG_DONE, _RTM_GETADDR, _RTM_NEWADDR = 2, 3, 22, 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

# A peer of a route look-up is never sent anything; the port only completes the address.
_LOOKUP_PORT = 67
# Seconds between two readings of the kernel's list that unknown interfaces may cause.
_REREAD = 1.0


class InterfaceAddress(Struct, frozen=True):
    """One address of one interface."""

    index: int  # kernel's interface index
    name: str
    address: str
    network: IPv4Network | IPv6Network


def list_addresses() -> list[InterfaceAddress]:
    """Every address of this machine (of this network namespace) in the kernel's order, but no link-local IPv6 ones:
    each interface has one, and none can be configured.
    """
    found: list[InterfaceAddress] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        body = _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        header = _NLMSG_HEADER.pack(_NLMSG_HEADER.size + len(body), _RTM_GETADDR, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
        netlink.send(header + body)
        while True:
            for kind, payload in _messages(netlink.recv(1 << 16)):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, f"rtnetlink: {os.strerror(code)}")
                if kind == _RTM_NEWADDR and (entry := _parse_address(payload)):
                    found.append(entry)


def served(addresses: Iterable[str]) -> list[InterfaceAddress]:
    """Those of these addresses that are on a real interface now, the first of each; not on the loopback."""
    wanted, found = set(addresses), dict[str, InterfaceAddress]()
    for entry in list_addresses():
        if entry.address in wanted and not entry.network.is_loopback:
            found.setdefault(entry.name, entry)
    return list(found.values())


def speed(interface: str) -> int | None:
    """What an interface carries, in bytes per second; None when it does not say (virtual ones, a pulled cable)."""
    try:
        megabits = int(Path("/sys/class/net", interface, "speed").read_text())
    except (OSError, ValueError):
        return None
    return megabits * 125_000 if megabits > 0 else None


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages in one datagram, as (type, payload)."""
    at = 0
    while at + _NLMSG_HEADER.size <= len(data):
        length, kind, *_ = _NLMSG_HEADER.unpack_from(data, at)
        if length < _NLMSG_HEADER.size:
            return
        yield kind, data[at + _NLMSG_HEADER.size : at + length]
        at += (length + 3) & ~3


def _parse_address(payload: bytes) -> InterfaceAddress | None:
    """One RTM_NEWADDR message; None when it is of no use, or the interface went away meanwhile."""
    family, prefix, _flags, _scope, index = _IFADDRMSG.unpack_from(payload)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    attributes: dict[int, bytes] = {}
    at = _IFADDRMSG.size
    while at + _RTATTR.size <= len(payload):
        length, kind = _RTATTR.unpack_from(payload, at)
        if length < _RTATTR.size:
            break
        attributes[kind] = payload[at + _RTATTR.size : at + length]
        at += (length + 3) & ~3
    # On a point-to-point link IFA_ADDRESS is the other end; IFA_LOCAL is always ours.
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if raw is None:
        return None
    try:
        name = socket.if_indextoname(index)
    except OSError:
        return None
    address = ip_address(raw)
    if address.version == 6 and address.is_link_local:
        return None
    return InterfaceAddress(index, name, str(address), ip_network(f"{address}/{prefix}", strict=False))


class Interfaces:
    """The configured addresses (`server.address`) as they lie on this machine's interfaces now."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._wanted = addresses
        self._read = 0.0  # when the kernel was asked last
        self._by_index: dict[int, list[InterfaceAddress]] = {}  # of IPv4: what DHCP asks for
        self._local: dict[str, InterfaceAddress] = {}

    def refresh(self) -> None:
        """Read the kernel's list again.

        Raises OperatorError when an address of the configuration is not this machine's.
        """
        everything = list_addresses()
        self._take(everything)
        for address in self._wanted:
            if address not in self._local:
                have = ", ".join(f"{entry.address} ({entry.name})" for entry in everything) or "none"
                raise OperatorError(
                    f"server.address {address} is not an address of this machine. Its addresses: {have}."
                )

    def _take(self, everything: list[InterfaceAddress]) -> None:
        """Keep those of the list that are configured."""
        self._read = time.monotonic()
        self._local = {entry.address: entry for entry in everything if entry.address in self._wanted}
        self._by_index = {}
        for address in self._wanted:  # the order of the configuration is the order of preference
            if ":" not in address and (entry := self._local.get(address)):
                self._by_index.setdefault(entry.index, []).append(entry)

    def _entries(self, index: int) -> list[InterfaceAddress]:
        """Our IPv4 addresses on an interface.

        An address moves to another index when a bridge is put over its interface, or a cable of a virtual network is
        made anew: for an unknown interface the kernel is asked again, though not for every stray packet.
        """
        if index not in self._by_index and time.monotonic() - self._read >= _REREAD:
            self._take(list_addresses())
        return self._by_index.get(index, [])

    @property
    def addresses(self) -> tuple[str, ...]:
        """The configured addresses, in the configuration's order."""
        return self._wanted

    def name(self, index: int) -> str:
        """The name of an interface, 'if7' when it has gone."""
        if index in self._by_index:
            return self._by_index[index][0].name
        try:
            return socket.if_indextoname(index)
        except OSError:
            return f"if{index}"

    def interface_of(self, address: str) -> str:
        """The interface that has a configured address; "" when there is none."""
        entry = self._local.get(address)
        return entry.name if entry else ""

    def is_ours(self, address: str) -> bool:
        """Whether this is one of the configured addresses."""
        return address in self._local

    def is_broadcast(self, index: int, address: str) -> bool:
        """Whether this is the limited broadcast, or the broadcast of one of our networks on this interface."""
        if address == BROADCAST:
            return True
        return any(str(entry.network.broadcast_address) == address for entry in self._entries(index))

    def address_for(self, index: int, giaddr: str = "", destination: str = "", source: str = "") -> str | None:
        """The address of ours that the sender of a packet reaches; None when none fits.

        `index`: the interface that the packet came in by. `giaddr`: its relay, if any: then the kernel's route
        toward the relay decides, as the client lives behind it (a relayed packet may come in by any interface).
        `destination`: where it was sent, used when that is one of ours (RFC 1122 4.1.3.5: reply from there).
        `source`: the client's own address, to choose among several addresses of one interface.
        """
        if giaddr and giaddr != UNSPECIFIED:
            return self.toward(giaddr)
        if destination in self._local:
            return destination
        entries = self._entries(index)
        if not entries:
            return None
        if source and source != UNSPECIFIED and len(entries) > 1:
            client = ip_address(source)
            for entry in entries:
                if client in entry.network:
                    return entry.address
        return entries[0].address

    def toward(self, peer: str) -> str:
        """The address of ours that packets to `peer` leave from: the kernel's choice when it is one of the
        configured ones, else a configured one of the same interface, else the first; of the peer's family.
        """
        family = socket.AF_INET6 if ":" in peer else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.connect((peer, _LOOKUP_PORT))
                chosen = probe.getsockname()[0]
            except OSError:  # no route: the reply will fail too, and that is logged
                return self._beside(None, family)
        if chosen in self._local:
            return str(chosen)
        return self._beside(next((entry.index for entry in list_addresses() if entry.address == chosen), None), family)

    def ipv4_for(self, address: str) -> str:
        """What a client that reached a configured address reaches by IPv4: the same, or one of that interface, or the
        first."""
        if ":" not in address:
            return address
        entry = self._local.get(address)
        return self._beside(entry.index if entry else None, socket.AF_INET)

    def _beside(self, index: int | None, family: socket.AddressFamily) -> str:
        """The first configured address of a family on an interface, else of that family, else at all."""
        ours = [address for address in self._wanted if (":" in address) == (family == socket.AF_INET6)]
        there = (address for address in ours if (e := self._local.get(address)) is not None and e.index == index)
        return next(there, (ours or self._wanted)[0])


class Neighbours:
    """MACs of on-link IPv4 addresses, from the kernel's neighbour table.

    The table is read as a whole, at most once in `KEPT` seconds: each end of a download asks, and in a storm of a
    thousand machines the table has a thousand lines. For an address that it did not have it is read again sooner.
    """

    KEPT = 1.0
    MISSED = 0.05

    def __init__(self, table: str = "/proc/net/arp", clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._macs: dict[str, str] = {}
        self._read_at = -math.inf

    def mac(self, address: str) -> str:
        """The MAC of an address, '' when the kernel has none. The table that is read has no IPv6 addresses."""
        if ":" in address:
            return ""
        now = self._clock()
        if now - self._read_at >= (self.KEPT if address in self._macs else self.MISSED):
            self._macs = dict(self._read())
            self._read_at = now
        return self._macs.get(address, "")

    def _read(self) -> Iterator[tuple[str, str]]:
        try:
            with open(self._table, encoding="ascii", errors="replace") as lines:  # noqa: PTH123  (a proc file)
                for line in lines:
                    fields = line.split()
                    if len(fields) >= 4 and fields[0][:1].isdigit() and fields[3] != "00:00:00:00:00:00":
                        yield fields[0], fields[3].lower()
        except OSError:
            return
