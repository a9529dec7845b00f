"""Decisions remembered by what they depend on: a storm of one model of machines is decided once.

A reply depends on the request's kind (`wire.dhcp.read`), on where it came from as far as `_Key` says, on the site and
on the check's answer; of the machine itself only what a `Template` copies stands in it. So two requests of a kind get
the same reply but for that, and a decision need not be taken again. What may depend on more is decided each time:
requests without a kind, machines that the operator marked, sites with quirks of their own (a row may name one MAC).
"""

from collections.abc import Callable

from msgspec import Struct

from pxed.types import Check, Drop, Identity, Verdict
from pxed.wire.dhcp import UNSPECIFIED, Packet, Request, Template, address_text, decode, mac_text, read, uuid_text
from pxed.wire.iana import MessageType, OptionCode

from ._decide import Reply, Way, decide, destination
from ._facts import Received, facts
from ._site import Site

__all__ = ["Answer", "Decider", "Outcome"]

# Kinds are few: models of machines times ways to ask. Anybody can invent more, so all are forgotten at this many.
MAX_KINDS = 512
MAX_ANSWERS = 64  # of one kind: sentences about jobs are part of some
MAX_IDENTITIES = 16384

_Key = tuple[bytes, int, str, bool, bool]  # kind, port, our address, broadcast, the sender has no address

Ask = Callable[[Identity], Check]


class Answer(Struct, frozen=True):
    """A reply, ready to be sent."""

    payload: bytes
    destination: tuple[str, int]
    source_address: str
    source_port: int
    message: MessageType
    event: tuple[str, str]
    """Kind and text for the machine's timeline."""
    again: float = 0.0
    """Seconds after which it is sent once more; 0: only once."""


class Outcome(Struct, frozen=True):
    """What becomes of one request, and of whom it is as far as that was found out."""

    result: Answer | Drop
    mac: str = ""
    addresses: tuple[str, ...] = ()
    """What the client calls its own: ciaddr, and the address that it wants to have (option 50)."""
    check: Check | None = None
    kind: str = ""
    """What is asking, in words; '' where nobody asks to boot."""


class _Ready(Struct, frozen=True):
    """A reply to all requests of a kind."""

    template: Template
    way: Way
    message: MessageType
    event: tuple[str, str]
    again: float


class _Kind(Struct, frozen=True):
    """What is known of a kind: its name for timelines, and the decisions by what was told of the check's answer."""

    name: str
    decisions: dict[tuple[Verdict, str], _Ready | Drop]


class Decider:
    """Decides requests at one site; make a new one when the site changes, or what is known of the boot programs."""

    def __init__(self, site: Site, missing: frozenset[str] = frozenset(), large: frozenset[str] = frozenset()) -> None:
        """`missing` and `large` as for `decide`."""
        self.site = site
        self.missing = missing
        self.large = large
        self._kinds: dict[_Key, _Kind | Drop] = {}
        self._identities: dict[bytes, Identity] = {}

    def decide(self, data: bytes, received: Received, ask: Ask) -> Outcome:
        """The outcome of one request. `ask` is the check; it is asked about nobody who does not ask to boot."""
        request = None if self.site.quirks else read(data)
        if request is None:
            return self._afresh(data, received, ask, None, None)
        key = _key(request, received)
        known = self._kinds.get(key)
        if known is None:
            return self._afresh(data, received, ask, key, request)
        identity = self._identity(request)
        if isinstance(known, Drop):
            return Outcome(known, identity.mac, request.addresses)
        if self.site.singles_out(identity.mac):
            return self._afresh(data, received, ask, None, None)
        check = ask(identity)
        ready = known.decisions.get(_told(check))
        if ready is None:
            return self._afresh(data, received, lambda _: check, key, request)
        if isinstance(ready, Drop):
            return Outcome(ready, identity.mac, request.addresses, check, known.name)
        answer = Answer(
            ready.template.fill(request),
            destination(ready.way, received.source, request.ciaddr, request.giaddr),
            received.server_address,
            received.port,
            ready.message,
            ready.event,
            ready.again,
        )
        return Outcome(answer, identity.mac, request.addresses, check, known.name)

    def _afresh(self, data: bytes, received: Received, ask: Ask, key: _Key | None, request: Request | None) -> Outcome:
        """Decide by the rules, and remember it if there is a key."""
        packet = decode(data)
        if isinstance(packet, Drop):
            return Outcome(packet)
        mac, addresses = mac_text(packet.chaddr), _addresses(packet)
        found = facts(packet, received)
        if isinstance(found, Drop):
            # The sentence about a relay's address has the address in it.
            if key is not None and packet.giaddr == UNSPECIFIED:
                self._remember_kind(key, found)
            return Outcome(found, mac, addresses)
        check = ask(found.identity)
        result = decide(found, check, self.site, self.missing, self.large)
        if key is not None and request is not None and not self.site.singles_out(found.mac):
            kind = self._kinds.get(key) or self._remember_kind(key, _Kind(found.kind, {}))
            if isinstance(kind, _Kind):
                if len(kind.decisions) >= MAX_ANSWERS:
                    kind.decisions.clear()
                kind.decisions[_told(check)] = _ready(result, request)
        return Outcome(_answer(result), mac, addresses, check, found.kind)

    def _remember_kind(self, key: _Key, kind: _Kind | Drop) -> _Kind | Drop:
        if len(self._kinds) >= MAX_KINDS:
            self._kinds.clear()
        self._kinds[key] = kind
        return kind

    def _identity(self, request: Request) -> Identity:
        """As `facts` reads it: Ethernet addresses only, option 97 in its one form."""
        own = request.identity
        identity = self._identities.get(own)
        if identity is None:
            if len(self._identities) >= MAX_IDENTITIES:
                self._identities.clear()
            identity = self._identities[own] = Identity(mac=mac_text(own[:6]), uuid=uuid_text(own[6:]))
        return identity


def _key(request: Request, received: Received) -> _Key:
    return (
        request.kind,
        received.port,
        received.server_address,
        received.broadcast,
        received.source[0] == UNSPECIFIED,
    )


def _addresses(packet: Packet) -> tuple[str, ...]:
    wanted = address_text(packet.options.get(OptionCode.REQUESTED_ADDRESS, b""))
    return tuple(address for address in (packet.ciaddr, wanted) if address not in ("", UNSPECIFIED))


def _told(check: Check) -> tuple[Verdict, str]:
    """What a decision takes from the check's answer; its sentence is repeated only where there is no work."""
    said = check.verdict in (Verdict.NO_WORK, Verdict.IGNORE)
    return check.verdict, check.reason if said else ""


def _ready(result: Reply | Drop, request: Request) -> _Ready | Drop:
    if isinstance(result, Drop):
        return result
    return _Ready(Template(result.payload, request), result.way, result.message, result.event, result.again)


def _answer(result: Reply | Drop) -> Answer | Drop:
    if isinstance(result, Drop):
        return result
    return Answer(
        result.payload,
        result.destination,
        result.source_address,
        result.source_port,
        result.message,
        result.event,
        result.again,
    )
