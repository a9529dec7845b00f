"""One multicast session as the server keeps it: who takes part, what its policy says, how it is shown."""

import time
from collections.abc import Callable

from msgspec import Struct

from pxed._ext.cast_events import CastListing, CastReceiver
from pxed.cast.figures import Heard, State
from pxed.cast.figures import Step as Decided
from pxed.cast.forecast import forecast
from pxed.cast.member import Member
from pxed.cast.session import SessionPolicy, arriving, reason
from pxed.cast.starting import Starting
from pxed.config import Start
from pxed.images.library import Image
from pxed.service.cast_limits import Bounds
from pxed.types import ImageSession, Job, JobState, SessionReceiver, Step

__all__ = ["LiveSession", "Party"]

_DONE, _LEAVING, _HTTP = 1, 2, 4  # flags of a report


class Party(Struct, frozen=True):
    """Who is behind a receiver."""

    number: int
    address: str
    name: str
    mac: str = ""
    machine_id: int | None = None
    job_id: int | None = None


class LiveSession:
    """A session that the sender has. `id` is what its datagrams say."""

    def __init__(
        self,
        session: int,
        key: bytes,
        image: Image,
        address: str,
        interface: str,
        group: tuple[str, int],
        *,
        symbol: int,
        bounds: Bounds,
        rule: Start,
    ) -> None:
        self.id, self.key = session, key
        self.image = image
        self.address, self.interface, self.group = address, interface, group
        self.symbol = symbol
        self.policy = SessionPolicy(image.stored_chunks, bounds.floor, bounds.cap)
        self.starting = Starting(rule)
        self.cap = bounds.cap
        self.rate = self.policy.pace.rate
        self.trouble = ""
        self.idle_since: float | None = None
        self._parties: dict[int, Party] = {}
        self._numbers: dict[str, int] = {}  # of receivers, by the names that they made for themselves
        self._created = time.time()
        self._begun = self._ended = 0.0
        self._listing: CastListing | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.id:016x}"

    @property
    def sends(self) -> bool:
        """Whether it has begun."""
        return self.starting.begun is not None

    def party(self, number: int) -> Party:
        """Who is behind a number."""
        return self._parties[number]

    def heard(self, number: int) -> bool:
        """Whether a receiver has ever reported."""
        return self.policy.members[number].heard.silence is not None

    # -- coming and going ------------------------------------------------------------------------------------------

    def number(self, receiver: str) -> int | None:
        """The number of a receiver that has joined before, by the name that it made for itself."""
        return self._numbers.get(receiver)

    def join(self, receiver: str, address: str, name: str, now: float, **who: object) -> Party:
        """A receiver joins, or joins again, perhaps from another address."""
        new = receiver not in self._numbers
        number = self._numbers.setdefault(receiver, len(self._numbers) + 1)
        party = self._parties[number] = Party(number, address, name, **who)  # type: ignore[arg-type]
        self.policy.join(number, now)
        if new:
            self._replace_former(party, now)
        self.idle_since = None
        return party

    def _replace_former(self, party: Party, now: float) -> None:
        """A new receiver is what a machine is after its power was cut.

        Its job's run proves which machine it is. An address proves nothing: a host may fetch to two disks at once.
        """
        for former in self._parties.values():
            same = party.machine_id is not None and former.machine_id == party.machine_id
            if former.number != party.number and (same or former.address == party.address):
                self.policy.replace(former.number, party.number, now, proved=same)

    def former(self, number: int) -> list[int]:
        """The receivers that were given up as one has joined in their place."""
        return [m.number for m in self.policy.members.values() if m.replaced and m.successor == number]

    def present(self, address: str) -> int:
        """How many receivers of an address take part."""
        gone = (State.DONE, State.LEFT, State.DEAD)
        members = self.policy.members
        return sum(p.address == address and members[p.number].state not in gone for p in self._parties.values())

    def joins(self, address: str) -> int:
        """How many receivers of an address there have been."""
        return sum(party.address == address for party in self._parties.values())

    def look_at_start(self, now: float, minute: int) -> bool:
        """Whether it begins now."""
        first = min((member.joined for member in self.policy.members.values()), default=None)
        if self.sends or not self.starting.look(now, minute, self._there(), first):
            return False
        self._begun = time.time()
        return True

    def begin(self, now: float) -> None:
        """By hand."""
        self.starting.begin(now)
        self._begun = self._begun or time.time()

    def end(self) -> None:
        """It is over."""
        self._ended = time.time()

    def _there(self) -> int:
        """How many machines: an address is one, however many receivers it has."""
        gone = (State.LEFT, State.DEAD)
        members = self.policy.members.values()
        return len({self._parties[member.number].address for member in members if member.state not in gone})

    # -- figures ---------------------------------------------------------------------------------------------------

    def look(self, listing: CastListing, receivers: list[CastReceiver], now: float, room: float | None) -> Decided:
        """What the sender's figures lead to."""
        self._listing = listing
        step = self.policy.step(now, map(_heard, receivers), room, listing.wanted + listing.repairs, listing.unreadable)
        self.rate = step.rate
        return step

    def shown(self, now: float, job_of: Callable[[int], Job | None]) -> ImageSession:
        """For administrators. `job_of`: a job by id, for what a receiver does that reports to us no more."""
        told = forecast(self.policy.members.values())
        listing = self._listing
        return ImageSession(
            id=self.name,
            image=self.image.id,
            image_name=self.image.name or self.image.id[:12],
            interface=self.interface,
            group=self.group[0],
            port=self.group[1],
            state="ended" if self._ended else "sending" if self.sends else "waiting",
            created=self._created,
            receivers=tuple(
                self._receiver(member, now, member.number in told.late, job_of)
                for member in self.policy.members.values()
            ),
            waits="" if self.sends else self._waits(now),
            begun=self._begun,
            ended=self._ended,
            rate=float(self.rate),
            cap=self.cap,
            sent=listing.bytes if listing else 0,
            size=self.image.data_size,
            repaired=(listing.repaired + listing.parity) / listing.sent if listing and listing.sent else 0.0,
            seconds_left=told.seconds if self.sends and not self._ended else None,
            trouble=self.trouble,
        )

    def _waits(self, now: float) -> str:
        first = min((member.joined for member in self.policy.members.values()), default=None)
        return self.starting.words(self._there(), now, first)

    def _receiver(self, member: Member, now: float, late: bool, job_of: Callable[[int], Job | None]) -> SessionReceiver:
        party, heard, window = self._parties[member.number], member.heard, member.window
        state, percent = member.state, 100.0 * member.share
        job = job_of(party.job_id) if party.job_id is not None and state in (State.HTTP, State.LEFT) else None
        if job is not None and job.state in (JobState.RUNNING, JobState.SUCCEEDED):  # over HTTP, its job knows more
            percent = max(percent, job.percent) if job.step == Step.RESTORE else percent
            if job.state is JobState.SUCCEEDED:
                state, percent = State.DONE, 100.0
        return SessionReceiver(
            number=member.number,
            name=party.name,
            address=party.address,
            state=state.value,
            reason=reason(member),
            percent=percent,
            rate=arriving(member, self.rate) if member.active else 0.0,
            loss=window.loss if window is not None else 0.0,
            queue=heard.queue,
            disk_rate=heard.disk_rate,
            wrong=heard.wrong,
            quiet=member.quiet(now),
            seconds_left=member.seconds_left,
            late=late,
            machine_id=party.machine_id,
            job_id=party.job_id,
        )


def _heard(receiver: CastReceiver) -> Heard:
    return Heard(
        number=receiver.number,
        silence=receiver.quiet,
        received=receiver.received,
        expected=receiver.expected,
        refused=receiver.refused,
        written=receiver.written,
        wrong=receiver.wrong,
        disk_rate=float(receiver.disk_rate),
        queue=receiver.disk_queue,
        done=bool(receiver.flags & _DONE),
        leaving=bool(receiver.flags & _LEAVING),
        http=bool(receiver.flags & _HTTP),
    )
