"""The policy of one session: looks at the figures, says the rate, moves who lags, and tells what happened."""

from collections.abc import Iterable, Iterator

from pxed.cast.figures import OVER, Heard, Move, Note, State, Step
from pxed.cast.member import Member
from pxed.cast.outliers import outliers, recovered
from pxed.cast.pace import Pace, percentile
from pxed.types import CastOrder as Order
from pxed.types import CastWhy as Why

# The receiver that the rate follows: so many of all fare at least as well.
_FOLLOWED = 0.9
# Unless nearly nobody's disk keeps up, full queues are no reason to send less: chunks come round again.
_NOBODY = 0.1
LOOK_SECONDS = 1.0  # between two changes of the rate
# So many of those who joined are a handful, at most; they finish by HTTP if that costs little more than one stream,
# takes long enough to be worth the change, and if their network does not lose what TCP stands badly.
_HANDFUL = 1 / 20
_MOST_HANDFUL = 5
_DEARER = 1.2
_WORTH_SECONDS = 15.0
_TCP_LOSS = 0.01
# Who joined less than so many seconds ago and has not reported yet will soon want chunks.
_NEWCOMER = 3.0
# Headers of Ethernet, IP and UDP, and ours: bytes on the wire for each byte of data.
OVERHEAD = 1.07


class SessionPolicy:
    """One session. `join` and `leave` as receivers come and go, `step` a few times a second."""

    def __init__(self, total: int, floor: float, cap: float) -> None:
        """`total` chunks travel; the rate is within `floor` and `cap`."""
        self.pace = Pace(floor, cap)
        self.members: dict[int, Member] = {}
        self._total = total
        self._looked = 0.0  # when the rate was looked at
        self._settled = 0.0  # figures that begin before are of another rate

    # -- who is there ----------------------------------------------------------------------------------------------

    def join(self, number: int, now: float) -> Member:
        """A receiver joins, or joins again with the number that it has."""
        found = self.members.get(number)
        if found is None or found.state in OVER:
            found = self.members[number] = Member(number, now, self._total)
        found.successor = 0
        return found

    def replace(self, number: int, successor: int, now: float, *, proved: bool) -> None:
        """The machine of a receiver has joined again under another number, as machines do that were switched off.

        Where that is `proved`, the former receiver is dead at once. Otherwise both may live on one host: it is given
        up as soon as it misses a few reports. In both cases it is back when it is heard again.
        """
        member = self.members[number]
        if member.state in OVER:
            return
        member.successor = successor
        if proved and member.state is not State.DEAD:
            member.die(now)

    @property
    def idle(self) -> bool:
        """Whether nobody takes part any more who could want something."""
        return all(member.state in OVER or member.state is State.DEAD for member in self.members.values())

    # -- a look ----------------------------------------------------------------------------------------------------

    def step(
        self,
        now: float,
        figures: Iterable[Heard],
        room: float | None = None,
        union: int | None = None,
        unreadable: int = 0,
    ) -> Step:
        """Take the figures in, and decide.

        `room`: bytes per second that the line has beside its sessions, None: nobody knows. `union`: chunks that anybody
        who is active wants; None: nobody counted. `unreadable`: chunks that the sender cannot read.
        """
        notes: list[Note] = []
        fresh = []
        known = {heard.number: heard for heard in figures}
        for member in self.members.values():
            if member.state in OVER:
                continue
            heard = known.get(member.number, member.heard)
            if member.look(heard, now):
                fresh.append(member)
                if member.state is State.LISTENING:  # buffers on the way make the first figures look better
                    member.speed = self._speed(member, member.why)
            notes += self._follow(member, heard, now)
        moves, said = self._moves(now, fresh, room, union, unreadable)
        self._look_at_rate(now)
        return Step(self.pace.rate, tuple(moves), (*notes, *said))

    def _follow(self, member: Member, heard: Heard, now: float) -> Iterator[Note]:
        """What a receiver says of itself, or does not."""
        if heard.done or (heard.leaving and not heard.http):
            member.state, member.ended = (State.DONE if heard.done else State.LEFT), now
            yield _ended(member)
        elif member.silent(now):
            if member.state is State.HTTP:  # it needs us no more
                member.state, member.ended = State.LEFT, now
            elif member.state is not State.DEAD:
                yield _dead(member)
                member.die(now)
        elif member.risen:
            yield Note(member.number, "back", "The image's receiver is heard again.")
            member.revive()
        elif heard.silence is not None and member.state is State.JOINED:
            member.state = State.RECEIVING
        if heard.http and member.state in (State.RECEIVING, State.LISTENING):
            member.state = State.HTTP
            yield Note(member.number, "http", "Takes the image over HTTP: multicast does not bring it.")
        elif not heard.http and member.state is State.HTTP and member.why is Why.NONE and not heard.leaving:
            member.state = State.RECEIVING
            yield Note(member.number, "back", "Multicast brings the image again.")

    # -- who is moved ----------------------------------------------------------------------------------------------

    def _moves(
        self, now: float, fresh: list[Member], room: float | None, union: int | None, unreadable: int
    ) -> tuple[list[Move], list[Note]]:
        active = [member for member in self.members.values() if member.active]
        moves, notes = [], []
        for member in recovered([member for member in fresh if member.state is State.LISTENING], active):
            notes.append(Note(member.number, "back", "Fares as the others do, and is sent to again."))
            moves.append(self._order(member, Order.RECEIVE, Why.NONE))
        for member, why in outliers([member for member in fresh if member.active], active):
            member.speed = self._speed(member, why)
            member.moved_loss = member.window.loss if member.window is not None else 0.0
            notes.append(_moved(member, why, self.pace.rate))
            moves.append(self._order(member, Order.LISTEN, why))
        for member in active:  # the session lives, and brings them nothing more
            if member.active and union == 0 and 0 < member.left <= unreadable:
                notes.append(_http(member, Why.STORE))
                moves.append(self._order(member, Order.HTTP, Why.STORE))
        for member in self._to_http(now, room, union):
            why = member.why or Why.FEW
            notes.append(_http(member, why))
            moves.append(self._order(member, Order.HTTP, why))
        last = {move.number: move for move in moves}  # who is moved twice at once hears of the end only
        return list(last.values()), notes

    def _speed(self, member: Member, why: Why) -> float:
        """Bytes of data per second that a receiver can take."""
        return member.heard.disk_rate if why is Why.DISK else arriving(member, self.pace.rate)

    @staticmethod
    def _order(member: Member, order: Order, why: Why) -> Move:
        member.obey(order, why)
        return Move(member.number, order, why)

    def _to_http(self, now: float, room: float | None, union: int | None) -> Iterator[Member]:
        """Who is to get the rest over HTTP now: listeners for whom there is room, and the last handful."""
        active = [member for member in self.members.values() if member.active]
        listening = [member for member in self.members.values() if member.state is State.LISTENING]
        if not active:
            if not any(m.state is State.JOINED and now - m.joined < _NEWCOMER for m in self.members.values()):
                yield from listening
            return
        if room is not None:
            room -= sum(m.speed for m in self.members.values() if m.state is State.HTTP) * OVERHEAD
            for member in listening:
                needed = member.speed * OVERHEAD
                if 0 < needed <= room:
                    room -= needed
                    yield member
        if self._handful(active, union):
            yield from active

    def _handful(self, active: list[Member], union: int | None) -> bool:
        """Whether those who are left had better finish by HTTP."""
        if any(member.state is State.JOINED for member in self.members.values()):
            return False  # they are not the last ones, but the first to report
        joined = sum(not member.replaced for member in self.members.values())
        if joined < 3 or len(active) > max(1, min(_MOST_HANDFUL, joined * _HANDFUL)):
            return False
        # A receiver that has no room for all that it lacks asks for less.
        together = max(union or 0, *(member.left for member in active))
        return sum(member.left for member in active) <= _DEARER * together and all(
            (member.seconds_left or 0.0) >= _WORTH_SECONDS and member.window is not None
            and member.window.loss <= _TCP_LOSS for member in active
        )  # fmt: skip

    # -- how fast --------------------------------------------------------------------------------------------------

    def _look_at_rate(self, now: float) -> None:
        """Follow the receiver at the percentile, once enough of them have told of the present rate."""
        if now - self._looked < LOOK_SECONDS:
            return
        members = [member for member in self.members.values() if member.active and not member.suspect]
        windows = [m.window for m in members if m.window is not None and m.window.begin >= self._settled]
        if not windows or len(windows) < len(members) / 2:
            return
        lost = percentile((window.loss for window in windows), _FOLLOWED)
        refused = percentile((window.refused for window in windows), _NOBODY)
        self._looked = now
        if self.pace.look(max(lost, refused)):
            self._settled = now


def arriving(member: Member, rate: float) -> float:
    """Bytes of data per second that reach a receiver of a session that sends at `rate`."""
    return rate * (1.0 - member.window.loss) if member.window is not None else 0.0


# -- sentences ---------------------------------------------------------------------------------------------------------


def reason(member: Member, rate: float = 0.0) -> str:
    """Why a receiver was moved, with the figures of that moment, or what became of it."""
    if member.replaced:
        return f"it joined again, as receiver {member.successor}"
    match member.why:
        case Why.DISK:
            return f"its disk takes {mbit(member.speed)}"
        case Why.PORT:
            return f"its port takes {mbit(member.speed)}" + (f" of {mbit(rate)}" if rate else "")
        case Why.LOSS:
            return f"it loses {member.moved_loss:.1%} of the datagrams, and the others do not"
        case Why.FEW:
            return "only a few are left"
        case Why.STORE:
            return "the sender cannot read it from the store"
        case _:
            return ""


def mbit(rate: float) -> str:
    """A rate as networks count it."""
    return f"{rate * 8 / 1e6:.0f} Mbit/s"


def _moved(member: Member, why: Why, rate: float) -> Note:
    member.why = why
    text = f"Moved out of the multicast session: {reason(member, rate)}. It takes what passes, and the rest over HTTP."
    return Note(member.number, "moved", text)


def _http(member: Member, why: Why) -> Note:
    member.why = why
    text = f"Is to get the rest of the image ({1.0 - member.share:.0%}) over HTTP: {reason(member)}."
    return Note(member.number, "http", text)


def _ended(member: Member) -> Note:
    seconds = member.ended - member.joined
    if member.state is State.DONE:
        text = f"Has the whole image after {seconds:.1f} s; {member.loss:.2%} of the datagrams were lost."
        return Note(member.number, "finished", text)
    return Note(
        member.number, "left", f"Left the multicast session after {seconds:.1f} s, with {member.share:.0%} of it."
    )


def _dead(member: Member) -> Note:
    if member.successor:
        text = f"Fell silent at {member.share:.0%} of the image, and joined again as receiver {member.successor}."
        return Note(member.number, "replaced", text)
    if member.state is State.JOINED:
        return Note(member.number, "dead", "Joined a multicast session and never reported.")
    return Note(member.number, "dead", f"Fell silent at {member.share:.0%} of the image; nobody waits for it.")
