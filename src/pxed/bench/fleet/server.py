"""pxed's own state machines behind a virtual network: jobs, DHCP decisions, names, the TFTP sender.

And the site's DHCP server, which is not pxed's: it gives addresses, says nothing about booting, and answers at once.
"""

import ipaddress
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pxed import boot
from pxed._ext.blob import Blob
from pxed._ext.tftp_events import Finished, Request
from pxed._ext.tftp_virtual import VirtualTftp
from pxed.boot import Received, Reply, Site, scripts
from pxed.service.rates import Rates
from pxed.types import Drop, Identity, Verdict
from pxed.wire import dhcp
from pxed.wire.iana import ArchType, MessageType, Op, OptionCode
from pxed.work.identity import clean
from pxed.work.registry import Registry

__all__ = ["PROGRAMS", "SiteDhcp", "VirtualServer"]

# The boot programs of the site, by architecture.
PROGRAMS = {
    ArchType.BIOS: "undionly.kpxe",
    ArchType.EFI_X64: "snponly.efi",
    ArchType.EFI_BC: "shim/shimx64.efi",
}
_LEASE = 3600
_IMAGE = "0" * 64
_NOT_FOUND = 1


class VirtualServer:
    """One pxed at `address`, with `contents` under their names, and work for the machines that `add` tells of.

    line: bits per second of its port, 0 if nobody knows; pace: as [tftp] rate of the configuration, 0 for no limit.
    """

    def __init__(
        self,
        address: str,
        contents: Mapping[str, bytes],
        seed: int,
        limit: int,
        *,
        line: float = 0.0,
        pace: float = 0.0,
    ) -> None:
        self.address = address
        rates = Rates(speed_of=lambda _: int(line / 8) or None)
        rates.whole.rate = int(pace / 8)
        self.tftp = VirtualTftp(seed=seed, limit=limit, places=rates.places([address]), pacer=rates.whole)
        self.finished: list[Finished] = []
        self._contents = contents
        self._blobs = {name: Blob(data) for name, data in contents.items()}
        self._site = Site({int(arch): name for arch, name in PROGRAMS.items()})
        self._tokens = 0
        self._registry = Registry(self._token)

    def _token(self) -> str:
        self._tokens += 1
        return f"{self._tokens:022d}"

    def add(self, identity: Identity, now: float, *, work: bool) -> None:
        """A machine that an operator has recorded, with a job if there is `work`."""
        machine, change = self._registry.machines.add(identity, "", now)
        self._registry.apply(change)
        if work:
            _record, change = self._registry.create(machine, _IMAGE, "fleet", now)
            self._registry.apply(change)

    def dhcp(self, payload: bytes, port: int, source: tuple[str, int], now: float) -> Reply | None:
        """A datagram on port 67 or 4011, as the DHCP service treats it; None: silence."""
        packet = dhcp.decode(payload)
        if isinstance(packet, Drop):
            return None
        facts = boot.facts(packet, Received(port, source, self.address, broadcast=port == 67))
        if isinstance(facts, Drop):
            return None
        check, change = self._registry.check(facts.identity, now)
        self._registry.apply(change)
        reply = boot.decide(facts, check, self._site)
        return reply if isinstance(reply, Reply) else None

    def http(self, url: str, now: float) -> bytes | None:
        """What a URL names; None: 404."""
        return self.content(urlsplit(url).path.lstrip("/"), "http", now)

    def content(self, name: str, via: str, now: float) -> bytes | None:
        """What a name gives, as `service.names` answers it."""
        base = self._site.http_base(self.address) if via == "http" else self._site.tftp_base(self.address)
        if name == scripts.FIRST_SCRIPT:
            return scripts.first_script(base)
        if not name.startswith(scripts.CHECK_PREFIX):
            return self._contents.get(name)
        raw = scripts.parse_check_name(name, encoded=via == "http")
        identity = clean(raw) if raw is not None else Identity()
        check, change = self._registry.check(identity, now)
        self._registry.apply(change)
        record = None
        if check.verdict is Verdict.WORK:
            record, change = self._registry.ticket(identity, now)
            self._registry.apply(change)
        if record is None:
            return scripts.local_script(check.reason)
        line = scripts.kernel_command_line(self._site.http_base(self.address), record.token, identity.mac)
        return scripts.work_script(base, line)

    def collect(self, now: float) -> None:
        """What the control plane does about the sender's events, at once."""
        for event in self.tftp.events():
            if isinstance(event, Finished):
                self.finished.append(event)
            elif isinstance(event, Request):
                self._answer(event, now)

    def _answer(self, event: Request, now: float) -> None:
        name = event.name.lstrip("/")
        blob = self._blobs.get(name)
        if blob is None:
            made = self.content(name, "tftp", now)
            blob = Blob(made) if made is not None else None
        if blob is None:
            self.tftp.refuse(event.id, _NOT_FOUND, "file not found", now)
        else:
            self.tftp.send(event.id, blob, now)


class SiteDhcp:
    """The network's DHCP server at `address`; machine n gets the address n after `first`."""

    def __init__(self, address: str, first: str, number_of: Callable[[bytes], int | None]) -> None:
        self._id = dhcp.address_bytes(address)
        self._first = int(ipaddress.IPv4Address(first))
        self._number_of = number_of
        self.address = address

    def lease(self, number: int) -> str:
        """The address of machine `number`."""
        return str(ipaddress.IPv4Address(self._first + number))

    def answer(self, payload: bytes) -> bytes | None:
        """The reply to a request of one of the machines; None: not for us."""
        packet = dhcp.decode(payload)
        if isinstance(packet, Drop):
            return None
        number = self._number_of(packet.chaddr)
        kind = packet.options.get(OptionCode.MESSAGE_TYPE)
        if number is None or kind not in (bytes((MessageType.DISCOVER,)), bytes((MessageType.REQUEST,))):
            return None
        asked = packet.options.get(OptionCode.SERVER_ID)
        if kind == bytes((MessageType.REQUEST,)) and asked != self._id:
            return None
        answer = MessageType.OFFER if kind == bytes((MessageType.DISCOVER,)) else MessageType.ACK
        return dhcp.encode(
            dhcp.Packet(
                op=Op.REPLY, xid=packet.xid, flags=packet.flags, yiaddr=self.lease(number), chaddr=packet.chaddr,
                options={
                    OptionCode.MESSAGE_TYPE: bytes((answer,)), OptionCode.SERVER_ID: self._id,
                    51: _LEASE.to_bytes(4, "big"), OptionCode.SUBNET_MASK: b"\xff\xff\0\0",
                },
            )
        )  # fmt: skip
