"""proxyDHCP: a datagram becomes facts, the check and the site decide, a reply goes out or a reason is counted."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from pxed import boot
from pxed.net.dhcp import Datagram, DhcpPorts
from pxed.net.interfaces import Interfaces
from pxed.service.peers import Peers
from pxed.service.transactions import Transactions
from pxed.types import Drop, Event
from pxed.wire import dhcp as codec
from pxed.wire.iana import OptionCode

__all__ = ["DhcpService"]


# The silences that belong into a machine's timeline, and as which kind of line. The others (a lease request, a
# request for another server) are not about whether and what this machine boots.
_TOLD = {"ignored": "drop", "no-work": "no-work", "no-boot-program": "drop", "credentials": "drop"}


class DhcpService:
    """Answers on ports 67 and 4011. `drops` counts requests without an answer, by reason."""

    def __init__(
        self,
        interfaces: Interfaces,
        same_host: bool,
        site: boot.Site,
        transactions: Transactions,
        peers: Peers,
        clock: Callable[[], float] = time.time,
        missing: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`missing`: the boot programs whose files are not there (`Names.missing_programs`)."""
        self._ports = DhcpPorts(interfaces, same_host, self._receive)
        self.site = site  # replaced as a whole when the configuration is read again
        self._transactions = transactions
        self._peers = peers
        self._clock = clock
        self._missing = missing
        self._log = structlog.get_logger("pxed.dhcp")
        self.drops: Counter[str] = Counter()
        self.replies = 0

    @property
    def statistics(self) -> dict[str, int]:
        """The ports' counters, the replies, and the drops as 'drop:REASON'."""
        drops = {f"drop:{reason}": count for reason, count in self.drops.items()}
        return {**self._ports.statistics, "replies": self.replies, **drops}

    def open(self) -> None:
        """Bind the ports. Raises OperatorError, which says who holds them."""
        self._ports.open()

    def start(self) -> None:
        """Begin to answer; call it on the event loop."""
        self._ports.start()

    def close(self) -> None:
        """Give the ports back."""
        self._ports.close()

    def _receive(self, datagram: Datagram) -> None:
        """One datagram from the wire."""
        packet = codec.decode(datagram.data)
        if isinstance(packet, Drop):
            self._drop(packet, datagram, "")
            return
        self._learn(packet)
        received = boot.Received(
            port=datagram.port,
            source=datagram.source,
            server_address=datagram.server_address,
            interface=datagram.interface,
            broadcast=datagram.broadcast,
        )
        facts = boot.facts(packet, received)
        if isinstance(facts, Drop):
            self._drop(facts, datagram, codec.mac_text(packet.chaddr))
            return
        now = self._clock()
        identity = facts.identity
        self._transactions.seen(identity, now)
        check = self._transactions.check(identity, now)
        reply = boot.decide(facts, check, self.site, self._missing())
        if isinstance(reply, Drop):
            self._drop(reply, datagram, identity.mac)
            if kind := _TOLD.get(reply.reason):
                text = f"{facts.kind}: no answer: {reply.detail or reply.reason}"
                event = Event(now, identity.mac, kind, text, machine_id=check.machine_id, job_id=check.job_id)
                self._transactions.note(event)
            return
        source = (reply.source_address, reply.source_port)
        if not self._ports.send(reply.payload, source, reply.destination, datagram.index):
            self.drops["send-error"] += 1
            return
        self.replies += 1
        kind, text = reply.event
        event = Event(now, identity.mac, kind, text, machine_id=check.machine_id, job_id=check.job_id)
        self._transactions.note(event)
        self._log.info(reply.summary, mac=identity.mac, interface=datagram.interface, verdict=check.verdict.value)

    def _learn(self, packet: codec.Packet) -> None:
        """Any client's request tells whose address is whose, ours or not."""
        mac = codec.mac_text(packet.chaddr)
        self._peers.learn(packet.ciaddr, mac)
        self._peers.learn(codec.address_text(packet.options.get(OptionCode.REQUESTED_ADDRESS, b"")), mac)

    def _drop(self, drop: Drop, datagram: Datagram, mac: str) -> None:
        """Count and tell what gets no answer. Debug level: most of it is other people's ordinary DHCP."""
        self.drops[drop.reason] += 1
        self._log.debug(
            "no answer",
            reason=drop.reason,
            detail=drop.detail,
            mac=mac,
            interface=datagram.interface,
            source=datagram.source[0],
            port=datagram.port,
        )
