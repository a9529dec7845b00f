"""Taking part in an image's multicast session, and changing over to HTTP and back while the restore runs.

The receiver (`_ext.cast_receiver`) hears the group, says what is missing and gives whole frames; here is decided when
HTTP brings what it does not:

- the group is not heard within `SILENCE` of joining, or falls silent: HTTP, and join again; the receiver goes on
  listening, and when the group is heard HTTP stops;
- the server orders it (a slow disk or port, few machines left): HTTP from then on, and leave the group;
- the server knows of no session any more (it was restarted, or closes this one): join again;
- the group is heard and brings nothing that is wanted: join again, as it may be that the server does not hear us (our
  address is another one now, or a firewall is in between), and it then says so;
- a join is refused: HTTP.

With `only`, silence and refusals are waited for, and end in failure, instead of HTTP.
"""

import random
import sys
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from pxed.agent.board import Board
from pxed.agent.failure import AgentFailure
from pxed.agent.progress import Tally
from pxed.agent.server import Patience, Refused, Unreachable
from pxed.agent.source import Source
from pxed.types import CastOrder, CastSession, CastWhy, Step

if TYPE_CHECKING:
    from pxed._ext.cast_receiver import CastReceiver

__all__ = ["Cast", "Group"]

SILENCE = 2.0  # seconds without a datagram after which a group is taken not to reach us: it is heard each 0.25 s
STALLED = 10.0  # seconds without anything wanted after which reports are taken not to reach the server
STEP = 0.1  # seconds between two looks at it
# Pauses between joins, in seconds. They are stretched at random: a room of machines asks a server that restarts.
FIRST_PAUSE, LAST_PAUSE = 0.5, 10.0
MEMORY, QUEUE = 256 << 20, 64 << 20  # bytes of frames that are not whole yet, and of whole ones that wait for the disk

REASONS: dict[int, str] = {
    CastWhy.DISK: "this machine's disk is slower than the session",
    CastWhy.PORT: "this machine's network port is slower than the session",
    CastWhy.LOSS: "this machine loses too much of the session",
    CastWhy.FEW: "few machines remain",
    CastWhy.CLOSING: "the session closes",
    CastWhy.UNKNOWN: "the server does not know this receiver",
    CastWhy.STORE: "the sender cannot read the rest from its store",
}


def _compiled(lengths: bytes, have: bytes) -> "CastReceiver":
    from pxed._ext.cast_frames import CastLayout  # here, as below
    from pxed._ext.cast_receiver import CastReceiver

    return CastReceiver(CastLayout(lengths), have, memory=MEMORY, queue=QUEUE)


class Cast:
    """How to take part: made before the target is touched."""

    def __init__(
        self,
        source: Source,
        tally: Tally,
        patience: Patience,
        now: Callable[[], float],
        *,
        only: bool = False,
        give_up: float = 60.0,
        interface: str = "",
        make: "Callable[[bytes, bytes], CastReceiver] | None" = None,
    ) -> None:
        """`interface`: our IPv4 address where the group is, "": that of the route to the server.

        With `only`, `give_up` is how many seconds nothing may be heard.
        """
        self.source, self.tally, self.now = source, tally, now
        self.only, self.give_up, self.interface = only, give_up, interface
        self._patience, self._make = patience, make or _compiled
        self._session: CastSession | None = None

    def join(self) -> bool:
        """Ask for the session; False: there is none, and the image comes by HTTP.

        Raises AgentFailure with `only`, Unreachable when patience has ended, Stopped.
        """
        try:
            self._session = self.checked(self._patience.call(self.source.join))
        except Refused as refusal:
            self.refused(str(refusal))
        return self._session is not None

    def checked(self, session: CastSession) -> CastSession:
        """The session, if it is one of this image. Raises Refused."""
        from pxed.wire.cast import session_id  # here: who takes HTTP needs no compiled part

        try:
            proof = session_id(bytes.fromhex(session.key), bytes.fromhex(self.source.image)).hex()
        except ValueError:
            proof = ""
        if session.session != proof or session.image != self.source.image:
            raise Refused(409, "the session that the server offers is not this image's")
        return session

    def refused(self, reason: str) -> None:
        """There is no session. Raises AgentFailure with `only`."""
        if self.only:
            raise AgentFailure(Step.RESTORE, f"There is no multicast session: {reason}")
        self.tally.message(f"The image comes by HTTP: {reason}")

    def begin(self, lengths: "array[int]", have: bytes, board: Board) -> "Group":
        """Take part. `lengths`: stored bytes by ordinal; `have`: bitmap of what need not travel."""
        assert self._session is not None
        copy = array("I", lengths)
        return Group(self, self._make(_little_endian(copy), have), board, self._session)


class Group:
    """Taking part in a session. `run` belongs to a thread; `receiver` is used by others meanwhile."""

    def __init__(self, cast: Cast, receiver: "CastReceiver", board: Board, session: CastSession) -> None:
        self.receiver = receiver
        self.transport = "waiting"  # "cast", "http", or "waiting" for the first datagram: what it is now
        self.reason = ""  # why it is HTTP
        self._cast, self._board, self._tally, self._now = cast, board, cast.tally, cast.now
        self._session: CastSession | None = None
        self._left = False  # for good
        self._listening = False
        self._pause = FIRST_PAUSE
        self._progress, self._progress_at = (0, 0), cast.now()
        self._enter(session)

    def run(self) -> None:
        """Until the board is over. Raises AgentFailure with `only`, when there is nothing to hear; Stopped."""
        while not self._board.wait(STEP):
            self._tally.check()
            self.step()
        self.end()  # at once: the threads that wait for frames wait no longer

    def account(self) -> str:
        """Loss, as words to go behind another sentence."""
        figures = self.receiver.figures()
        lost = figures["expected"] - figures["received"]
        return f" ({100 * lost / figures['expected']:.1f} % lost)" if figures["expected"] > 0 and lost > 0 else ""

    def end(self) -> None:
        """Say so to the server, and close. Harmless twice."""
        self.receiver.close()

    def step(self) -> None:
        """Look at group and orders, and change over where it is time."""
        if self._left:
            return
        order, reason = self.receiver.order()
        if order == CastOrder.HTTP:
            self._leave(f"the server asks for it, as {REASONS.get(reason, 'it has its reasons')}")
            return
        if order == CastOrder.LISTEN and not self._listening:
            why = REASONS.get(reason, "the server asks for it")
            self._tally.message(f"Only listens to the multicast group now, and gets the rest later: {why}.")
        self._listening = order == CastOrder.LISTEN
        now, quiet = self._now(), self.receiver.heard()
        if quiet < SILENCE:
            self._deaf_since = now
            self._take_cast()
        elif now - self._since >= SILENCE:
            self._take_http("the multicast group is not heard")
        lost = order in (CastOrder.CLOSED, CastOrder.UNKNOWN) or quiet >= SILENCE
        if (lost or self._stalled(now)) and now >= self._next_join:
            self._join(now)

    def _stalled(self, now: float) -> bool:
        """Whether nothing wanted came for long, though nothing else is due to one that listens."""
        progress = (self._board.left, self.receiver.figures()["taken"])
        if progress != self._progress or self._listening:
            self._progress, self._progress_at = progress, now
        return now - self._progress_at >= STALLED

    # -- changing over -----------------------------------------------------------------------------------------------

    def _take_cast(self) -> None:
        if self.transport != "cast":
            again = " again" if self.transport == "http" else ""
            assert self._session is not None
            self._set("cast", "", f"The image comes{again} from the multicast group {self._session.group}.")

    def _take_http(self, reason: str) -> None:
        if self._cast.only:
            patience = f"{self._cast.give_up:.0f} s"
            if self._now() - self._deaf_since > self._cast.give_up:
                raise AgentFailure(Step.RESTORE, f"Nothing was heard of the multicast group for {patience}.")
            if self.transport != "waiting" or not self.reason:
                self._set("waiting", reason, f"Waits up to {patience}: {reason}.")
        elif self.transport != "http":
            self._set("http", reason, f"The image comes by HTTP: {reason}.")

    def _set(self, transport: str, reason: str, text: str) -> None:
        self._use(transport, reason)
        self._tally.message(text)

    def _use(self, transport: str, reason: str) -> None:
        self.transport, self.reason = transport, reason
        self._board.use_http(transport == "http")
        self.receiver.http = transport == "http"

    def _leave(self, reason: str) -> None:
        self._left = True
        self._set("http", reason, f"The rest of the image comes by HTTP: {reason}.")
        self.receiver.leave()

    # -- joining -----------------------------------------------------------------------------------------------------

    def _join(self, now: float) -> None:
        """Join again, with growing pauses; what is here stays."""
        self._next_join = now + self._pause * random.uniform(1.0, 1.5)
        self._pause = min(2 * self._pause, LAST_PAUSE)
        try:
            session = self._cast.checked(self._cast.source.join())
        except Unreachable:
            return
        except Refused as refusal:
            self._give_up(str(refusal))
            return
        self._enter(session)  # also the same one: a switch that forgot us hears of us again

    def _enter(self, session: CastSession) -> None:
        new = session != self._session
        self._session = session
        if new:
            self._pause = FIRST_PAUSE
            self._since = self._deaf_since = self._now()
            self._next_join = self._since + SILENCE
        try:
            self.receiver.join(
                int(session.session, 16),
                bytes.fromhex(session.key),
                session.receiver,
                group=session.group,
                port=session.port,
                server=session.server,
                interface=self._cast.interface,
                symbol=session.symbol,
                period=session.period,
            )
        except (OSError, ValueError) as error:
            where = f" through {self._cast.interface}" if self._cast.interface else ""
            what = error.strerror if isinstance(error, OSError) else error
            self._give_up(f"the multicast group {session.group} cannot be joined{where}: {what}")

    def _give_up(self, reason: str) -> None:
        """HTTP for good. Raises AgentFailure with `only`."""
        self._cast.refused(reason)
        self._left = True
        self._use("http", reason)
        self.receiver.leave()


def _little_endian(lengths: "array[int]") -> bytes:
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths.tobytes()
