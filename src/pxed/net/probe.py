"""Listens for who else answers network boots: asks as a PXE client, and judges the offers that come.

A bounded DHCPDISCOVER (at most two datagrams an interface), sent as a machine that does not exist and never takes a
lease. Needs CAP_NET_RAW. Blocking: it is for a command, not for the server.
"""

import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from msgspec import Struct

from pxed.errors import OperatorError
from pxed.net.dhcp import checksum, ip_udp_packet, parse_ip_udp
from pxed.net.diagnose import Finding
from pxed.net.holders import holders
from pxed.net.interfaces import InterfaceAddress
from pxed.types import Drop
from pxed.wire.dhcp import UNSPECIFIED, Packet, address_text, decode, encode
from pxed.wire.iana import BROADCAST, CLIENT_PORT, SERVER_PORT, ArchType, MessageType, Op, OptionCode

__all__ = ["LISTEN_SECONDS", "PROBE_MAC", "Offer", "discover", "judge", "listen"]

# A locally administered address (second bit of the first byte) that spells "pxed?". Always the same one, so that
# repeated checks of a site use up one lease offer and appear as one machine.
PROBE_MAC = bytes((0x02, *b"pxed?"))

# dnsmasq first pings the address that it is about to offer and gives the ping up to 3 s.
LISTEN_SECONDS = 4.0

# The second datagram, for a network that lost the first.
REPEAT_SECONDS = 1.0

_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_FRAME_SIZE = 9216
_BROADCAST_FLAG = 0x8000


class Offer(Struct, frozen=True):
    """What one server offered to the probe."""

    interface: str
    server: str  # option 54, else who sent it
    address: str = ""  # that it would lease; empty for a proxyDHCP
    class_id: str = ""  # option 60
    boot: str = ""  # boot server and file, as said in siaddr, file, options 66 and 67


def discover(xid: int) -> bytes:
    """The probe: a DISCOVER as BIOS PXE firmware sends it."""
    number = OptionCode
    wanted = (number.SUBNET_MASK, number.ROUTER, number.VENDOR, number.SERVER_ID, number.CLASS_ID, number.SERVER_NAME)
    options = {
        number.MESSAGE_TYPE: bytes((MessageType.DISCOVER,)),
        number.PARAMETER_LIST: bytes((*wanted, number.BOOT_FILE)),
        number.MAX_SIZE: (1260).to_bytes(2, "big"),
        number.CLASS_ID: b"PXEClient:Arch:00000:UNDI:002001",
        number.CLIENT_ARCH: int(ArchType.BIOS).to_bytes(2, "big"),
        number.CLIENT_NDI: b"\1\2\1",
    }
    return encode(
        Packet(
            op=Op.REQUEST,
            xid=xid,
            flags=_BROADCAST_FLAG,  # nobody has the address that is offered: unicast would be lost
            chaddr=PROBE_MAC,
            options={int(code): value for code, value in options.items()},
        )
    )


def read_offer(payload: bytes, xid: int, interface: str, source: str) -> Offer | None:
    """The offer in a datagram to port 68; None when it is no answer to our probe."""
    packet = decode(payload)
    if isinstance(packet, Drop) or packet.op != Op.REPLY or packet.xid != xid or packet.chaddr[:6] != PROBE_MAC:
        return None
    options = packet.options
    if options.get(OptionCode.MESSAGE_TYPE) != bytes((MessageType.OFFER,)):
        return None
    server = packet.siaddr if packet.siaddr != UNSPECIFIED else _text(options.get(OptionCode.SERVER_NAME, b""))
    file = _text(options.get(OptionCode.BOOT_FILE, b"")) or _text(packet.file)
    return Offer(
        interface=interface,
        server=address_text(options.get(OptionCode.SERVER_ID, b"")) or source,
        address=packet.yiaddr if packet.yiaddr != UNSPECIFIED else "",
        class_id=_text(options.get(OptionCode.CLASS_ID, b"")),
        boot=" ".join(part for part in (server, file) if part) if file else "",
    )


def judge(interface: str, offers: Iterable[Offer], ours: Iterable[str]) -> Iterator[Finding]:
    """What the offers heard on one interface mean for pxed. `ours`: addresses that pxed itself answers from."""
    leases = 0
    for offer in sorted(set(offers), key=lambda offer: (offer.server, offer.address, offer.boot)):
        leases += bool(offer.address)
        names_pxe = offer.class_id.startswith("PXEClient")
        if names_pxe and offer.address:
            yield Finding(
                "error",
                "dhcp-option-60",
                f'The DHCP server {offer.server} on {interface} sends option 60 "PXEClient" itself: UEFI firmware then '
                "never uses an offer of pxed. Remove option 60 (vendor class) from what it sends.",
            )
        elif not offer.address and offer.server not in ours:
            yield Finding(
                "error",
                "other-proxy-dhcp",
                f"Another proxyDHCP answers on {interface}: {offer.server}{_boots(offer)}. Machines take whichever of "
                "the two is first. Stop it, or keep it away from the machines of pxed.",
            )
        elif offer.address and offer.boot:
            yield Finding(
                "warning",
                "dhcp-boot-file",
                f"The DHCP server {offer.server} on {interface} names a boot file of its own ({offer.boot}): some "
                "firmware boots that instead of what pxed offers. Remove next-server and file from its configuration.",
            )
    if not leases:
        yield Finding(
            "warning",
            "no-dhcp",
            f"No DHCP server offered an address on {interface} within {LISTEN_SECONDS:.0f} s: "
            "machines need one, pxed gives none.",
        )


def _boots(offer: Offer) -> str:
    return f" (it boots {offer.boot})" if offer.boot else ""


def listen(
    interfaces: Iterable[InterfaceAddress], server_pid: int | None = None, seconds: float = LISTEN_SECONDS
) -> dict[str, set[Offer]]:
    """Send the probe on each interface and collect the offers by interface.

    `server_pid` is the running pxed of this host, which is not asked: it would list the probe as a machine.
    Raises OperatorError when it may not (no CAP_NET_RAW) or an interface cannot be used.
    """
    served = {entry.name: entry for entry in interfaces}
    xid = int.from_bytes(os.urandom(4), "big")
    payload = discover(xid)
    # The kernel does not show what it sends by packet sockets to its own host: a DHCP server here is asked through
    # the IP stack, which loops broadcasts back.
    same_host = any(f"(pid {server_pid})" not in who for who in holders("udp", SERVER_PORT))
    heard: dict[str, set[Offer]] = {name: set() for name in served}
    with ExitStack() as stack:
        sockets = {name: stack.enter_context(_open(name)) for name in served}
        start = time.monotonic()
        end, sends = start + seconds, [start, start + REPEAT_SECONDS]
        while (now := time.monotonic()) < end:
            if sends and now >= sends[0]:
                del sends[0]
                for name, sock in sockets.items():
                    _send(sock, name, payload, served[name].address if same_host else "")
            ready, _, _ = select.select(list(sockets.values()), [], [], max(0.0, min((end, *sends)) - now))
            for name, sock in sockets.items():
                if sock in ready and (offer := _receive(sock, name, xid)) is not None:
                    heard[name].add(offer)
    return heard


def _open(interface: str) -> socket.socket:
    """A packet socket on one interface. ETH_P_ALL shows what this host itself sends, too: its own DHCP server."""
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    except PermissionError as error:
        raise OperatorError("Listening for other boot servers needs root (CAP_NET_RAW); or use --no-probe.") from error
    try:
        sock.bind((interface, _ETH_P_ALL))
    except OSError as error:
        sock.close()
        raise OperatorError(f"The interface {interface} cannot be listened on: {error.strerror}.") from error
    return sock


def _send(sock: socket.socket, interface: str, payload: bytes, own_address: str) -> None:
    """The probe, as a frame on the wire; with `own_address` also through this host's IP stack."""
    packet = bytearray(ip_udp_packet(payload, (UNSPECIFIED, CLIENT_PORT), (BROADCAST, SERVER_PORT)))
    # A packet socket sends what it is given: the checksum and the length that the kernel fills in for raw sockets.
    packet[2:4] = len(packet).to_bytes(2, "big")
    packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
    try:
        sock.send(b"\xff" * 6 + PROBE_MAC + _ETH_P_IP.to_bytes(2, "big") + packet)
        if own_address:
            _send_by_ip(interface, payload, own_address)
    except OSError as error:
        raise OperatorError(f"Nothing can be sent on {interface}: {error.strerror}.") from error


def _send_by_ip(interface: str, payload: bytes, own_address: str) -> None:
    packet = ip_udp_packet(payload, (own_address, CLIENT_PORT), (BROADCAST, SERVER_PORT))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        raw.sendto(packet, (BROADCAST, 0))


def _receive(sock: socket.socket, interface: str, xid: int) -> Offer | None:
    try:
        frame, origin = sock.recvfrom(_FRAME_SIZE)
    except OSError:  # the interface went down; the others go on
        return None
    if origin[1] != _ETH_P_IP:
        return None
    parsed = parse_ip_udp(frame[14:])
    if parsed is None:
        return None
    source, destination, payload = parsed
    return read_offer(payload, xid, interface, source[0]) if destination[1] == CLIENT_PORT else None


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("ascii", "replace")
