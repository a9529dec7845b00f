"""Images by multicast: a session for each image and interface, made when its first receiver joins, gone with its last.

A few times a second the sender is asked how the receivers fare, the policy (`pxed.cast`) looks at it, and the sender is
told what follows: the rate, and who is moved out. All of this is per receiver and second, never per datagram.
"""

import asyncio
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from pxed._ext.cast_events import DIRECTIONS, REASON_NAMES, admit, close_session, direct, hold, open_session, set_rate
from pxed._ext.cast_source import CastSource
from pxed._ext.orders import Order as SenderOrder
from pxed._ext.pacer import Pacer
from pxed.cast.figures import Note, Step
from pxed.config import MOST_RECEIVERS, Config, start_rule
from pxed.errors import NotFoundError, RefusedError
from pxed.images.library import Image, Library
from pxed.service.cast_engine import CastEngine, Figures
from pxed.service.cast_limits import Limits
from pxed.service.cast_session import LiveSession, Party
from pxed.service.quiet import Throttle
from pxed.service.transactions import Transactions
from pxed.types import CastJoin, CastSession, Event, ImageSession, Job
from pxed.wire.cast import SYMBOL, session_id

__all__ = ["CastService", "Sender"]

LOOK = 0.25  # seconds between two looks at the figures; more with thousands of receivers
_RECEIVERS_PER_SECOND = 4000
PERIOD = 0.5  # seconds between two reports of a receiver
LINGER = 5.0  # seconds that a session without receivers waits for another one
MOST_SESSIONS = 32
# Of a session: a host that joins and joins, or joins and leaves, must not shut out the room.
MOST_OF_ADDRESS = 32  # at once
MOST_JOINS_OF_ADDRESS = 256  # as long as the session lives
REMEMBERED = 20  # ended sessions
# Seconds for which an address takes HTTP whose reports do not come: each session would make it wait in vain again.
UNHEARD = 300.0


class Sender(Protocol):
    """What the service needs of `service.cast_engine.CastEngine`."""

    port: int

    @property
    def statistics(self) -> dict[str, int]:
        """Counters and gauges."""

    def open(self) -> None:
        """Bind. Raises OperatorError."""

    def start(self) -> None:
        """Begin, on the event loop."""

    def stop(self) -> None:
        """End every session, close the ports."""

    def socket(self, address: str) -> int:
        """The number of the socket that has an address of ours. Raises ValueError."""

    def post(self, order: SenderOrder) -> None:
        """Give an order."""

    def figures(self, session: int) -> Awaitable[Figures | None]:
        """A session and its receivers; None when there is none."""


class CastService:
    """The sessions. `join` is asked by boot HTTP, `sessions` and `begin` by administrators."""

    def __init__(
        self,
        config: Config,
        library: Library,
        transactions: Transactions,
        *,
        interface_of: Callable[[str], str],
        ipv4_for: Callable[[str], str],
        speed_of: Callable[[str], int | None] = lambda _interface: None,
        mac_of: Callable[[str], str] = lambda _address: "",
        line: Callable[[str], Pacer | None] = lambda _address: None,
        sender: Sender | None = None,
        clock: Callable[[], float] = time.monotonic,
        minute: Callable[[], int] = lambda: _minute_of_day(),
    ) -> None:
        """`interface_of` an address of ours, `ipv4_for` one that a machine reached us by; `mac_of` a machine's.

        `line`: the pacer of the interface that has an address of ours.
        """
        cast = config.cast
        self._library, self._transactions = library, transactions
        self._sender: Sender = sender or CastEngine(
            config.server.ipv4, cast.port, cast.ttl, line=line, unreadable=self._unreadable, refused=self._refused
        )
        self._interface_of, self._ipv4_for, self._mac_of = interface_of, ipv4_for, mac_of
        self._clock, self._minute = clock, minute
        self._limits = Limits(config, speed_of)
        self._live: dict[int, LiveSession] = {}
        self._ended: deque[ImageSession] = deque(maxlen=REMEMBERED)
        self._opening = asyncio.Lock()
        self._unheard: dict[str, float] = {}  # when it was found that an address joins and its reports do not come
        self._counts: Counter[str] = Counter(joined=0)
        self._watch: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("pxed.cast")
        self._lines = Throttle(clock)  # about chunks that cannot be read: a pack has thousands
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over what a reload may change; groups and port stay."""
        self._config = config
        self._limits.configure(config)

    @property
    def statistics(self) -> dict[str, int]:
        """The sender's, and: receivers that joined, moves by direction, what became of receivers."""
        return {**self._sender.statistics, **self._counts}

    def open(self) -> None:
        """Bind. Raises OperatorError."""
        self._sender.open()

    def start(self) -> None:
        """Begin to serve; call it on the event loop."""
        self._sender.start()
        self._watch = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End every session. Receivers find out by silence, and go on with whatever server there is then."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._sender.stop()

    def uses(self, image: str) -> bool:
        """Whether a session sends this image (id)."""
        return any(session.image.id == image for session in self._live.values())

    def sessions(self) -> list[ImageSession]:
        """Those that are open, and the last ones that have ended, oldest first."""
        now = self._clock()
        return [*self._ended, *(session.shown(now, self._job) for session in self._live.values())]

    def session(self, key: str) -> ImageSession:
        """One of them, by the beginning of its id, or the newest of an image, by name.

        Raises NotFoundError, and RefusedError for the beginning of several ids.
        """
        return self._meant(key)[-1]

    def _meant(self, key: str) -> list[ImageSession]:
        """All of the image that `key` names, oldest first, or the one whose id begins so; raises as `session` does."""
        every = self.sessions()
        if named := [one for one in every if one.image_name == key]:
            return named
        found = [one for one in every if key and one.id.startswith(key)]
        if not found:
            raise NotFoundError(f"There is no multicast session {key}.")
        if len(found) > 1:
            candidates = ", ".join(f"{one.id} ({one.image_name}, {one.state})" for one in found)
            raise RefusedError(f"The ids of {len(found)} multicast sessions begin with {key}: {candidates}.")
        return found

    def begin(self, key: str) -> ImageSession:
        """Let a session begin that waits for its start; of several of an image, the oldest that waits.

        Raises NotFoundError, RefusedError.
        """
        meant = self._meant(key)
        found = next((one for one in meant if one.state == "waiting"), meant[-1])
        live = self._live.get(int(found.id, 16))
        if live is None or live.sends:
            raise RefusedError(f"Session {found.id} is {found.state}: there is nothing to start.")
        live.begin(self._clock())
        self._begun(live)
        return live.shown(self._clock(), self._job)

    # -- joining -----------------------------------------------------------------------------------------------------

    async def join(self, wanted: CastJoin, run: str, peer: str, local: str) -> CastSession:
        """The session for a receiver; see `service.http.Casts`."""
        if ":" in peer:
            raise RefusedError("sessions are joined by IPv4")
        self._check_heard(peer)
        address = self._ipv4_for(local)
        interface = self._interface_of(address)
        session = self._find(wanted.image, address)
        if session is None:
            async with self._opening:  # a room of machines asks at the same moment
                session = self._find(wanted.image, address) or await self._open(wanted.image, address, interface)
        known = session.number(wanted.receiver)
        if known is None:
            _check_room(session, peer)
        party = self._admit(session, wanted, run, peer)
        if known is None:
            self._counts["joined"] += 1
            text = f"Joined multicast session {session.name} of {_title(session.image)}, as receiver {party.number}"
            former = " and ".join(map(str, session.former(party.number)))
            self._tell(party, text + (f", in place of receiver {former}." if former else "."))
        self._look_at_start(session)
        return CastSession(
            session=session.name,
            key=session.key.hex(),
            image=session.image.id,
            group=session.group[0],
            port=session.group[1],
            server=session.address,
            receiver=party.number,
            symbol=session.symbol,
            period=PERIOD,
        )

    def _check_heard(self, peer: str) -> None:
        """Raises RefusedError when reports of an address do not come."""
        since = self._clock() - UNHEARD
        self._unheard = {address: at for address, at in self._unheard.items() if at > since}
        if peer in self._unheard:
            raise RefusedError(f"reports of {peer} do not come: is UDP port {self._sender.port} of the server open?")

    def _find(self, image: str, address: str) -> LiveSession | None:
        return next((s for s in self._live.values() if s.image.id == image and s.address == address), None)

    def _admit(self, session: LiveSession, wanted: CastJoin, run: str, peer: str) -> Party:
        job = self._transactions.job_for_run(run) if run else None
        machine = self._transactions.machine(job.machine_id) if job is not None else None
        mac = machine.macs[0] if machine is not None and machine.macs else self._mac_of(peer)
        party = session.join(
            wanted.receiver,
            peer,
            (machine.name if machine is not None else "") or wanted.name or mac or peer,
            self._clock(),
            mac=mac,
            machine_id=machine.id if machine is not None else None,
            job_id=job.id if job is not None else None,
        )
        self._sender.post(admit(session.id, party.number, peer))
        return party

    async def _open(self, image_id: str, address: str, interface: str) -> LiveSession:
        """A new session. Raises NotFoundError, RefusedError, OperatorError."""
        if len(self._live) >= MOST_SESSIONS:
            raise RefusedError(f"{MOST_SESSIONS} sessions run already")
        socket = self._sender.socket(address)
        image, source = await asyncio.to_thread(self._source, image_id)
        key = secrets.token_bytes(16)
        number = int.from_bytes(session_id(key, bytes.fromhex(image.id)))
        group = self._free_group()
        cast = self._config.cast
        bounds = self._limits.bounds(interface, 1 + self._sending(interface), self._minute())
        session = LiveSession(
            number,
            key,
            image,
            address,
            interface,
            (group, self._sender.port),
            symbol=SYMBOL,
            bounds=bounds,
            rule=start_rule(cast.start),
        )
        self._sender.post(
            open_session(
                number,
                key,
                session.group,
                source,
                socket=socket,
                rate=session.rate,
                symbol=SYMBOL,
                period=PERIOD,
                held=True,
            )
        )
        self._live[number] = session
        self._log.info("session opened", session=session.name, image=_title(image), interface=interface, group=group)
        return session

    def _source(self, image_id: str) -> tuple[Image, CastSource]:
        """An image and where its frames lie; on a thread of its own, as it reads a row for each.

        Raises NotFoundError, GoneError, RefusedError.
        """
        image = self._library.get(image_id)
        if not image.stored_chunks:
            raise RefusedError(f"{_title(image)} is all zeros: there is nothing to send")
        source = CastSource()
        try:
            for fd, offset, length in self._library.frames(image_id):
                source.add(fd, offset, length)
        except OSError as damage:  # a pack that is cut off; HTTP brings what can be read, and says what cannot
            raise RefusedError(
                f"{_title(image)} cannot be read from the store ({damage.strerror}): `pxed image verify` tells more"
            ) from damage
        return image, source

    def _free_group(self) -> str:
        """An address for a group that no other session has, nor a group of [mtftp] may have, nor its Ethernet address.

        A random one, so that two servers in a network rarely take the same.
        """
        cast, mtftp = self._config.cast, self._config.mtftp
        taken = {session.group[0] for session in self._live.values()}
        theirs = {int(address) & 0x7FFFFF for address in mtftp.network} if mtftp.enabled else set()
        free = [str(one) for one in cast.network if str(one) not in taken and int(one) & 0x7FFFFF not in theirs]
        if not free:
            raise RefusedError("all groups of [cast] groups are in use")
        return secrets.choice(free)

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Look at the sessions, again and again, until cancelled."""
        while True:
            receivers = sum(len(session.policy.members) for session in self._live.values())
            await asyncio.sleep(max(LOOK, receivers / _RECEIVERS_PER_SECOND))
            for session in list(self._live.values()):
                try:
                    await self.look(session)
                except Exception:  # a bug of ours must not end the watch over all sessions
                    self._log.exception("a session could not be looked at", session=session.name)

    async def look(self, session: LiveSession) -> None:
        """Ask how a session's receivers fare, and do what follows."""
        self._look_at_start(session)
        figures = await self._sender.figures(session.id)
        now = self._clock()
        if figures is None:
            self._end(session)
            return
        self._bound(session)
        before = session.rate
        step = session.look(*figures, now, self._room(session))
        if step.rate != before:
            self._sender.post(set_rate(session.id, step.rate))
        self._obey(session, step)
        if not session.policy.members or not session.policy.idle:
            session.idle_since = None
        elif session.idle_since is None:
            session.idle_since = now
        elif now - session.idle_since >= LINGER:
            self._sender.post(close_session(session.id))
            self._end(session)

    def _bound(self, session: LiveSession) -> None:
        sending = max(1, self._sending(session.interface))
        bounds = self._limits.bounds(session.interface, sending, self._minute())
        session.cap = bounds.cap
        session.policy.pace.limit(bounds.floor, bounds.cap)

    def _sending(self, interface: str) -> int:
        return sum(s.interface == interface and s.sends for s in self._live.values())

    def _room(self, session: LiveSession) -> float | None:
        used = sum(s.rate for s in self._live.values() if s.interface == session.interface and s.sends)
        return self._limits.room(session.interface, used)

    def _obey(self, session: LiveSession, step: Step) -> None:
        for move in step.moves:
            direction, why = DIRECTIONS[move.order], REASON_NAMES[move.why]
            self._sender.post(direct(session.id, move.number, direction, why))
            self._counts[f"moved.{direction}"] += 1
        for note in step.notes:
            self._note(session, note)

    def _note(self, session: LiveSession, note: Note) -> None:
        party = session.party(note.number)
        if note.what == "dead" and not session.heard(note.number):
            self._unheard[party.address] = self._clock()
        elif note.what == "back":
            self._unheard.pop(party.address, None)
        self._counts[f"receiver.{note.what}"] += 1
        self._log.info(note.text, session=session.name, receiver=note.number, who=party.name, peer=party.address)
        self._tell(party, note.text)

    def _tell(self, party: Party, text: str) -> None:
        """A line on the machine's timeline."""
        if party.mac or party.machine_id is not None:
            event = Event(time.time(), party.mac, "cast", text, machine_id=party.machine_id, job_id=party.job_id)
            self._transactions.note(event)

    def _job(self, job_id: int) -> Job | None:
        try:
            return self._transactions.job(job_id)
        except NotFoundError:  # removed with its machine
            return None

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def _look_at_start(self, session: LiveSession) -> None:
        if session.look_at_start(self._clock(), self._minute()):
            self._begun(session)

    def _begun(self, session: LiveSession) -> None:
        self._sender.post(hold(session.id, False))
        self._log.info("session begins", session=session.name, receivers=len(session.policy.members))

    def _end(self, session: LiveSession) -> None:
        if self._live.pop(session.id, None) is None:
            return
        session.end()
        shown = session.shown(self._clock(), self._job)
        self._ended.append(shown)
        states = Counter(receiver.state for receiver in shown.receivers)
        self._log.info("session ended", session=session.name, bytes=shown.sent, **states)

    def _unreadable(self, session: int, chunk: int, error: int) -> None:
        """The sender cannot read a chunk."""
        if (found := self._live.get(session)) is not None:
            found.trouble = (
                f"Chunk {chunk} cannot be read from the store ({_errno(error)}); `pxed image verify` tells more."
            )
            if (left_out := self._lines.passes(session)) is not None:
                where = {"session": found.name, "chunk": chunk}
                self._log.error("a chunk cannot be read", **where, error=_errno(error), left_out=left_out)

    def _refused(self, session: int, error: int) -> None:
        """The sender could not obey an order."""
        if (found := self._live.get(session)) is not None:
            found.trouble = f"The sender refused an order ({_errno(error)})."
            self._log.error("the sender refused an order", session=found.name, error=_errno(error))


def _check_room(session: LiveSession, peer: str) -> None:
    """Raises RefusedError when a session has no room for one more receiver of an address."""
    if len(session.policy.members) >= MOST_RECEIVERS:
        raise RefusedError(f"session {session.name} has {MOST_RECEIVERS} receivers already")
    if session.present(peer) >= MOST_OF_ADDRESS:
        raise RefusedError(f"session {session.name} has {MOST_OF_ADDRESS} receivers of {peer} already")
    if session.joins(peer) >= MOST_JOINS_OF_ADDRESS:
        raise RefusedError(f"session {session.name} had {MOST_JOINS_OF_ADDRESS} receivers of {peer} already")


def _errno(error: int) -> str:
    return os.strerror(error)


def _title(image: Image) -> str:
    return image.name or image.id[:12]


def _minute_of_day() -> int:
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min
