"""One receiver of a session, followed from report to report."""

from msgspec import Struct

from pxed.cast.figures import OVER, Heard, State
from pxed.types import CastOrder as Order
from pxed.types import CastWhy as Why

DEAD_AFTER = 10.0  # seconds without a report
# The same, of who has a successor: three reports.
REPLACED_AFTER = 1.5
# Reports closer to each other than this are looked at as one: the time of a report is known no better.
_SAME_REPORT = 0.1
# Of the time that progress is averaged over: enough for a steady forecast, few enough to see a change.
_SMOOTHING_SECONDS = 5.0


class Window(Struct, frozen=True):
    """What happened between two reports."""

    begin: float
    end: float
    expected: int
    loss: float  # of the datagrams expected, by the network
    refused: float  # of those received, by its own full queue


class Member:
    """A receiver. `look` takes its figures in."""

    def __init__(self, number: int, joined: float, total: int) -> None:
        """`total`: chunks of the image that travel."""
        self.number = number
        self.joined = joined
        self.state = State.JOINED
        self.why = Why.NONE
        self.window: Window | None = None
        self.heard = Heard(number)
        self.suspect = 0  # reports in a row in which it lagged behind the others; below 0: it fared well
        self.chances = 1  # to come back after a move
        self.speed = 0.0  # bytes per second that it could take when it was moved
        self.moved_loss = 0.0  # what it lost then
        self.ended = 0.0  # when it was done, or left
        self.successor = 0  # the number under which its machine seems to have joined again; 0: it has not
        self._total = total
        self._at = joined  # of the last report
        self._before = State.RECEIVING  # what it did when it fell silent
        self._died = joined
        self._pace = 0.0  # chunks per second, smoothed

    @property
    def active(self) -> bool:
        """Whether chunks are sent on its account."""
        return self.state is State.RECEIVING

    @property
    def replaced(self) -> bool:
        """Whether its machine takes part under another number, and this is what is left of its former self."""
        return self.state is State.DEAD and self.successor > 0

    @property
    def loss(self) -> float:
        """Of the datagrams since it joined."""
        heard = self.heard
        return max(0.0, 1.0 - heard.received / heard.expected) if heard.expected else 0.0

    @property
    def share(self) -> float:
        """How much of the image it has, 0 to 1."""
        if self.state is State.DONE or not self._total:
            return 1.0
        return min(1.0, self.heard.written / self._total)

    @property
    def left(self) -> int:
        """Chunks that it lacks."""
        return max(0, self._total - self.heard.written)

    @property
    def pace(self) -> float:
        """Chunks per second of late."""
        return self._pace

    @property
    def seconds_left(self) -> float | None:
        """Until it has all, at its present pace; None while nobody can know."""
        if self.state in OVER or not self.left:
            return 0.0
        return self.left / self._pace if self._pace > 0 else None

    def look(self, heard: Heard, now: float) -> bool:
        """Take figures in. Returns whether there was a new report."""
        if heard.silence is None or heard is self.heard:
            return False
        first = self.heard.silence is None
        at = now - heard.silence
        if not first and at - self._at < _SAME_REPORT:
            return False
        self._window(heard, at, first)
        self._progress(heard, at)
        self._at = at
        self.heard = heard
        return True

    def quiet(self, now: float) -> float | None:
        """Seconds since its last report; None: none came yet."""
        return None if self.heard.silence is None else max(0.0, now - self._at)

    def silent(self, now: float) -> bool:
        """Whether it has said nothing for so long that it counts as dead."""
        return now - self._at >= (REPLACED_AFTER if self.successor else DEAD_AFTER)

    def die(self, now: float) -> None:
        """It counts as dead."""
        self._before, self.state, self._died = self.state, State.DEAD, now
        self.suspect = 0

    @property
    def risen(self) -> bool:
        """Whether it has reported since it died."""
        return self.state is State.DEAD and self._at > self._died

    def revive(self) -> None:
        """It is heard again, does what it did, and who was taken for its successor is another one."""
        self.successor = 0
        self.state = State.RECEIVING if self._before is State.JOINED else self._before

    def obey(self, order: Order, why: Why) -> None:
        """It has been given an order."""
        self.state = {Order.HTTP: State.HTTP, Order.LISTEN: State.LISTENING, Order.RECEIVE: State.RECEIVING}[order]
        self.why = why
        self.suspect = 0

    def _window(self, heard: Heard, at: float, first: bool) -> None:
        # A receiver that joins again counts from nothing. (Counters that go round do so after some terabytes.)
        before = Heard(self.number) if first or heard.expected < self.heard.expected else self.heard
        begin = self.joined if first else self._at
        expected = (heard.expected - before.expected) & 0xFFFFFFFF
        received = min((heard.received - before.received) & 0xFFFFFFFF, expected)
        refused = min((heard.refused - before.refused) & 0xFFFFFFFF, received)
        if not expected:
            return
        self.window = Window(
            begin=begin,
            end=at,
            expected=expected,
            loss=1.0 - received / expected,
            refused=refused / received if received else 0.0,
        )

    def _progress(self, heard: Heard, at: float) -> None:
        seconds = at - self._at
        if seconds <= 0:
            return
        pace = max(0, heard.written - self.heard.written) / seconds
        weight = min(1.0, seconds / _SMOOTHING_SECONDS)
        self._pace = pace if self._pace == 0.0 else self._pace + (pace - self._pace) * weight
