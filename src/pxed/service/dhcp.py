"""proxyDHCP: a datagram becomes facts, the check and the site decide, a reply goes out or a reason is counted."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import structlog

from pxed import boot
from pxed.net.dhcp import Datagram, DhcpPorts
from pxed.net.interfaces import Interfaces
from pxed.service.peers import Peers
from pxed.service.quiet import Throttle
from pxed.service.transactions import Transactions
from pxed.types import Drop, Event
from pxed.wire.iana import MessageType

__all__ = ["DhcpService"]

# Second copies of offers that wait: a flood gets no more of them than this in their third of a second.
_MOST_WAITING = 1000
_MESSAGES = {MessageType.OFFER: "offer", MessageType.ACK: "ack"}

# The silences that belong into a machine's timeline, and as which kind of line. The others (a lease request, a
# request for another server) are not about whether and what this machine boots.
_LINES = {"ignored": "drop", "no-work": "no-work", "no-boot-program": "drop", "credentials": "drop"}


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
        monotonic: Callable[[], float] = time.monotonic,
        large: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`missing`: the boot programs whose files are not there (`Names.missing_programs`); `large`: those that are
        too large for MTFTP (`Names.large_programs`)."""
        self._ports = DhcpPorts(interfaces, same_host, self._receive)
        self.site = site  # replaced as a whole when the configuration is read again
        self._transactions = transactions
        self._peers = peers
        self._clock = clock
        self._missing, self._large = missing, large
        self._log = structlog.get_logger("pxed.dhcp")
        self._decides = boot.Decider(site)
        self.drops: Counter[str] = Counter()
        self.answered: Counter[str] = Counter(dict.fromkeys(_MESSAGES.values(), 0))  # by message
        self._lines = Throttle(monotonic)
        self._waiting = 0  # offers that are going to be sent once more

    @property
    def statistics(self) -> dict[str, int]:
        """Datagrams received ('in'), sent ('out') and dropped by the ports by reason; the replies by message
        ('answered:offer', 'answered:ack'); the requests without an answer ('drop:REASON')."""
        answered = {f"answered:{message}": count for message, count in self.answered.items()}
        drops = {f"drop:{reason}": count for reason, count in self.drops.items()}
        return {**self._ports.statistics, **answered, **drops}

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
        """One datagram from the wire. A bug of ours for one machine is none for the next."""
        try:
            self._answer(datagram)
        except Exception as error:
            if (left_out := self._lines.passes(type(error).__name__)) is not None:
                where = {"source": datagram.source[0], "interface": datagram.interface}
                self._log.exception("DHCP request not handled", left_out=left_out, **where)

    def _answer(self, datagram: Datagram) -> None:
        """Decide, send and note."""
        now = self._clock()
        received = boot.Received(
            port=datagram.port,
            source=datagram.source,
            server_address=datagram.server_address,
            interface=datagram.interface,
            broadcast=datagram.broadcast,
        )
        outcome = self._decider().decide(datagram.data, received, lambda who: self._transactions.asked(who, now))
        for address in outcome.addresses:  # any client's request tells whose address is whose, ours or not
            self._peers.learn(address, outcome.mac)
        result = outcome.result
        if isinstance(result, Drop):
            self._drop(result, datagram, outcome.mac)
            if kind := _LINES.get(result.reason):
                self._note(outcome, now, kind, f"{outcome.kind}: no answer: {result.detail or result.reason}")
            return
        source = (result.source_address, result.source_port)
        if error := self._ports.send(result.payload, source, result.destination, datagram.index):
            where = f"{result.destination[0]}:{result.destination[1]}"
            self._drop(Drop("send-error", f"to {where}: {error}"), datagram, outcome.mac)
            return
        self.answered[_MESSAGES[result.message]] += 1
        if result.again and self._waiting < _MOST_WAITING:
            self._waiting += 1
            asyncio.get_running_loop().call_later(result.again, self._send_again, result, datagram.index)
        if self._note(outcome, now, *result.event) and outcome.check:
            self._log.info(
                result.event[1],
                mac=outcome.mac,
                interface=datagram.interface,
                to=result.destination[0],
                verdict=outcome.check.verdict.value,
            )

    def _send_again(self, answer: boot.Answer, index: int) -> None:
        """The second copy of an offer; nobody misses it when it cannot be sent."""
        self._waiting -= 1
        self._ports.send(answer.payload, (answer.source_address, answer.source_port), answer.destination, index)

    def _decider(self) -> boot.Decider:
        """The one for this site as it is now."""
        missing, large = self._missing(), self._large()
        decider = self._decides
        if decider.site is not self.site or decider.missing != missing or decider.large != large:
            decider = self._decides = boot.Decider(self.site, missing, large)
        return decider

    def _note(self, outcome: boot.Outcome, now: float, kind: str, text: str) -> bool:
        """A line on the machine's timeline. False when it repeats one that is there."""
        check = outcome.check
        machine_id, job_id = (check.machine_id, check.job_id) if check else (None, None)
        return self._transactions.note(Event(now, outcome.mac, kind, text, machine_id, job_id))

    def _drop(self, drop: Drop, datagram: Datagram, mac: str) -> None:
        """Count what gets no answer. How many of each reason is told elsewhere (`DropReport`); this is an example."""
        self.drops[drop.reason] += 1
        if self._lines.passes(drop.reason) is not None:
            self._log.debug(
                "no answer",
                reason=drop.reason,
                detail=drop.detail,
                mac=mac,
                interface=datagram.interface,
                source=datagram.source[0],
                port=datagram.port,
            )
